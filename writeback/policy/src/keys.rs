//! The one list of keys. A new key is one line here; who honours it asks [`Effective`] for the field of its name.

use crate::value::{
    self, Ack, Evict, Invalid, ParquetCompression, ParquetStatistics, Persist, PersistFormat, Pin, Revalidate, Shown,
    Size, Tier, TtlAction, Write,
};
use forebay_namespace::Path;
use serde_json::{Map, Value as Json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const SIZE_MAX: u64 = 1 << 60;
const FILES_MAX: u64 = 1_000_000_000_000;
/// No path has more components.
const DEPTH_MAX: u64 = 2048;
/// A row group is in memory while it is encoded.
const ROW_GROUP: std::ops::RangeInclusive<u64> = 1 << 20..=512 << 20;

/// Defaults that are settings of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// `write.ack`.
    pub ack: Ack,
    /// `dataset.versions_kept`.
    pub versions_kept: u32,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            ack: Ack::Local,
            versions_kept: 3,
        }
    }
}

/// Makes [`Key`], [`Value`] and [`Effective`] out of one table: key, what it is called, its value's type, default and reading.
macro_rules! keys {
    (|$defaults:ident, $json:ident| $($(#[doc = $doc:literal])* $name:literal $variant:ident $field:ident: $type:ty = $default:expr, $read:expr;)+) => {
        /// A policy's name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Key { $($(#[doc = $doc])* $variant),+ }

        impl Key {
            /// All, in the order in which they are told.
            pub const ALL: &'static [Key] = &[$(Key::$variant),+];

            /// As it is written.
            pub fn name(self) -> &'static str {
                match self { $(Key::$variant => $name),+ }
            }
        }

        /// A key with a value of its own.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Value { $($(#[doc = $doc])* $variant($type)),+ }

        impl Value {
            fn read(key: Key, $json: &Json) -> value::Read<Self> {
                match key { $(Key::$variant => ($read).map(Value::$variant)),+ }
            }

            /// Whose it is.
            pub fn key(&self) -> Key {
                match self { $(Value::$variant(_) => Key::$variant),+ }
            }

            /// As it is shown.
            pub fn json(&self) -> Json {
                match self { $(Value::$variant(value) => value.json()),+ }
            }
        }

        /// What holds at a path: for every key the value of the nearest path that has one, or the default.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Effective {
            $($(#[doc = $doc])* pub $field: $type,)+
            from: BTreeMap<Key, Arc<Path>>,
        }

        impl Effective {
            /// The defaults.
            pub fn new($defaults: Defaults) -> Self {
                Self { $($field: $default,)+ from: BTreeMap::new() }
            }

            fn take(&mut self, value: &Value) {
                match value { $(Value::$variant(value) => self.$field = value.clone()),+ }
            }

            /// The value of a key.
            pub fn value(&self, key: Key) -> Value {
                match key { $(Key::$variant => Value::$variant(self.$field.clone())),+ }
            }
        }
    };
}

keys! {
    |defaults, json|
    /// When an open asks the under-store whether a file is still the same.
    "revalidate" Revalidate revalidate: Revalidate = Revalidate::Ttl, Revalidate::read(json);
    /// For how long an answer of the under-store is taken for true.
    "revalidate_ttl" RevalidateTtl revalidate_ttl: Duration = SECOND, value::span(json, Duration::from_millis(1)..=365 * DAY);
    /// How often what the cache has is compared with the under-store.
    "sync_interval" SyncInterval sync_interval: Duration = 60 * SECOND, value::span(json, SECOND..=30 * DAY);
    /// How many levels down from where it begins that comparison goes.
    "sync_depth" SyncDepth sync_depth: Option<u64> = None, value::or_none(json, |json| value::count(json, 1..=DEPTH_MAX));
    /// Data that was last changed this long ago is over.
    "ttl" Ttl ttl: Option<Duration> = None, value::or_none(json, |json| value::span(json, SECOND..=36_500 * DAY));
    /// What becomes of it then.
    "ttl_action" TtlAction ttl_action: TtlAction = TtlAction::Free, TtlAction::read(json);
    /// Most bytes under the path.
    "quota_bytes" QuotaBytes quota_bytes: Option<Size> = None, value::or_none(json, |json| Size::read(json, 1..=SIZE_MAX));
    /// Most files under the path.
    "quota_files" QuotaFiles quota_files: Option<u64> = None, value::or_none(json, |json| value::count(json, 1..=FILES_MAX));
    /// Most bytes under the path of each user's files.
    "user_quota_bytes" UserQuotaBytes user_quota_bytes: Option<Size> = None, value::or_none(json, |json| Size::read(json, 1..=SIZE_MAX));
    /// Most files under the path of each user.
    "user_quota_files" UserQuotaFiles user_quota_files: Option<u64> = None, value::or_none(json, |json| value::count(json, 1..=FILES_MAX));
    /// What makes room in the clean cache.
    "evict" Evict evict: Evict = Evict::Auto, Evict::read(json);
    /// Clean data stays in the cache.
    "pin" Pin pin: Pin = Pin::No, Pin::read(json);
    /// Copies of dirty data, on as many nodes.
    "replicas" Replicas replicas: u32 = 1, value::small_count(json, 1..=7);
    /// How a write meets cache and under-store.
    "write" Write write: Write = Write::Back, Write::read(json);
    /// Level of a write that names none.
    "ack" Ack ack: Ack = defaults.ack, Ack::read(json);
    /// When what was written goes to the under-store.
    "persist" Persist persist: Persist = Persist::Asap, Persist::read(json);
    /// What form a dataset's parts have there.
    "persist_format" PersistFormat persist_format: PersistFormat = PersistFormat::AsIs, PersistFormat::read(json);
    /// Compression of Parquet that is written here, where a session names none.
    "parquet_compression" ParquetCompression parquet_compression: ParquetCompression = ParquetCompression::Snappy, ParquetCompression::read(json);
    /// A row group of Parquet that is written here ends at about so many encoded bytes.
    "parquet_row_group" ParquetRowGroup parquet_row_group: Size = Size::in_units(64 << 20), Size::read(json, ROW_GROUP);
    /// How fine the statistics are in Parquet that is written here.
    "parquet_statistics" ParquetStatistics parquet_statistics: ParquetStatistics = ParquetStatistics::Page, ParquetStatistics::read(json);
    /// Small files go there many in one object.
    "pack" Pack pack: bool = false, value::yes_or_no(json);
    /// Versions of a dataset that are kept.
    "versions_kept" VersionsKept versions_kept: u32 = defaults.versions_kept, value::small_count(json, 1..=1000);
    /// The fastest tier that copies of its blocks lie in.
    "tier" Tier tier: Tier = Tier::auto(), Tier::read(json);
}

impl Key {
    /// The key of this name.
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.iter().copied().find(|key| key.name() == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|key| key.name()).collect();
            Invalid::Key(name.chars().take(40).collect(), names.join(", "))
        })
    }
}

