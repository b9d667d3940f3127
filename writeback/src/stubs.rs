//! Temporary: signatures that PERSIST, DATASETS are about to provide. Delete each here when yours stands.
#![allow(clippy::all, unused_variables, missing_docs, unreachable_pub)]
use crate::{Components, Result, Settings, cache::Inner, clean::*, mounts::*, persist::*};
use forebay_namespace::{Base, Ino, Node, Path, Plan, Renamed};
use std::sync::Arc;
impl Mounts {
    pub(crate) async fn open(settings: &Settings, components: &Components) -> Result<Mounts> { todo!() }
    pub(crate) fn base(&self) -> Arc<dyn Base> { todo!() }
    pub(crate) fn by_id(&self, id: u32) -> Option<Arc<Mount>> { todo!() }
    pub(crate) fn below(&self, path: &Path) -> Vec<Path> { todo!() }
}
impl Clean {
    pub(crate) fn new(settings: &Settings, components: &Components, limit: u64) -> Clean { todo!() }
    pub(crate) fn limit(&self) -> u64 { todo!() }
    pub(crate) fn held(&self, object: &CleanReader) -> u64 { todo!() }
}
#[derive(Clone, Debug, Default)]
pub(crate) struct PersistNumbers {
    pub(crate) queued: u64,
    pub(crate) uploading: u64,
    pub(crate) persisted_bytes: u64,
    pub(crate) oldest: Option<forebay_runtime::clock::Timestamp>,
    pub(crate) blocked: Vec<Blocked>,
    pub(crate) conflicts: Vec<Conflict>,
}
impl Persist {
    pub(crate) fn new(settings: &Settings, components: &Components, mounts: &Mounts) -> Persist { todo!() }
    pub(crate) fn numbers(&self) -> PersistNumbers { todo!() }
    pub(crate) async fn plan_put(&self, plan: &mut Plan, ino: Ino, generation: u32, path: &Path, before: Option<&Node>) -> Result<Option<u64>> { todo!() }
    pub(crate) async fn plan_dir(&self, plan: &mut Plan, ino: Ino, path: &Path) -> Result<()> { todo!() }
    pub(crate) async fn plan_renamed(&self, plan: &mut Plan, renamed: &Renamed, before: &Node, from: &Path, to: &Path) -> Result<()> { todo!() }
    pub(crate) async fn plan_removed(&self, plan: &mut Plan, before: &Node, path: &Path, whiteout: Option<&Path>) -> Result<()> { todo!() }
}
impl Inner {
    pub(crate) async fn start_persist(self: &Arc<Self>) -> Result<()> { todo!() }
    pub(crate) async fn start_clean(self: &Arc<Self>) -> Result<()> { todo!() }
}
