//! GetFlightInfo and GetSchema: what can be read at a descriptor, and by which tickets.

use super::{Answer, Call, Door, engine, get, sessions};
use crate::{
    auth::{Principal, Right},
    encode::{self, FILE_SCHEMA},
    error,
    service::view::View,
    tickets::{Piece, State, Ticket},
};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, SchemaResult, Ticket as Shown};
use bytes::Bytes;
use forebay_protocol::{
    command::{PathKind, ReadCommand},
    info::{EndpointNote, InfoNote},
    path::WirePath,
    resume::{Counted, ResumeToken},
};
use forebay_writeback::{
    ErrorKind, Path,
    dataset::{At, DatasetPlan, PartRef, SessionId},
    names::StatKind,
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Code, Status};

/// `total_records` and `total_bytes` where nobody can know.
const UNKNOWN: i64 = -1;
/// Longest wait for something to come into being.
const WAIT_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// First pause between two looks for it, doubled each time, and the longest.
const LOOK_FIRST: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_millis(500);

pub(super) async fn info(door: Arc<Door>, call: Call) -> Result<Answer, Status> {
    let descriptor: FlightDescriptor = call.messages.only().await?;
    let read = door
        .unless_draining(Read::understand(&door, &call.principal, &descriptor))
        .await?;
    Answer::one(&read.info(&door, &call.principal, descriptor)?)
}

pub(super) async fn schema(door: Arc<Door>, call: Call) -> Result<Answer, Status> {
    let descriptor: FlightDescriptor = call.messages.only().await?;
    let read = door
        .unless_draining(Read::understand(&door, &call.principal, &descriptor))
        .await?;
    Answer::one(&SchemaResult {
        schema: read.shown_schema(&door)?,
    })
}

/// A read as it was asked for, and what there is.
pub(super) struct Read {
    command: ReadCommand,
    view: View,
    what: What,
}

enum What {
    Dataset {
        plan: DatasetPlan,
        /// Which state the plan is of.
        of: State,
        /// Batches that were read before.
        skip: u64,
    },
    Follow {
        plan: DatasetPlan,
    },
    File {
        size: u64,
        state: &'static str,
    },
}

impl Read {
    /// Reads the descriptor, asks whether the caller may, and looks what is there.
    pub(super) async fn understand(
        door: &Door,
        principal: &Principal,
        descriptor: &FlightDescriptor,
    ) -> Result<Self, Status> {
        let command = ReadCommand::from_descriptor(descriptor).map_err(error::invalid)?;
        principal.may(Right::Read, &command.path)?;
        let (path, session) = (command.path.clone(), sessions::of_read(&command));
        match (Self::of(door, command).await, session) {
            (Err(refused), Some(session)) => {
                Err(sessions::misplaced(door, principal, Right::Read, &path, &session, refused).await)
            }
            (read, _) => read,
        }
    }

    pub(super) async fn of(door: &Door, command: ReadCommand) -> Result<Self, Status> {
        let path = engine::path(&command.path)?;
        let view = view(&command);
        let until = Instant::now() + command.wait.map_or(Duration::ZERO, |wait| wait.0.min(WAIT_MAX));
        let what = match kind(door, &path, &command, until).await? {
            PathKind::File => there(until, || find_file(door, &path)).await?,
            PathKind::Dataset if command.follow => What::Follow {
                plan: find_followed(door, &path, &command, until).await?,
            },
            PathKind::Dataset => find_dataset(door, &path, &command, until).await?,
        };
        let mut read = Self { command, view, what };
        // What is wrong with columns or a filter is told now and not at DoGet.
        read.shown_schema(door)?;
        read.leave_folders_out(door)?;
        Ok(read)
    }

    /// Parts in folders of which the filter takes nothing are not read.
    fn leave_folders_out(&mut self, door: &Door) -> Result<(), Status> {
        let What::Dataset { plan, .. } = &mut self.what else {
            return Ok(());
        };
        if plan.folders.is_empty() || self.view.filter.is_none() {
            return Ok(());
        }
        let value = |part: &PartRef, key: &String| {
            let of = part.partition.iter().find(|(name, _)| name == key);
            of.and_then(|(_, value)| value.clone())
        };
        let folders: Vec<_> = plan
            .parts
            .iter()
            .map(|part| plan.folders.iter().map(|key| value(part, key)).collect())
            .collect();
        let schema = get::stream_schema(plan).schema;
        let mut left = door
            .views
            .folders(&self.view, &schema, &plan.folders, &folders)?
            .into_iter();
        plan.parts.retain(|_| left.next().unwrap_or(true));
        Ok(())
    }

