//! A pipeline and its trainer: one dataset that grows by puts and sessions, and a follower that reads it while it does.
//!
//! Rows are numbers that only grow, so whatever is read tells what was lost, repeated or out of order.

use super::{actor::may_fail, run::History};
use crate::support::at;
use arrow_array::{Array, Int64Array, RecordBatch};
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use forebay_runtime::chance::{Chance, SeededChance};
use forebay_writeback::{
    Cache, Error, ErrorKind,
    dataset::{At, Decoder, FollowSpec, IpcMessage, Publish, PutTarget, SessionId, SessionSpec},
    file::WriteMode,
};
use futures::StreamExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::{sync::Arc, time::Duration};

/// What a reader of the head finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Head {
    version: u64,
    rows: Vec<i64>,
}

/// A session that was begun.
#[derive(Clone, Debug)]
struct Session {
    id: SessionId,
    overwrite: bool,
    /// Rows of its acknowledged puts.
    rows: Vec<i64>,
    /// Batches of a put whose end was not told: some first ones may count.
    loose: Vec<Vec<i64>>,
    publishing: bool,
    aborting: bool,
}

#[derive(Debug)]
pub(crate) struct Pipeline {
    path: String,
    head: Head,
    /// What else may be the head: the outcome was not told.
    pending: Option<Head>,
    session: Option<Session>,
    next: i64,
    chance: Arc<SeededChance>,
    pub(crate) acked: u64,
}

impl Pipeline {
    pub(crate) fn new(path: &str, seed: u64) -> Self {
        Self {
            path: path.to_owned(),
            head: Head::default(),
            pending: None,
            session: None,
            next: 0,
            chance: SeededChance::new(seed),
            acked: 0,
        }
    }

