//! Temporary, as `stubs`: DATASETS' part.
#![allow(clippy::all, unused_variables, missing_docs, unreachable_pub)]
use crate::{Result, cache::Inner};
use forebay_namespace::{Ino, Plan};
use forebay_segment::{RecoveredStream, StreamId};
use std::{collections::{HashMap, HashSet}, sync::Arc};
#[derive(Debug)]
pub(crate) struct DatasetGone;
impl Inner {
    pub(crate) async fn start_datasets(self: &Arc<Self>) -> Result<()> { todo!() }
    pub(crate) async fn recover_datasets(self: &Arc<Self>, streams: &mut HashMap<StreamId, RecoveredStream>) -> Result<HashSet<StreamId>> { todo!() }
    pub(crate) async fn head_versions(&self, dirs: &[Ino]) -> Result<Vec<Option<u64>>> { todo!() }
    pub(crate) async fn plan_dataset_removed(&self, plan: &mut Plan, dir: Ino) -> Result<DatasetGone> { todo!() }
    pub(crate) fn dataset_gone(&self, gone: DatasetGone) { todo!() }
    pub(crate) fn session_count(&self) -> u64 { todo!() }
}