    /// A published dataset, as ListFlights tells it.
    pub(super) fn listed(path: WirePath, plan: DatasetPlan) -> Self {
        let of = plan.version.map_or(State::Head, State::Version);
        Self {
            command: ReadCommand::new(path),
            view: View::default(),
            what: What::Dataset { plan, of, skip: 0 },
        }
    }

    pub(super) fn plan(&self) -> Option<&DatasetPlan> {
        match &self.what {
            What::Dataset { plan, .. } | What::Follow { plan } => Some(plan),
            What::File { .. } => None,
        }
    }

    /// The schema of what its streams deliver, encapsulated.
    fn shown_schema(&self, door: &Door) -> Result<Bytes, Status> {
        match self.plan() {
            None => encode::encapsulated_schema(&FILE_SCHEMA),
            Some(plan) => shown_schema(door, plan, &self.view),
        }
    }

    /// The FlightInfo that says it.
    pub(super) fn info(
        &self,
        door: &Door,
        principal: &Principal,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let (total_records, total_bytes) = self.totals();
        let endpoint = self
            .pieces(door)
            .into_iter()
            .map(|piece| self.endpoint(door, principal, piece))
            .collect();
        Ok(flight_info(
            descriptor,
            self.shown_schema(door)?,
            endpoint,
            total_records,
            total_bytes,
            &self.note(door),
        ))
    }

    fn pieces(&self, door: &Door) -> Vec<Piece> {
        match &self.what {
            What::File { .. } => {
                let offset = self.command.offset.unwrap_or(0);
                vec![Piece::File {
                    offset,
                    length: self.command.length,
                }]
            }
            What::Follow { plan } => {
                let from = self.command.from.as_ref().map(ToString::to_string);
                let from = from.or_else(|| beginning(plan).filter(|_| self.command.session.is_none()));
                vec![Piece::Follow {
                    session: self.command.session.clone(),
                    from,
                }]
            }
            What::Dataset { of, skip, .. } if self.view.limit.is_some() => {
                vec![Piece::Whole {
                    of: of.clone(),
                    skip: *skip,
                }]
            }
            What::Dataset { plan, of, skip } => part_pieces(door, plan, of, *skip),
        }
    }

    fn endpoint(&self, door: &Door, principal: &Principal, piece: Piece) -> FlightEndpoint {
        endpoint(
            door,
            principal,
            Ticket {
                path: self.command.path.clone(),
                directory: self.plan().and_then(|plan| plan.directory),
                piece,
                view: self.view.clone(),
            },
        )
    }

    /// Rows and bytes in all, where they can be known.
    fn totals(&self) -> (i64, i64) {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        match &self.what {
            What::Follow { .. } => (UNKNOWN, UNKNOWN),
            What::File { size, .. } => {
                let rest = size.saturating_sub(self.command.offset.unwrap_or(0));
                let bytes = self.command.length.map_or(rest, |length| rest.min(length));
                (count(bytes.div_ceil(encode::FILE_BATCH_BYTES)), count(bytes))
            }
            What::Dataset { plan, skip: 0, .. } if self.view.filter.is_none() => {
                let rows = plan.parts.iter().map(|part| part.rows).sum();
                let bytes = plan.parts.iter().map(|part| part.bytes).sum();
                let rows = self.view.limit.map_or(rows, |limit| limit.min(rows));
                (count(rows), if self.view.is_whole() { count(bytes) } else { UNKNOWN })
            }
            What::Dataset { .. } => (UNKNOWN, UNKNOWN),
        }
    }

    fn note(&self, door: &Door) -> InfoNote {
        let path = self.command.path.clone();
        match &self.what {
            What::File { state, .. } => InfoNote {
                path,
                version: None,
                session: None,
                state: (*state).to_owned(),
                parts: 0,
                batches: 0,
            },
            What::Dataset { plan, .. } => note(door, path, plan, |_| true),
            What::Follow { plan } => note(door, path, plan, |part| part.live.is_none()),
        }
    }
}

/// The note of a plan, counting the parts that `counted` says.
fn note(door: &Door, path: WirePath, plan: &DatasetPlan, counted: impl Fn(&PartRef) -> bool) -> InfoNote {
    let parts = plan.parts.iter().filter(|part| counted(part));
    // One that was asked for, or else the live one, also of a read that has nothing of it.
    let session = plan.session.clone().or_else(|| door.cache.live_session(&plan.path));
    InfoNote {
        path,
        version: plan.version,
        session: session.map(|session| session.0),
        state: if plan.live { "live" } else { "published" }.to_owned(),
        parts: parts.clone().count() as u64,
        batches: parts.map(|part| part.batches).sum(),
    }
}

