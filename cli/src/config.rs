//! Flags, environment and file, to settings. Flags beat environment (clap sees to that), environment beats the file, the file
//! beats the defaults. An unknown key in the file is refused: a misspelt limit must not be silently none.

use crate::{
    args::{ServeFlags, Switch},
    failure::{Failure, Outcome},
};
use forebay_flight_server::{Listen, ServerSettings, TlsSettings};
use forebay_runtime::{
    disk::RealDisk,
    units::{self, ByteSize},
};
use forebay_writeback::{
    AckLevel, Path, Settings, TierSettings, policy,
    settings::{MountSpec, PersistSettings},
};
use serde::Deserialize;
use std::{
    path::{Path as FilePath, PathBuf},
    time::Duration,
};

const DATA_DEFAULT: &str = "./forebay-data";
/// The embedded metastore's file in the data folder.
const SQLITE_FILE: &str = "meta.sqlite";

/// Everything that `serve` needs to know.
#[derive(Clone, Debug)]
pub(crate) struct ServeSettings {
    pub(crate) cache: Settings,
    pub(crate) doors: ServerSettings,
    pub(crate) meta_url: String,
    pub(crate) fsync: bool,
    /// The folder to mount.
    pub(crate) fuse: Option<PathBuf>,
    pub(crate) stay_awake: bool,
}

/// The file as it may be written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    data: DataTable,
    server: ServerTable,
    mount: Vec<MountTable>,
    tier: Vec<TierTable>,
    policy: Vec<PolicyTable>,
    fuse: FuseTable,
    meta: MetaTable,
    write: WriteTable,
    read: ReadTable,
    trace: TraceTable,
    under: UnderTable,
    dataset: DatasetTable,
    persist: PersistTable,
    segment: forebay_segment::Settings,
    auth: AuthTable,
    tls: TlsTable,
    node: NodeTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DataTable {
    dir: Option<OneOrMany>,
}

