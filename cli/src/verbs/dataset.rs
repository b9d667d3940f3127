//! `dataset list|show|begin|publish|abort|follow|versions`.

use super::at;
use crate::{
    args::{Begin, Dataset, Door, Follow as FollowFlags, OnePath},
    connect,
    failure::{Failure, Outcome},
    output::{Output, Series},
};
use arrow_array::RecordBatch;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use forebay_client::{
    Client, Info, ReadOptions, Span, Task, WirePath,
    action::{self, Begun, Published, PublishedVersion, With},
};
use forebay_runtime::units::ByteSize;
use futures::TryStreamExt;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::pin::pin;

pub(super) async fn dataset(dataset: Dataset, door: &Door, output: &mut Output) -> Outcome {
    match dataset {
        Dataset::List { prefix } => list(&prefix, door, output).await,
        Dataset::Show { path, version } => show(&path, version, door, output).await,
        Dataset::Begin(flags) => begin(flags, door, output).await,
        Dataset::Publish {
            session,
            with,
            success_file,
            task,
        } => {
            let body = action::Publish {
                session,
                with: with.into_iter().map(With::Session).collect(),
                tasks: tasks(&task)?,
                success_file,
            };
            publish(&body, door, output).await
        }
        Dataset::Abort { session } => {
            connect::connect(door).await?.abort_session(&session).await?;
            output.one(&json!({ "session": session }), |_| String::new())
        }
        Dataset::Follow(flags) => follow(flags, door, output).await,
        Dataset::Versions(OnePath { path }) => versions(&path, door, output).await,
    }
}

/// A dataset as `list` and `show` tell it.
#[derive(Debug, Serialize)]
struct Shown {
    path: WirePath,
    state: String,
    version: Option<u64>,
    session: Option<String>,
    rows: Option<u64>,
    bytes: Option<u64>,
    parts: u64,
    batches: u64,
    schema: Vec<Column>,
}

#[derive(Debug, Serialize)]
struct Column {
    name: String,
    r#type: String,
    nullable: bool,
}

impl From<Info> for Shown {
    fn from(info: Info) -> Self {
        let Info {
            schema,
            rows,
            bytes,
            note,
            ..
        } = info;
        let column = |field: &arrow_schema::FieldRef| Column {
            name: field.name().clone(),
            r#type: field.data_type().to_string(),
            nullable: field.is_nullable(),
        };
        Shown {
            path: note.path,
            state: note.state,
            version: note.version,
            session: note.session,
            rows,
            bytes,
            parts: note.parts,
            batches: note.batches,
            schema: schema.fields().iter().map(column).collect(),
        }
    }
}

impl Shown {
    fn line(&self) -> String {
        let version = self.version.map_or("-".to_owned(), |version| format!("v{version}"));
        let rows = self.rows.map_or("?".to_owned(), |rows| rows.to_string());
        let bytes = self.bytes.map_or("?".to_owned(), |bytes| ByteSize(bytes).rounded());
        format!(
            "{version:<5} {rows:>12} rows {bytes:>10} {:>5} parts  {}",
            self.parts, self.path
        )
    }

    fn page(&self) -> String {
        let mut lines = vec![self.line(), format!("state    {}", self.state)];
        lines.extend(self.session.iter().map(|session| format!("session  {session}")));
        lines.extend(self.schema.iter().map(|column| {
            let null = if column.nullable { "" } else { " not null" };
            format!("column   {} {}{null}", column.name, column.r#type)
        }));
        lines.join("\n")
    }
}

async fn list(prefix: &str, door: &Door, output: &mut Output) -> Outcome {
    let (client, prefix) = at(door, prefix).await?;
    let mut datasets = pin!(client.datasets(&prefix.to_string()).await?);
    let mut series = output.series();
    while let Some(info) = datasets.try_next().await? {
        series.push(&Shown::from(info), Shown::line)?;
    }
    series.end()
}

async fn show(path: &str, version: Option<u64>, door: &Door, output: &mut Output) -> Outcome {
    let (client, path) = at(door, path).await?;
    let info = client
        .info(
            &path.to_string(),
            &ReadOptions {
                version,
                ..ReadOptions::default()
            },
        )
        .await?;
    output.one(&Shown::from(info), Shown::page)
}

async fn begin(flags: Begin, door: &Door, output: &mut Output) -> Outcome {
    let Begin {
        path,
        mode,
        format,
        compression,
        ack,
        timeout,
        job,
    } = flags;
    let (client, path) = at(door, &path).await?;
    let body = action::Begin {
        path,
        mode: mode.map(Into::into),
        format: format.map(Into::into),
        compression: compression.map(Into::into),
        ack,
        timeout: timeout.map(Span),
        job,
        token: None,
    };
    // The client's own session would be aborted when this process ends.
    let begun: Begun = one(&client, "begin", &body).await?;
    output.one(&begun, |begun| begun.session.clone())
}

async fn publish(body: &action::Publish, door: &Door, output: &mut Output) -> Outcome {
    let client = connect::connect(door).await?;
    let published: Published = one(&client, "publish", body).await?;
    output.one(&published, |published| match &published.versions[..] {
        [] => published.version.to_string(),
        versions => {
            let line = |made: &PublishedVersion| format!("v{:<4} {}", made.version, made.path);
            versions.iter().map(line).collect::<Vec<_>>().join("\n")
        }
    })
}

fn tasks(texts: &[String]) -> Outcome<Option<Vec<Task>>> {
    let tasks = texts.iter().map(|text| task(text)).collect::<Outcome<Vec<Task>>>()?;
    Ok((!tasks.is_empty()).then_some(tasks))
}

/// `JOB/STAGE/TASK/ATTEMPT`; a job's name may hold slashes.
fn task(text: &str) -> Outcome<Task> {
    let wrong = || {
        Failure::usage(format!(
            "--task {text:?}: write JOB/STAGE/TASK/ATTEMPT, as in etl/0/3/1"
        ))
    };
    let mut parts = text.rsplitn(4, '/');
    let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok()).ok_or_else(wrong);
    let (attempt, task, stage) = (number()?, number()?, number()?);
    let job = parts.next().ok_or_else(wrong)?.to_owned();
    Ok(Task {
        job,
        stage,
        task,
        attempt,
    })
}