/// One endpoint a part, from the first batch that was not read before.
pub(super) fn part_pieces(door: &Door, plan: &DatasetPlan, of: &State, skip: u64) -> Vec<Piece> {
    let schema = door.views.remember(&get::stream_schema(plan));
    let mut left = skip;
    let mut pieces = Vec::with_capacity(plan.parts.len());
    for part in &plan.parts {
        let skip = left.min(part.batches);
        left -= skip;
        if skip == 0 || skip < part.batches {
            pieces.push(Piece::Part {
                of: of.clone(),
                schema,
                part: part.clone(),
                skip,
            });
        }
    }
    pieces
}

pub(super) fn endpoint(door: &Door, principal: &Principal, ticket: Ticket) -> FlightEndpoint {
    let mut endpoint = FlightEndpoint {
        ticket: Some(Shown {
            ticket: door.office.ticket(principal.name(), &ticket),
        }),
        app_metadata: part_note(&ticket),
        ..Default::default()
    };
    endpoint.expiration_time.get_or_insert_with(Default::default).seconds =
        i64::try_from(door.office.ticket_expires()).unwrap_or(i64::MAX);
    endpoint
}

/// What an endpoint says of its part; nothing where that is not known before it is read.
fn part_note(ticket: &Ticket) -> Bytes {
    match &ticket.piece {
        Piece::Part { part, skip: 0, .. } if part.live.is_none() && ticket.view.filter.is_none() => {
            let note = EndpointNote {
                rows: part.rows,
                batches: part.batches,
            };
            serde_json::to_vec(&note).expect("plain data has a JSON form").into()
        }
        _ => Bytes::new(),
    }
}

pub(super) fn flight_info(
    descriptor: FlightDescriptor,
    schema: Bytes,
    endpoint: Vec<FlightEndpoint>,
    total_records: i64,
    total_bytes: i64,
    note: &InfoNote,
) -> FlightInfo {
    FlightInfo {
        schema,
        flight_descriptor: Some(descriptor),
        endpoint,
        total_records,
        total_bytes,
        ordered: true,
        app_metadata: serde_json::to_vec(note).expect("plain data has a JSON form").into(),
    }
}

/// The schema that `view` shows of a plan, encapsulated.
pub(super) fn shown_schema(door: &Door, plan: &DatasetPlan, view: &View) -> Result<Bytes, Status> {
    match view.is_whole() {
        true => encode::encapsulated_message(&plan.schema_message),
        false => encode::encapsulated_schema(door.views.lens(view, &plan.schema)?.schema()),
    }
}

fn view(command: &ReadCommand) -> View {
    View {
        columns: command.columns.clone(),
        filter: command.filter.clone(),
        limit: command.limit,
    }
}