    /// Writes until the life ends, or until it can not find out what happened.
    pub(crate) async fn produce(&mut self, cache: &Cache, history: &History) {
        loop {
            tokio::time::sleep(Duration::from_micros(self.chance.below(60_000))).await;
            let outcome = match (&self.session, self.chance.below(4)) {
                (None, 0) => self.begin(cache).await,
                (None, _) => self.put_alone(cache).await,
                (Some(session), _) if session.aborting => self.abort(cache).await,
                (Some(session), 0..=2) if session.loose.is_empty() && !session.publishing => {
                    self.put_in_session(cache).await
                }
                (Some(session), 1) if !session.publishing => self.abort(cache).await,
                (Some(_), _) => self.publish(cache).await,
            };
            history.note(&format!(
                "pipeline {}: {:?}",
                self.path,
                outcome.as_ref().map_err(Error::kind)
            ));
            match outcome {
                Ok(()) => self.acked += 1,
                Err(error) => {
                    assert!(may_fail(&error), "{}: {error}", self.path);
                    if self.check(cache).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn begin(&mut self, cache: &Cache) -> Result<(), Error> {
        let overwrite = self.chance.below(4) == 0;
        let spec = SessionSpec {
            mode: mode(overwrite),
            timeout: Some(Duration::from_secs(24 * 3600)),
            ..SessionSpec::default()
        };
        let id = cache.begin(&at(&self.path), spec).await?;
        self.session = Some(Session {
            id,
            overwrite,
            rows: Vec::new(),
            loose: Vec::new(),
            publishing: false,
            aborting: false,
        });
        Ok(())
    }

    async fn put_alone(&mut self, cache: &Cache) -> Result<(), Error> {
        let overwrite = self.chance.below(6) == 0;
        let batches = self.batches();
        let after = after(&self.head, overwrite, &batches.concat());
        self.pending = Some(after.clone());
        let spec = SessionSpec {
            mode: mode(overwrite),
            ..SessionSpec::default()
        };
        let target = PutTarget {
            path: at(&self.path),
            session: None,
            task: None,
            spec,
            token: None,
        };
        let done = put(cache, target, &batches).await?;
        assert_eq!(done, Some(after.version), "{}: a put made another version", self.path);
        (self.head, self.pending) = (after, None);
        Ok(())
    }

    async fn put_in_session(&mut self, cache: &Cache) -> Result<(), Error> {
        let batches = self.batches();
        let session = self.session.as_mut().expect("asked for");
        session.loose.clone_from(&batches);
        let spec = SessionSpec {
            mode: mode(session.overwrite),
            ..SessionSpec::default()
        };
        let target = PutTarget {
            path: at(&self.path),
            session: Some(session.id.clone()),
            task: None,
            spec,
            token: None,
        };
        put(cache, target, &batches).await?;
        session.rows.extend(batches.concat());
        session.loose.clear();
        Ok(())
    }

    async fn publish(&mut self, cache: &Cache) -> Result<(), Error> {
        let session = self.session.as_mut().expect("asked for");
        session.publishing = true;
        let version = match cache.publish(&session.id, Publish::default()).await {
            // No put of it has ended, and none that broke left a batch: there is nothing to publish.
            Err(error) if error.kind() == ErrorKind::Precondition && session.rows.is_empty() => {
                return self.abort(cache).await;
            }
            other => other?,
        };
        let session = session.clone();
        let found = read(cache, &self.path).await;
        let base = if session.overwrite {
            Vec::new()
        } else {
            self.head.rows.clone()
        };
        let candidates = (0..=session.loose.len()).map(|loose| {
            let rows = [base.as_slice(), &session.rows, &session.loose[..loose].concat()].concat();
            Head { version, rows }
        });
        assert_eq!(version, self.head.version + 1, "{}", self.path);
        match found {
            Ok(found) => {
                let known = candidates.into_iter().any(|candidate| candidate == found);
                assert!(
                    known,
                    "{}: published {} rows of {session:?} over {:?}",
                    self.path,
                    found.rows.len(),
                    self.head.version
                );
                self.head = found;
            }
            // Published, but what exactly can only be read later: publish again then.
            Err(error) => return Err(error),
        }
        self.session = None;
        Ok(())
    }

    async fn abort(&mut self, cache: &Cache) -> Result<(), Error> {
        let session = self.session.as_mut().expect("asked for");
        // If it fails it may have been aborted: nothing but to ask again.
        session.aborting = true;
        cache.abort(&session.id).await?;
        self.session = None;
        Ok(())
    }

    /// The head is what was acknowledged.
    pub(crate) async fn check(&mut self, cache: &Cache) -> Result<(), Error> {
        if self.session.as_ref().is_some_and(|session| session.publishing) {
            return self.publish(cache).await;
        }
        let found = read(cache, &self.path).await?;
        if self.pending.take_if(|pending| *pending == found).is_some() {
            self.head = found.clone();
        }
        assert!(
            found == self.head,
            "{}: version {} with {} rows, expected version {} with {} rows, pending {:?}",
            self.path,
            found.version,
            found.rows.len(),
            self.head.version,
            self.head.rows.len(),
            self.pending.as_ref().map(|head| (head.version, head.rows.len()))
        );
        self.pending = None;
        Ok(())
    }

    /// Ends what is open, so that the reckoning finds only published rows.
    pub(crate) async fn finish(&mut self, cache: &Cache) -> Result<(), Error> {
        match &self.session {
            Some(session) if session.aborting => self.abort(cache).await,
            Some(_) => self.publish(cache).await,
            None => Ok(()),
        }
    }

    pub(crate) fn rows(&self) -> &[i64] {
        &self.head.rows
    }

    fn batches(&mut self) -> Vec<Vec<i64>> {
        let count = 1 + self.chance.below(4);
        let batches = (0..count).map(|_| {
            let rows = if self.chance.below(8) == 0 {
                12_000
            } else {
                self.chance.below(50)
            } as i64;
            self.next += rows + 1;
            (self.next - rows..self.next).collect()
        });
        batches.collect()
    }
}

/// Reads again and again while the pipeline writes.
pub(crate) async fn train(path: &str, chance: &SeededChance, cache: &Cache, history: &History) {
    loop {
        tokio::time::sleep(Duration::from_micros(chance.below(100_000))).await;
        let outcome = follow_once(path, cache).await;
        history.note(&format!("trainer {path}: {:?}", outcome.as_ref().map_err(Error::kind)));
        if let Err(error) = outcome {
            let expected = may_fail(&error)
                || matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::Aborted | ErrorKind::Precondition
                );
            assert!(expected, "{path}: follow: {error}");
        }
    }
}

/// Rows of one follower, to the end of its stream.
async fn follow_once(path: &str, cache: &Cache) -> Result<usize, Error> {
    let mut stream = cache.follow(&at(path), FollowSpec::default()).await?;
    let mut decoder = Decoder::new(&stream.schema_message)?;
    let (mut last, mut count) = (i64::MIN, 0);
    while let Some(item) = stream.items.next().await {
        let Some((batch, _)) = decoder.push(item?)? else {
            continue;
        };
        for row in numbers(&batch) {
            assert!(row > last, "{path}: a follower got {row} after {last}");
            (last, count) = (row, count + 1);
        }
    }
    Ok(count)
}

async fn read(cache: &Cache, path: &str) -> Result<Head, Error> {
    let plan = match cache.dataset(&at(path), At::Head).await {
        Ok(plan) => plan,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Head::default()),
        Err(error) => return Err(error),
    };
    let mut rows = Vec::new();
    for part in &plan.parts {
        // Each part has a schema message of its own in what it delivers only by its plan's.
        let mut decoder = Decoder::new(&plan.schema_message)?;
        let mut items = cache.read_part(part, 0).await?;
        while let Some(item) = items.next().await {
            if let Some((batch, _)) = decoder.push(item?)? {
                rows.extend(numbers(&batch));
            }
        }
    }
    Ok(Head {
        version: plan.version.unwrap_or(0),
        rows,
    })
}

/// Rows of a part as it lies in the under-store.
pub(crate) fn rows_of_file(bytes: &[u8]) -> Vec<i64> {
    if bytes.starts_with(b"PAR1") {
        let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(bytes)).unwrap();
        let reader = builder.build().unwrap();
        return reader.flat_map(|batch| numbers(&batch.unwrap())).collect();
    }
    let reader = arrow_ipc::reader::FileReader::try_new(std::io::Cursor::new(bytes), None).unwrap();
    reader.flat_map(|batch| numbers(&batch.unwrap())).collect()
}

pub(crate) fn numbers(batch: &RecordBatch) -> Vec<i64> {
    let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
    assert_eq!(column.null_count(), 0);
    column.values().to_vec()
}

fn after(head: &Head, overwrite: bool, rows: &[i64]) -> Head {
    let base = if overwrite { &[] } else { head.rows.as_slice() };
    Head {
        version: head.version + 1,
        rows: [base, rows].concat(),
    }
}

fn mode(overwrite: bool) -> WriteMode {
    if overwrite {
        WriteMode::Overwrite
    } else {
        WriteMode::Append
    }
}

pub(crate) async fn put(cache: &Cache, target: PutTarget, batches: &[Vec<i64>]) -> Result<Option<u64>, Error> {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
    let (options, generator) = (IpcWriteOptions::default(), IpcDataGenerator::default());
    let (mut tracker, mut context) = (DictionaryTracker::new(false), IpcWriteContext::default());
    let encoded = generator.schema_to_bytes_with_dictionary_tracker(&schema, &mut tracker, &options);
    let mut writer = cache.put(target, message(encoded.ipc_message, Vec::new())).await?;
    for rows in batches {
        let column = Arc::new(Int64Array::from(rows.clone()));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
        let (_, encoded) = generator.encode(&batch, &mut tracker, &options, &mut context).unwrap();
        writer.append(message(encoded.ipc_message, encoded.arrow_data)).await?;
    }
    Ok(writer.commit().await?.version)
}

fn message(header: impl Into<Bytes>, body: impl Into<Bytes>) -> IpcMessage {
    IpcMessage {
        header: header.into(),
        body: vec![body.into()],
        app_metadata: Bytes::new(),
    }
}
