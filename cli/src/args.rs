//! The command line, and the help that teaches it.

use clap::{Args, Parser, Subcommand, ValueEnum};
use forebay_client::{AckLevel, Compression, Format, Mode};
use forebay_runtime::units::{ByteSize, parse_duration};
use std::{path::PathBuf, time::Duration};

const ABOUT: &str = "Forebay: a write-back cache between data pipelines and training jobs.";
const LONG_ABOUT: &str = "Forebay: a write-back cache between data pipelines and training jobs.

A write is acknowledged as soon as it is safe in the cache; readers stream it at once; the bytes go to Ceph or another
under-store in the background, under their own names.";
const EXAMPLES: &str = "Examples:
  forebay serve --data /var/lib/forebay --under /lake=file:///mnt/lake
  forebay put model.bin /models/v1/model.bin
  forebay ls -l /models
  forebay persist /models --wait
  forebay dataset follow /features/day=1
  forebay status --json

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 exists or conflict, 5 not allowed, 6 unavailable or timed out.
Paths are absolute; a literal % is written %25, bytes that are not UTF-8 as %XX. forebay://HOST:PORT/PATH names the server too.";

const POLICY_HELP: &str =
    "A policy is set at a path and holds for everything under it, unless a path further down sets the same key.
It belongs to the path: renaming or deleting a directory moves no policy.

Keys (with their defaults):
  revalidate=ttl        always, ttl, never: when an open asks the under-store whether a file is the same
  revalidate_ttl=1s     for how long its answer is believed
  sync_interval=1min    how often what the cache has is compared with the under-store
  sync_depth=none       how many levels down that goes; 1: the directory's own entries
  ttl=none              a span: data last changed this long ago is over
  ttl_action=free       free (the cache drops it) or delete (the under-store too)
  quota_bytes=none      a size: most bytes under the path
  quota_files=none      a number: most files under the path
  user_quota_bytes=none a size: most bytes under the path of each user's files
  user_quota_files=none a number: most files under the path of each user
  evict=auto            auto, epoch, s3fifo, lru: what makes room in the clean cache
  pin=false             true: clean data stays in the cache (`forebay pin` also loads it)
  replicas=1            copies of dirty data
  write=back            back, through, around
  ack=local             memory, local, replicated(N), persisted: level of a write that names none
  persist=asap          asap, commit, age=SPAN, size=SIZE[,age=SPAN], never: when it goes to the under-store
  persist_format=as-is  as-is, parquet: the form of a dataset's parts there
  parquet_compression=snappy  none, snappy, lz4, zstd: of Parquet that is written here
  parquet_row_group=64MiB     a size: where its row groups end
  parquet_statistics=page     none, chunk, page: how fine its statistics are
  pack=false            true: small files go there many in one object
  versions_kept=3       versions of a dataset that are kept
  tier=auto             auto, disk, the name of a [[tier]]: the fastest tier that copies of its blocks go to