/// Asks for something until it is there, at the latest at `until`.
async fn there<T, F>(until: Instant, ask: impl Fn() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    let mut pause = LOOK_FIRST;
    loop {
        let left = left(until);
        match ask().await {
            Err(status) if status.code() == Code::NotFound && !left.is_zero() => {
                tokio::time::sleep(pause.min(left)).await;
                pause = (pause * 2).min(LOOK_MAX);
            }
            found => return found,
        }
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// What a read means by its path: what it says, what its keys are for, else a dataset if it is one, else a file, once anything is there.
async fn kind(door: &Door, path: &Path, command: &ReadCommand, until: Instant) -> Result<PathKind, Status> {
    if let Some(kind) = command.kind {
        return Ok(kind);
    }
    if command.offset.is_some() || command.length.is_some() {
        return Ok(PathKind::File);
    }
    let of_datasets = command.version.is_some()
        || command.follow
        || command.session.is_some()
        || command.columns.is_some()
        || command.filter.is_some()
        || command.limit.is_some()
        || command.from.is_some();
    if of_datasets {
        return Ok(PathKind::Dataset);
    }
    there(until, || kind_there(door, path)).await
}

async fn kind_there(door: &Door, path: &Path) -> Result<PathKind, Status> {
    if door.cache.is_dataset(path).await.map_err(error::engine)? {
        return Ok(PathKind::Dataset);
    }
    // A directory that is no dataset is told as such by the engine's plan of a dataset.
    match door.cache.stat(path).await.map_err(error::engine)?.kind {
        StatKind::Dir => Ok(PathKind::Dataset),
        StatKind::File | StatKind::Symlink | StatKind::Special => Ok(PathKind::File),
    }
}

async fn find_file(door: &Door, path: &Path) -> Result<What, Status> {
    let stat = door.cache.stat(path).await.map_err(error::engine)?;
    if stat.kind == StatKind::Dir {
        return Err(error::wrong(
            "a directory is not read as a file; leave `kind` out, or list it",
        ));
    }
    Ok(What::File {
        size: stat.size,
        state: engine::state(stat.state),
    })
}

async fn find_dataset(door: &Door, path: &Path, command: &ReadCommand, until: Instant) -> Result<What, Status> {
    let (of, skip) = resumed(command)?;
    let plan = door.cache.wait_dataset(path, engine::at(&of), left(until)).await;
    let plan = plan.map_err(error::engine)?;
    check_batches(skip, &plan)?;
    // A ticket names the very state that was planned.
    let of = match (of, plan.version) {
        (State::Head, Some(version)) => State::Version(version),
        (of, _) => of,
    };
    Ok(What::Dataset { plan, of, skip })
}

/// Whether so many batches of a plan can have been read.
fn check_batches(read: u64, plan: &DatasetPlan) -> Result<(), Status> {
    let batches: u64 = plan.parts.iter().map(|part| part.batches).sum();
    if read <= batches {
        return Ok(());
    }
    let text = format!("the resume token says {read} batches were read, of which there are {batches}");
    Err(error::wrong(text))
}

/// Which state a read is of, and how many batches of it were read before.
fn resumed(command: &ReadCommand) -> Result<(State, u64), Status> {
    let asked = match (&command.session, command.version) {
        (Some(session), _) => State::Session(session.clone()),
        (None, Some(version)) => State::Version(version),
        (None, None) => State::Head,
    };
    let Some(ResumeToken { of, batches }) = &command.from else {
        return Ok((asked, 0));
    };
    let token = match of {
        Counted::Version(version) => State::Version(*version),
        Counted::Session(session) => State::Session(session.clone()),
    };
    if asked != State::Head && asked != token {
        return Err(error::wrong(
            "`from` counts in something else than `version` or `session` names; leave one of them out",
        ));
    }
    Ok((token, *batches))
}

/// The resume token of a follower's beginning. What is published between GetFlightInfo and DoGet would else change what its batches are
/// counted in. None where there is nothing to count in: files that others wrote.
fn beginning(plan: &DatasetPlan) -> Option<String> {
    let ours = |session: &SessionId| {
        let is = |part: &PartRef| {
            part.live
                .as_ref()
                .or(part.origin.as_ref())
                .is_some_and(|(of, _)| of == session)
        };
        plan.parts.iter().all(is)
    };
    match (plan.version, &plan.session) {
        (Some(version), _) => Some(format!("{version}:0")),
        (None, Some(session)) if ours(session) => Some(format!("{}:0", session.0)),
        (None, _) => None,
    }
}

/// The plan of a follower. Where a live session has no schema yet, this waits.
async fn find_followed(door: &Door, path: &Path, command: &ReadCommand, until: Instant) -> Result<DatasetPlan, Status> {
    let at = match &command.session {
        Some(session) => At::Session(SessionId(session.clone())),
        None => At::Follow,
    };
    let waited_for = door.cache.live_session(path).filter(|_| at == At::Follow);
    let plan = match (door.cache.wait_dataset(path, at, left(until)).await, waited_for) {
        (Err(nothing), Some(session)) if nothing.kind() == ErrorKind::NotFound => {
            // It ended before it had a schema; how, it says itself.
            match door.cache.dataset(path, At::Session(session)).await {
                Err(aborted) if aborted.kind() == ErrorKind::Aborted => Err(aborted),
                _ => Err(nothing),
            }
        }
        (plan, _) => plan,
    };
    if plan.is_ok()
        && let Some(token) = &command.from
    {
        check_token(door, path, command.session.clone(), token).await?;
    }
    plan.map_err(error::engine)
}

/// Whether a follower can go on from a resume token: what it counts in is of this dataset, was not overwritten, and has so many
/// batches. At DoGet it would be told too late, or by a stream that has nothing.
async fn check_token(door: &Door, path: &Path, session: Option<String>, token: &ResumeToken) -> Result<(), Status> {
    let counted = match &token.of {
        // What later versions append is counted on in the version.
        Counted::Version(_) => At::Head,
        Counted::Session(session) => At::Session(SessionId(session.clone())),
    };
    let plan = door.cache.dataset(path, counted).await.map_err(error::engine)?;
    let spec = get::follow_spec(session, Some(token.to_string()))?;
    door.cache.follow(path, spec).await.map_err(error::engine)?;
    check_batches(token.batches, &plan)
}
