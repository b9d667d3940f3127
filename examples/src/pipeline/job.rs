//! The query: features of every line of every order, by a join, window functions and casts.
//!
//! Both tables are sorted by order key and say so, which lets the windows run in one pass: rows leave the query while it still reads.
//! One partition keeps them in that order, and leaves a core to the server and the trainer.

use super::{input::Tables, live::Live};
use anyhow::{Context, Result};
use datafusion::{
    arrow::datatypes::SchemaRef,
    prelude::{SessionConfig, SessionContext},
};
use forebay_client::{Client, ReadOptions};
use forebay_datafusion::ForebayTable;
use std::{sync::Arc, time::Instant};

/// Rows per batch: about a megabyte and a half of features.
const BATCH_ROWS: usize = 16_384;

const FEATURES: &str = "
    SELECT
        l_orderkey AS order_key,
        l_linenumber AS line,
        CAST(l_quantity AS DOUBLE) AS quantity,
        CAST(l_extendedprice AS DOUBLE) AS price,
        CAST(l_discount AS DOUBLE) AS discount,
        CAST(l_tax AS DOUBLE) AS tax,
        CAST(o_totalprice AS DOUBLE) AS order_total,
        CAST(CAST(l_shipdate AS INT) AS DOUBLE) AS ship_day,
        CAST(CAST(l_shipdate AS INT) - CAST(o_orderdate AS INT) AS DOUBLE) AS ship_delay,
        CAST(CAST(l_receiptdate AS INT) - CAST(l_shipdate AS INT) AS DOUBLE) AS transit_days,
        CAST(CAST(l_receiptdate AS INT) - CAST(l_commitdate AS INT) AS DOUBLE) AS late_days,
        CAST(SUM(l_extendedprice) OVER earlier AS DOUBLE) AS order_so_far,
        CAST(COALESCE(LAG(l_extendedprice) OVER line, l_extendedprice) AS DOUBLE) AS price_before,
        CAST(ROW_NUMBER() OVER line AS DOUBLE) AS line_position,
        CASE WHEN o_orderpriority IN ('1-URGENT', '2-HIGH') THEN CAST(1 AS DOUBLE) ELSE CAST(0 AS DOUBLE) END AS urgent,
        CASE WHEN l_returnflag = 'R' THEN CAST(1 AS DOUBLE) ELSE CAST(0 AS DOUBLE) END AS returned
    FROM lineitem JOIN orders ON l_orderkey = o_orderkey
    WINDOW
        line AS (PARTITION BY l_orderkey ORDER BY l_linenumber),
        earlier AS (PARTITION BY l_orderkey ORDER BY l_linenumber ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)";

/// Of each order how many lines it has and what they cost.
const SUMMARY: &str = "
    SELECT order_key, COUNT(*) AS lines, SUM(price) AS price, MAX(late_days) AS late_days_max
    FROM written GROUP BY order_key ORDER BY order_key";

/// The query over its inputs.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) ctx: SessionContext,
    schema: SchemaRef,
}

impl Job {
    /// The query over these tables; those at `forebay://` are read by `client`.
    pub(super) async fn plan(tables: &Tables, client: &Client) -> Result<Self> {
        let config = SessionConfig::new()
            .with_target_partitions(1)
            .with_batch_size(BATCH_ROWS);
        let ctx = SessionContext::new_with_config(config);
        forebay_datafusion::register(&ctx, client)?;
        for (table, location, order) in [
            ("lineitem", &tables.lineitem, "l_orderkey ASC, l_linenumber ASC"),
            ("orders", &tables.orders, "o_orderkey ASC"),
        ] {
            let location = location.replace('\'', "''");
            ctx.sql(&format!(
                "CREATE EXTERNAL TABLE {table} STORED AS PARQUET WITH ORDER ({order}) LOCATION '{location}'"
            ))
            .await
            .with_context(|| format!("table {table}"))?;
        }
        let schema = Arc::clone(ctx.sql(FEATURES).await.context("the query")?.schema().inner());
        Ok(Self { ctx, schema })
    }

    /// Runs it into a dataset of Forebay; says when the first batch was acknowledged. Everything is published when it returns.
    pub(super) async fn insert_into(&self, client: &Client, path: &str, live: &Arc<Live>) -> Result<Instant> {
        let (first, acked) = tokio::sync::oneshot::channel();
        let first = std::sync::Mutex::new(Some(first));
        let live = Arc::clone(live);
        let table =
            ForebayTable::create(client.clone(), path, Arc::clone(&self.schema)).observed(move |mut progress| {
                let first = first.lock().expect("nobody panics with it").take();
                let live = Arc::clone(&live);
                // It ends with the put that it watches.
                tokio::spawn(async move {
                    if progress.wait_for(|p| p.acked > 0).await.is_ok() {
                        first.map(|first| first.send(Instant::now()));
                    }
                    while progress.changed().await.is_ok() {
                        live.written(progress.borrow_and_update().acked * BATCH_ROWS as u64);
                    }
                });
            });
        self.ctx.register_table("features", Arc::new(table))?;
        self.ctx
            .sql(&format!("INSERT INTO features {FEATURES}"))
            .await?
            .collect()
            .await?;
        acked.await.context("no batch was acknowledged")
    }

    /// Sums the features up, which were written before, into another dataset of Forebay. Answers its rows.
    pub(super) async fn summarise(&self, client: &Client, features: &str, path: &str) -> Result<u64> {
        let written = ForebayTable::open(client.clone(), features, ReadOptions::default()).await?;
        self.ctx.register_table("written", Arc::new(written))?;
        let schema = Arc::clone(self.ctx.sql(SUMMARY).await.context("the summary")?.schema().inner());
        let table = ForebayTable::create(client.clone(), path, schema);
        self.ctx.register_table("summary", Arc::new(table))?;
        self.ctx
            .sql(&format!("INSERT INTO summary {SUMMARY}"))
            .await?
            .collect()
            .await?;
        let summary = ForebayTable::open(client.clone(), path, ReadOptions::default()).await?;
        Ok(self.ctx.read_table(Arc::new(summary))?.count().await? as u64)
    }

    /// Runs it into Parquet files at a URL.
    pub(super) async fn copy_to(&self, url: &str) -> Result<()> {
        self.ctx
            .sql(&format!("COPY ({FEATURES}) TO '{url}' STORED AS PARQUET"))
            .await?
            .collect()
            .await?;
        Ok(())
    }
}