Examples:
  forebay policy set /train versions_kept=10 ttl=30d
  forebay policy set /train/scratch ack=memory
  forebay policy set /train ttl=          # takes ttl away again
  forebay policy get /train               # what is set at this very path
  forebay policy list                     # everything that is set anywhere
  forebay policy explain /train/scratch   # what holds there, and from where";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES, propagate_version = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) door: Door,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// How a client verb reaches the server, and how it answers.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct Door {
    /// The server: grpc://HOST:PORT, grpc+tls://HOST:PORT or grpc+unix:///PATH.
    #[arg(
        long,
        global = true,
        env = "FOREBAY_ADDR",
        default_value = "grpc://127.0.0.1:47470",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) addr: String,
    /// A file that holds the bearer token (else FOREBAY_TOKEN).
    #[arg(long, global = true, env = "FOREBAY_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM of the authority that signed the server's certificate, for grpc+tls://.
    #[arg(long, global = true, env = "FOREBAY_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// PEM of our own certificate, where the server asks for one.
    #[arg(long, global = true, value_name = "FILE", requires = "client_key")]
    pub(crate) client_cert: Option<PathBuf>,
    /// PEM of its key.
    #[arg(long, global = true, value_name = "FILE", requires = "client_cert")]
    pub(crate) client_key: Option<PathBuf>,
    /// Print one JSON document on stdout and nothing else there.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the server.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<ServeFlags>),
    /// Write a local file, folder or stdin to a path; safe in the cache when it returns.
    #[command(
        after_help = "Examples:\n  forebay put model.bin /models/v1/\n  forebay put -r ./shards /train/shards\n  tar c dir | forebay put - /backup/dir.tar\n  forebay put log.txt /logs/today --mode append"
    )]
    Put(Put),
    /// Copy a file or, with -r, everything under a directory to a local path (- is stdout).
    #[command(after_help = "Examples:\n  forebay get /models/v1/model.bin .\n  forebay get -r /train/shards ./shards")]
    Get(Get),
    /// Print files.
    Cat(Paths),
    /// List a directory.
    #[command(
        after_help = "Examples:\n  forebay ls\n  forebay ls -lR /train\n  forebay ls /train --json | jq -r '.[].path'"
    )]
    Ls(Ls),
    /// Tell what is at a path.
    Stat(OnePath),
    /// Make a directory.
    Mkdir(Mkdir),
    /// Rename a file or a whole directory, in one step however much lies under it.
    #[command(
        after_help = "Examples:\n  forebay mv /tmp/out /warehouse/out\n  forebay mv -f new.bin /models/current.bin"
    )]
    Mv(Mv),
    /// Copy within the cache.
    Cp(Cp),
    /// Delete files, empty directories or, with -r, whole trees.
    Rm(Rm),
    /// Mount as a file system, by the server of this machine.
    #[command(after_help = "Examples:\n  forebay mount /mnt/forebay\n  forebay mount /mnt/train --mode dataset")]
    Mount(MountFolder),
    /// Place what is changed there, and unmount.
    Unmount(UnmountFolder),
    /// Tell what is dirty, cached, on its way, blocked.
    Status(Status),
    /// Bring what is under a path to the under-store now, or decide what is blocked or in conflict.
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true,
        after_help = "Examples:\n  forebay persist /models --wait --timeout 5min\n  forebay persist retry /models/v1\n  forebay persist keep-mine /models/v1/model.bin"
    )]
    Persist(Persist),
    /// Bring what is under paths into the cache.
    #[command(
        after_help = "Examples:\n  forebay load /train --wait\n  forebay load --from shards.txt --parallel 16   # one path a line\n  forebay load /train --verify --wait   # what is held is compared with its checksums\n  forebay load /train --cancel\n\n`forebay status` shows how far it is. It gives way to readers, and a restart goes on with it."
    )]
    Load(Load),
    /// Load, and keep in the cache: the policy pin=true.
    Pin(Pin),
    /// Let it be evicted again.
    Unpin(Waiting),
    /// Drop clean data under a path from the cache; dirty and pinned data stays.
    Free(OnePath),
    /// Look for changes that others made to the under-store.
    Sync(Waiting),
    /// Policies by path: what holds for a directory and everything under it.
    #[command(subcommand, after_help = POLICY_HELP)]
    Policy(Policy),
    /// Datasets: versions, sessions, following.
    #[command(subcommand)]
    Dataset(Dataset),
    /// Under-stores bound to paths.
    #[command(subcommand)]
    Under(Under),
    /// Check that the server, its stores and this machine are well.
    Doctor,
    /// Check data folders while no server runs on them.
    Fsck(Fsck),
    /// Data folders of a server.
    #[command(subcommand)]
    Disk(Disk),
    /// Workers, draining, rebalancing.
    Cluster(Absent),
    /// Users of a server.
    #[command(subcommand)]
    User(User),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  forebay completions bash > /etc/bash_completion.d/forebay")]
    Completions {
        /// Which.
        shell: clap_complete::Shell,
    },
}

