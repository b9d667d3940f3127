//! Tables PARTITIONED BY: folders `key=value`, each a dataset.

use super::lake::Lake;
use arrow_array::RecordBatch;
use datafusion::assert_batches_eq;
use forebay_client::{ErrorKind, FileOptions, ReadOptions};

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_splits_rows_into_folders_whose_names_are_columns_again() {
    let lake = Lake::new().await;
    lake.sales("(id BIGINT NOT NULL, s VARCHAR, day INT, country VARCHAR)")
        .await;
    assert_eq!(
        lake.ids("SELECT count(*) FROM sales").await,
        [0],
        "nothing is there yet"
    );
    lake.run("INSERT INTO sales VALUES (1, 'a', 1, 'de'), (2, 'b', 1, NULL), (3, 'c', 2, 'f/r=%'), (4, 'd', 1, 'de'), (5, NULL, 2, '')")
        .await
        .unwrap();
    lake.run("INSERT INTO sales VALUES (6, 'f', 1, 'de')").await.unwrap();
    let expected = [
        "+----+---+-----+---------+",
        "| id | s | day | country |",
        "+----+---+-----+---------+",
        "| 1  | a | 1   | de      |",
        "| 2  | b | 1   |         |",
        "| 3  | c | 2   | f/r=%   |",
        "| 4  | d | 1   | de      |",
        "| 5  |   | 2   |         |",
        "| 6  | f | 1   | de      |",
        "+----+---+-----+---------+",
    ];
    assert_batches_eq!(expected, &lake.run("SELECT * FROM sales ORDER BY id").await.unwrap());
    assert_eq!(
        lake.datasets().await,
        [
            ("/sales/day=1/country=__HIVE_DEFAULT_PARTITION__".to_owned(), 1),
            ("/sales/day=1/country=de".to_owned(), 2),
            ("/sales/day=2/country=".to_owned(), 1),
            // The folder is called f%2Fr%3D%25, as Hive calls it, and a path of ours writes % as %25.
            ("/sales/day=2/country=f%252Fr%253D%2525".to_owned(), 1),
        ]
    );
    assert_eq!(lake.ids("SELECT id FROM sales WHERE country IS NULL").await, [2]);
    assert_eq!(lake.ids("SELECT id FROM sales WHERE country = ''").await, [5]);
    // The server itself reads the folders together, their columns as strings.
    let info = lake.client.info("/sales", &ReadOptions::default()).await.unwrap();
    let names: Vec<_> = info.schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!((names, info.rows), (vec!["id", "s", "day", "country"], Some(6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_on_folders_choose_folders() {
    let lake = Lake::new().await;
    lake.filled().await;
    for (condition, folders, expected) in [
        ("day = 1", 2, &[1, 2, 4][..]),
        ("day + 1 = 3", 2, &[3, 5]),
        ("day = 1 AND country = 'de'", 1, &[1, 4]),
        ("day = 1 AND s > 'a'", 2, &[2, 4]),
        ("country LIKE 'f%'", 1, &[3]),
        ("country IS NULL OR day = 2", 3, &[2, 3, 5]),
        ("day = 7", 0, &[]),
        ("day = id", 4, &[1]),
        ("id > 3", 4, &[4, 5]),
    ] {
        let sql = format!("SELECT id FROM sales WHERE {condition} ORDER BY id");
        assert_eq!(lake.ids(&sql).await, expected, "{condition}");
        let plan = lake.plan(&sql).await;
        assert!(plan.contains(&format!("folders={folders},")), "{condition}: {plan}");
    }
    let sql = "SELECT count(*) FROM sales WHERE day = 1";
    let plan = lake.plan(sql).await;
    assert!(!plan.contains("ForebayScan"), "the rows of folders are known: {plan}");
    assert_eq!(lake.ids(sql).await, [3]);
    let sql = "SELECT country, count(*) AS n, max(day) FROM sales GROUP BY country ORDER BY n DESC, country NULLS LAST";
    assert_batches_eq!(
        [
            "+---------+---+----------------+",
            "| country | n | max(sales.day) |",
            "+---------+---+----------------+",
            "| de      | 2 | 1              |",
            "|         | 1 | 2              |",
            "| f/r=%   | 1 | 2              |",
            "|         | 1 | 1              |",
            "+---------+---+----------------+",
        ],
        &lake.run(sql).await.unwrap()
    );
    assert_eq!(
        lake.run("SELECT id FROM sales LIMIT 2")
            .await
            .unwrap()
            .iter()
            .map(RecordBatch::num_rows)
            .sum::<usize>(),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_fails_leaves_nothing_in_any_folder() {
    let lake = Lake::new().await;
    lake.filled().await;
    let before = lake.datasets().await;
    let rows = "SELECT value, 's', value % 3, 'de' FROM generate_series(-3, 0)";
    let error = lake
        .run(&format!("INSERT INTO sales {rows} WHERE 10 / value < 0"))
        .await
        .unwrap_err();
    assert!(error.to_string().to_lowercase().contains("divide by zero"), "{error}");
    assert_eq!(lake.datasets().await, before);
    assert_eq!(lake.ids("SELECT count(*) FROM sales").await, [5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_statement_writes_more_folders_than_a_connection_has_streams() {
    let lake = Lake::new().await;
    let Lake { base, .. } = &lake;
    lake.run(&format!(
        "CREATE EXTERNAL TABLE years (id BIGINT, day BIGINT) STORED AS FOREBAY PARTITIONED BY (day) LOCATION '{base}/years'"
    ))
    .await
    .unwrap();
    lake.run("INSERT INTO years SELECT value, value % 365 FROM generate_series(0, 9999)")
        .await
        .unwrap();
    assert_eq!(lake.datasets().await.len(), 365);
    assert_eq!(lake.ids("SELECT count(*) FROM years").await, [10_000]);
    assert_eq!(
        lake.ids("SELECT sum(id) FROM years WHERE id % 365 <> day OR day = 7")
            .await,
        [138_166]
    );
    let error = lake
        .run("INSERT INTO years SELECT value, value AS day FROM generate_series(0, 2000)")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("more than 1000 folders"), "{error}");
    assert_eq!(lake.ids("SELECT count(*) FROM years").await, [10_000]);
}

/// "readers see the rows of all folders or of none."
#[tokio::test(flavor = "multi_thread")]
async fn folders_are_published_at_one_instant_and_where_one_can_not_be_none_is() {
    let lake = Lake::new().await;
    let held = lake.held().await;
    let insert = lake.spawn("INSERT INTO p SELECT * FROM held").await;
    held.opened(3, &insert).await;
    assert!(
        lake.datasets().await.is_empty(),
        "nothing is visible while it is written"
    );
    // What is in the way of one of them.
    lake.client
        .put_file("/p/day=2", "a file".into(), FileOptions::default())
        .await
        .unwrap();
    held.go_on.notify_one();
    let error = insert.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("/p/day=2: a file is there"), "{error}");
    assert!(lake.datasets().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_others_wrote_and_copies_into_folders() {
    let lake = Lake::new().await;
    let Lake { base, .. } = &lake;
    let rows = "(SELECT column1 AS id, column2 AS day FROM (VALUES (1, 1), (2, 2), (3, 1)))";
    lake.run(&format!(
        "COPY {rows} TO '{base}/ours' STORED AS FOREBAY PARTITIONED BY (day)"
    ))
    .await
    .unwrap();
    lake.run(&format!(
        "COPY {rows} TO '{base}/theirs/' STORED AS PARQUET PARTITIONED BY (day)"
    ))
    .await
    .unwrap();
    for path in ["ours", "theirs"] {
        // Without columns the table is as the folders say: their columns are strings.
        lake.run(&format!(
            "CREATE EXTERNAL TABLE {path} STORED AS FOREBAY PARTITIONED BY (day) LOCATION '{base}/{path}'"
        ))
        .await
        .unwrap();
        let sql = format!("SELECT id FROM {path} WHERE day = '1' ORDER BY id");
        assert_eq!(lake.ids(&sql).await, [1, 3], "{path}");
        assert!(lake.plan(&sql).await.contains("folders=1,"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_folders_can_not_be_is_refused() {
    let lake = Lake::new().await;
    let Lake { base, client, .. } = &lake;
    for (create, why) in [
        (
            "EXTERNAL TABLE t (id BIGINT, x DOUBLE) STORED AS FOREBAY PARTITIONED BY (x)",
            "folders are not named by Float64",
        ),
        (
            "EXTERNAL TABLE t (id BIGINT) STORED AS FOREBAY PARTITIONED BY (day)",
            "no such column",
        ),
        (
            "EXTERNAL TABLE t (day BIGINT) STORED AS FOREBAY PARTITIONED BY (day)",
            "at least one",
        ),
        (
            "UNBOUNDED EXTERNAL TABLE t (id BIGINT, day INT) STORED AS FOREBAY PARTITIONED BY (day)",
            "neither UNBOUNDED",
        ),
    ] {
        let error = lake
            .run(&format!("CREATE {create} LOCATION '{base}/t'"))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(why), "{create}: {error}");
    }
    lake.filled().await;
    let error = lake
        .run("REPLACE INTO sales VALUES (1, 'a', 1, 'de')")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no keys to replace rows by"), "{error}");
    client.mkdir("/sales/day=x", false).await.unwrap();
    let error = lake.run("SELECT * FROM sales").await.unwrap_err();
    assert!(
        error.to_string().contains("day=x is of no value of day Int32"),
        "{error}"
    );
    client.delete("/sales/day=x", false).await.unwrap();
    // An empty folder has no rows; a file beside the folders would be missed.
    client.mkdir("/sales/day=3/country=it", true).await.unwrap();
    assert_eq!(lake.ids("SELECT count(*) FROM sales").await, [5]);
    client
        .put_file("/sales/day=3/stray.parquet", "x".into(), FileOptions::default())
        .await
        .unwrap();
    let error = lake.run("SELECT * FROM sales").await.unwrap_err();
    assert!(
        error.to_string().contains("/sales/day=3/stray.parquet: lies outside"),
        "{error}"
    );
    assert_eq!(
        client
            .info("/nothing", &ReadOptions::default())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
}
