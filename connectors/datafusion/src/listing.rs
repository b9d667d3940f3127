//! Which folders `key=value` lie below a directory: level by level, where a condition on folder columns alone is tried on their values, and
//! what it excludes is not listed further. It does not own what is in the folders.

use crate::{external, folders};
use arrow_array::{Array, RecordBatch, cast::AsArray};
use arrow_schema::{FieldRef, Schema};
use datafusion::{
    catalog::Session,
    common::{DFSchema, Result, plan_err},
    logical_expr::{Expr, expr_rewriter::unnormalize_col},
    scalar::ScalarValue,
};
use forebay_client::{Client, EntryKind, ErrorKind, WirePath};
use futures::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;

/// Folders asked for at once.
pub(crate) const PARALLEL: usize = 16;
/// Folders that one query may look at.
const FOLDERS_MAX: usize = 10_000;
/// What names of data files end in, as the server takes it.
const DATA: [&[u8]; 7] = [b"arrow", b"arrows", b"feather", b"ipc", b"parquet", b"parq", b"pq"];

/// The folders below a directory.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) client: Client,
    pub(crate) root: WirePath,
    /// The columns that they name, outermost first.
    pub(crate) keys: Vec<FieldRef>,
}

/// A folder with the values that its name and those above give.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) path: WirePath,
    pub(crate) values: Vec<ScalarValue>,
    /// Its head version when it was listed.
    pub(crate) version: Option<u64>,
}

/// Conditions that choose folders; those that need rows are passed over.
#[derive(Clone, Copy)]
pub(crate) struct Chosen<'a> {
    pub(crate) state: &'a dyn Session,
    pub(crate) filters: &'a [Expr],
}

impl Listing {
    /// The folders of all columns; those that are chosen, or all.
    pub(crate) async fn folders(&self, chosen: Option<Chosen<'_>>) -> Result<Vec<Folder>> {
        let mut level = vec![Folder {
            path: self.root.clone(),
            values: Vec::new(),
            version: None,
        }];
        for (depth, key) in self.keys.iter().enumerate() {
            let below = stream::iter(level)
                .map(|folder| self.below(folder, key))
                .buffered(PARALLEL);
            let below: Vec<Vec<Folder>> = below.try_collect().await?;
            level = below.into_iter().flatten().collect();
            if let Some(Chosen { state, filters }) = chosen {
                for filter in filters.iter().filter(|filter| self.decided_at(filter) == Some(depth)) {
                    level = self.kept(state, level, depth, filter)?;
                }
            }
            if level.len() > FOLDERS_MAX {
                let (root, many) = (&self.root, level.len());
                let advice = match chosen {
                    Some(_) => format!("name fewer by a condition on {}", key.name()),
                    None => "delete those that nobody needs".to_owned(),
                };
                return plan_err!("{root}: {many} folders, of which a query takes {FOLDERS_MAX} at most; {advice}");
            }
        }
        Ok(level)
    }

    /// The folders of `key` in a folder.
    async fn below(&self, above: Folder, key: &FieldRef) -> Result<Vec<Folder>> {
        let path = above.path.to_string();
        let listing = self.client.list(&path, false, None).map_err(external)?;
        let mut listing = std::pin::pin!(listing);
        let mut found = Vec::new();
        loop {
            let entry = match listing.try_next().await {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(found),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
                Err(error) => return Err(external(error)),
            };
            let name = entry.path.name().unwrap_or_default();
            match entry.kind {
                _ if is_aside(name) => {}
                EntryKind::Dir => {
                    let value = folders::value(key, name).map_err(|e| e.context(format!("in {path}")))?;
                    found.extend(value.map(|value| Folder {
                        values: above.values.iter().cloned().chain([value]).collect(),
                        path: entry.path.clone(),
                        version: entry.version,
                    }));
                }
                _ if is_data(name) => {
                    return plan_err!(
                        "{}: lies outside the folders {}=…, whose table this is",
                        entry.path,
                        key.name()
                    );
                }
                _ => {}
            }
        }
    }

    /// The level of folders at which a condition is decided; `None`: rows are needed.
    pub(crate) fn decided_at(&self, filter: &Expr) -> Option<usize> {
        let used = filter.column_refs();
        let used: Option<Vec<usize>> = used.iter().map(|column| self.position(&column.name)).collect();
        let decided = used?.into_iter().max()?;
        (!filter.is_volatile()).then_some(decided)
    }

    /// The folders for which a condition is true.
    fn kept(&self, state: &dyn Session, level: Vec<Folder>, depth: usize, filter: &Expr) -> Result<Vec<Folder>> {
        if level.is_empty() {
            return Ok(level);
        }
        let column = |at: usize| ScalarValue::iter_to_array(level.iter().map(|folder| folder.values[at].clone()));
        let columns = (0..=depth).map(column).collect::<Result<Vec<_>>>()?;
        let fields = self.keys[..=depth]
            .iter()
            .map(|key| key.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let condition = unnormalize_col(filter.clone());
        let condition = state.create_physical_expr(condition, &DFSchema::try_from(Arc::clone(&schema))?)?;
        let values = RecordBatch::try_new(schema, columns)?;
        let truth = condition.evaluate(&values)?.into_array(level.len())?;
        let Some(truth) = truth.as_boolean_opt() else {
            return plan_err!("{filter} is no condition");
        };
        let kept = level.into_iter().enumerate();
        let kept = kept.filter(|(row, _)| truth.is_valid(*row) && truth.value(*row));
        Ok(kept.map(|(_, folder)| folder).collect())
    }

    /// The place of a column among those of folders.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.keys.iter().position(|key| key.name() == name)
    }
}

/// Names that are no data, as the server takes them.
pub(crate) fn is_aside(name: &[u8]) -> bool {
    name.starts_with(b"_") || name.starts_with(b".")
}

fn is_data(name: &[u8]) -> bool {
    let extension = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    extension.len() < name.len() && DATA.contains(&&extension.to_ascii_lowercase()[..])
}