const SERVE_EXAMPLES: &str = "Examples:
  forebay serve
  forebay serve --data /nvme/forebay --under /lake=file:///mnt/lake --dirty-max 200GiB
  AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… \\
    forebay serve --under '/ceph=s3://bucket/prefix?endpoint=http://rgw:7480'
  HADOOP_CONF_DIR=/etc/hadoop forebay serve --under /lake=hdfs://nameservice/lake
  forebay serve --listen 0.0.0.0:47470 --http 0.0.0.0:47471 \\
    --users users.toml --tls-cert cert.pem --tls-key key.pem

When it can serve it prints one line: forebay ready flight=grpc://… http=http://…
SIGTERM drains and exits 0. Flags beat environment, environment beats --config. FOREBAY_LOG sets what is logged.";

/// Flags of `serve`. What is not given comes from the file or is the default.
#[derive(Debug, Default, Args)]
pub(crate) struct ServeFlags {
    /// Configuration, TOML; unknown keys are refused.
    #[arg(long, env = "FOREBAY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A data folder, each on a disk of its own; repeatable, in any order, always all of them [default: ./forebay-data].
    #[arg(long, env = "FOREBAY_DATA_DIR", value_name = "DIR")]
    pub(crate) data: Vec<PathBuf>,
    /// Flight: HOST:PORT (port 0 takes a free one) or unix:/PATH [default: 127.0.0.1:47470].
    #[arg(long, env = "FOREBAY_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Console, metrics, health [default: 127.0.0.1:47471].
    #[arg(long, env = "FOREBAY_HTTP", value_name = "ADDR")]
    pub(crate) http: Option<String>,
    /// Bind an under-store to a path; repeatable.
    #[arg(long, value_name = "PATH=URL")]
    pub(crate) under: Vec<String>,
    /// Mount as a file system in the same process.
    #[arg(long, env = "FOREBAY_FUSE", value_name = "DIR")]
    pub(crate) fuse: Option<PathBuf>,
    /// The metastore: sqlite:PATH or postgres://… [default: sqlite in the data folder].
    #[arg(long, env = "FOREBAY_META_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) meta: Option<String>,
    /// What this node is called [default: local].
    #[arg(long, env = "FOREBAY_NAME")]
    pub(crate) name: Option<String>,
    /// Where others reach this node.
    #[arg(long, value_name = "ADDR", hide = true)]
    pub(crate) advertise: Option<String>,
    /// This node's failure domain.
    #[arg(long, hide = true)]
    pub(crate) zone: Option<String>,
    /// The cluster's shared secret.
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) cluster_key: Option<PathBuf>,
    /// How safe a write is when it is acknowledged: memory, local or persisted [default: local].
    #[arg(long, env = "FOREBAY_ACK", value_name = "LEVEL")]
    pub(crate) ack: Option<String>,
    /// Most bytes that exist only here; writers are slowed there [default: half of the disk].
    #[arg(long, env = "FOREBAY_DIRTY_MAX", value_name = "SIZE")]
    pub(crate) dirty_max: Option<ByteSize>,
    /// Most clean bytes kept [default: a quarter of the disk].
    #[arg(long, env = "FOREBAY_CACHE_MAX", value_name = "SIZE")]
    pub(crate) cache_max: Option<ByteSize>,
    /// Users, TOML; once given, every door asks who is there.
    #[arg(long, env = "FOREBAY_USERS", value_name = "FILE")]
    pub(crate) users: Option<PathBuf>,
    /// Certificate, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Ask clients for a certificate signed by this authority, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// Allow a bind that others can reach without TLS and users.
    #[arg(long)]
    pub(crate) insecure: bool,
    /// `off` acknowledges without fdatasync: only to see that the crash tests notice.
    #[arg(long, value_name = "on|off", hide = true)]
    pub(crate) fsync: Option<Switch>,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

/// A path of the cache.
#[derive(Debug, Args)]
pub(crate) struct OnePath {
    /// The path.
    pub(crate) path: String,
}

/// Paths of the cache.
#[derive(Debug, Args)]
pub(crate) struct Paths {
    /// The paths.
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<String>,
}

