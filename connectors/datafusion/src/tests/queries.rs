//! Queries that read and write Forebay.

use super::support::Server;
use crate::{ForebayCatalog, ForebaySink, ForebayTable, register};
use arrow_array::{Int64Array, RecordBatch, StringArray, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::{
    assert_batches_eq,
    error::DataFusionError,
    execution::TaskContext,
    physical_plan::{displayable, stream::RecordBatchStreamAdapter},
    prelude::SessionContext,
};
use forebay_client::{Client, ErrorKind, ReadOptions, SessionOptions, WriteOptions};
use futures::{StreamExt, stream};
use std::{sync::Arc, time::Duration};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("s", DataType::Utf8, true),
    ]))
}

fn rows(from: i64, to: i64) -> RecordBatch {
    let id = Int64Array::from_iter_values(from..to);
    let s = StringArray::from_iter_values((from..to).map(|i| if i % 2 == 0 { "even" } else { "odd" }));
    RecordBatch::try_new(schema(), vec![Arc::new(id), Arc::new(s)]).unwrap()
}

async fn context(client: &Client) -> SessionContext {
    let ctx = SessionContext::new();
    register(&ctx, client).unwrap();
    ctx
}

async fn table(ctx: &SessionContext, client: &Client, name: &str, path: &str) {
    let table = ForebayTable::open(client.clone(), path, ReadOptions::default())
        .await
        .unwrap();
    ctx.register_table(name, Arc::new(table)).unwrap();
}

async fn ids(ctx: &SessionContext, sql: &str) -> Vec<i64> {
    let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
    batches
        .iter()
        .flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect()
}

async fn missing(client: &Client, path: &str) -> bool {
    client
        .info(path, &ReadOptions::default())
        .await
        .is_err_and(|e| e.kind() == ErrorKind::NotFound)
}

