//! A cluster that reads and writes Forebay: `forebay-ballista scheduler`, `forebay-ballista executor`, and `forebay-ballista sql "…"`.

use anyhow::{Context, Result};
use ballista_core::config::LogRotationPolicy;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::{cluster::BallistaCluster, config::SchedulerConfig, scheduler_process::start_server};
use clap::{Args, Parser, Subcommand};
use forebay_client::{Client, Options};
use forebay_datafusion::ForebayCatalog;
use std::{net::SocketAddr, path::PathBuf, sync::Arc};

/// Queries over several machines that read and write Forebay.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    #[command(flatten)]
    door: Door,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
struct Door {
    /// The server. All processes of a cluster name it by the same host and port.
    #[arg(long, env = "FOREBAY_ADDR", default_value = "grpc://127.0.0.1:47470")]
    addr: String,
    /// A bearer token.
    #[arg(long, env = "FOREBAY_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Plans queries and gives out tasks.
    Scheduler {
        /// Where it listens.
        #[arg(long, default_value = "127.0.0.1:50050")]
        listen: SocketAddr,
        /// Seconds without a word after which an executor is taken for lost.
        #[arg(long, default_value_t = 180)]
        executor_timeout: u64,
    },
    /// Runs tasks.
    Executor {
        /// The scheduler's host and port.
        #[arg(long, default_value = "127.0.0.1:50050")]
        scheduler: String,
        /// The port of what others fetch from it; the next one is its own for control.
        #[arg(long, default_value_t = 50051)]
        port: u16,
        /// Partitions that it runs at once; 0: as many as there are cores.
        #[arg(long, default_value_t = 0)]
        cores: usize,
        /// Seconds between two words to the scheduler.
        #[arg(long, default_value_t = 10)]
        heartbeat: u64,
        /// Where results between stages lie; a temporary folder if left out.
        #[arg(long)]
        work: Option<PathBuf>,
    },
    /// Runs statements, one after the other, and prints what they answer. Datasets are tables of the catalog `forebay`.
    Sql {
        /// The scheduler's host and port.
        #[arg(long, default_value = "127.0.0.1:50050")]
        scheduler: String,
        /// Settings of the session, `ballista.shuffle.partitions=4`.
        #[arg(long = "set")]
        settings: Vec<String>,
        /// The statements.
        #[arg(required = true)]
        statements: Vec<String>,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let logs = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt()
        .with_env_filter(logs)
        .with_writer(std::io::stderr)
        .init();
    let Flags { door, verb } = Flags::parse();
    let options = Options {
        token: door.token,
        ..Options::default()
    };
    let client = Client::connect(&door.addr, options)
        .await
        .with_context(|| door.addr.clone())?;
    match verb {
        Verb::Scheduler {
            listen,
            executor_timeout,
        } => scheduler(&client, listen, executor_timeout).await,
        Verb::Executor {
            scheduler,
            port,
            cores,
            heartbeat,
            work,
        } => {
            let (host, at) = scheduler.rsplit_once(':').context("--scheduler is host:port")?;
            let config = ExecutorProcessConfig {
                scheduler_host: host.to_owned(),
                scheduler_port: at.parse().context("--scheduler is host:port")?,
                port,
                grpc_port: port.checked_add(1).context("--port is below 65535")?,
                vcores: cores,
                executor_heartbeat_interval_seconds: heartbeat,
                work_dir: work.map(|work| work.to_string_lossy().into_owned()),
                log_rotation_policy: LogRotationPolicy::Never,
                scheduler_connect_timeout_seconds: 30,
                ..forebay_ballista::executor(&client)
            };
            start_executor_process(Arc::new(config)).await?;
            Ok(())
        }
        Verb::Sql {
            scheduler,
            settings,
            statements,
        } => sql(&client, &scheduler, &settings, &statements).await,
    }
}

async fn scheduler(client: &Client, listen: SocketAddr, executor_timeout: u64) -> Result<()> {
    let config = SchedulerConfig {
        bind_host: listen.ip().to_string(),
        bind_port: listen.port(),
        executor_timeout_seconds: executor_timeout,
        expire_dead_executor_interval_seconds: (executor_timeout / 4).max(1),
        no_executors_grace_period_seconds: executor_timeout,
        ..forebay_ballista::scheduler(client)
    };
    let cluster = BallistaCluster::new_from_config(&config).await?;
    start_server(cluster, listen, Arc::new(config)).await?;
    Ok(())
}

async fn sql(client: &Client, scheduler: &str, settings: &[String], statements: &[String]) -> Result<()> {
    let ctx = forebay_ballista::session(&format!("df://{scheduler}"), client).await?;
    let catalog = ForebayCatalog::open(client.clone(), "/").await?;
    ctx.register_catalog("forebay", Arc::new(catalog));
    for setting in settings {
        let (key, value) = setting.split_once('=').context("--set is key=value")?;
        ctx.sql(&format!("SET {key} = '{value}'")).await?.collect().await?;
    }
    for statement in statements {
        ctx.sql(statement).await?.show().await?;
    }
    Ok(())
}