/// A path, and whether to wait.
#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// The file, or the directory with everything under it.
    pub(crate) path: String,
    /// Return only when it is done.
    #[arg(long)]
    pub(crate) wait: bool,
}

/// `pin`.
#[derive(Debug, Args)]
pub(crate) struct Pin {
    #[command(flatten)]
    pub(crate) at: Waiting,
    /// A time as in 2030-01-31T12:00:00Z, or a span from now on as in 7d; without it until `unpin`.
    #[arg(long, value_name = "TIME|SPAN")]
    pub(crate) until: Option<String>,
}

/// `load`.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Files, and directories with everything under them.
    #[arg(value_name = "PATH", required_unless_present = "from")]
    pub(crate) paths: Vec<String>,
    /// A file with more paths, one a line (- is stdin).
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Files fetched at once.
    #[arg(long, value_name = "N")]
    pub(crate) parallel: Option<usize>,
    /// Read back what the cache holds already, and fetch anew what is damaged.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Return only when it is done.
    #[arg(long)]
    pub(crate) wait: bool,
    /// End the loads of the path that are under way.
    #[arg(long, conflicts_with_all = ["from", "parallel", "verify", "wait"])]
    pub(crate) cancel: bool,
}

/// `put`.
#[derive(Debug, Args)]
pub(crate) struct Put {
    /// A file, a folder (with -r), or - for stdin.
    pub(crate) local: PathBuf,
    /// Where it goes; an existing directory, or a path that ends in /, takes it under its own name.
    pub(crate) path: String,
    /// Folders with everything in them.
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// What to do with what is there.
    #[arg(long, default_value = "overwrite", value_name = "MODE")]
    pub(crate) mode: ModeArg,
    /// For --mode append: the size it must have now, so that a repeated append is refused.
    #[arg(long, value_name = "SIZE")]
    pub(crate) offset: Option<u64>,
    /// How safe it must be when put returns; the server's own level when left out.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) ack: Option<AckLevel>,
    /// Idempotency key: the same put again with the same key is done once.
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// Files on their way at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: u16,
}

/// `get`.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// What to copy.
    pub(crate) path: String,
    /// Where it goes: a file, an existing folder, or - for stdout.
    #[arg(default_value = ".")]
    pub(crate) local: PathBuf,
    /// Directories with everything in them.
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Files on their way at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: u16,
}

/// `ls`.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// What to list.
    #[arg(default_value = "/")]
    pub(crate) path: String,
    /// Kind, mode, size, state, time.
    #[arg(short)]
    pub(crate) long: bool,
    /// Everything under it.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

/// `mkdir`.
#[derive(Debug, Args)]
pub(crate) struct Mkdir {
    /// The new directory.
    pub(crate) path: String,
    /// Also those above it; one that exists is no error.
    #[arg(short, long)]
    pub(crate) parents: bool,
}

/// `mv`.
#[derive(Debug, Args)]
pub(crate) struct Mv {
    /// What is there now.
    pub(crate) from: String,
    /// Its new name; an existing directory takes it under its own name. In another under-store it is copied, then deleted here.
    pub(crate) to: String,
    /// Over a file or an empty directory that is there.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Make the directories above the target.
    #[arg(short, long)]
    pub(crate) parents: bool,
    /// Take TO as the new name even if it is a directory.
    #[arg(short = 'T', long)]
    pub(crate) no_target_directory: bool,
}

/// `cp`.
#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// What to copy.
    pub(crate) from: String,
    /// Where to; an existing directory takes it under its own name.
    pub(crate) to: String,
    /// Directories with everything in them.
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Files on their way at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: u16,
}

/// `rm`.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// What goes.
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<String>,
    /// Directories with everything in them, in one step.
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// What is not there is no error.
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// `status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Again every so often, until interrupted.
    #[arg(long, value_name = "EVERY", num_args = 0..=1, default_missing_value = "2s", value_parser = parse_duration)]
    pub(crate) watch: Option<Duration>,
}

