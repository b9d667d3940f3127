//! Sessions: parts staged by many puts, published as one version.

use crate::{Client, Error, ErrorKind, Put, Result, SessionOptions, WriteOptions};
use forebay_protocol::{
    action::{Begin, Begun, Publish, Published, PublishedVersion, Request, Session as SessionBody, With, WithTasks},
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
    /// Begins a session on the dataset at `path`, or takes part in the one that [`SessionOptions::token`] names.
    pub async fn session(&self, path: &str, options: SessionOptions) -> Result<Session> {
        let path = WirePath::parse(path)?;
        let SessionOptions {
            mode,
            format,
            compression,
            ack,
            timeout,
            job,
            token,
        } = options;
        let repeatable = token.is_some();
        let begin = Begin {
            path: path.clone(),
            mode,
            format,
            compression,
            ack,
            timeout: timeout.map(Span),
            job,
            token,
        };
        let request = Request::Begin(begin);
        let Begun { session } = match repeatable {
            true => self.repeat(async || self.one(request.clone()).await).await?,
            false => self.one(request).await?,
        };
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
    pub async fn publish_tasks(self, tasks: Option<Vec<Task>>, success_file: bool) -> Result<u64> {
        let client = self.client.clone();
        let staged = Staged { session: self, tasks };
        Ok(client.publish(vec![staged], success_file).await?.version)
    }

    /// Leaves it open, for others who take part in it: they go on by its token. Answers its id.
    pub fn leave(mut self) -> String {
        self.open = false;
        self.id.clone()
    }

    /// Ends it; nothing of it is ever visible. One that has ended already, by its timeout, is no error.
    pub async fn abort(mut self) -> Result<()> {
        self.open = false;
        match self.client.abort_session(&self.id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            ended => ended,
        }
    }
}

/// A session that is published with others.
#[derive(Debug)]
pub struct Staged {
    /// The session.
    pub session: Session,
    /// Its attempts that count; `None`: of each task the first to end well.
    pub tasks: Option<Vec<Task>>,
}

impl From<Session> for Staged {
    fn from(session: Session) -> Self {
        Self { session, tasks: None }
    }
}

impl Client {
    /// Publishes sessions of different datasets at one instant: readers see the versions of all of them or none. Where the answer was
    /// lost it is asked for again: twice gives the same versions. Of at most a thousand sessions.
    ///
    /// # Errors
    /// Then none of them is published, and all are aborted; unless the error [may pass](Error::is_transient), for then it is not known.
    pub async fn publish_together(&self, staged: Vec<Staged>, success_file: bool) -> Result<Vec<PublishedVersion>> {
        let Some(Staged { session, .. }) = staged.first() else {
            return Ok(Vec::new());
        };
        let (path, session) = (session.path.clone(), session.id.clone());
        let Published { version, versions } = self.publish(staged, success_file).await?;
        if versions.is_empty() {
            return Ok(vec![PublishedVersion { path, session, version }]);
        }
        Ok(versions)
    }

    async fn publish(&self, mut staged: Vec<Staged>, success_file: bool) -> Result<Published> {
        let named = |staged: &mut Staged| (staged.session.id.clone(), staged.tasks.take());
        let mut named = staged.iter_mut().map(named);
        let (session, tasks) = named
            .next()
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "a publish of no session"))?;
        let with = named.map(|(session, tasks)| match tasks {
            None => With::Session(session),
            tasks => With::Tasks(WithTasks { session, tasks }),
        });
        let request = Request::Publish(Publish {
            session,
            with: with.collect(),
            tasks,
            success_file,
        });
        let answer = self.repeat(async || self.one::<Published>(request.clone()).await).await;
        // An unclear answer leaves the sessions to their timeouts: aborting them could undo what was published.
        if answer.as_ref().err().is_none_or(Error::is_transient) {
            staged.iter_mut().for_each(|staged| staged.session.open = false);
        }
        answer
    }

    /// Ends a session by its id; one that was aborted already is no error.
    ///
    /// # Errors
    /// NotFound: there is none of that id, or its end is long ago; Precondition: it was published.
    pub async fn abort_session(&self, id: &str) -> Result<()> {
        let abort = Request::Abort(SessionBody { session: id.to_owned() });
        self.many::<serde_json::Value>(abort).await.map(drop)
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
