//! A walk over the files under paths, in pieces: at most a page of each directory on the way is in memory.

use crate::{Result, cache::Inner};
use forebay_namespace::{Node, NsError, Path};
use std::collections::VecDeque;

/// Entries of one page.
const PAGE: usize = 500;

/// What a walk makes of a directory that is a dataset with versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datasets {
    /// A directory: its files are found.
    Files,
    /// One thing: the directory itself is found, and nothing in it.
    Whole,
}

/// The walk. What is changed meanwhile is found as it was or as it is.
#[derive(Debug)]
pub(crate) struct Walk {
    /// What is still to be done, the next one last.
    steps: Vec<Step>,
    ready: VecDeque<(Path, Node)>,
    datasets: Datasets,
}

#[derive(Debug)]
enum Step {
    Look(Path),
    List(Path, Option<Vec<u8>>),
}

impl Walk {
    pub(crate) fn over(paths: &[Path], datasets: Datasets) -> Self {
        Self {
            steps: paths.iter().rev().cloned().map(Step::Look).collect(),
            ready: VecDeque::new(),
            datasets,
        }
    }

    /// The next file; none: the end.
    pub(crate) async fn next(&mut self, inner: &Inner) -> Result<Option<(Path, Node)>> {
        loop {
            if let Some(next) = self.ready.pop_front() {
                return Ok(Some(next));
            }
            match self.steps.pop() {
                None => return Ok(None),
                Some(Step::List(dir, after)) => self.page(inner, dir, after).await?,
                Some(Step::Look(path)) => match inner.names.resolve(&path).await {
                    Err(NsError::NotFound(_) | NsError::NotADirectory(_)) => {}
                    Err(error) => return Err(error.into()),
                    Ok(None) => {}
                    Ok(Some(node)) if node.is_dir() => self.dir(inner, path, node).await?,
                    Ok(Some(node)) => return Ok(Some((path, node))),
                },
            }
        }
    }

    async fn dir(&mut self, inner: &Inner, path: Path, node: Node) -> Result<()> {
        if self.datasets == Datasets::Whole
            && let Some(ino) = node.ino()
            && inner.head_versions(&[ino]).await?.first().is_some_and(Option::is_some)
        {
            self.ready.push_back((path, node));
        } else {
            self.steps.push(Step::List(path, None));
        }
        Ok(())
    }

    async fn page(&mut self, inner: &Inner, dir: Path, after: Option<Vec<u8>>) -> Result<()> {
        let page = match inner.names.list(&dir, after.as_deref(), PAGE).await {
            Err(NsError::NotFound(_) | NsError::NotADirectory(_)) => return Ok(()),
            other => other?,
        };
        if page.len() == PAGE {
            let last = page.last().map(|(name, _)| name.clone());
            self.steps.push(Step::List(dir.clone(), last));
        }
        for (name, node) in page {
            let path = dir.join(&name)?;
            match node.is_dir() {
                true => self.dir(inner, path, node).await?,
                false => self.ready.push_back((path, node)),
            }
        }
        Ok(())
    }
}
