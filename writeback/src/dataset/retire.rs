//! Parts that lose their names: an overwrite takes them out of the directory and out of the under-store, or somebody deletes or replaces
//! their files. The versions that have them keep their bytes here until they are dropped.
//!
//! At an overwrite a part whose only copy is in the under-store is copied first, because its object goes with its name. A change of the
//! file itself copies nothing: what is removed file by file goes as fast as any files do, and does not need the store. What is kept is
//! dirty in the ledger's sense: nobody else has it. It does not own when parts lose their names (`publish`, `versions`, `names`).

use super::{
    foreign::{Leads, session_in_name},
    part_writer::GENERATION,
    versions::Part,
};
use crate::{
    Error, Result,
    cache::Inner,
    file::SealedContent,
    rows::{self, Content, RetiredRow, SessionEnd},
};
use bytes::Bytes;
use forebay_metastore::Check;
use forebay_namespace::{Ino, Node, Path, Plan};
use forebay_segment::StreamId;
use std::sync::Arc;

/// Of the dirty limit, the share that copying old parts back may take: one in so many.
const AWAY_SHARE: u64 = 8;
/// Bytes copied at once.
const COPY_BYTES: u64 = 1 << 20;

/// A part that is about to lose its name.
#[derive(Debug)]
pub(super) struct OldPart {
    pub(super) part: Part,
    pub(super) name: Path,
    /// A copy made because the under-store had the only one.
    moved: Option<RetiredRow>,
}

/// What a name led to before something else took its place, or it was removed.
#[derive(Debug)]
pub(crate) struct Unnamed {
    pub(crate) node: Node,
    /// How versions keep it, where they do.
    pub(crate) kept: Option<Retired>,
}

/// What became of a part whose name goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retired {
    /// Nobody needs it.
    Gone,
    /// It stays dirty.
    Kept,
    /// It was clean, so many bytes, and is the only copy now.
    Adopted(u64),
    /// A copy stays.
    Copied,
}

impl Part {
    /// Whether it is what a name leads to. A part that was persisted and evicted has no row any more, or another one since somebody changed
    /// its attributes: then the length decides.
    pub(super) fn is(&self, node: &Node) -> bool {
        self.leads(Leads::of(node))
    }

    pub(super) fn leads(&self, leads: Leads) -> bool {
        matches!(leads, Leads::Row(ino, _) if ino.0 == self.ino) || leads.in_store() == Some(self.bytes)
    }
}

impl Inner {
    /// Whether old versions keep these parts: not when the under-store has so much of them that copying it back would fill the
    /// cache. Then the overwrite ends the history. `away`: bytes that the same publish copies back for other datasets.
    pub(super) async fn worth_keeping(&self, path: &Path, parts: &[Part], away: &mut u64) -> Result<bool> {
        if self.versions_kept(path) <= 1 {
            return Ok(false);
        }
        let mut with_these = *away;
        for part in parts {
            let local = match self.names.inode(Ino(part.ino)).await? {
                Some((inode, _)) => Content::decode(&inode.content)?.layout().is_some(),
                None => self.retired(&part.session, part.number).await?.is_some(),
            };
            with_these = with_these.saturating_add(if local { 0 } else { part.bytes });
        }
        let keeps = with_these <= self.dirty.limit() / AWAY_SHARE;
        if keeps {
            *away = with_these;
        }
        Ok(keeps)
    }

    /// A part that is about to lose its name; `None` when the name does not lead to it any more. With `copies` its bytes are copied
    /// when the under-store has the only ones: its object goes.
    pub(super) async fn old_part(
        self: &Arc<Self>,
        part: &Part,
        name: Path,
        copies: Option<&mut Vec<SealedContent>>,
    ) -> Result<Option<OldPart>> {
        let Some(node) = self.names.resolve(&name).await?.filter(|node| part.is(node)) else {
            return Ok(None);
        };
        let local = match &node {
            Node::Row { inode, .. } => Content::decode(&inode.content)?.layout().is_some(),
            Node::Base { .. } => false,
        };
        let moved = match copies.filter(|_| !local) {
            None => None,
            Some(copies) => {
                let sealed = self.copy_back(&name, &node).await?;
                let row = RetiredRow {
                    ino: sealed.stream().0,
                    generation: GENERATION,
                    layout: sealed.layout.clone(),
                    bytes: sealed.len,
                };
                copies.push(sealed);
                Some(row)
            }
        };
        Ok(Some(OldPart {
            part: part.clone(),
            name,
            moved,
        }))
    }

