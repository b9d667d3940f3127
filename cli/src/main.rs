//! `forebay`: the server and every client verb in one binary. It wires and translates; it decides nothing.
//!
//! | module | owns |
//! |---|---|
//! | [`args`] | the command line, and the help that teaches it |
//! | [`config`] | flags, environment and file, to settings |
//! | [`serve`] | components to a running server, and its end |
//! | [`folders`] | the folders that are mounted |
//! | [`own`] | the folders in which no under-store may lie |
//! | [`connect`] | the connection of a client verb |
//! | [`failure`] | what went wrong, to a line on stderr and an exit code |
//! | [`output`], [`progress`] | what is printed, for people or for machines |
//! | [`verbs`] | one file per family of verbs |

mod args;
mod config;
mod connect;
mod failure;
mod folders;
mod limits;
mod output;
mod own;
mod progress;
mod serve;
mod verbs;

use args::{Cli, Verb};
use clap::Parser;
use failure::Failure;
use std::process::ExitCode;

/// The 4 MB buffers of batches fall off a cliff in the system's allocator: every one a mapping of its own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let default_level = if matches!(cli.verb, Verb::Serve(_)) {
        // The kernel's protocol tells of every request that it leaves unanswered.
        "info,fuser=error"
    } else {
        "error"
    };
    start_logs(default_level);
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code())
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;
    match cli.verb {
        Verb::Serve(flags) => runtime.block_on(serve::serve(*flags)),
        verb => runtime.block_on(verbs::run(verb, &cli.door)),
    }
}

/// Logs go to stderr; `FOREBAY_LOG` says what (`debug`, `forebay_writeback=trace,info`).
fn start_logs(default_level: &str) {
    let filter = std::env::var("FOREBAY_LOG").unwrap_or_else(|_| default_level.to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(&filter).unwrap_or_else(|error| {
        eprintln!("forebay: FOREBAY_LOG={filter:?} is ignored: {error}");
        tracing_subscriber::EnvFilter::new(default_level)
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}
