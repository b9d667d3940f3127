//! Two datasets in folders of one directory. Every publish is of both and puts the same row into each, so whoever reads the directory
//! finds the same rows in both folders, at every moment and after every crash.

use super::{
    actor::may_fail,
    pipeline::{numbers, put, rows_of_file},
    run::History,
};
use crate::support::at;
use forebay_runtime::chance::{Chance, SeededChance};
use forebay_writeback::{
    Cache, Error, ErrorKind,
    dataset::{At, Decoder, Member, PutTarget, SessionId, SessionSpec},
};
use futures::StreamExt;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

const ROOT: &str = "/kept/pair";
const FOLDERS: [&str; 2] = ["of=1", "of=2"];

/// Where the writer stands.
#[derive(Clone, Debug)]
enum Stage {
    Idle,
    /// To be aborted: something did not end well.
    Aborting(Vec<SessionId>),
    /// Both have the row; whether it is published is not known before the answer.
    Publishing(Vec<SessionId>, i64),
}

#[derive(Debug)]
pub(crate) struct Pair {
    /// What was acknowledged.
    rows: Vec<i64>,
    stage: Stage,
    next: i64,
    chance: Arc<SeededChance>,
    pub(crate) acked: u64,
}

impl Pair {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rows: Vec::new(),
            stage: Stage::Idle,
            next: 0,
            chance: SeededChance::new(seed),
            acked: 0,
        }
    }

    /// Writes until the life ends, or until it can not find out what happened.
    pub(crate) async fn produce(&mut self, cache: &Cache, history: &History) {
        loop {
            tokio::time::sleep(Duration::from_micros(self.chance.below(60_000))).await;
            let outcome = self.step(cache).await;
            history.note(&format!("pair: {:?}", outcome.as_ref().map_err(Error::kind)));
            match outcome {
                Ok(()) => self.acked += 1,
                Err(error) => {
                    assert!(may_fail(&error), "pair: {error}");
                    if self.check(cache).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn step(&mut self, cache: &Cache) -> Result<(), Error> {
        match self.stage.clone() {
            Stage::Idle => self.stage_both(cache).await,
            Stage::Aborting(sessions) => {
                for session in &sessions {
                    cache.abort(session).await?;
                }
                self.stage = Stage::Idle;
                Ok(())
            }
            Stage::Publishing(sessions, row) => {
                let members = sessions.into_iter().map(|session| Member { session, tasks: None });
                let made = cache.publish_together(members.collect(), false).await?;
                let version = self.rows.len() as u64 + 1;
                assert!(
                    made.iter().all(|made| made.version == version),
                    "{made:?}, not {version}"
                );
                self.rows.push(row);
                self.stage = Stage::Idle;
                Ok(())
            }
        }
    }

    async fn stage_both(&mut self, cache: &Cache) -> Result<(), Error> {
        self.next += 1;
        let mut sessions = Vec::new();
        for folder in FOLDERS {
            let path = at(&format!("{ROOT}/{folder}"));
            let spec = SessionSpec {
                timeout: Some(Duration::from_secs(24 * 3600)),
                ..SessionSpec::default()
            };
            let session = cache.begin(&path, spec).await?;
            sessions.push(session.clone());
            self.stage = Stage::Aborting(sessions.clone());
            let target = PutTarget {
                path,
                session: Some(session),
                task: None,
                spec: SessionSpec::default(),
                token: None,
            };
            put(cache, target, &[vec![self.next]]).await?;
        }
        self.stage = match self.chance.below(8) {
            0 => Stage::Aborting(sessions),
            _ => Stage::Publishing(sessions, self.next),
        };
        Ok(())
    }

    /// Both folders have what was acknowledged.
    pub(crate) async fn check(&mut self, cache: &Cache) -> Result<(), Error> {
        self.finish(cache).await?;
        let found = read(cache).await?;
        let expected: BTreeMap<String, Vec<i64>> = match self.rows.is_empty() {
            true => BTreeMap::new(),
            false => ["1", "2"].map(|of| (of.to_owned(), self.rows.clone())).into(),
        };
        assert!(found == expected, "pair: {found:?}, expected {:?}", self.rows);
        Ok(())
    }

    /// Ends what is to be published.
    pub(crate) async fn finish(&mut self, cache: &Cache) -> Result<(), Error> {
        match self.stage {
            Stage::Publishing(..) => self.step(cache).await,
            _ => Ok(()),
        }
    }

    /// What of the under-store is its own has its rows, in each folder.
    pub(crate) fn compare(&self, found: &mut BTreeMap<String, Vec<u8>>) {
        for folder in FOLDERS {
            let prefix = format!("pair/{folder}/");
            let parts = found.extract_if(.., |key, _| key.starts_with(&prefix));
            let mut rows: Vec<i64> = parts.flat_map(|(_, bytes)| rows_of_file(&bytes)).collect();
            rows.sort_unstable();
            assert!(
                rows == self.rows,
                "{folder} in the under-store: {rows:?}, expected {:?}",
                self.rows
            );
        }
    }
}

/// Reads the directory again and again while the pair is written.
pub(crate) async fn look(chance: &SeededChance, cache: &Cache, history: &History) {
    loop {
        tokio::time::sleep(Duration::from_micros(chance.below(20_000))).await;
        match read(cache).await {
            Ok(found) => {
                let (one, two) = (found.get("1"), found.get("2"));
                assert!(one == two, "a part of a publish was seen: {one:?}, {two:?}");
                history.note(&format!("look: {:?}", one.map(Vec::len)));
            }
            Err(error) => assert!(may_fail(&error), "look: {error}"),
        }
    }
}

/// The rows of each folder.
async fn read(cache: &Cache) -> Result<BTreeMap<String, Vec<i64>>, Error> {
    let plan = match cache.dataset(&at(ROOT), At::Head).await {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Precondition) => {
            return Ok(BTreeMap::new());
        }
        other => other?,
    };
    let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for part in &plan.parts {
        let mut decoder = Decoder::new(&plan.schema_message)?;
        let mut items = cache.read_part(part, 0).await?;
        let of = part.partition[0].1.clone().unwrap();
        while let Some(item) = items.next().await {
            if let Some((batch, _)) = decoder.push(item?)? {
                found.entry(of.clone()).or_default().extend(numbers(&batch));
            }
        }
    }
    Ok(found)
}
