//! The statements, the installation of the tables, and whether the database is one to trust.

use super::chain;
use crate::OpenError;
use deadpool_postgres::Object;

/// The format of `schema.sql`.
const FORMAT: i64 = 1;
/// Held while the tables are looked at and created, so that nodes that start together do not meet.
const SETUP_LOCK: i64 = 0x466f_7265_6261_7901;

/// Tables, sequence and function.
const TABLES: &str = include_str!("schema.sql");

pub(super) const COMMIT: &str = "SELECT out_version, out_conflict \
    FROM forebay_meta_commit_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
pub(super) const GET: &str = "SELECT w.at, kv.version, kv.value \
    FROM unnest($1::bytea[]) WITH ORDINALITY AS w(key, at) JOIN forebay_meta_kv kv ON kv.key = w.key";
pub(super) const SCAN: &str =
    "SELECT version, value, key FROM forebay_meta_kv WHERE key >= $1 AND key < $2 ORDER BY key LIMIT $3";
pub(super) const ALLOCATE: &str = "INSERT INTO forebay_meta_counter AS c (name, next) VALUES ($1, 1 + $2::bigint) \
    ON CONFLICT (name) DO UPDATE SET next = c.next + $2 RETURNING next - $2";
pub(super) const COUNTERS: &str = "SELECT name, next FROM forebay_meta_counter ORDER BY name";
pub(super) const FORGET_TOKENS: &str =
    "DELETE FROM forebay_meta_token WHERE version < (SELECT last_value FROM forebay_meta_version) - $1::bigint";

/// Refuses a server that answers before it has written.
pub(super) async fn check_durable(client: &Object, place: &str) -> Result<(), OpenError> {
    for (setting, bad) in [
        ("fsync", "off"),
        ("synchronous_commit", "off"),
        ("full_page_writes", "off"),
    ] {
        let value: String = client
            .query_one(&format!("SHOW {setting}"), &[])
            .await
            .and_then(|row| row.try_get(0))
            .map_err(|error| OpenError::Failed {
                place: place.into(),
                why: chain(&error),
            })?;
        if value == bad {
            let why =
                format!("PostgreSQL's {setting} is {bad}; turn it on, it is what makes a commit survive a power cut");
            return Err(OpenError::NotDurable {
                place: place.into(),
                why,
            });
        }
    }
    Ok(())
}

/// Creates what is missing; refuses a newer format.
pub(super) async fn install(client: &mut Object, place: &str) -> Result<(), OpenError> {
    let failed = |error: tokio_postgres::Error| OpenError::Failed {
        place: place.into(),
        why: chain(&error),
    };
    let transaction = client.transaction().await.map_err(failed)?;
    transaction
        .execute("SELECT pg_advisory_xact_lock($1)", &[&SETUP_LOCK])
        .await
        .map_err(failed)?;
    transaction
        .batch_execute("CREATE TABLE IF NOT EXISTS forebay_meta_format (format bigint NOT NULL)")
        .await
        .map_err(failed)?;
    let row = transaction
        .query_opt("SELECT format FROM forebay_meta_format", &[])
        .await
        .map_err(failed)?;
    match row.map(|row| row.get::<_, i64>(0)) {
        Some(found) if found != FORMAT => {
            return Err(OpenError::NewerFormat {
                place: place.into(),
                found,
                known: FORMAT,
            });
        }
        Some(_) => {}
        None => {
            let insert = "INSERT INTO forebay_meta_format (format) VALUES ($1)";
            transaction.execute(insert, &[&FORMAT]).await.map_err(failed)?;
        }
    }
    transaction.batch_execute(TABLES).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}
