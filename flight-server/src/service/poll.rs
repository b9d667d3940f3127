//! PollFlightInfo: a growing dataset, an endpoint per part that ended. Endpoints are only ever added.
//!
//! What a poller gets to poll with next is signed: it names the session that the first poll met and the version whose parts came
//! first, so that later polls speak of the very same read, also after the publish. A poll that would tell nothing new waits a
//! little.

use super::{Answer, Call, Door, engine, get, info};
use crate::{
    auth::{Principal, Right},
    error,
    service::view::View,
    tickets::{Piece, Poll, State, Ticket},
};
use arrow_flight::{FlightDescriptor, FlightEndpoint, PollInfo};
use bytes::Bytes;
use forebay_protocol::{command::ReadCommand, info::InfoNote};
use forebay_writeback::{
    Error, ErrorKind, Path,
    dataset::{At, DatasetPlan, SessionId},
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Code, Status};

/// Marks a CMD that is a poll's and not a command.
const MARK: &[u8] = b"forebay-poll:";
/// How long a poll with nothing new waits, and how often it looks.
const WAIT_MAX: Duration = Duration::from_secs(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

pub(super) async fn poll(door: Arc<Door>, call: Call) -> Result<Answer, Status> {
    let descriptor: FlightDescriptor = call.messages.only().await?;
    match descriptor.cmd.strip_prefix(MARK) {
        Some(signed) => {
            let signed = descriptor.cmd.slice_ref(signed);
            again(&door, &call.principal, &signed, &descriptor).await
        }
        None => first(&door, &call.principal, descriptor).await,
    }
}

/// The first poll of a read: when nothing is live it is also the last.
async fn first(door: &Door, principal: &Principal, descriptor: FlightDescriptor) -> Result<Answer, Status> {
    let read = door
        .unless_draining(info::Read::understand(door, principal, &descriptor))
        .await?;
    let command = ReadCommand::from_descriptor(&descriptor).map_err(error::invalid)?;
    let live = read
        .plan()
        .filter(|plan| plan.live)
        .and_then(|plan| plan.session.clone().map(|s| (plan, s)));
    let Some((plan, session)) = live else {
        let read = match read.plan() {
            // With `follow` and nothing live: what is published, an endpoint per part.
            Some(_) if command.follow => {
                info::Read::of(
                    door,
                    ReadCommand {
                        follow: false,
                        ..command
                    },
                )
                .await?
            }
            _ => read,
        };
        let info = read.info(door, principal, descriptor)?;
        return Answer::one(&PollInfo {
            info: Some(info),
            progress: Some(1.0),
            ..Default::default()
        });
    };
    if command.limit.is_some() || command.from.is_some() {
        return Err(error::wrong(
            "a poll takes no `limit` and no `from`; it tells an endpoint per part, take the next ones",
        ));
    }
    let head = plan
        .version
        .filter(|_| plan.parts.iter().any(|part| part.live.is_none()));
    let poll = Poll {
        command: command.to_descriptor().cmd.to_vec(),
        session: session.0,
        head,
        directory: plan.directory,
        told: 0,
    };
    answer(door, principal, &descriptor, &command, poll, Duration::ZERO).await
}

/// A later poll.
async fn again(
    door: &Door,
    principal: &Principal,
    signed: &Bytes,
    descriptor: &FlightDescriptor,
) -> Result<Answer, Status> {
    let (poll, owner) = door.office.read_poll(signed)?;
    if owner != principal.name() {
        return Err(error::status(
            Code::PermissionDenied,
            "this poll was begun by someone else",
        ));
    }
    let begun = FlightDescriptor::new_cmd(poll.command.clone());
    let command = ReadCommand::from_descriptor(&begun).map_err(error::invalid)?;
    principal.may(Right::Read, &command.path)?;
    answer(door, principal, descriptor, &command, poll, WAIT_MAX).await
}

/// What there is now, after a short wait when it is nothing new.
async fn answer(
    door: &Door,
    principal: &Principal,
    descriptor: &FlightDescriptor,
    command: &ReadCommand,
    poll: Poll,
    wait: Duration,
) -> Result<Answer, Status> {
    let until = Instant::now() + wait;
    let seen = loop {
        let seen = look(door, principal, command, &poll).await?;
        let new = seen.endpoints.len() as u64 > poll.told || seen.state != "live";
        if new || Instant::now() >= until || door.is_draining() {
            break seen;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    };
    let Seen {
        schema,
        endpoints,
        rows,
        bytes,
        parts,
        batches,
        state,
    } = seen;
    let told = endpoints.len() as u64;
    let note = InfoNote {
        path: command.path.clone(),
        version: poll.head,
        session: Some(poll.session.clone()),
        state: state.to_owned(),
        parts,
        batches,
    };
    let info = info::flight_info(descriptor.clone(), schema, endpoints, rows, bytes, &note);
    let next = (state == "live").then(|| {
        let signed = door.office.poll(principal.name(), &Poll { told, ..poll });
        FlightDescriptor::new_cmd([MARK, &signed].concat())
    });
    let progress = next.is_none().then_some(1.0);
    Answer::one(&PollInfo {
        info: Some(info),
        flight_descriptor: next,
        progress,
        ..Default::default()
    })
}

/// What a poll sees.
struct Seen {
    schema: Bytes,
    endpoints: Vec<FlightEndpoint>,
    rows: i64,
    bytes: i64,
    parts: u64,
    batches: u64,
    state: &'static str,
}

async fn look(door: &Door, principal: &Principal, command: &ReadCommand, poll: &Poll) -> Result<Seen, Status> {
    let path = engine::path(&command.path)?;
    let mut plans: Vec<(DatasetPlan, State)> = vec![];
    if let Some(head) = poll.head {
        let plan = door
            .cache
            .dataset(&path, At::Version(head))
            .await
            .map_err(error::engine)?;
        get::check_directory(poll.directory, plan.directory)?;
        plans.push((plan, State::Version(head)));
    }
    let state = match session_plan(door, &path, &poll.session).await {
        Ok(plan) => {
            let state = if plan.live { "live" } else { "published" };
            plans.push((plan, State::Session(poll.session.clone())));
            state
        }
        Err(e) if matches!(e.kind(), ErrorKind::Aborted | ErrorKind::NotFound) => "aborted",
        Err(e) => return Err(error::engine(e)),
    };
    let view = View {
        columns: command.columns.clone(),
        filter: command.filter.clone(),
        limit: None,
    };
    // Of an aborted session before which there was nothing, no schema is left to tell.
    let schema = plans.last().map(|(last, _)| info::shown_schema(door, last, &view));
    let schema = schema.transpose()?.unwrap_or_default();
    let pieces: Vec<Piece> = plans
        .iter()
        .flat_map(|(plan, of)| info::part_pieces(door, plan, of, 0))
        .collect();
    // What was told stays: of an aborted session tickets that say so when they are shown.
    let gone = Piece::Follow {
        session: Some(poll.session.clone()),
        from: None,
    };
    let missing = usize::try_from(poll.told)
        .unwrap_or(usize::MAX)
        .saturating_sub(pieces.len());
    let missing = if state == "aborted" { missing } else { 0 };
    let pieces = pieces.into_iter().chain(std::iter::repeat_n(gone, missing));
    let endpoints = pieces.map(|piece| {
        let ticket = Ticket {
            path: command.path.clone(),
            directory: poll.directory,
            piece,
            view: view.clone(),
        };
        info::endpoint(door, principal, ticket)
    });
    let endpoints = endpoints.collect();
    let parts = || plans.iter().flat_map(|(plan, _)| &plan.parts);
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Ok(Seen {
        schema,
        endpoints,
        rows: count(parts().map(|part| part.rows).sum()),
        bytes: count(parts().map(|part| part.bytes).sum()),
        parts: parts().count() as u64,
        batches: parts().map(|part| part.batches).sum(),
        state,
    })
}

/// A session's parts that have ended, in the order of delivery: what is told once never grows and never moves.
async fn session_plan(door: &Door, path: &Path, session: &str) -> Result<DatasetPlan, Error> {
    let session = SessionId(session.to_owned());
    let mut followed = door.cache.dataset(path, At::Follow).await;
    if let Ok(plan) = &mut followed
        && plan.live
        && plan.session.as_ref() == Some(&session)
    {
        plan.parts.retain(|part| part.live.is_some());
        return followed;
    }
    // It has ended, or is not the oldest that is live.
    let mut plan = door.cache.dataset(path, At::Session(session)).await?;
    if plan.live {
        // A growing part shows no rows yet; what comes behind it is told after it.
        let ended = plan.parts.iter().take_while(|part| part.rows > 0).count();
        plan.parts.truncate(ended);
    }
    Ok(plan)
}