impl Value {
    /// A key's value out of JSON.
    pub fn parse(key: Key, json: &Json) -> Result<Self, Invalid> {
        Self::read(key, json).map_err(|allowed| Invalid::Value {
            key: key.name(),
            value: value::shown(json),
            allowed,
        })
    }
}

/// One change of what is set at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The value holds from now on.
    Put(Value),
    /// What lies above decides again.
    Take(Key),
}

impl Change {
    /// `name` gets the value; none, or null, takes it away.
    pub fn parse(name: &str, json: Option<&Json>) -> Result<Self, Invalid> {
        let key = Key::parse(name)?;
        match json {
            None | Some(Json::Null) => Ok(Change::Take(key)),
            Some(json) => Value::parse(key, json).map(Change::Put),
        }
    }
}

/// What is set at one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(BTreeMap<Key, Value>);

impl Set {
    /// Out of a JSON object's pairs. The first that is wrong is the error.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a Json)>) -> Result<Self, Invalid> {
        let mut set = Self::default();
        for (name, json) in pairs {
            set.change(Change::Put(Value::parse(Key::parse(name)?, json)?));
        }
        Ok(set)
    }

    /// Makes one change.
    pub fn change(&mut self, change: Change) {
        match change {
            Change::Put(value) => drop(self.0.insert(value.key(), value)),
            Change::Take(key) => drop(self.0.remove(&key)),
        }
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a key, when it is set.
    pub fn get(&self, key: Key) -> Option<&Value> {
        self.0.get(&key)
    }

    /// What is set, in the order of [`Key::ALL`].
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.0.values()
    }

    /// As a JSON object.
    pub fn json(&self) -> Map<String, Json> {
        let pairs = self.values().map(|value| (value.key().name().to_owned(), value.json()));
        pairs.collect()
    }
}

impl Effective {
    /// What `set` at `path` makes of it for everything from there on.
    pub fn below(&self, path: &Path, set: &Set) -> Self {
        let mut below = self.clone();
        let path = Arc::new(path.clone());
        for value in set.values() {
            below.take(value);
            below.from.insert(value.key(), Arc::clone(&path));
        }
        below
    }

    /// The path that a key's value comes from; none: it is the default.
    pub fn from(&self, key: Key) -> Option<&Path> {
        self.from.get(&key).map(|path| &**path)
    }
}

#[cfg(test)]
mod tests;
