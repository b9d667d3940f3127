//! Forebay for DataFusion: paths as objects, datasets as tables, queries as writers.
//!
//! - [`ForebayStore`]: an `ObjectStore` over the files of a server; what DataFusion's own Parquet, CSV and Arrow readers and writers use
//! - [`ForebayTable`]: a `TableProvider` over one dataset, with projection, filter and limit carried out by the server, and the rows it
//!   has as a statistic; or an unbounded one that follows what is written
//! - [`ForebayPartitioned`]: a directory of folders `key=value` as one table: its conditions choose folders, an insert splits rows by
//!   them, an overwrite replaces all of it at one instant
//! - [`ForebayCatalog`]: directories as schemas, datasets as tables, without a statement for each
//! - [`ForebaySink`]: what `INSERT INTO` and `COPY … TO … STORED AS FOREBAY` write through: nothing is visible before the query
//!   ends well, and everything at once then; meanwhile followers read batches as they are acknowledged
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use datafusion::prelude::SessionContext;
//! use forebay_client::{Client, Options};
//!
//! let ctx = SessionContext::new();
//! let client = Client::connect("grpc://127.0.0.1:47470", Options::default()).await?;
//! forebay_datafusion::register(&ctx, &client)?;
//! ctx.sql("CREATE EXTERNAL TABLE features STORED AS FOREBAY LOCATION 'forebay://127.0.0.1:47470/features'").await?;
//! ctx.sql("SELECT count(*) FROM features WHERE day = 1").await?.show().await?;
//! # Ok(()) }
//! ```

mod catalog;
mod exec;
mod filter;
mod folders;
mod follow;
mod format;
mod listing;
mod object_store;
mod partitioned;
mod replace;
mod sink;
mod split;
mod table;
#[cfg(test)]
mod tests;
mod url;

pub use catalog::ForebayCatalog;
pub use exec::{ForebayScan, Piece, Scanned, Slot};
pub use format::{FORMAT, ForebayFormatFactory, ForebayTableFactory};
pub use object_store::ForebayStore;
pub use partitioned::ForebayPartitioned;
pub use sink::ForebaySink;
pub use table::ForebayTable;
pub use url::{ForebayUrl, UrlError};

use datafusion::{
    error::{DataFusionError, Result},
    prelude::SessionContext,
};
use forebay_client::{Client, Error};
use std::sync::Arc;

/// Makes the client's server known to a session: `forebay://host:port/…` as an object store, and `STORED AS FOREBAY`.
pub fn register(ctx: &SessionContext, client: &Client) -> Result<()> {
    let base = ForebayUrl::root_of(client.url()).map_err(|e| DataFusionError::External(Box::new(e)))?;
    ctx.register_object_store(&base.to_url(), Arc::new(ForebayStore::new(client.clone())));
    let state = ctx.state_ref();
    let mut state = state.write();
    state.register_file_format(Arc::new(ForebayFormatFactory::new(client.clone())), true)?;
    let factory = Arc::new(ForebayTableFactory::new(client.clone()));
    state.table_factories_mut().insert(FORMAT.to_owned(), factory);
    Ok(())
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