/// `persist`.
#[derive(Debug, Args)]
pub(crate) struct Persist {
    #[command(subcommand)]
    pub(crate) resolve: Option<Resolve>,
    /// The file, or the directory with everything under it.
    #[arg(required = true)]
    pub(crate) path: Option<String>,
    /// Return only when all of it is in the under-store, deletes and renames too.
    #[arg(long)]
    pub(crate) wait: bool,
    /// With --wait: give up after so long (exit code 6). Without it: wait for as long as it takes.
    #[arg(long, requires = "wait", value_parser = parse_duration, value_name = "TIME")]
    pub(crate) timeout: Option<Duration>,
}

/// What to do about an item that waits for a person.
#[derive(Debug, Subcommand)]
pub(crate) enum Resolve {
    /// Try again at once.
    Retry(OnePath),
    /// What the cache has goes over what is there.
    KeepMine(OnePath),
    /// What is there stays; the cache's content is dropped.
    KeepTheirs(OnePath),
}

/// `policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Set policies for a path and what is under it; KEY= takes one away.
    #[command(after_help = "Example:\n  forebay policy set /train pin=true ttl=7d")]
    Set {
        /// The path.
        path: String,
        /// Policies.
        #[arg(required = true, value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// The policies set at this very path.
    Get(OnePath),
    /// Every path at or under a path at which policies are set, with what is set there.
    List {
        /// The path.
        #[arg(default_value = "/")]
        path: String,
    },
    /// What holds at a path, and where it comes from.
    Explain(OnePath),
    /// What a trace of reads would have hit, under each order of `evict`.
    #[command(
        after_help = "A server writes a trace where its configuration has trace.file = FILE. Lines are time_us,bytes,block,path.\nNo server is asked, but with --policies-of-server. Of policies evict, pin and quota_bytes count; each order is tried where evict is not set.\n\nExamples:\n  forebay policy simulate reads.csv                     # at several sizes\n  forebay policy simulate reads.csv --cache-max 500GiB\n  forebay policy simulate reads.csv --policies tried.toml   # [[policy]] path = \"/train\" pin = true"
    )]
    Simulate {
        /// The trace.
        #[arg(value_name = "TRACE")]
        trace: PathBuf,
        /// Size of the clean cache; repeatable. Default: a tenth, a quarter, half and nine tenths of what was read.
        #[arg(long, value_name = "SIZE")]
        cache_max: Vec<ByteSize>,
        /// Policies by path, the [[policy]] sections of this file; what else a configuration has does not count.
        #[arg(long, value_name = "FILE")]
        policies: Option<PathBuf>,
        /// The policies that are set at the server.
        #[arg(long, conflicts_with = "policies")]
        policies_of_server: bool,
    },
}

/// `dataset`.
#[derive(Debug, Subcommand)]
pub(crate) enum Dataset {
    /// Datasets under a prefix.
    List {
        /// The prefix.
        #[arg(default_value = "/")]
        prefix: String,
    },
    /// Schema, version, parts, rows.
    Show {
        /// The dataset.
        path: String,
        /// A published version; the head when left out.
        #[arg(long)]
        version: Option<u64>,
    },
    /// Begin a session; prints its id.
    #[command(
        after_help = "Example:\n  s=$(forebay dataset begin /features/day=1 --mode overwrite)\n  … write parts with session=$s …\n  forebay dataset publish $s --success-file"
    )]
    Begin(Begin),
    /// Make a session's parts the next version; prints its number.
    #[command(
        after_help = "Examples:\n  forebay dataset publish $s --success-file\n  forebay dataset publish $day1 --with $day2 --with $day3   # all appear in the same instant, or none"
    )]
    Publish {
        /// The session.
        session: String,
        /// Sessions of other datasets whose versions appear in the same instant; prints a line for each.
        #[arg(long, value_name = "SESSION")]
        with: Vec<String>,
        /// Also write `_SUCCESS`.
        #[arg(long)]
        success_file: bool,
        /// The attempts that count; all tasks' winners when left out.
        #[arg(long, value_name = "JOB/STAGE/TASK/ATTEMPT")]
        task: Vec<String>,
    },
    /// End a session; nothing of it is ever visible.
    Abort {
        /// The session.
        session: String,
    },
    /// Follow a dataset as it is written, to its publish: one line per batch, or its rows.
    #[command(
        after_help = "Examples:\n  forebay dataset follow /features/day=1 --wait 1min\n  forebay dataset follow /features/day=1 --from 3:120 --rows"
    )]
    Follow(Follow),
    /// The versions that are kept.
    Versions(OnePath),
}