async fn one<T: DeserializeOwned>(client: &Client, name: &str, body: &impl Serialize) -> Outcome<T> {
    let body = serde_json::to_value(body).expect("plain data has a JSON form");
    let result = client.action(name, body).await?.pop().unwrap_or(Value::Null);
    serde_json::from_value(result)
        .map_err(|error| Failure::failed(format!("the answer of {name} is not understood: {error}")))
}

async fn versions(path: &str, door: &Door, output: &mut Output) -> Outcome {
    let (client, path) = at(door, path).await?;
    let mut series = output.series();
    for version in client.versions(&path.to_string()).await? {
        series.push(&version, |v| {
            let bytes = ByteSize(v.bytes).rounded();
            format!(
                "v{:<4} {} {:>12} rows {bytes:>10} {:>5} parts",
                v.version, v.published, v.rows, v.parts
            )
        })?;
    }
    series.end()
}

/// A batch that was followed.
#[derive(Debug, Serialize)]
struct Followed {
    rows: usize,
    /// Where to go on after it.
    token: Option<String>,
}

async fn follow(flags: FollowFlags, door: &Door, output: &mut Output) -> Outcome {
    let FollowFlags {
        path,
        session,
        from,
        wait,
        columns,
        rows,
        ..
    } = flags;
    let (client, path) = at(door, &path).await?;
    let from = from.map(|text| text.parse()).transpose()?;
    let options = ReadOptions {
        session,
        from,
        wait,
        columns,
        ..ReadOptions::default()
    };
    let mut follow = client.follow(&path.to_string(), options).await?;
    let with_rows = rows && !output.json();
    if with_rows {
        let names: Vec<&str> = follow
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        output.line(&names.join("\t"))?;
        output.flush()?;
    }
    let mut series = output.series();
    // A reader of the array gets it whole even when the session was aborted; the exit code tells.
    let ended = loop {
        match follow.next_batch().await {
            Ok(Some(batch)) => {
                let token = follow.token().map(|token| token.to_string());
                print_batch(
                    &mut series,
                    &batch,
                    Followed {
                        rows: batch.num_rows(),
                        token,
                    },
                    with_rows,
                )?;
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
    };
    series.end().and(ended)
}

fn print_batch(series: &mut Series<'_>, batch: &RecordBatch, followed: Followed, with_rows: bool) -> Outcome {
    if with_rows {
        rows_of(batch, |line| series.push(&line, Clone::clone))?;
    } else {
        series.push(&followed, |followed| {
            let token = followed.token.as_deref().unwrap_or("-");
            format!("{:>10} rows  {token}", followed.rows)
        })?;
    }
    series.flush()
}

/// The rows of a batch, values separated by tabs.
fn rows_of(batch: &RecordBatch, mut print: impl FnMut(String) -> Outcome) -> Outcome {
    let failed = |error: arrow_schema::ArrowError| Failure::failed(format!("a value cannot be shown: {error}"));
    let options = FormatOptions::default().with_null("null");
    let columns = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options));
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    for row in 0..batch.num_rows() {
        let values = columns.iter().map(|column| column.value(row).try_to_string());
        print(values.collect::<Result<Vec<_>, _>>().map_err(failed)?.join("\t"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_read_as_documented() {
        let read = task("nightly/etl/2/17/1").unwrap();
        assert_eq!(
            read,
            Task {
                job: "nightly/etl".into(),
                stage: 2,
                task: 17,
                attempt: 1
            }
        );
        for text in ["", "a/b/c/d", "1/2/3", "etl/0/x/1"] {
            assert_eq!(task(text).unwrap_err().code(), 2, "{text}");
        }
    }

    #[test]
    fn rows_print_tab_separated() {
        let ids: arrow_array::ArrayRef = std::sync::Arc::new(arrow_array::Int64Array::from(vec![Some(1), None]));
        let batch = RecordBatch::try_from_iter([("id", ids.clone()), ("again", ids)]).unwrap();
        let mut lines = Vec::new();
        rows_of(&batch, |line| {
            lines.push(line);
            Ok(())
        })
        .unwrap();
        assert_eq!(lines, ["1\t1", "null\tnull"]);
    }
}
