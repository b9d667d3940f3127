use super::*;
use proptest::prelude::*;
use serde_json::json;

fn set(key: &str, json: Json) -> Result<Value, Invalid> {
    Value::parse(Key::parse(key)?, &json)
}

#[test]
fn every_documented_value_is_taken_and_shown_so_that_it_reads_back() {
    for (key, given, shown) in [
        ("revalidate", json!("never"), json!("never")),
        ("revalidate_ttl", json!("1500ms"), json!("1500ms")),
        ("sync_interval", json!("120s"), json!("2min")),
        ("sync_depth", json!(1), json!(1)),
        ("sync_depth", json!("none"), json!("none")),
        ("ttl", json!("168h"), json!("7d")),
        ("ttl", json!("none"), json!("none")),
        ("ttl_action", json!("delete"), json!("delete")),
        ("quota_bytes", json!("1024KiB"), json!("1MiB")),
        ("quota_bytes", json!(4096), json!(4096)),
        ("quota_files", json!(1_000_000), json!(1_000_000)),
        ("quota_files", json!("none"), json!("none")),
        ("evict", json!("s3fifo"), json!("s3fifo")),
        ("pin", json!(true), json!(true)),
        (
            "pin",
            json!("2030-01-31T13:00:00.5+01:00"),
            json!("2030-01-31T12:00:00.500Z"),
        ),
        ("replicas", json!(2), json!(2)),
        ("write", json!("through"), json!("through")),
        ("ack", json!("replicated(3)"), json!("replicated(3)")),
        ("ack", json!("memory"), json!("memory")),
        ("persist", json!("age=600s"), json!("age=10min")),
        ("persist", json!("commit"), json!("commit")),
        ("persist", json!("size=65536KiB"), json!("size=64MiB")),
        ("persist", json!("size=1000B,age=120s"), json!("size=1KB,age=2min")),
        ("persist_format", json!("as-is"), json!("as-is")),
        ("persist_format", json!("parquet"), json!("parquet")),
        ("parquet_compression", json!("zstd"), json!("zstd")),
        ("parquet_row_group", json!("16384KiB"), json!("16MiB")),
        ("parquet_statistics", json!("chunk"), json!("chunk")),
        ("pack", json!(false), json!(false)),
        ("versions_kept", json!(10), json!(10)),
        ("tier", json!("nvme-0"), json!("nvme-0")),
    ] {
        let value = set(key, given.clone()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(value.key().name(), key);
        assert_eq!(value.json(), shown, "{key}={given}");
        assert_eq!(set(key, value.json()).unwrap().json(), shown, "{key} reads back");
    }
}

#[test]
fn what_is_out_of_bounds_is_refused_by_key_value_and_what_is_allowed() {
    for (key, given, allowed) in [
        ("revalidate", json!("sometimes"), "always or ttl or never"),
        ("revalidate", json!(true), "always or ttl or never"),
        ("revalidate_ttl", json!("0"), "from 1ms to 365d"),
        ("revalidate_ttl", json!(30), "span as in"),
        ("sync_interval", json!("10ms"), "from 1s to 30d"),
        ("sync_depth", json!(0), "whole number from 1 to 2048, or none"),
        ("sync_depth", json!(2049), "whole number from 1 to 2048, or none"),
        ("sync_depth", json!("2"), "or none"),
        ("sync_depth", json!(1.5), "or none"),
        ("ttl", json!("1000000d"), "or none"),
        ("ttl", json!(-1), "span as in"),
        ("ttl_action", json!("drop"), "free or delete"),
        ("quota_bytes", json!(0), "from 1B to 1EiB"),
        ("quota_bytes", json!(-1), "from 1B to 1EiB"),
        ("quota_bytes", json!("plenty"), "64MiB"),
        ("quota_bytes", json!(1.5), "a number of bytes"),
        ("quota_bytes", json!("2EiB"), "1EiB"),
        ("quota_files", json!("3"), "whole number from 1 to"),
        ("evict", json!("fifo"), "epoch or s3fifo or lru or auto"),
        ("pin", json!("yes"), "true or false"),
        ("pin", json!("7d"), "2030-01-31T12:00:00Z"),
        ("replicas", json!(0), "from 1 to 7"),
        ("replicas", json!(8), "from 1 to 7"),
        ("replicas", json!(4_294_967_297_u64), "from 1 to 7"),
        ("write", json!("sideways"), "back or through or around"),
        ("ack", json!("replicated(1)"), "from 2 to 7"),
        ("ack", json!("replicated(x)"), "persisted"),
        ("persist", json!("age=0s"), "from 1s to 365d"),
        ("persist", json!("age=soon"), "age=10min"),
        ("persist", json!("size=0B"), "from 1B to 1TiB"),
        ("persist", json!("size=1MiB,age=0s"), "from 1s to 365d"),
        ("persist", json!("size=1MiB,"), "size=64MiB,age=10min"),
        ("persist", json!("age=1h,size=1MiB"), "size=64MiB,age=10min"),
        ("persist_format", json!("orc"), "as-is or parquet"),
        ("parquet_compression", json!("gzip"), "none or snappy or lz4 or zstd"),
        ("parquet_row_group", json!("1GiB"), "from 1MiB to 512MiB"),
        ("parquet_row_group", json!("none"), "from 1MiB to 512MiB"),
        ("parquet_statistics", json!(true), "none or chunk or page"),
        ("pack", json!(1), "true or false"),
        ("versions_kept", json!(0), "from 1 to 1000"),
        ("tier", json!("../x"), "small letters"),
        ("tier", json!(""), "small letters"),
        ("pin", json!({"deep": [1, 2]}), "true or false"),
        ("pin", json!(null), "true or false"),
    ] {
        let text = set(key, given.clone())
            .expect_err(&format!("{key}={given}"))
            .to_string();
        assert!(text.starts_with(&format!("{key}: {given} is not allowed; ")), "{text}");
        assert!(text.contains(allowed), "{text}");
    }
    let text = set("colour", json!(1)).unwrap_err().to_string();
    assert!(text.contains("\"colour\"") && text.contains("versions_kept"), "{text}");
}

#[test]
fn a_refusal_does_not_repeat_a_huge_value() {
    let text = set("evict", json!("é".repeat(10_000))).unwrap_err().to_string();
    assert!(text.len() < 300, "{}", text.len());
}

#[test]
fn null_takes_a_key_away_and_so_does_nothing() {
    assert_eq!(Change::parse("ttl", Some(&Json::Null)), Ok(Change::Take(Key::Ttl)));
    assert_eq!(Change::parse("ttl", None), Ok(Change::Take(Key::Ttl)));
    assert!(Change::parse("ttl", Some(&json!("x"))).is_err());
}

#[test]
fn a_set_is_an_object_in_the_order_of_the_keys_and_back() {
    let pairs = json!({"versions_kept": 4, "pin": true, "ttl": "7d"});
    let set = Set::parse(pairs.as_object().unwrap().iter().map(|(k, v)| (k.as_str(), v))).unwrap();
    assert_eq!(Json::Object(set.json()), pairs);
    let keys: Vec<Key> = set.values().map(Value::key).collect();
    assert_eq!(keys, [Key::Ttl, Key::Pin, Key::VersionsKept]);
}

#[test]
fn the_page_of_policies_names_every_key_with_its_default() {
    let page = include_str!("../../../../docs/policies.md");
    let defaults = Effective::new(Defaults::default());
    for key in Key::ALL {
        let default = defaults.value(*key).json();
        let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{}` |", key.name())));
        let row = row.unwrap_or_else(|| panic!("docs/policies.md has no row for {}", key.name()));
        assert!(
            row.split('|').nth(3).unwrap().contains(&format!("`{default}`")),
            "{row}"
        );
    }
}

proptest! {
    #[test]
    fn whatever_is_read_is_shown_so_that_it_reads_back(
        key in proptest::sample::select(Key::ALL),
        number in any::<u64>(),
        text in "(age=)?[0-9]{1,5}(ms|s|min|h|d|KiB|MB|GiB)|[a-z0-9_-]{1,34}|replicated\\([0-9]{1,2}\\)",
    ) {
        for given in [json!(number), json!(number % 1100), json!(text)] {
            if let Ok(value) = Value::parse(key, &given) {
                prop_assert_eq!(Value::parse(key, &value.json()).unwrap(), value);
            }
        }
    }
}
