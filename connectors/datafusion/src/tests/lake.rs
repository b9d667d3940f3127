//! A server with a DataFusion session, and what tests of tables of folders ask of both.

use super::support::Server;
use crate::{ForebayPartitioned, register};
use arrow_array::{Int32Array, Int64Array, RecordBatch, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::{
    catalog::streaming::StreamingTable,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{displayable, stream::RecordBatchStreamAdapter, streaming::PartitionStream},
    prelude::SessionContext,
};
use forebay_client::{Client, ReadOptions};
use futures::{StreamExt, TryStreamExt, stream};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, task::JoinHandle};

/// A statement that runs by itself.
pub(super) type Statement = JoinHandle<datafusion::error::Result<Vec<RecordBatch>>>;

pub(super) struct Lake {
    pub(super) ctx: SessionContext,
    pub(super) client: Client,
    pub(super) base: String,
    _server: Server,
}

impl Lake {
    pub(super) async fn new() -> Self {
        let server = Server::start(false);
        let client = server.client().await;
        let ctx = SessionContext::new();
        register(&ctx, &client).unwrap();
        Self {
            ctx,
            client,
            base: server.flight.replace("grpc://", "forebay://"),
            _server: server,
        }
    }

    pub(super) async fn run(&self, sql: &str) -> datafusion::error::Result<Vec<RecordBatch>> {
        self.ctx.sql(sql).await?.collect().await
    }

    pub(super) async fn sales(&self, columns: &str) {
        let Self { base, .. } = self;
        self.run(&format!(
            "CREATE EXTERNAL TABLE sales {columns} STORED AS FOREBAY PARTITIONED BY (day, country) LOCATION '{base}/sales'"
        ))
        .await
        .unwrap();
    }

    pub(super) async fn filled(&self) {
        self.sales("(id BIGINT NOT NULL, s VARCHAR, day INT, country VARCHAR)")
            .await;
        self.fill().await;
    }

    pub(super) async fn fill(&self) {
        self.run("INSERT INTO sales VALUES (1, 'a', 1, 'de'), (2, 'b', 1, NULL), (3, 'c', 2, 'f/r=%'), (4, 'd', 1, 'de'), (5, NULL, 2, '')")
            .await
            .unwrap();
    }

    pub(super) async fn ids(&self, sql: &str) -> Vec<i64> {
        let batches = self.run(sql).await.unwrap();
        let ids = batches.iter().map(|b| b.column(0).as_primitive::<Int64Type>());
        ids.flat_map(|ids| ids.values().to_vec()).collect()
    }

    pub(super) async fn plan(&self, sql: &str) -> String {
        let plan = self.ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        displayable(plan.as_ref()).indent(false).to_string()
    }

    /// Paths of what is published below the root, and which version each has.
    pub(super) async fn datasets(&self) -> Vec<(String, u64)> {
        let entries = self.client.list("/", true, None).unwrap();
        let published = entries.try_filter_map(async |entry| Ok(entry.version.map(|v| (entry.path.to_string(), v))));
        published.try_collect().await.unwrap()
    }

    /// Tables `p`, of the column `id` in folders of `day`, and `held`, whose rows come at once and whose end does not.
    pub(super) async fn held(&self) -> Held {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("day", DataType::Int32, true),
        ]));
        let held = Held {
            go_on: Arc::default(),
            opened: Arc::default(),
        };
        let count = Arc::clone(&held.opened);
        let table = ForebayPartitioned::create(self.client.clone(), "/p", &schema, &["day".to_owned()])
            .unwrap()
            .observed(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
            });
        self.ctx.register_table("p", Arc::new(table)).unwrap();
        let rows = Rows {
            schema: Arc::clone(&schema),
            go_on: Arc::clone(&held.go_on),
        };
        let table = StreamingTable::try_new(schema, vec![Arc::new(rows)]).unwrap();
        self.ctx.register_table("held", Arc::new(table)).unwrap();
        held
    }

    /// A statement that runs by itself.
    pub(super) async fn spawn(&self, sql: &str) -> Statement {
        let statement = self.ctx.sql(sql).await.unwrap();
        tokio::spawn(statement.collect())
    }

    /// Whether a session is open on any dataset.
    pub(super) async fn is_written(&self) -> bool {
        for (path, _) in self.datasets().await {
            let info = self.client.info(&path, &ReadOptions::default()).await.unwrap();
            if info.note.session.is_some() {
                return true;
            }
        }
        false
    }

    /// Waits until no session is open on any dataset.
    pub(super) async fn idle(&self) {
        let idle = async {
            while self.is_written().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let idle = tokio::time::timeout(Duration::from_secs(20), idle).await;
        assert!(idle.is_ok(), "a session stays open");
    }
}

/// Has the rows 1, 2 and 3, each of the day of its number, and then ends only when told.
#[derive(Debug)]
struct Rows {
    schema: SchemaRef,
    go_on: Arc<Notify>,
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (id, day) = (Int64Array::from(vec![1, 2, 3]), Int32Array::from(vec![1, 2, 3]));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), vec![Arc::new(id), Arc::new(day)]);
        let go_on = Arc::clone(&self.go_on);
        let end = stream::once(async move { go_on.notified().await }).filter_map(async |()| None);
        let batches = stream::iter([batch.map_err(Into::into)]).chain(end);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// What holds a statement that reads the table `held`.
pub(super) struct Held {
    pub(super) go_on: Arc<Notify>,
    opened: Arc<AtomicUsize>,
}

impl Held {
    /// Waits until statements have opened so many folders of the table `p`.
    pub(super) async fn opened(&self, many: usize, statement: &Statement) {
        while self.opened.load(Ordering::SeqCst) < many {
            assert!(!statement.is_finished(), "it ended");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