#[tokio::test(flavor = "multi_thread")]
async fn projection_filter_and_limit_are_the_servers_work() {
    let server = Server::start(false);
    let client = server.client().await;
    for n in 0..3 {
        client
            .put_all("/t", &[rows(n * 10, n * 10 + 10)], WriteOptions::default())
            .await
            .unwrap();
    }
    let ctx = context(&client).await;
    table(&ctx, &client, "t", "/t").await;
    assert_eq!(
        ids(
            &ctx,
            "SELECT id FROM t WHERE id >= 8 AND s = 'odd' AND id < 14 ORDER BY id"
        )
        .await,
        [9, 11, 13]
    );
    assert_eq!(
        ids(&ctx, "SELECT id FROM t WHERE id % 10 = 3 ORDER BY id").await,
        [3, 13, 23]
    );
    assert_eq!(ids(&ctx, "SELECT count(*) FROM t").await, [30]);
    assert_eq!(ids(&ctx, "SELECT count(*) FROM t WHERE s LIKE 'e%'").await, [15]);
    assert_eq!(
        ctx.sql("SELECT id FROM t LIMIT 7")
            .await
            .unwrap()
            .count()
            .await
            .unwrap(),
        7
    );
    let plan = ctx
        .sql("SELECT s FROM t WHERE id > 5")
        .await
        .unwrap()
        .create_physical_plan()
        .await
        .unwrap();
    let text = displayable(plan.as_ref()).indent(false).to_string();
    assert!(!text.contains("FilterExec") && text.contains("ForebayScan"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_is_one_version_and_an_overwrite_replaces() {
    let server = Server::start(false);
    let client = server.client().await;
    let ctx = context(&client).await;
    let create = format!(
        "CREATE EXTERNAL TABLE f (id BIGINT NOT NULL, s VARCHAR) STORED AS FOREBAY LOCATION '{}/new/f'",
        server.flight.replace("grpc://", "forebay://")
    );
    ctx.sql(&create).await.unwrap();
    assert_eq!(ids(&ctx, "SELECT count(*) FROM f").await, [0]);
    ctx.sql("INSERT INTO f SELECT column1, column2 FROM (VALUES (1, 'a'), (2, NULL), (3, 'c'))")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    ctx.sql("INSERT INTO f VALUES (4, 'd')")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    assert_eq!(client.versions("/new/f").await.unwrap().len(), 2);
    let all = ctx
        .sql("SELECT * FROM f ORDER BY id")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    let expected = [
        "+----+---+",
        "| id | s |",
        "+----+---+",
        "| 1  | a |",
        "| 2  |   |",
        "| 3  | c |",
        "| 4  | d |",
        "+----+---+",
    ];
    assert_batches_eq!(expected, &all);
    ctx.sql("INSERT OVERWRITE f VALUES (9, 'z')")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    assert_eq!(ids(&ctx, "SELECT id FROM f").await, [9]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_fails_in_the_middle_leaves_nothing() {
    let server = Server::start(false);
    let client = server.client().await;
    let sink = ForebaySink::to(client.clone(), "/fails", schema(), SessionOptions::default());
    let broken = stream::iter([
        Ok(rows(0, 10)),
        Err(DataFusionError::Execution("the query broke".into())),
    ]);
    let broken = Box::pin(RecordBatchStreamAdapter::new(schema(), broken));
    let error = datafusion::datasource::sink::DataSink::write_all(&sink, broken, &Arc::new(TaskContext::default()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("the query broke"), "{error}");
    assert!(missing(&client, "/fails").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_query_leaves_nothing() {
    let server = Server::start(false);
    let client = server.client().await;
    let sink = ForebaySink::to(client.clone(), "/cancelled", schema(), SessionOptions::default());
    let endless = stream::iter([Ok(rows(0, 10))]).chain(stream::pending());
    let endless = Box::pin(RecordBatchStreamAdapter::new(schema(), endless));
    let query = tokio::spawn(async move {
        datafusion::datasource::sink::DataSink::write_all(&sink, endless, &Arc::new(TaskContext::default())).await
    });
    let follow = ReadOptions {
        wait: Some(Duration::from_secs(10)),
        ..ReadOptions::default()
    };
    let mut follow = client.follow("/cancelled", follow).await.unwrap();
    assert!(follow.next_batch().await.unwrap().is_some(), "it is being written");
    query.abort();
    assert_eq!(follow.next_batch().await.unwrap_err().kind(), ErrorKind::Aborted);
    assert!(missing(&client, "/cancelled").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_to_writes_a_dataset_or_files() {
    let server = Server::start(false);
    let client = server.client().await;
    let ctx = context(&client).await;
    let base = server.flight.replace("grpc://", "forebay://");
    let rows = "(SELECT column1 AS id FROM (VALUES (1), (2), (3)))";
    ctx.sql(&format!("COPY {rows} TO '{base}/copied/set' STORED AS FOREBAY"))
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    table(&ctx, &client, "copied", "/copied/set").await;
    assert_eq!(ids(&ctx, "SELECT id FROM copied ORDER BY id").await, [1, 2, 3]);
    ctx.sql(&format!("COPY {rows} TO '{base}/copied/files/' STORED AS PARQUET"))
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    let read = format!("CREATE EXTERNAL TABLE files STORED AS PARQUET LOCATION '{base}/copied/files/'");
    ctx.sql(&read).await.unwrap();
    assert_eq!(ids(&ctx, "SELECT id FROM files ORDER BY id").await, [1, 2, 3]);
    // What any writer left as Parquet is a dataset too.
    table(&ctx, &client, "as_set", "/copied/files").await;
    assert_eq!(ids(&ctx, "SELECT id FROM as_set ORDER BY id").await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_a_version_stands_still() {
    let server = Server::start(false);
    let client = server.client().await;
    let first = client
        .put_all("/v", &[rows(0, 3)], WriteOptions::default())
        .await
        .unwrap();
    client
        .put_all("/v", &[rows(3, 6)], WriteOptions::default())
        .await
        .unwrap();
    let ctx = context(&client).await;
    let read = ReadOptions {
        version: first.version,
        ..ReadOptions::default()
    };
    let table = ForebayTable::open(client.clone(), "/v", read).await.unwrap();
    ctx.register_table("v", Arc::new(table)).unwrap();
    assert_eq!(ids(&ctx, "SELECT id FROM v ORDER BY id").await, [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_a_version_are_a_statistic_and_those_behind_a_filter_are_counted() {
    let server = Server::start(false);
    let client = server.client().await;
    for n in 0..3 {
        client
            .put_all("/t", &[rows(n * 10, n * 10 + 10)], WriteOptions::default())
            .await
            .unwrap();
    }
    let ctx = context(&client).await;
    table(&ctx, &client, "t", "/t").await;
    let plan = async |sql: &str| {
        let plan = ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        displayable(plan.as_ref()).indent(false).to_string()
    };
    let counted = plan("SELECT count(*) FROM t").await;
    assert!(!counted.contains("ForebayScan"), "nothing is read to count: {counted}");
    assert_eq!(ids(&ctx, "SELECT count(*) FROM t").await, [30]);
    let filtered = plan("SELECT count(*) FROM t WHERE s = 'odd'").await;
    assert!(filtered.contains("ForebayScan: path=/t, version=3"), "{filtered}");
    assert_eq!(ids(&ctx, "SELECT count(*) FROM t WHERE s = 'odd'").await, [15]);
    assert_eq!(ids(&ctx, "SELECT count(*) FROM (SELECT id FROM t LIMIT 7)").await, [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_an_end_follows_from_session_to_session() {
    let server = Server::start(false);
    let client = server.client().await;
    client
        .put_all("/live", &[rows(0, 10)], WriteOptions::default())
        .await
        .unwrap();
    let ctx = context(&client).await;
    let location = format!("{}/live", client.url().replace("grpc://", "forebay://"));
    ctx.sql(&format!(
        "CREATE UNBOUNDED EXTERNAL TABLE live STORED AS FOREBAY LOCATION '{location}'"
    ))
    .await
    .unwrap();
    let query = ctx.sql("SELECT id FROM live").await.unwrap();
    let mut stream = query.execute_stream().await.unwrap();
    let mut seen = Vec::new();
    let mut until = async |last: i64| {
        while seen.last() != Some(&last) {
            let batch = tokio::time::timeout(Duration::from_secs(30), stream.next()).await;
            let batch = batch.expect("a batch in time").expect("it has no end").unwrap();
            seen.extend(batch.column(0).as_primitive::<Int64Type>().values());
        }
        seen.clone()
    };
    until(9).await;
    // While it is written, and before it is published.
    let session = client.session("/live", SessionOptions::default()).await.unwrap();
    let mut put = session.put(WriteOptions::default()).await.unwrap();
    put.send(&rows(10, 20)).await.unwrap();
    until(19).await;
    put.finish().await.unwrap();
    session.publish(false).await.unwrap();
    for n in 2..5 {
        let batch = rows(n * 10, n * 10 + 10);
        client
            .put_all("/live", &[batch], WriteOptions::default())
            .await
            .unwrap();
    }
    let all: Vec<i64> = (0..50).collect();
    assert_eq!(until(49).await, all, "each once, in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_are_schemas_and_datasets_tables() {
    let server = Server::start(false);
    let client = server.client().await;
    for path in [
        "/top",
        "/sales/europe/orders",
        "/sales/asia/orders",
        "/sales/europe/returns",
    ] {
        client
            .put_all(path, &[rows(0, 3)], WriteOptions::default())
            .await
            .unwrap();
    }
    let ctx = SessionContext::new_with_config(datafusion::prelude::SessionConfig::new().with_information_schema(true));
    let catalog = Arc::new(ForebayCatalog::open(client.clone(), "/").await.unwrap());
    ctx.register_catalog(
        "forebay",
        Arc::clone(&catalog) as Arc<dyn datafusion::catalog::CatalogProvider>,
    );
    assert_eq!(ids(&ctx, "SELECT id FROM forebay.public.top").await, [0, 1, 2]);
    let sql =
        r#"SELECT count(*) FROM forebay."sales/europe".orders o JOIN forebay."sales/asia".orders p ON o.id = p.id"#;
    assert_eq!(ids(&ctx, sql).await, [3]);
    let tables = r"SELECT table_schema, table_name FROM information_schema.tables WHERE table_catalog = 'forebay'
                   AND table_schema LIKE 'sales%' ORDER BY 1, 2";
    assert_batches_eq!(
        [
            "+--------------+------------+",
            "| table_schema | table_name |",
            "+--------------+------------+",
            "| sales/asia   | orders     |",
            "| sales/europe | orders     |",
            "| sales/europe | returns    |",
            "+--------------+------------+",
        ],
        &ctx.sql(tables).await.unwrap().collect().await.unwrap()
    );
    // Written a moment ago: a query finds it, a list after the next refresh.
    client
        .put_all("/new/t", &[rows(0, 1)], WriteOptions::default())
        .await
        .unwrap();
    assert_eq!(ids(&ctx, "SELECT id FROM forebay.new.t").await, [0]);
    catalog.refresh().await.unwrap();
    assert!(
        ctx.catalog("forebay")
            .unwrap()
            .schema_names()
            .contains(&"new".to_owned())
    );
    for missing in ["forebay.public.nothing", "forebay.public.sales"] {
        let error = ctx.sql(&format!("SELECT * FROM {missing}")).await.unwrap_err();
        assert!(error.to_string().contains("not found"), "{missing}: {error}");
    }
    let refused = ctx
        .sql("CREATE TABLE forebay.public.made AS SELECT 1")
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("COPY"), "{refused}");
}