/// `dataset begin`.
#[derive(Debug, Args)]
pub(crate) struct Begin {
    /// The dataset.
    pub(crate) path: String,
    /// What the publish does with what is there.
    #[arg(long, value_name = "MODE")]
    pub(crate) mode: Option<ModeArg>,
    /// How parts are stored.
    #[arg(long)]
    pub(crate) format: Option<FormatArg>,
    /// How their buffers are compressed.
    #[arg(long)]
    pub(crate) compression: Option<CompressionArg>,
    /// How safe acknowledged batches are.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) ack: Option<AckLevel>,
    /// Without a writer for so long it is aborted [default: 10min].
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub(crate) timeout: Option<Duration>,
    /// The job's name, for whoever looks.
    #[arg(long)]
    pub(crate) job: Option<String>,
}

/// `dataset follow`.
#[derive(Debug, Args)]
pub(crate) struct Follow {
    /// The dataset.
    pub(crate) path: String,
    /// Only this session.
    #[arg(long)]
    pub(crate) session: Option<String>,
    /// Resume token: `VERSION:BATCHES` or `SESSION:BATCHES`, the batches read so far.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) from: Option<String>,
    /// How long to wait for it to come into being.
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub(crate) wait: Option<Duration>,
    /// Columns, in this order.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub(crate) columns: Option<Vec<String>>,
    /// Print the rows, tab-separated, instead of a line per batch.
    #[arg(long)]
    pub(crate) rows: bool,
}

/// `under`.
#[derive(Debug, Subcommand)]
pub(crate) enum Under {
    /// Bind an under-store to a path.
    #[command(
        after_help = "Example:\n  forebay under add /ceph 's3://bucket/prefix?endpoint=http://rgw:7480'\nSecrets come from the server's environment, or from a file of its machine (…&credentials=/run/secrets/lake), never from the URL."
    )]
    Add {
        /// The path.
        path: String,
        /// file:///FOLDER, s3://BUCKET/PREFIX?endpoint=URL, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX?account=NAME,
        /// hdfs://NAMENODE:PORT/FOLDER, or https://HOST/FOLDER to read from.
        url: String,
        /// Refuse writes under the path.
        #[arg(long)]
        read_only: bool,
    },
    /// The under-stores and their state.
    Ls,
    /// Take a mount away; refused while dirty data lies under it.
    Rm {
        /// The path.
        path: String,
        /// Wait until everything is in the store; meanwhile the mount takes no more changes.
        #[arg(long)]
        drain: bool,
    },
}

/// `fsck`.
#[derive(Debug, Args)]
pub(crate) struct Fsck {
    /// A data folder; repeatable.
    #[arg(long, env = "FOREBAY_DATA_DIR", default_value = "./forebay-data", value_name = "DIR")]
    pub(crate) data: Vec<PathBuf>,
}

/// `disk`.
#[derive(Debug, Subcommand)]
pub(crate) enum Disk {
    /// Take a data folder out for good, while no server runs on it; refused while anything lies there.
    #[command(
        after_help = "Example:\n  forebay disk remove /disk2/forebay --data /disk1/forebay --data /disk2/forebay"
    )]
    Remove(DiskRemove),
}

/// `disk remove`.
#[derive(Debug, Args)]
pub(crate) struct DiskRemove {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// All data folders of the server, this one too; repeatable.
    #[arg(long, required = true, value_name = "DIR")]
    pub(crate) data: Vec<PathBuf>,
}

