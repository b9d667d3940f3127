//! DoAction: names, persistence, status. Typed where a caller reads the answer, and one door for the rest.

use crate::{Client, Error, ErrorKind, Result};
use forebay_protocol::{
    action::{
        At, Delete, Empty, Entry, Freed, List, Load, Loaded, Mkdir, PersistState, Rename, Request, Status, Truncate,
        Version, Wait, WaitPersisted,
    },
    path::WirePath,
    span::Span,
};
use futures::{Stream, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

/// Entries fetched at a time.
const PAGE: usize = 1000;

impl Client {
    /// Any action by its name; the results as they are. Not repeated when the connection is lost.
    pub async fn action(&self, name: &str, body: Value) -> Result<Vec<Value>> {
        self.act(name, body.to_string().into_bytes()).await
    }

    /// What is at `path`.
    pub async fn stat(&self, path: &str) -> Result<Entry> {
        let request = Request::Stat(At {
            path: WirePath::parse(path)?,
        });
        self.repeat(async || self.one(request.clone()).await).await
    }

    /// The entries of a directory, or with `recursive` all under it, by absolute path; after `after` where it is given.
    pub fn list(
        &self,
        path: &str,
        recursive: bool,
        after: Option<WirePath>,
    ) -> Result<impl Stream<Item = Result<Entry>> + Send + use<>> {
        let path = WirePath::parse(path)?;
        let client = self.clone();
        let pages = stream::try_unfold(Some(after), move |after| {
            let (client, path) = (client.clone(), path.clone());
            async move {
                let Some(after) = after else { return Ok(None) };
                let request = Request::List(List {
                    path,
                    recursive,
                    after,
                    limit: Some(PAGE),
                });
                let page: Vec<Entry> = client.repeat(async || client.many(request.clone()).await).await?;
                let next = page
                    .last()
                    .filter(|_| page.len() >= PAGE)
                    .map(|last| Some(last.path.clone()));
                Ok::<_, Error>(Some((stream::iter(page.into_iter().map(Ok)), next)))
            }
        });
        Ok(pages.try_flatten())
    }

    /// Makes a directory; with `parents` also those above it, and one that exists is no error.
    pub async fn mkdir(&self, path: &str, parents: bool) -> Result<()> {
        self.nothing(Request::Mkdir(Mkdir {
            path: WirePath::parse(path)?,
            parents,
        }))
        .await
    }

    /// Renames in one step; with `replace` also over a file or an empty directory.
    pub async fn rename(&self, from: &str, to: &str, replace: bool) -> Result<()> {
        let (from, to) = (WirePath::parse(from)?, WirePath::parse(to)?);
        self.nothing(Request::Rename(Rename {
            from,
            to,
            replace,
            parents: false,
        }))
        .await
    }

    /// Renames as the action says it, with all its keys.
    pub async fn rename_with(&self, rename: Rename) -> Result<()> {
        self.nothing(Request::Rename(rename)).await
    }

    /// Deletes a file, an empty directory, or with `recursive` a tree.
    pub async fn delete(&self, path: &str, recursive: bool) -> Result<()> {
        self.nothing(Request::Delete(Delete {
            path: WirePath::parse(path)?,
            recursive,
        }))
        .await
    }

    /// Cuts a file or extends it with zeros.
    pub async fn truncate(&self, path: &str, size: u64) -> Result<()> {
        self.nothing(Request::Truncate(Truncate {
            path: WirePath::parse(path)?,
            size,
        }))
        .await
    }

    /// The versions of a dataset that are kept, oldest first.
    pub async fn versions(&self, path: &str) -> Result<Vec<Version>> {
        let request = Request::Versions(At {
            path: WirePath::parse(path)?,
        });
        self.repeat(async || self.many(request.clone()).await).await
    }

    /// What is dirty, cached, queued, blocked.
    pub async fn status(&self) -> Result<Status> {
        self.repeat(async || self.one(Request::Status(Empty {})).await).await
    }

    /// Asks that what is under `path` goes to the under-store now.
    pub async fn persist(&self, path: &str, wait: bool) -> Result<()> {
        self.nothing(Request::Persist(Wait {
            path: WirePath::parse(path)?,
            wait,
        }))
        .await
    }

    /// Waits until everything under `path` is in the under-store: its state then. [`ErrorKind::Unknown`] when it is not in time.
    pub async fn wait_persisted(&self, path: &str, timeout: Duration) -> Result<String> {
        let request = Request::WaitPersisted(WaitPersisted {
            path: WirePath::parse(path)?,
            timeout: Some(Span(timeout)),
        });
        Ok(self
            .repeat(async || self.one::<PersistState>(request.clone()).await)
            .await?
            .state)
    }

    /// Brings what is under `path` into the cache.
    pub async fn load(&self, path: &str, wait: bool) -> Result<Loaded> {
        let request = Request::Load(Load {
            path: Some(WirePath::parse(path)?),
            wait,
            ..Load::default()
        });
        Ok(self
            .repeat(async || self.many::<Loaded>(request.clone()).await)
            .await?
            .first()
            .copied()
            .unwrap_or_default())
    }

    /// Drops clean data under `path` from the cache.
    pub async fn free(&self, path: &str) -> Result<Freed> {
        self.one(Request::Free(Wait {
            path: WirePath::parse(path)?,
            wait: true,
        }))
        .await
    }

    /// The actions the server offers, by name, with what they do.
    pub async fn actions(&self) -> Result<Vec<(String, String)>> {
        let answer = self.flight().list_actions(self.request(arrow_flight::Empty {})).await?;
        let types: Vec<arrow_flight::ActionType> = answer.into_inner().try_collect().await?;
        Ok(types.into_iter().map(|t| (t.r#type, t.description)).collect())
    }

    async fn nothing(&self, request: Request) -> Result<()> {
        self.many::<Value>(request).await.map(drop)
    }

    /// The one result of an action.
    pub(crate) async fn one<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        let name = request.name();
        let mut results = self.many(request).await?;
        results
            .pop()
            .ok_or_else(|| Error::new(ErrorKind::Internal, format!("{name} answered nothing")))
    }

    /// The results of an action.
    pub(crate) async fn many<T: DeserializeOwned>(&self, request: Request) -> Result<Vec<T>> {
        self.act(request.name(), request.to_body()).await
    }

    async fn act<T: DeserializeOwned>(&self, name: &str, body: Vec<u8>) -> Result<Vec<T>> {
        let action = arrow_flight::Action {
            r#type: name.to_owned(),
            body: body.into(),
        };
        let mut answer = self.flight().do_action(self.request(action)).await?.into_inner();
        let mut results = Vec::new();
        while let Some(result) = answer.message().await? {
            let read = serde_json::from_slice(&result.body);
            results.push(read.map_err(|e| {
                Error::new(
                    ErrorKind::Internal,
                    format!("a result of {name} is not understood: {e}"),
                )
            })?);
        }
        Ok(results)
    }
}
