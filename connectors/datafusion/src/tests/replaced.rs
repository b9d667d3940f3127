//! `INSERT OVERWRITE` of tables PARTITIONED BY.

use super::lake::Lake;
use bytes::Bytes;
use forebay_client::{FileOptions, ReadOptions};
use futures::{StreamExt, TryStreamExt, stream};

impl Lake {
    async fn refused(&self, sql: &str, why: &str) {
        let error = self.run(sql).await.unwrap_err().to_string();
        assert!(error.contains(why), "{sql}: {error}");
    }
}

/// "folders that get no rows are emptied"
#[tokio::test(flavor = "multi_thread")]
async fn an_overwrite_replaces_the_whole_table() {
    let lake = Lake::new().await;
    lake.filled().await;
    // What it reads is the table as it was.
    lake.run("INSERT OVERWRITE sales SELECT id + 10, s, day, 'de' FROM sales WHERE day = 1")
        .await
        .unwrap();
    assert_eq!(lake.ids("SELECT id FROM sales ORDER BY id").await, [11, 12, 14]);
    let [null, de, none, fr] = [
        "/sales/day=1/country=__HIVE_DEFAULT_PARTITION__",
        "/sales/day=1/country=de",
        "/sales/day=2/country=",
        "/sales/day=2/country=f%252Fr%253D%2525",
    ]
    .map(str::to_owned);
    let versions = |each: [u64; 4]| [&null, &de, &none, &fr].map(String::clone).into_iter().zip(each);
    assert_eq!(lake.datasets().await, versions([2, 2, 2, 2]).collect::<Vec<_>>());
    // Folders without rows are left alone.
    lake.run("INSERT OVERWRITE sales VALUES (20, 'n', 3, 'it')")
        .await
        .unwrap();
    assert_eq!(lake.ids("SELECT id FROM sales").await, [20]);
    let it = ("/sales/day=3/country=it".to_owned(), 1);
    assert_eq!(
        lake.datasets().await,
        versions([2, 3, 2, 2]).chain([it]).collect::<Vec<_>>()
    );
    assert_eq!(lake.ids("SELECT count(*) FROM sales WHERE day = 1").await, [0]);
    lake.run("INSERT INTO sales VALUES (21, NULL, 1, 'de')").await.unwrap();
    assert_eq!(lake.ids("SELECT id FROM sales ORDER BY id").await, [20, 21]);
    lake.idle().await;
}

/// "An overwrite without rows empties the table"
#[tokio::test(flavor = "multi_thread")]
async fn an_overwrite_without_rows_empties_the_table() {
    let lake = Lake::new().await;
    lake.sales("(id BIGINT NOT NULL, s VARCHAR, day INT, country VARCHAR)")
        .await;
    let nothing = "INSERT OVERWRITE sales SELECT * FROM sales WHERE id < 0";
    lake.run(nothing).await.unwrap();
    assert!(lake.datasets().await.is_empty());
    lake.fill().await;
    lake.run(nothing).await.unwrap();
    assert_eq!(lake.ids("SELECT count(*) FROM sales").await, [0]);
    assert!(lake.ids("SELECT id FROM sales").await.is_empty());
    let versions = lake.datasets().await.into_iter().map(|(_, version)| version);
    assert_eq!(versions.collect::<Vec<_>>(), [2, 2, 2, 2]);
    // The server itself reads the same.
    let info = lake.client.info("/sales", &ReadOptions::default()).await.unwrap();
    assert_eq!(info.rows, Some(0));
    lake.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overwrite_takes_the_place_of_what_others_wrote_and_of_other_columns() {
    let lake = Lake::new().await;
    let Lake { base, client, .. } = &lake;
    lake.run(&format!(
        "COPY (SELECT column1 AS id, column2 AS day FROM (VALUES (1, 1), (2, 2), (3, 1))) TO '{base}/t/' \
         STORED AS PARQUET PARTITIONED BY (day)"
    ))
    .await
    .unwrap();
    for (table, columns) in [
        ("narrow", "id BIGINT, day INT"),
        ("wide", "id BIGINT, s VARCHAR, day INT"),
    ] {
        lake.run(&format!(
            "CREATE EXTERNAL TABLE {table} ({columns}) STORED AS FOREBAY PARTITIONED BY (day) LOCATION '{base}/t'"
        ))
        .await
        .unwrap();
    }
    assert_eq!(lake.ids("SELECT id FROM narrow ORDER BY id").await, [1, 2, 3]);
    lake.run("INSERT OVERWRITE narrow VALUES (7, 2)").await.unwrap();
    assert_eq!(lake.ids("SELECT id FROM narrow").await, [7]);
    let files = client.list("/t", true, None).unwrap();
    let files: Vec<String> = files
        .map_ok(|entry| entry.path.to_string())
        .try_collect()
        .await
        .unwrap();
    assert!(files.iter().all(|file| !file.ends_with(".parquet")), "{files:?}");
    lake.run("INSERT OVERWRITE wide VALUES (8, 'x', 3), (9, 'y', 1)")
        .await
        .unwrap();
    assert_eq!(lake.ids("SELECT id FROM wide WHERE s > 'a' ORDER BY id").await, [8, 9]);
    let info = client.info("/t", &ReadOptions::default()).await.unwrap();
    let names: Vec<_> = info.schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!((names, info.rows), (vec!["id", "s", "day"], Some(2)));
}

/// "readers see the table before or after, never a mixture"
#[tokio::test(flavor = "multi_thread")]
async fn readers_see_the_old_table_or_the_new_one() {
    let lake = Lake::new().await;
    let held = lake.held().await;
    lake.run("INSERT INTO p VALUES (7, 3), (8, 4)").await.unwrap();
    let overwrite = lake.spawn("INSERT OVERWRITE p SELECT * FROM held").await;
    held.opened(5, &overwrite).await;
    let all = "SELECT id FROM p ORDER BY id";
    assert_eq!(lake.ids(all).await, [7, 8]);
    assert!(lake.is_written().await);
    // A folder that comes meanwhile is of the table that is replaced.
    lake.run("INSERT INTO p VALUES (9, 5)").await.unwrap();
    held.go_on.notify_one();
    while !overwrite.is_finished() {
        let seen = lake.ids(all).await;
        assert!(seen == [7, 8, 9] || seen == [1, 2, 3], "{seen:?}");
    }
    overwrite.await.unwrap().unwrap();
    assert_eq!(lake.ids(all).await, [1, 2, 3]);
    lake.idle().await;
}

/// "a query that fails or is cancelled … leaves nothing in any folder"
#[tokio::test(flavor = "multi_thread")]
async fn an_overwrite_that_fails_or_is_cancelled_leaves_the_table_as_it_was() {
    let lake = Lake::new().await;
    let held = lake.held().await;
    lake.filled().await;
    lake.run("INSERT INTO p VALUES (7, 3), (8, 4)").await.unwrap();
    let before = lake.datasets().await;
    let all = "SELECT id FROM p ORDER BY id";
    lake.refused(
        "INSERT OVERWRITE sales SELECT value, 's', 1, 'de' FROM generate_series(-20000, 0) WHERE 10 / value <= 0",
        "Divide by zero",
    )
    .await;
    lake.refused(
        "INSERT OVERWRITE sales VALUES (1, 'a', 1, 'de'), (2, 'b', 2, '__HIVE_DEFAULT_PARTITION__')",
        "is how folders name a null",
    )
    .await;
    lake.idle().await;
    assert_eq!(lake.datasets().await, before);

    let cancelled = lake.spawn("INSERT OVERWRITE p SELECT * FROM held").await;
    held.opened(5, &cancelled).await;
    assert!(lake.is_written().await);
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());
    lake.idle().await;
    assert_eq!(lake.datasets().await, before);

    // One folder that can not be published, when the others are ready and the one without rows is to be emptied.
    let blocked = lake.spawn("INSERT OVERWRITE p SELECT * FROM held").await;
    held.opened(8, &blocked).await;
    lake.client
        .put_file("/p/day=2", "a file".into(), FileOptions::default())
        .await
        .unwrap();
    held.go_on.notify_one();
    let error = blocked.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("/p/day=2: a file is there"), "{error}");
    lake.idle().await;
    assert_eq!(lake.datasets().await, before);
    assert_eq!(lake.ids(all).await, [7, 8]);
}

