//! DoGet: the stream of one endpoint.

use super::{Answer, Call, Door, engine};
use crate::{
    auth::Right,
    encode::{self, FILE_BATCH_BYTES, Translator},
    error,
    reply::Said,
    service::view::{StreamSchema, View},
    tickets::{Piece, State, Ticket},
};
use arrow_flight::Ticket as Shown;
use forebay_protocol::{path::WirePath, resume::ResumeToken};
use forebay_writeback::{
    Cache, Error,
    dataset::{DatasetPlan, FollowSpec, PartItem, PartRef, SessionId},
    file::FileReader,
};
use futures::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use std::{collections::VecDeque, sync::Arc};
use tonic::{Code, Status};

/// The items of a dataset.
type Items = BoxStream<'static, Result<PartItem, Error>>;

pub(super) async fn get(door: Arc<Door>, call: Call) -> Result<Answer, Status> {
    let shown: Shown = call.messages.only().await?;
    let (ticket, owner) = door.office.read_ticket(&shown.ticket)?;
    if owner != call.principal.name() {
        let text = "this ticket was given to someone else; ask GetFlightInfo for one of your own";
        return Err(error::status(Code::PermissionDenied, text));
    }
    let Ticket {
        path,
        directory,
        piece,
        view,
    } = ticket;
    call.principal.may(Right::Read, &path)?;
    tracing::debug!(%path, ?piece, "reads");
    match piece {
        Piece::Part { of, schema, part, skip } => {
            let schema = match door.views.recall(schema) {
                Some(schema) => schema,
                None => stream_schema(&plan(&door, &path, &of, directory).await?),
            };
            let items = door.cache.read_part(&part, skip).await.map_err(error::engine)?;
            batches(&door, &schema, &view, items)
        }
        Piece::Whole { of, skip } => {
            let plan = plan(&door, &path, &of, directory).await?;
            batches(
                &door,
                &stream_schema(&plan),
                &view,
                parts_in_order(door.cache.clone(), plan.parts, skip),
            )
        }
        Piece::Follow { session, from } => {
            let spec = follow_spec(session, from)?;
            let at = engine::path(&path)?;
            let followed = door.cache.follow(&at, spec).await.map_err(error::engine)?;
            if directory.is_some() {
                let there = door.cache.stat(&at).await.map_err(error::engine)?;
                check_directory(directory, Some(there.id))?;
            }
            let schema = StreamSchema {
                schema: followed.schema,
                message: followed.schema_message,
            };
            Ok(batches(&door, &schema, &view, followed.items)?.endless())
        }
        Piece::File { offset, length } => {
            let reader = door
                .cache
                .read_file(&engine::path(&path)?)
                .await
                .map_err(error::engine)?;
            Ok(Answer::many(file(reader, offset, length)))
        }
    }
}

/// What the engine is asked to follow.
pub(super) fn follow_spec(session: Option<String>, from: Option<String>) -> Result<FollowSpec, Status> {
    let from = from
        .map(|token| token.parse::<ResumeToken>())
        .transpose()
        .map_err(error::invalid)?;
    Ok(FollowSpec {
        session: session.map(SessionId),
        from: from.as_ref().map(engine::resume),
    })
}

async fn plan(door: &Door, path: &WirePath, of: &State, directory: Option<u64>) -> Result<DatasetPlan, Status> {
    let plan = door.cache.dataset(&engine::path(path)?, engine::at(of)).await;
    let plan = plan.map_err(error::engine)?;
    if let State::Version(_) = of {
        check_directory(directory, plan.directory)?;
    }
    door.views.remember(&stream_schema(&plan));
    Ok(plan)
}

/// Whether what is there is the dataset that was asked about. A ticket of before tickets named it is taken at its word.
pub(super) fn check_directory(asked: Option<u64>, there: Option<u64>) -> Result<(), Status> {
    match asked.is_none() || asked == there {
        true => Ok(()),
        false => Err(error::status(
            Code::NotFound,
            "the dataset that this was given out for is not there any more, another one is; ask GetFlightInfo again",
        )),
    }
}

/// The schema that a plan's stored messages follow.
pub(super) fn stream_schema(plan: &DatasetPlan) -> StreamSchema {
    StreamSchema {
        schema: Arc::clone(&plan.schema),
        message: plan.schema_message.clone(),
    }
}

/// Part after part, each opened when the one before has been read.
fn parts_in_order(cache: Cache, parts: Vec<PartRef>, skip: u64) -> Items {
    let mut skip = skip;
    let wanted: Vec<(PartRef, u64)> = parts
        .into_iter()
        .filter_map(|part| {
            let skipped = skip.min(part.batches);
            skip -= skipped;
            (skipped == 0 || skipped < part.batches).then_some((part, skipped))
        })
        .collect();
    let opened = stream::iter(wanted).then(move |(part, skip)| {
        let cache = cache.clone();
        async move { cache.read_part(&part, skip).await }
    });
    opened.try_flatten().boxed()
}

/// The stream of a dataset's items as `view` shows them.
fn batches(door: &Door, schema: &StreamSchema, view: &View, items: Items) -> Result<Answer, Status> {
    let (translator, opening) = if view.is_whole() {
        Translator::whole(schema)?
    } else {
        Translator::through(door.views.lens(view, &schema.schema)?, &schema.schema)?
    };
    let shown = Shows {
        items,
        translator,
        ready: VecDeque::new(),
        over: false,
    };
    let shown = stream::unfold(shown, |mut shows| async move {
        shows.next().await.map(|said| (said, shows))
    });
    Ok(Answer::many(stream::iter([Ok(opening)]).chain(shown)))
}

/// A stream of items on its way out.
struct Shows {
    items: Items,
    translator: Translator,
    ready: VecDeque<Said>,
    over: bool,
}

impl Shows {
    async fn next(&mut self) -> Option<Result<Said, Status>> {
        loop {
            if let Some(said) = self.ready.pop_front() {
                return Some(Ok(said));
            }
            if self.over || self.translator.is_done() {
                return None;
            }
            let item = self.items.next().await?;
            match item.map_err(error::engine).and_then(|item| self.translator.item(item)) {
                Ok(said) => self.ready.extend(said),
                Err(status) => {
                    self.over = true;
                    return Some(Err(status));
                }
            }
        }
    }
}

/// The stream of a file's bytes, or of a range of them.
fn file(reader: FileReader, offset: u64, length: Option<u64>) -> impl Stream<Item = Result<Said, Status>> {
    let end = length.map_or(reader.size(), |length| offset.saturating_add(length).min(reader.size()));
    let starts = (0..).map(move |k: u64| offset.saturating_add(k.saturating_mul(FILE_BATCH_BYTES)));
    let ranges = starts
        .take_while(move |start| *start < end)
        .map(move |start| start..(start + FILE_BATCH_BYTES).min(end));
    let batches = stream::iter(ranges).then(move |range| {
        let reader = reader.clone();
        async move {
            let pieces = reader.read(range).await.map_err(error::engine)?;
            encode::file_batch(pieces)
        }
    });
    stream::iter([encode::file_schema()]).chain(batches)
}
