//! Listing as a stream: a walk over directories, one page at a time.
//!
//! The order is that of [`Path`]: by components, so that a directory comes right before what lies in it. A walk that begins
//! after a path needs no more than one page of each directory above it, so pages of a client cost no more than one long
//! listing. What changes meanwhile may be seen or not; a directory that vanishes is left out.

use crate::{
    Error, ErrorKind, Result,
    cache::Inner,
    names::{List, Stat, StatKind},
};
use forebay_namespace::Path;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use std::{collections::VecDeque, sync::Arc};

/// Entries read at once.
const PAGE: usize = 256;
/// Directories of the walk that keep the rest of their page while it is below them; others read it again.
const PAGES_KEPT: usize = 16;

/// The entries under `path`.
pub(crate) fn stream(inner: Arc<Inner>, path: Path, how: List) -> BoxStream<'static, Result<Stat>> {
    let left = how.limit.unwrap_or(usize::MAX);
    let walk = Walk {
        inner,
        root: path,
        how,
        left,
        stack: None,
    };
    stream::try_unfold(walk, |mut walk| async move {
        Ok(walk.next().await?.map(|stat| (stat, walk)))
    })
    .boxed()
}

struct Walk {
    inner: Arc<Inner>,
    root: Path,
    how: List,
    left: usize,
    /// The directories that the walk is in, outermost first; `None` before it began.
    stack: Option<Vec<Frame>>,
}

/// A directory of the walk.
#[derive(Debug)]
struct Frame {
    dir: Path,
    /// Names up to this one were read.
    after: Option<Vec<u8>>,
    page: VecDeque<Stat>,
    /// Whether there is more behind the page.
    more: bool,
}

impl Frame {
    fn new(dir: Path, after: Option<Vec<u8>>) -> Self {
        Self {
            dir,
            after,
            page: VecDeque::new(),
            more: true,
        }
    }
}

impl Walk {
    async fn next(&mut self) -> Result<Option<Stat>> {
        if self.left == 0 {
            return Ok(None);
        }
        if self.stack.is_none() {
            self.check_root().await?;
            self.stack = Some(frames(&self.root, &self.how)?);
        }
        loop {
            let stack = self.stack.as_mut().expect("set above");
            let Some(frame) = stack.last_mut() else { return Ok(None) };
            if let Some(stat) = frame.page.pop_front() {
                self.left -= 1;
                self.descend(&stat);
                return Ok(Some(stat));
            }
            if frame.more {
                fill(&self.inner, frame, frame_limit(self.left)).await?;
            } else {
                stack.pop();
            }
        }
    }

    async fn check_root(&self) -> Result<()> {
        let root = &self.root;
        match self.inner.names.resolve(root).await? {
            None => Err(Error::not_found(format!("{root}: not found"))),
            Some(node) if !node.is_dir() => Err(Error::precondition(format!("{root}: is a file, not a directory"))),
            Some(_) => Ok(()),
        }
    }

    fn descend(&mut self, stat: &Stat) {
        if !self.how.recursive || stat.kind != StatKind::Dir {
            return;
        }
        let stack = self.stack.as_mut().expect("the walk began");
        if stack.len() > PAGES_KEPT
            && let Some(parent) = stack.last_mut()
        {
            parent.after = stat.path.name().map(<[u8]>::to_vec);
            parent.more |= !parent.page.is_empty();
            parent.page.clear();
        }
        stack.push(Frame::new(stat.path.clone(), None));
    }
}

/// A client that wants few entries shall not cost a whole page.
fn frame_limit(left: usize) -> usize {
    left.clamp(1, PAGE)
}

async fn fill(inner: &Inner, frame: &mut Frame, limit: usize) -> Result<()> {
    let listed = match inner
        .names
        .list(&frame.dir, frame.after.as_deref(), limit)
        .await
        .map_err(Error::from)
    {
        // Removed, or replaced by a file, since it was seen.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Precondition) => Vec::new(),
        other => other?,
    };
    frame.more = listed.len() >= limit;
    if let Some((name, _)) = listed.last() {
        frame.after = Some(name.clone());
    }
    let mut nodes = Vec::with_capacity(listed.len());
    for (name, node) in listed {
        nodes.push((frame.dir.join(&name)?, node));
    }
    frame.page = inner.stats_of(nodes).await?.into();
    Ok(())
}

/// The directories in which a walk over `root` stands right after `how.after`.
fn frames(root: &Path, how: &List) -> Result<Vec<Frame>> {
    let whole = || vec![Frame::new(root.clone(), None)];
    let Some(after) = &how.after else { return Ok(whole()) };
    let Some(below) = after.strip_prefix(root) else {
        // Not below the root: everything comes after it, or nothing does.
        return Ok(if after < root { whole() } else { Vec::new() });
    };
    let Some(first) = below.first() else { return Ok(whole()) };
    if !how.recursive {
        return Ok(vec![Frame::new(root.clone(), Some(first.clone()))]);
    }
    let mut dir = root.clone();
    let mut stack = Vec::with_capacity(below.len() + 1);
    for name in below {
        stack.push(Frame::new(dir.clone(), Some(name.clone())));
        dir = dir.join(name)?;
    }
    stack.push(Frame::new(dir, None));
    Ok(stack)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Path {
        Path::parse(text.as_bytes()).unwrap()
    }

    fn places(root: &str, after: &str, recursive: bool) -> Vec<(String, Option<String>)> {
        let how = List {
            recursive,
            after: Some(at(after)),
            limit: None,
        };
        let text = |name: Vec<u8>| String::from_utf8(name).unwrap();
        let frames = frames(&at(root), &how).unwrap();
        frames
            .into_iter()
            .map(|frame| (frame.dir.to_string(), frame.after.map(text)))
            .collect()
    }

    #[test]
    fn a_walk_goes_on_in_every_directory_above_the_path_it_begins_after() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(places("/r", "/r", true), [("/r".to_owned(), None)]);
        assert_eq!(places("/r", "/a", true), [("/r".to_owned(), None)]);
        assert_eq!(places("/r", "/s", true), []);
        assert_eq!(places("/r/x", "/r", true), [("/r/x".to_owned(), None)]);
        assert_eq!(places("/r", "/r/b/c", false), [("/r".to_owned(), some("b"))]);
        let deep = [
            ("/r".to_owned(), some("b")),
            ("/r/b".to_owned(), some("c")),
            ("/r/b/c".to_owned(), None),
        ];
        assert_eq!(places("/r", "/r/b/c", true), deep);
    }
}
