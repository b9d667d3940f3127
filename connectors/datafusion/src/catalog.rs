//! The namespace as a catalog: a directory is a schema, a dataset in it a table.
//!
//! `SELECT … FROM forebay."sales/europe".orders` reads the dataset `/sales/europe/orders`, and `public` is the root itself. A name in a
//! query is always asked of the server, so a dataset that was written a moment ago is there. DataFusion asks for *lists* of names
//! where it can not wait: these are as old as the last [`ForebayCatalog::refresh`].

use crate::{ForebayTable, external};
use async_trait::async_trait;
use datafusion::{
    catalog::{CatalogProvider, SchemaProvider, TableProvider},
    common::{Result, exec_err},
};
use forebay_client::{Client, ErrorKind, ReadOptions};
use futures::TryStreamExt;
use parking_lot::RwLock;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The schema of what lies in the root itself.
const ROOT: &str = "public";

/// Names of tables, by schema.
type Names = BTreeMap<String, BTreeSet<String>>;

/// The datasets under a directory.
#[derive(Clone, Debug)]
pub struct ForebayCatalog {
    client: Client,
    /// With a slash at its end.
    root: String,
    names: Arc<RwLock<Names>>,
}

impl ForebayCatalog {
    /// The catalog of what lies under `root` (`"/"`: everything), with the names there are now.
    pub async fn open(client: Client, root: &str) -> Result<Self> {
        let catalog = Self {
            client,
            root: format!("{}/", root.trim_end_matches('/')),
            names: Arc::default(),
        };
        catalog.refresh().await?;
        Ok(catalog)
    }

    /// Looks again which names there are.
    pub async fn refresh(&self) -> Result<()> {
        let mut found = Names::from([(ROOT.to_owned(), BTreeSet::new())]);
        let datasets = self.client.datasets(&self.root).await.map_err(external)?;
        let mut datasets = std::pin::pin!(datasets);
        while let Some(info) = datasets.try_next().await.map_err(external)? {
            let path = info.note.path.to_string();
            if let Some((schema, table)) = path.strip_prefix(&self.root).and_then(place) {
                found.entry(schema.to_owned()).or_default().insert(table.to_owned());
            }
        }
        *self.names.write() = found;
        Ok(())
    }
}

/// The schema and table of a path below the root.
fn place(below: &str) -> Option<(&str, &str)> {
    match below.rsplit_once('/') {
        Some((schema, table)) => Some((schema, table)),
        None if below.is_empty() => None,
        None => Some((ROOT, below)),
    }
}

impl CatalogProvider for ForebayCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.names.read().keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        Some(Arc::new(Directory {
            catalog: self.clone(),
            name: name.to_owned(),
        }))
    }
}

/// The datasets in one directory.
#[derive(Debug)]
struct Directory {
    catalog: ForebayCatalog,
    name: String,
}

impl Directory {
    fn path_of(&self, table: &str) -> String {
        match self.name.as_str() {
            ROOT => format!("{}{table}", self.catalog.root),
            name => format!("{}{name}/{table}", self.catalog.root),
        }
    }
}

#[async_trait]
impl SchemaProvider for Directory {
    fn table_names(&self) -> Vec<String> {
        let names = self.catalog.names.read();
        names.get(&self.name).into_iter().flatten().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let (client, path) = (self.catalog.client.clone(), self.path_of(name));
        match client.schema(&path, &ReadOptions::default()).await {
            Ok(schema) => Ok(Some(Arc::new(ForebayTable::create(client, &path, schema)))),
            // What is there and no dataset is no table either.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Precondition) => Ok(None),
            Err(error) => Err(external(error)),
        }
    }

    fn register_table(&self, name: String, _table: Arc<dyn TableProvider>) -> Result<Option<Arc<dyn TableProvider>>> {
        exec_err!(
            "a table of a Forebay catalog is a dataset: write {} by COPY … TO, or by CREATE EXTERNAL TABLE and INSERT",
            self.path_of(&name)
        )
    }

    fn table_exist(&self, name: &str) -> bool {
        let names = self.catalog.names.read();
        names.get(&self.name).is_some_and(|tables| tables.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_a_schema_and_a_table() {
        assert_eq!(place("orders"), Some(("public", "orders")));
        assert_eq!(place("sales/europe/orders"), Some(("sales/europe", "orders")));
        assert_eq!(place(""), None);
    }
}
