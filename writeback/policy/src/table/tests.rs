use super::*;
use crate::{Change, Key};
use proptest::prelude::*;
use serde_json::json;

fn path(text: &str) -> Path {
    Path::parse(text.as_bytes()).unwrap()
}

fn set(pairs: &[(&str, serde_json::Value)]) -> Set {
    Set::parse(pairs.iter().map(|(key, json)| (*key, json))).unwrap()
}

#[test]
fn the_nearest_path_decides_key_by_key() {
    let table = Table::new(
        Defaults::default(),
        [
            (path("/a/b/c"), set(&[("pin", json!(false))])),
            (path("/a"), set(&[("pin", json!(true)), ("ttl", json!("1d"))])),
            (path("/"), set(&[("ttl", json!("2d")), ("versions_kept", json!(7))])),
        ],
    );
    for (at, pin, ttl, kept) in [
        ("/", false, "2d", 7),
        ("/ab", false, "2d", 7),
        ("/a", true, "1d", 7),
        ("/a/b", true, "1d", 7),
        ("/a/b/c", false, "1d", 7),
        ("/a/b/c/d/e", false, "1d", 7),
        ("/a/b/d", true, "1d", 7),
    ] {
        let found = table.effective(&path(at));
        assert_eq!((found.pin.holds(), found.versions_kept), (pin, kept), "{at}");
        assert_eq!(found.value(Key::Ttl).json(), json!(ttl), "{at}");
    }
    let deep = table.effective(&path("/a/b/c/d"));
    assert_eq!(deep.from(Key::Pin), Some(&path("/a/b/c")));
    assert_eq!(deep.from(Key::Ttl), Some(&path("/a")));
    assert_eq!(deep.from(Key::VersionsKept), Some(&Path::root()));
    assert_eq!(deep.from(Key::Evict), None);
}

#[test]
fn a_word_for_none_ends_what_is_inherited() {
    let above = (path("/a"), set(&[("quota_bytes", json!("1GiB"))]));
    let table = Table::new(
        Defaults::default(),
        [above, (path("/a/b"), set(&[("quota_bytes", json!("none"))]))],
    );
    assert!(table.effective(&path("/a/x")).quota_bytes.is_some());
    assert!(table.effective(&path("/a/b/x")).quota_bytes.is_none());
    assert!(table.along(&Path::root()).is_empty());
    let along = table.along(&path("/a/b/x"));
    let along: Vec<String> = along.into_iter().map(|(at, _)| at.to_string()).collect();
    assert_eq!(along, ["/a", "/a/b"]);
    for (at, any) in [
        ("/", true),
        ("/a", true),
        ("/a/b", false),
        ("/a/bb", false),
        ("/b", false),
    ] {
        assert_eq!(table.any_below(&path(at)), any, "{at}");
    }
}

#[test]
fn defaults_come_from_the_settings() {
    let defaults = Defaults {
        ack: crate::value::Ack::Memory,
        versions_kept: 9,
    };
    let table = Table::new(defaults, []).with(&path("/a"), set(&[("pin", json!(true))]));
    assert_eq!(table.effective(&path("/a/b")).versions_kept, 9);
    assert_eq!(table.effective(&path("/b")).ack, crate::value::Ack::Memory);
}

/// What holds, worked out the slow way.
fn model(sets: &BTreeMap<Path, Set>, at: &Path, key: Key) -> (serde_json::Value, Option<Path>) {
    for depth in (0..=at.components().len()).rev() {
        let above = at.prefix(depth);
        if let Some(value) = sets.get(&above).and_then(|set| set.get(key)) {
            return (value.json(), Some(above));
        }
    }
    (Effective::new(Defaults::default()).value(key).json(), None)
}

proptest! {
    #[test]
    fn changes_in_any_order_give_what_the_slow_way_gives(
        steps in proptest::collection::vec(("(/[ab]){0,4}", 0..3_u64, proptest::option::of(1..5_u64)), 0..30),
        asked in proptest::collection::vec("(/[abc]){0,5}", 1..10),
    ) {
        let parse = |text: &str| path(if text.is_empty() { "/" } else { text });
        let (mut table, mut sets) = (Table::new(Defaults::default(), []), BTreeMap::new());
        for (at, key, value) in &steps {
            let at = parse(at);
            let name = ["versions_kept", "quota_files", "replicas"][usize::try_from(*key).unwrap()];
            let mut set: Set = sets.get(&at).cloned().unwrap_or_default();
            set.change(Change::parse(name, value.map(|n| json!(n)).as_ref()).unwrap());
            table = table.with(&at, set.clone());
            sets.insert(at, set);
        }
        sets.retain(|_, set| !set.is_empty());
        prop_assert_eq!(table.len(), sets.len());
        for at in &asked {
            let at = parse(at);
            for key in Key::ALL {
                let found = table.effective(&at);
                prop_assert_eq!((found.value(*key).json(), found.from(*key).cloned()), model(&sets, &at, *key));
            }
        }
    }
}