/// What an overwrite would leave beside the new rows is told before anything is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_can_not_be_replaced_is_told_of() {
    let lake = Lake::new().await;
    let client = &lake.client;
    lake.filled().await;
    let before = lake.datasets().await;
    let overwrite = "INSERT OVERWRITE sales VALUES (6, 'f', 9, 'de')";
    let file = async |path: &str| client.put_file(path, "x".into(), FileOptions::default()).await.unwrap();
    for (path, why) in [
        ("/sales/day=3/stray.parquet", "lies outside the folders country=…"),
        ("/sales/day=3/country=it/city=x/file.parquet", "lies below the folders"),
        ("/sales/day=x/country=it/file.parquet", "is of no value of day"),
        ("/sales/month=1/country=it/file.parquet", "lies where folders day=… are"),
    ] {
        file(path).await;
        lake.refused(overwrite, why).await;
        let folder = path.split('/').take(3).collect::<Vec<_>>().join("/");
        client.delete(&folder, true).await.unwrap();
    }
    assert_eq!(lake.datasets().await, before);
    // What is aside, and folders that are none of a value, have nothing to do with the table.
    let aside = ["/sales/_log/1.parquet", "/sales/plain/1.parquet"];
    for path in aside {
        file(path).await;
    }
    lake.run(overwrite).await.unwrap();
    assert_eq!(lake.ids("SELECT id FROM sales").await, [6]);
    for path in aside {
        client.stat(path).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_folders_are_replaced_at_once_and_more_are_refused() {
    let lake = Lake::new().await;
    let Lake { base, client, .. } = &lake;
    let puts = stream::iter(0..1001).map(|day| async move {
        let path = format!("/t/day={day}/file.parquet");
        client
            .put_file(&path, Bytes::from_static(b"x"), FileOptions::default())
            .await
    });
    puts.buffer_unordered(64).try_collect::<Vec<_>>().await.unwrap();
    lake.run(&format!(
        "CREATE EXTERNAL TABLE t (id BIGINT, day BIGINT) STORED AS FOREBAY PARTITIONED BY (day) LOCATION '{base}/t'"
    ))
    .await
    .unwrap();
    let too_many = "would write or empty 1001 folders at one instant, and 1000 is the most; delete folders";
    // Before a row is asked for.
    lake.refused(
        "INSERT OVERWRITE t SELECT value, 10 / value FROM generate_series(0, 0)",
        too_many,
    )
    .await;
    client.delete("/t/day=1000", true).await.unwrap();
    lake.refused("INSERT OVERWRITE t VALUES (1, 1000)", too_many).await;
    assert!(lake.datasets().await.is_empty());
    lake.run("INSERT OVERWRITE t VALUES (1, 0)").await.unwrap();
    assert_eq!(lake.ids("SELECT id FROM t").await, [1]);
    lake.run("INSERT OVERWRITE t SELECT value, value % 1000 FROM generate_series(0, 2999)")
        .await
        .unwrap();
    assert_eq!(lake.ids("SELECT count(*) FROM t WHERE id % 1000 = day").await, [3000]);
}