/// `user`.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Add an entry to a file of users; prints the new user's token, which is stored only as a hash.
    #[command(
        after_help = "Examples:\n  forebay user add ada --users users.toml --allow r:/features --allow rw:/scratch\n  printf %s \"$PASSWORD\" | forebay user add ops --users users.toml --admin --password-stdin"
    )]
    Add(UserAdd),
}

/// `user add`.
#[derive(Debug, Args)]
pub(crate) struct UserAdd {
    /// The name.
    pub(crate) name: String,
    /// The file; created when missing.
    #[arg(long, env = "FOREBAY_USERS", value_name = "FILE")]
    pub(crate) users: PathBuf,
    /// What the user may do: r:/PREFIX, w:/PREFIX or rw:/PREFIX; repeatable.
    #[arg(long, value_name = "RIGHT:PREFIX")]
    pub(crate) allow: Vec<String>,
    /// May do everything.
    #[arg(long)]
    pub(crate) admin: bool,
    /// Also read a password from stdin.
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// No token: the user has a password or a certificate only.
    #[arg(long)]
    pub(crate) no_token: bool,
}

/// `mount`.
#[derive(Debug, Args)]
pub(crate) struct MountFolder {
    /// The folder, which must exist.
    pub(crate) dir: PathBuf,
    /// What it is for.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) mode: MountModeArg,
    /// Refuse changes.
    #[arg(long)]
    pub(crate) read_only: bool,
}

/// `unmount`.
#[derive(Debug, Args)]
pub(crate) struct UnmountFolder {
    /// The folder.
    pub(crate) dir: PathBuf,
}

/// What a mount is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum MountModeArg {
    /// Programs read and write; others may change things at any time.
    #[default]
    Pipeline,
    /// Training reads what is published, read only and as fast as the kernel can.
    Dataset,
}

impl MountModeArg {
    /// Its name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            MountModeArg::Pipeline => "pipeline",
            MountModeArg::Dataset => "dataset",
        }
    }
}

/// Anything: the verb is not in this build, whatever follows it.
#[derive(Debug, Args)]
pub(crate) struct Absent {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(crate) rest: Vec<String>,
}

/// [`Mode`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArg {
    /// Adds to it.
    Append,
    /// Takes its place.
    Overwrite,
    /// Fails when something is there.
    Create,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Append => Mode::Append,
            ModeArg::Overwrite => Mode::Overwrite,
            ModeArg::Create => Mode::Create,
        }
    }
}

/// [`Format`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    Arrow,
    Parquet,
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Arrow => Format::Arrow,
            FormatArg::Parquet => Format::Parquet,
        }
    }
}

/// [`Compression`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressionArg {
    None,
    Lz4,
    Zstd,
}

impl From<CompressionArg> for Compression {
    fn from(compression: CompressionArg) -> Self {
        match compression {
            CompressionArg::None => Compression::None,
            CompressionArg::Lz4 => Compression::Lz4,
            CompressionArg::Zstd => Compression::Zstd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn persist_takes_a_path_or_a_decision() {
        let Verb::Persist(persist) = parse("forebay persist /a --wait").unwrap().verb else {
            panic!()
        };
        assert!(persist.wait && persist.path.as_deref() == Some("/a"));
        let Verb::Persist(persist) = parse("forebay persist keep-mine /a").unwrap().verb else {
            panic!()
        };
        assert!(matches!(persist.resolve, Some(Resolve::KeepMine(OnePath { path })) if path == "/a"));
        assert!(parse("forebay persist").is_err());
    }

    #[test]
    fn connection_flags_may_stand_before_and_after_the_verb() {
        for line in [
            "forebay --json --addr grpc://h:1 status",
            "forebay status --addr grpc://h:1 --json",
        ] {
            let cli = parse(line).unwrap();
            assert!(cli.door.json && cli.door.addr == "grpc://h:1", "{line}");
        }
    }

    #[test]
    fn verbs_of_a_later_build_swallow_what_follows() {
        for line in [
            "forebay mount /mnt --mode dataset --read-only",
            "forebay cluster status",
            "forebay unmount /mnt",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }
}
