//! `policy set|get|list|explain|simulate`.

mod simulate;

use super::at;
use crate::{
    args::{Door, OnePath, Policy},
    config,
    failure::{Failure, Outcome},
    output::Output,
};
use forebay_policy::{Defaults, Set, Table};
use forebay_writeback::Path;
use serde_json::{Map, Value, json};

pub(super) async fn policy(policy: Policy, door: &Door, output: &mut Output) -> Outcome {
    match policy {
        Policy::Set { path, set } => {
            let (client, path) = at(door, &path).await?;
            let mut body = parse(&set)?;
            body.insert("path".to_owned(), json!(path));
            client.action("policy_set", Value::Object(body)).await?;
            output.one(&json!({ "path": path }), |_| String::new())
        }
        Policy::Simulate {
            trace,
            cache_max,
            policies,
            policies_of_server,
        } => {
            let sets = match policies {
                Some(file) => config::policies_of(&file)?,
                None if policies_of_server => sets_of_server(door).await?,
                None => Vec::new(),
            };
            let policies = Table::new(Defaults::default(), sets);
            simulate::simulate(&trace, &cache_max, policies, output)
        }
        Policy::Get(OnePath { path }) => {
            let (client, path) = at(door, &path).await?;
            let set = client
                .action("policy_get", json!({ "path": path }))
                .await?
                .pop()
                .unwrap_or_else(|| json!({}));
            output.one(&set, |set| pairs(set).join("\n"))
        }
        Policy::List { path } => {
            let (client, path) = at(door, &path).await?;
            let mut series = output.series();
            for row in client.action("policy_list", json!({ "path": path })).await? {
                series.push(&row, |row| {
                    let path = row.get("path").map(plain).unwrap_or_default();
                    format!("{path} {}", row.get("set").map(pairs).unwrap_or_default().join(" "))
                })?;
            }
            series.end()
        }
        Policy::Explain(OnePath { path }) => {
            let (client, path) = at(door, &path).await?;
            let mut series = output.series();
            for row in client.action("policy_explain", json!({ "path": path })).await? {
                series.push(&row, |row| {
                    let of = |key| row.get(key).map(plain).unwrap_or_default();
                    format!("{:<16} {:<12} {}", of("key"), of("value"), of("from"))
                })?;
            }
            series.end()
        }
    }
}

/// What is set at any path of the server.
async fn sets_of_server(door: &Door) -> Outcome<Vec<(Path, Set)>> {
    let (client, path) = at(door, "/").await?;
    let rows = client.action("policy_list", json!({ "path": path })).await?;
    rows.iter().map(path_and_set).collect()
}

fn path_and_set(row: &Value) -> Outcome<(Path, Set)> {
    let about = |why: String| Failure::failed(format!("a policy of the server is not understood: {row}: {why}"));
    let path = Path::parse(row["path"].as_str().unwrap_or_default().as_bytes());
    let pairs = row["set"].as_object().into_iter().flatten();
    let set = Set::parse(pairs.map(|(key, value)| (key.as_str(), value)));
    Ok((
        path.map_err(|error| about(error.to_string()))?,
        set.map_err(|error| about(error.to_string()))?,
    ))
}

/// `KEY=VALUE`: JSON where it reads as JSON (true, 3), else text; `KEY=` takes the policy away.
fn parse(set: &[String]) -> Outcome<Map<String, Value>> {
    set.iter()
        .map(|pair| {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("{pair:?}: write KEY=VALUE")))?;
            let value = match value {
                "" => Value::Null,
                text => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
            };
            Ok((key.to_owned(), value))
        })
        .collect()
}

/// `KEY=VALUE` of an object.
fn pairs(set: &Value) -> Vec<String> {
    let pairs = set.as_object().into_iter().flatten();
    pairs.map(|(key, value)| format!("{key}={}", plain(value))).collect()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json_where_they_read_so() {
        let set = parse(&[
            "pin=true".into(),
            "ttl=7d".into(),
            "versions_kept=4".into(),
            "ack=".into(),
        ])
        .unwrap();
        assert_eq!(
            Value::Object(set),
            json!({ "pin": true, "ttl": "7d", "versions_kept": 4, "ack": null })
        );
        assert!(parse(&["pin".into()]).is_err());
    }
}