/// One folder, or a list of them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ServerTable {
    listen: Option<String>,
    http: Option<String>,
    insecure: bool,
    advertise: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MountTable {
    path: String,
    url: String,
    #[serde(default)]
    read_only: bool,
    /// File or folder with the store's keys.
    #[serde(default)]
    credentials_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TierTable {
    name: String,
    dir: PathBuf,
    size: ByteSize,
}

#[derive(Debug, Deserialize)]
struct PolicyTable {
    path: String,
    /// Read by the policies' own rules, which refuse keys that they do not know.
    #[serde(flatten)]
    set: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FuseTable {
    dir: Option<PathBuf>,
    stay_awake: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MetaTable {
    url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WriteTable {
    ack: Option<String>,
    dirty_max: Option<ByteSize>,
    #[serde(with = "units::duration_opt")]
    stall_max: Option<Duration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ReadTable {
    cache_max: Option<ByteSize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TraceTable {
    file: Option<PathBuf>,
    bytes_max: Option<ByteSize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct UnderTable {
    #[serde(with = "units::duration_opt")]
    timeout: Option<Duration>,
    md5_max: Option<ByteSize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DatasetTable {
    #[serde(with = "units::duration_opt")]
    session_timeout: Option<Duration>,
    versions_kept: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PersistTable {
    files_parallel: Option<usize>,
    parts_parallel: Option<usize>,
    part_size: Option<ByteSize>,
    single_put_max: Option<ByteSize>,
    bandwidth: Option<ByteSize>,
    requests_per_second: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AuthTable {
    users: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TlsTable {
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NodeTable {
    name: Option<String>,
    zone: Option<String>,
    cluster_key: Option<PathBuf>,
}

/// The settings that flags, environment and file make together. What is wrong is a usage error that names the flag or key.
pub(crate) fn resolve(flags: ServeFlags) -> Outcome<ServeSettings> {
    let file = match &flags.config {
        Some(path) => read("--config", path)?,
        None => File::default(),
    };
    refuse_absent(&flags, &file)?;
    let data = data_folders(&flags, &file)?;
    let home = forebay_segment::home(&data, &RealDisk::shared());
    let home = home.map_err(|error| Failure::failed(format!("--data (data.dir): {error}")))?;
    let fsync = flags.fsync.map_or(file.segment.fsync, |fsync| fsync == Switch::On);
    let meta_url = flags.meta.clone().or_else(|| file.meta.url.clone());
    let meta_url = meta_url.unwrap_or_else(|| format!("sqlite:{}", home.join(SQLITE_FILE).display()));
    let doors = doors(&flags, &file, &home)?;
    let fuse = flags.fuse.clone().or_else(|| file.fuse.dir.clone());
    let stay_awake = file.fuse.stay_awake.unwrap_or(true);
    let cache = cache(flags, file, data, fsync)?;
    Ok(ServeSettings {
        cache,
        doors,
        meta_url,
        fsync,
        fuse,
        stay_awake,
    })
}

fn read(flag: &str, path: &FilePath) -> Outcome<File> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| Failure::usage(format!("{flag} {}: {error}", path.display())))?;
    toml::from_str(&text).map_err(|error| Failure::usage(format!("{flag} {}: {error}", path.display())))
}

/// What INTERFACE promises and this build has not.
fn refuse_absent(flags: &ServeFlags, file: &File) -> Outcome {
    let absent = [
        (
            flags.advertise.is_some() || file.server.advertise.is_some(),
            "--advertise (server.advertise)",
        ),
        (flags.zone.is_some() || file.node.zone.is_some(), "--zone (node.zone)"),
        (
            flags.cluster_key.is_some() || file.node.cluster_key.is_some(),
            "--cluster-key (node.cluster_key)",
        ),
    ];
    match absent.into_iter().find(|(given, _)| *given) {
        Some((_, what)) => Err(Failure::absent(what)),
        None => Ok(()),
    }
}

fn data_folders(flags: &ServeFlags, file: &File) -> Outcome<Vec<PathBuf>> {
    let folders = match (&file.data.dir, flags.data.is_empty()) {
        (_, false) => flags.data.clone(),
        (Some(OneOrMany::One(folder)), true) => vec![folder.clone()],
        (Some(OneOrMany::Many(folders)), true) => folders.clone(),
        (None, true) => vec![DATA_DEFAULT.into()],
    };
    if folders.is_empty() || folders.iter().any(|folder| folder.as_os_str().is_empty()) {
        return Err(Failure::usage("--data (data.dir): no folder is named"));
    }
    for (n, folder) in folders.iter().enumerate() {
        if folders[..n].contains(folder) {
            return Err(Failure::usage(format!("--data {}: given twice", folder.display())));
        }
    }
    Ok(folders)
}

fn doors(flags: &ServeFlags, file: &File, data: &FilePath) -> Outcome<ServerSettings> {
    let mut doors = ServerSettings::new(data.to_owned());
    if let Some(text) = flags.listen.as_ref().or(file.server.listen.as_ref()) {
        doors.listen = listen("--listen (server.listen)", text)?;
    }
    if let Some(text) = flags.http.as_ref().or(file.server.http.as_ref()) {
        doors.http = listen("--http (server.http)", text)?;
    }
    doors.insecure = flags.insecure || file.server.insecure;
    doors.users = flags.users.clone().or_else(|| file.auth.users.clone());
    let cert = flags.tls_cert.clone().or_else(|| file.tls.cert.clone());
    let key = flags.tls_key.clone().or_else(|| file.tls.key.clone());
    let client_ca = flags.tls_client_ca.clone().or_else(|| file.tls.client_ca.clone());
    doors.tls = match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsSettings { cert, key, client_ca }),
        (None, None) if client_ca.is_none() => None,
        _ => {
            return Err(Failure::usage(
                "TLS needs both --tls-cert (tls.cert) and --tls-key (tls.key)",
            ));
        }
    };
    Ok(doors)
}

fn listen(what: &str, text: &str) -> Outcome<Listen> {
    text.parse().map_err(|error| Failure::usage(format!("{what}: {error}")))
}

fn cache(flags: ServeFlags, file: File, data: Vec<PathBuf>, fsync: bool) -> Outcome<Settings> {
    let mut cache = Settings {
        data,
        ..Settings::new("")
    };
    if let Some(name) = flags.name.or(file.node.name) {
        cache.node = name;
    }
    if let Some(text) = flags.ack.or(file.write.ack) {
        cache.ack = ack(&text)?;
    }
    cache.dirty_max = flags.dirty_max.or(file.write.dirty_max);
    cache.cache_max = flags.cache_max.or(file.read.cache_max);
    cache.stall_max = file.write.stall_max.unwrap_or(cache.stall_max);
    cache.under_timeout = file.under.timeout.unwrap_or(cache.under_timeout);
    cache.under_md5_max = file.under.md5_max.unwrap_or(cache.under_md5_max);
    cache.session_timeout = file.dataset.session_timeout.unwrap_or(cache.session_timeout);
    cache.versions_kept = file.dataset.versions_kept.unwrap_or(cache.versions_kept);
    cache.persist = persist(&file.persist, cache.persist)?;
    cache.segment = forebay_segment::Settings { fsync, ..file.segment };
    cache.mounts = mounts(&flags.under, &file.mount)?;
    cache.trace_file = file.trace.file;
    cache.trace_bytes_max = file.trace.bytes_max.unwrap_or(cache.trace_bytes_max);
    cache.policies = policies(&file.policy)?;
    cache.tiers = tiers(file.tier, &cache.data)?;
    Ok(cache)
}

fn tiers(file: Vec<TierTable>, data: &[PathBuf]) -> Outcome<Vec<TierSettings>> {
    let tier = |TierTable { name, dir, size }| match data.contains(&dir) {
        true => Err(Failure::usage(format!(
            "[[tier]] {name:?}: {} is a data folder, which is the tier \"disk\"; name a folder on something faster",
            dir.display()
        ))),
        false => Ok(TierSettings { name, dir, size }),
    };
    file.into_iter().map(tier).collect()
}

fn ack(text: &str) -> Outcome<AckLevel> {
    match text {
        "memory" => Ok(AckLevel::Memory),
        "local" => Ok(AckLevel::Local),
        "persisted" => Ok(AckLevel::Persisted),
        _ if text.starts_with("replicated") => Err(Failure::absent(&format!(
            "--ack {text} (write.ack): one node keeps one copy; level {text}"
        ))),
        _ => Err(Failure::usage(format!(
            "--ack {text:?} (write.ack): levels are memory, local and persisted"
        ))),
    }
}

fn persist(table: &PersistTable, defaults: PersistSettings) -> Outcome<PersistSettings> {
    let settings = PersistSettings {
        files_parallel: table.files_parallel.unwrap_or(defaults.files_parallel),
        parts_parallel: table.parts_parallel.unwrap_or(defaults.parts_parallel),
        part_bytes: table.part_size.unwrap_or(defaults.part_bytes),
        single_put_bytes_max: table.single_put_max.unwrap_or(defaults.single_put_bytes_max),
        bandwidth: table.bandwidth.or(defaults.bandwidth),
        requests_per_second: table.requests_per_second.or(defaults.requests_per_second),
    };
    // S3 refuses parts below 5 MiB and above 5 GiB; memory is parts times files times their size.
    let parts = ByteSize::mib(5)..=ByteSize::gib(5);
    if !parts.contains(&settings.part_bytes) {
        return Err(Failure::usage("persist.part_size: between 5MiB and 5GiB"));
    }
    if !(1..=256).contains(&settings.files_parallel) || !(1..=256).contains(&settings.parts_parallel) {
        return Err(Failure::usage(
            "persist.files_parallel, persist.parts_parallel: between 1 and 256",
        ));
    }
    if settings
        .requests_per_second
        .is_some_and(|rate| !(1..=1_000_000).contains(&rate))
    {
        return Err(Failure::usage("persist.requests_per_second: between 1 and 1000000"));
    }
    Ok(settings)
}

/// Mounts of the flags; where they name the same path as the file, theirs counts.
fn mounts(flags: &[String], file: &[MountTable]) -> Outcome<Vec<MountSpec>> {
    let mut mounts: Vec<MountSpec> = Vec::new();
    for flag in flags {
        let wrong = |why: &str| Failure::usage(format!("--under {:?}: {why}; write PATH=URL", shown(flag)));
        let (path, url) = flag.split_once('=').ok_or_else(|| wrong("no '='"))?;
        // A path may hold '=' itself (day=1): the URL begins at the last '=' before its scheme.
        let (path, url) = match flag.find("://").and_then(|scheme| flag[..scheme].rfind('=')) {
            Some(at) => (&flag[..at], &flag[at + 1..]),
            None => (path, url),
        };
        let spec = mount(path, url, false).map_err(|error| wrong(error.text()))?;
        if mounts.iter().any(|other| other.path == spec.path) {
            return Err(wrong("the path is bound twice"));
        }
        mounts.push(spec);
    }
    let from_flags = mounts.len();
    for table in file {
        let about = |error: Failure| error.about(format!("[[mount]] {:?}", table.path));
        let url = with_credentials(&table.url, table.credentials_file.as_deref()).map_err(about)?;
        let spec = mount(&table.path, &url, table.read_only).map_err(about)?;
        match mounts.iter().position(|other| other.path == spec.path) {
            Some(at) if at >= from_flags => return Err(about(Failure::usage("the path is bound twice"))),
            Some(_) => {}
            None => mounts.push(spec),
        }
    }
    Ok(mounts)
}

/// A flag as it may be shown again: of its URL nothing but the scheme, for the rest might be a secret.
fn shown(flag: &str) -> String {
    match flag.split_once("://") {
        Some((before, _)) => format!("{before}://…"),
        None => flag.to_owned(),
    }
}

/// The URL with `credentials_file` as its option.
fn with_credentials(url: &str, file: Option<&FilePath>) -> Outcome<String> {
    let Some(file) = file else { return Ok(url.to_owned()) };
    let name = file.to_str().filter(|_| file.is_absolute());
    let name = name.ok_or_else(|| Failure::usage("credentials_file: name the file or folder in full, from / on"))?;
    let sign = if url.contains('?') { '&' } else { '?' };
    let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    Ok(format!("{url}{sign}credentials={name}"))
}

fn mount(path: &str, url: &str, read_only: bool) -> Outcome<MountSpec> {
    let path = Path::parse(path.as_bytes()).map_err(|error| Failure::usage(error.to_string()))?;
    if url.is_empty() {
        return Err(Failure::usage("the URL is empty"));
    }
    Ok(MountSpec {
        path,
        url: url.to_owned(),
        read_only,
    })
}

/// The `[[policy]]` sections of a configuration file.
pub(crate) fn policies_of(path: &FilePath) -> Outcome<Vec<(Path, policy::Set)>> {
    policies(&read("--policies", path)?.policy)
}

fn policies(file: &[PolicyTable]) -> Outcome<Vec<(Path, policy::Set)>> {
    let mut policies: Vec<(Path, policy::Set)> = Vec::new();
    for PolicyTable { path: text, set } in file {
        let about = |why: String| Failure::usage(why).about(format!("[[policy]] {text:?}"));
        let path = Path::parse(text.as_bytes()).map_err(|error| about(error.to_string()))?;
        let pairs = set.iter().map(|(key, value)| (key.as_str(), value));
        let set = policy::Set::parse(pairs).map_err(|error| about(error.to_string()))?;
        if set.is_empty() {
            return Err(about("no policy is named".into()));
        }
        if policies.iter().any(|(other, _)| *other == path) {
            return Err(about("the path is named twice".into()));
        }
        policies.push((path, set));
    }
    Ok(policies)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str, flags: ServeFlags) -> Outcome<ServeSettings> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forebay.toml");
        std::fs::write(&path, text).unwrap();
        resolve(ServeFlags {
            config: Some(path),
            ..flags
        })
    }

    #[test]
    fn nothing_given_is_a_laptop() {
        let settings = resolve(ServeFlags::default()).unwrap();
        assert_eq!(settings.cache.data, [PathBuf::from("./forebay-data")]);
        assert_eq!(settings.meta_url, "sqlite:./forebay-data/meta.sqlite");
        assert_eq!(settings.doors.listen.to_string(), "127.0.0.1:47470");
        assert_eq!(settings.cache.ack, AckLevel::Local);
        assert!(settings.fsync && settings.cache.segment.fsync && settings.cache.mounts.is_empty());
    }

    #[test]
    fn every_documented_key_is_taken() {
        let text = r#"
            data.dir = "/d"
            meta.url = "sqlite:/m"
            node.name = "n1"
            [server]
            listen = "127.0.0.1:1"
            http = "127.0.0.1:2"
            insecure = true
            [[mount]]
            path = "/lake"
            url = "file:///mnt/lake"
            read_only = true
            [[mount]]
            path = "/ceph"
            url = "s3://bucket/prefix?endpoint=http://rgw"
            credentials_file = "/run/secrets/rgw keys"
            [[tier]]
            name = "memory"
            dir = "/dev/shm/forebay"
            size = "4GiB"
            [[policy]]
            path = "/lake/train"
            ttl = "7d"
            versions_kept = 4
            pin = true
            [write]
            ack = "memory"
            dirty_max = "64MiB"
            stall_max = "100ms"
            [read]
            cache_max = "1GiB"
            [trace]
            file = "/var/trace.csv"
            bytes_max = "1MiB"
            [fuse]
            dir = "/mnt"
            stay_awake = false
            [under]
            timeout = "3s"
            md5_max = "64KiB"
            [dataset]
            session_timeout = "1min"
            versions_kept = 5
            [persist]
            files_parallel = 2
            parts_parallel = 3
            part_size = "8MiB"
            single_put_max = "4MiB"
            bandwidth = "10MiB"
            requests_per_second = 50
            [segment]
            flush_delay = "1ms"
            [auth]
            users = "/u"
            [tls]
            cert = "/c"
            key = "/k"
            client_ca = "/ca"
        "#;
        let ServeSettings {
            cache,
            doors,
            meta_url,
            fsync,
            fuse,
            stay_awake,
        } = with_file(text, ServeFlags::default()).unwrap();
        assert_eq!(
            (cache.data, meta_url.as_str(), cache.node.as_str()),
            (vec!["/d".into()], "sqlite:/m", "n1")
        );
        assert_eq!(
            (doors.listen.to_string(), doors.http.to_string()),
            ("127.0.0.1:1".into(), "127.0.0.1:2".into())
        );
        assert_eq!((fuse, stay_awake), (Some("/mnt".into()), false));
        assert!(doors.insecure && fsync && cache.mounts[0].read_only && cache.ack == AckLevel::Memory);
        assert_eq!(
            (cache.dirty_max, cache.cache_max),
            (Some(ByteSize::mib(64)), Some(ByteSize::gib(1)))
        );
        assert_eq!(
            (cache.stall_max, cache.under_timeout, cache.under_md5_max),
            (Duration::from_millis(100), Duration::from_secs(3), ByteSize(64 << 10))
        );
        assert_eq!(
            (cache.session_timeout, cache.versions_kept),
            (Duration::from_secs(60), 5)
        );
        assert_eq!((cache.persist.files_parallel, cache.persist.parts_parallel), (2, 3));
        assert_eq!(cache.persist.requests_per_second, Some(50));
        assert_eq!(
            (cache.trace_file, cache.trace_bytes_max),
            (Some("/var/trace.csv".into()), ByteSize::mib(1))
        );
        let (path, set) = &cache.policies[0];
        let set = serde_json::Value::Object(set.json());
        assert_eq!(path.to_string(), "/lake/train");
        assert_eq!(set, serde_json::json!({ "ttl": "7d", "pin": true, "versions_kept": 4 }));
        let memory = TierSettings {
            name: "memory".into(),
            dir: "/dev/shm/forebay".into(),
            size: ByteSize::gib(4),
        };
        assert_eq!(cache.tiers, [memory]);
        assert_eq!(cache.segment.flush_delay, Duration::from_millis(1));
        assert_eq!(
            cache.mounts[1].url,
            "s3://bucket/prefix?endpoint=http://rgw&credentials=%2Frun%2Fsecrets%2Frgw%20keys"
        );
        assert_eq!(
            (doors.users, doors.tls.unwrap().client_ca),
            (Some("/u".into()), Some("/ca".into()))
        );
    }

    #[test]
    fn of_several_folders_the_first_of_a_new_store_has_what_is_not_a_segment() {
        let settings = with_file("data.dir = ['/no/b', '/no/a']", ServeFlags::default()).unwrap();
        assert_eq!(settings.cache.data, ["/no/b", "/no/a"].map(PathBuf::from));
        assert_eq!(settings.meta_url, "sqlite:/no/b/meta.sqlite");
        assert_eq!(settings.doors.data, PathBuf::from("/no/b"));
    }

    #[test]
    fn flags_beat_the_file() {
        let flags = ServeFlags {
            data: vec!["/flag".into()],
            dirty_max: Some(ByteSize::mib(1)),
            under: vec!["/lake=file:///flag".into()],
            ..ServeFlags::default()
        };
        let text = "data.dir = '/file'\nwrite.dirty_max = '2MiB'\n[[mount]]\npath = '/lake'\nurl = 'file:///file'\n";
        let settings = with_file(text, flags).unwrap().cache;
        assert_eq!(
            (settings.data, settings.dirty_max),
            (vec!["/flag".into()], Some(ByteSize::mib(1)))
        );
        assert_eq!(settings.mounts.len(), 1);
        assert_eq!(settings.mounts[0].url, "file:///flag");
    }

    #[test]
    fn a_mount_path_may_hold_an_equals_sign() {
        let flags = ServeFlags {
            under: vec!["/day=1=s3://b/p?endpoint=http://h:1".into()],
            ..ServeFlags::default()
        };
        let mounts = resolve(flags).unwrap().cache.mounts;
        assert_eq!(
            (mounts[0].path.to_string(), mounts[0].url.as_str()),
            ("/day=1".into(), "s3://b/p?endpoint=http://h:1")
        );
    }

    #[test]
    fn a_flag_that_is_refused_shows_nothing_of_its_url() {
        for flag in ["lake=s3://me:hush@b/p", "s3://me:hush@b/p", "/a/../b=s3://me:hush@b/p"] {
            let flags = ServeFlags {
                under: vec![flag.into()],
                ..ServeFlags::default()
            };
            let failure = resolve(flags).unwrap_err();
            assert!(
                failure.text().contains("--under") && !failure.text().contains("hush"),
                "{}",
                failure.text()
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("data.dirr = '/x'", "dirr"),
            ("[write]\ndirty_max = 'plenty'", "plenty"),
            ("[write]\nstall_max = 3", "stall_max"),
            ("[write]\nack = 'sure'", "sure"),
            ("[[mount]]\npath = 'lake'\nurl = 'file:///x'", "lake"),
            (
                "[[mount]]\npath = '/a'\nurl = 'file:///x'\n[[mount]]\npath = '/a'\nurl = 'file:///y'",
                "twice",
            ),
            ("[persist]\nrequests_per_second = 0", "persist.requests_per_second"),
            ("[[policy]]\npath = '/a'\nttll = '1d'", "ttll"),
            ("[[policy]]\npath = '/a'\nttl = 'soon'", "ttl: \"soon\" is not allowed"),
            ("[[policy]]\npath = 'a'\nttl = '1d'", "[[policy]]"),
            ("[[policy]]\npath = '/a'", "no policy is named"),
            (
                "[[policy]]\npath = '/a'\nttl = '1d'\n[[policy]]\npath = '/a'\npin = true",
                "twice",
            ),
            ("tls.cert = '/c'", "tls.key"),
            ("persist.part_size = '1MiB'", "part_size"),
            ("data.dir = ['/a', '/b', '/a']", "twice"),
            ("data.dir = []", "no folder"),
            (
                "data.dir = '/a'\n[[tier]]\nname = 'm'\ndir = '/a'\nsize = '1GiB'",
                "is a data folder",
            ),
            ("[[tier]]\nname = 'm'\ndir = '/m'", "size"),
            ("server.listen = 'here'", "server.listen"),
            ("not toml", "forebay.toml"),
        ] {
            let failure = with_file(text, ServeFlags::default()).unwrap_err();
            assert!(failure.text().contains(named), "{text}: {}", failure.text());
            assert_eq!(failure.code(), 2, "{text}");
        }
        let missing = resolve(ServeFlags {
            config: Some("/no/such/file".into()),
            ..ServeFlags::default()
        });
        assert!(missing.unwrap_err().text().contains("/no/such/file"));
    }

    #[test]
    fn what_a_later_build_has_says_so() {
        for text in ["node.zone = 'z'", "write.ack = 'replicated(2)'"] {
            let failure = with_file(text, ServeFlags::default()).unwrap_err();
            assert!(
                failure.text().contains("not in this build"),
                "{text}: {}",
                failure.text()
            );
            assert_eq!(failure.code(), 1, "{text}");
        }
    }
}