    async fn copy_back(self: &Arc<Self>, name: &Path, node: &Node) -> Result<SealedContent> {
        let reader = self.read_node(name.to_string(), node)?;
        let mut copy = self.content_writer(self.fresh_ino().await?, GENERATION, Some(reader.size()));
        let mut at = 0;
        while at < reader.size() {
            let end = reader.size().min(at + COPY_BYTES);
            copy.append(&reader.read(at..end).await?, Bytes::new()).await?;
            at = end;
        }
        copy.seal().await
    }

    /// Adds to the plan that takes `node` from its name, because its file is deleted, replaced or written over, that the versions which
    /// have it as a part keep it. None where nobody does: then its content goes. After the commit [`Inner::part_with`].
    pub(crate) async fn plan_kept_by_versions(
        &self,
        plan: &mut Plan,
        path: &Path,
        node: Option<&Node>,
    ) -> Result<Option<Retired>> {
        let (Some(node @ Node::Row { inode, .. }), Some(session)) = (node, path.name().and_then(session_in_name))
        else {
            return Ok(None);
        };
        let row = self.session_row(&session).await?.and_then(|(row, ..)| row.end);
        let Some(SessionEnd::Published { dir, version }) = row else {
            return Ok(None);
        };
        let dir = Ino(dir);
        let Some((head, entry)) = self.head_entry(dir).await? else {
            return Ok(None);
        };
        if version < self.version_row(dir, head.oldest).await?.base {
            return Ok(None);
        }
        let of_head = self.version_parts(dir, head.version).await?;
        let part = match of_head.iter().find(|part| part.is(node)) {
            Some(part) => Some(part.clone()),
            None => self
                .session_parts(&session)
                .await?
                .into_iter()
                .find(|part| part.is(node)),
        };
        let Some(part) = part else { return Ok(None) };
        let is_here = match Content::decode(&inode.content)? {
            Content::Sealed { .. } => true,
            Content::Persisted { layout: Some(_), .. } => {
                self.dirty.bytes().saturating_add(inode.size) <= self.dirty.limit()
            }
            Content::Persisted { layout: None, .. } | Content::Open => false,
        };
        if !is_here {
            return Ok(None);
        }
        // A version is dropped by a change of the head, and what it kept with it.
        plan.check(Check::At(rows::head_key(dir), entry.version));
        let old = OldPart {
            part,
            name: path.clone(),
            moved: None,
        };
        self.plan_retire(plan, &old, node).map(Some)
    }

    /// After the commit that took a node from its name: frees its content, unless versions keep it.
    pub(crate) fn part_with(&self, gone: &Unnamed) {
        match (gone.kept, &gone.node) {
            (None | Some(Retired::Gone), node) => self.discard_node(node),
            (Some(Retired::Adopted(bytes)), Node::Row { ino, inode, .. }) => {
                self.clean.forget_copy(StreamId(ino.0, inode.generation));
                self.dirty.adopt(1, bytes);
            }
            (Some(_), _) => {}
        }
    }

    /// Keeps what an old version needs of a part whose name goes.
    pub(super) fn plan_retire(&self, plan: &mut Plan, old: &OldPart, node: &Node) -> Result<Retired> {
        let (row, retired) = match (&old.moved, node) {
            (Some(moved), _) => (moved.clone(), Retired::Copied),
            (None, Node::Row { ino, inode, .. }) => {
                let row = |layout| RetiredRow {
                    ino: ino.0,
                    generation: inode.generation,
                    layout,
                    bytes: inode.size,
                };
                match Content::decode(&inode.content)? {
                    Content::Sealed { layout, .. } => (row(layout), Retired::Kept),
                    Content::Persisted {
                        layout: Some(layout), ..
                    } => (row(layout), Retired::Adopted(inode.size)),
                    // It was evicted since we looked.
                    _ => return Err(Error::lost()),
                }
            }
            (None, Node::Base { .. }) => return Err(Error::lost()),
        };
        plan.put(
            rows::retired_key(&old.part.session.0, old.part.number),
            rows::encode(&row),
        );
        Ok(retired)
    }
}
