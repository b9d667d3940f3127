//! Sessions: parts staged by many puts, published as one version.

use crate::{Client, Error, ErrorKind, Put, Result, SessionOptions, WriteOptions};
use forebay_protocol::{
    action::{Begin, Begun, Publish, Published, Request, Session as SessionBody},
    command::Task,
    path::WirePath,
    span::Span,
};

/// An open session. Dropped without [`Session::publish`] it is aborted, as far as the server can still be reached; else its timeout
/// ends it.
#[derive(Debug)]
pub struct Session {
    client: Client,
    path: WirePath,
    id: String,
    open: bool,
}

impl Client {
    /// Begins a session on the dataset at `path`.
    pub async fn session(&self, path: &str, options: SessionOptions) -> Result<Session> {
        let path = WirePath::parse(path)?;
        let SessionOptions {
            mode,
            format,
            compression,
            ack,
            timeout,
            job,
        } = options;
        let begin = Begin {
            path: path.clone(),
            mode,
            format,
            compression,
            ack,
            timeout: timeout.map(Span),
            job,
        };
        let Begun { session } = self.one(Request::Begin(begin)).await?;
        Ok(Session {
            client: self.clone(),
            path,
            id: session,
            open: true,
        })
    }
}

impl Session {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Opens a write of one part or more. The session's own keys hold; `options` may name the task and the token.
    pub async fn put(&self, options: WriteOptions) -> Result<Put> {
        self.client
            .put(
                &self.path.to_string(),
                WriteOptions {
                    session: Some(self.id.clone()),
                    ..options
                },
            )
            .await
    }

    /// Makes everything the dataset's next version. Where the answer was lost it is asked for again: twice gives the same version.
    pub async fn publish(self, success_file: bool) -> Result<u64> {
        self.publish_tasks(None, success_file).await
    }

    /// Like [`Session::publish`], naming the attempts that count.
    pub async fn publish_tasks(mut self, tasks: Option<Vec<Task>>, success_file: bool) -> Result<u64> {
        let request = Request::Publish(Publish {
            session: self.id.clone(),
            tasks,
            success_file,
        });
        let answer = self
            .client
            .repeat(async || self.client.one::<Published>(request.clone()).await)
            .await;
        // An unclear answer leaves the session to its timeout: aborting it could undo what was published.
        if answer.as_ref().err().is_none_or(Error::is_transient) {
            self.open = false;
        }
        Ok(answer?.version)
    }

    /// Ends it; nothing of it is ever visible.
    pub async fn abort(mut self) -> Result<()> {
        self.open = false;
        self.client.abort_session(&self.id).await
    }
}

impl Client {
    /// Ends a session by its id; one that has ended already is no error.
    pub async fn abort_session(&self, id: &str) -> Result<()> {
        match self
            .many::<serde_json::Value>(Request::Abort(SessionBody { session: id.to_owned() }))
            .await
        {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        // Nobody waits for this task: the session's timeout does the same, later.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (client, id) = (self.client.clone(), std::mem::take(&mut self.id));
            runtime.spawn(async move { client.abort_session(&id).await });
        }
    }
}
