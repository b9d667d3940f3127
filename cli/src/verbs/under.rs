//! `under add|ls|rm`.

use super::at;
use crate::{
    args::{Door, OnePath, Under},
    connect,
    failure::Outcome,
    output::Output,
};
use serde_json::{Value, json};

pub(super) async fn under(under: Under, door: &Door, output: &mut Output) -> Outcome {
    match under {
        Under::Add { path, url } => {
            let (client, path) = at(door, &path).await?;
            client.action("under_add", json!({ "path": path, "url": url })).await?;
            output.one(&json!({ "path": path }), |_| String::new())
        }
        Under::Rm(OnePath { path }) => {
            let (client, path) = at(door, &path).await?;
            client.action("under_remove", json!({ "path": path })).await?;
            output.one(&json!({ "path": path }), |_| String::new())
        }
        Under::Ls => {
            let client = connect::connect(door).await?;
            let mut series = output.series();
            for mount in client.action("under_list", json!({})).await? {
                series.push(&mount, |mount| {
                    let of = |key| mount.get(key).and_then(Value::as_str).unwrap_or_default();
                    format!("{} = {} ({})", of("path"), of("url"), of("state"))
                })?;
            }
            series.end()
        }
    }
}
