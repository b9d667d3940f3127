//! SQL over a server's datasets, as a shell: every directory is a schema, every dataset a table.
//!
//! `sql "SELECT count(*) FROM forebay.lake.features"`, or statements on stdin, each ended by a semicolon.

use anyhow::{Context, Result};
use clap::Parser;
use datafusion::{
    prelude::{SessionConfig, SessionContext},
    sql::parser::DFParser,
};
use forebay_client::{Client, Options};
use forebay_datafusion::{ForebayCatalog, register};
use std::{
    io::{self, BufRead, IsTerminal, Write},
    sync::Arc,
};

/// Runs SQL over Forebay. `SHOW TABLES` tells what there is; `COPY (…) TO 'forebay://host:port/path' STORED AS FOREBAY` writes a dataset;
/// `CREATE UNBOUNDED EXTERNAL TABLE …` follows one.
#[derive(Debug, Parser)]
struct Args {
    /// The server.
    #[arg(long, env = "FOREBAY_ADDR", default_value = "grpc://127.0.0.1:47470")]
    addr: String,
    /// A bearer token.
    #[arg(long, env = "FOREBAY_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Statements; none: they are read from stdin.
    sql: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Args { addr, token, sql } = Args::parse();
    let options = Options {
        token,
        ..Options::default()
    };
    let client = Client::connect(&addr, options).await?;
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
    register(&ctx, &client)?;
    let catalog = Arc::new(ForebayCatalog::open(client, "/").await?);
    ctx.register_catalog("forebay", Arc::clone(&catalog) as Arc<_>);
    if !sql.is_empty() {
        for statement in sql {
            show(&ctx, &statement).await?;
        }
        return Ok(());
    }
    let asks = io::stdin().is_terminal();
    let mut statement = String::new();
    prompt(asks, &statement)?;
    for line in io::stdin().lock().lines() {
        statement += &line.context("stdin")?;
        statement.push('\n');
        if statement.trim_end().ends_with(';') {
            catalog.refresh().await?;
            match show(&ctx, &statement).await {
                // At a terminal one goes on after a mistake; a script ends.
                Err(error) if asks => eprintln!("{error:#}"),
                shown => shown?,
            }
            statement.clear();
        }
        prompt(asks, &statement)?;
    }
    Ok(())
}

/// Runs one statement after the other.
async fn show(ctx: &SessionContext, text: &str) -> Result<()> {
    for statement in DFParser::parse_sql(text)? {
        let shown = statement.to_string();
        let run = async {
            let plan = ctx.state().statement_to_plan(statement).await?;
            ctx.execute_logical_plan(plan).await?.show().await
        };
        run.await.with_context(|| shown)?;
    }
    Ok(())
}

fn prompt(asks: bool, begun: &str) -> io::Result<()> {
    if asks {
        print!("{}", if begun.is_empty() { "forebay> " } else { "     ... " });
        io::stdout().flush()?;
    }
    Ok(())
}
