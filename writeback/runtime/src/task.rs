//! The one way to run a task: named, supervised, drained at shutdown.
//!
//! A [`Tasks`] is one component's set of tasks. A task that ends in an error or a panic is *terminal*: the first one is kept,
//! logged once, and told to the set and to its parents, whose owner decides what to do about it. Shutdown is cooperative: a task
//! watches [`Tasks::shutdown`] and ends when it may; [`Tasks::drain`] waits, names whom it waits for, and in the end aborts.
//!
//! [`blocking`] is the one way to run code that blocks. In a simulation (see [`simulate`]) it runs in line, so that a seed
//! decides the order of everything.
//!
//! It does not own: restarts (a component that can go on after an error does not end its task), priorities.

use futures::FutureExt;
use parking_lot::Mutex;
use std::{
    any::Any,
    cell::Cell,
    collections::BTreeMap,
    fmt::{self, Display},
    future::Future,
    marker::PhantomData,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{runtime::Handle, sync::watch, task::AbortHandle};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// How often a drain says whom it waits for.
const DRAIN_REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// A task ended that should not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task {task} failed: {reason}")]
pub struct Failure {
    /// Name of the task, with the names of its sets.
    pub task: String,
    /// Its error, or the text of its panic.
    pub reason: String,
}

/// A drain ran out of time; these tasks were aborted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{set} did not end within {limit:?}, waiting for: {}", waiting.join(", "))]
pub struct Stuck {
    /// The set that was drained.
    pub set: String,
    /// The time it had.
    pub limit: Duration,
    /// Names of the tasks that still ran.
    pub waiting: Vec<String>,
}

/// What a task may end with: nothing, or a result whose error is terminal.
pub trait Outcome {
    /// The reason of a terminal error.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Display> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// A component's tasks. Cheap to clone; all clones are the same set.
#[derive(Clone)]
pub struct Tasks {
    set: Arc<Set>,
}

struct Set {
    name: String,
    parent: Option<Tasks>,
    shutdown: CancellationToken,
    running: Mutex<Running>,
    count: watch::Sender<usize>,
    failure: watch::Sender<Option<Failure>>,
}

#[derive(Default)]
struct Running {
    next: u64,
    tasks: BTreeMap<u64, (String, Option<AbortHandle>)>,
}

/// A task that was started. Dropping it leaves the task alone.
#[derive(Debug)]
pub struct Started {
    handle: tokio::task::JoinHandle<()>,
}

impl Started {
    /// Ends the task at its next await.
    pub fn abort(&self) {
        self.handle.abort();
    }

    /// Waits until the task has ended, in whatever way; its failure is the set's.
    pub async fn ended(self) {
        // A panic of the task is caught inside and an abort is an end, so there is nothing to learn here.
        let _ = self.handle.await;
    }
}

impl Tasks {
    /// An empty set named after its component.
    pub fn new(name: impl Into<String>) -> Self {
        Self::with(name.into(), None, CancellationToken::new())
    }

    /// A set below this one: it is told to shut down with this one, drains by itself, and its failures reach this one too.
    pub fn child(&self, name: &str) -> Self {
        Self::with(
            format!("{}/{name}", self.set.name),
            Some(self.clone()),
            self.set.shutdown.child_token(),
        )
    }

    fn with(name: String, parent: Option<Self>, shutdown: CancellationToken) -> Self {
        let running = Mutex::default();
        let (count, failure) = (watch::Sender::new(0), watch::Sender::new(None));
        Self {
            set: Arc::new(Set {
                name,
                parent,
                shutdown,
                running,
                count,
                failure,
            }),
        }
    }

    /// Starts a task on the current runtime.
    pub fn spawn<F>(&self, name: impl Into<String>, future: F) -> Started
    where
        F: Future + Send + 'static,
        F::Output: Outcome + Send,
    {
        let name = name.into();
        let registered = self.register(name.clone());
        let (id, set) = (registered.id, self.clone());
        let span = tracing::debug_span!("task", set = %self.set.name, task = %name);
        let run = async move {
            let _registered = registered;
            let ended = AssertUnwindSafe(future).catch_unwind().await;
            let reason = match ended {
                Ok(outcome) => outcome.failure(),
                Err(panic) => Some(format!("panicked: {}", panic_text(&*panic))),
            };
            if let Some(reason) = reason {
                set.fail(&name, reason);
            }
        };
        let handle = tokio::spawn(run.instrument(span));
        if let Some((_, abort)) = self.set.running.lock().tasks.get_mut(&id) {
            *abort = Some(handle.abort_handle());
        }
        Started { handle }
    }

    /// Starts code that blocks, off the async threads; a panic of it is terminal. Not for simulations, where [`blocking`] runs it in
    /// line.
    pub fn start_blocking(&self, name: &'static str, f: impl FnOnce() + Send + 'static) {
        let (registered, tasks) = (self.register(name.to_owned()), self.clone());
        // Dropping the handle leaves it alone.
        drop(tokio::task::spawn_blocking(move || {
            let _registered = registered;
            if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(f)) {
                tasks.fail(name, format!("panicked: {}", panic_text(&*panic)));
            }
        }));
    }

    /// Runs `change` to its end: where it is awaited, and in a task of the set from where on nobody awaits it any more. A drain waits
    /// for it. The error is its panic, which is terminal.
    pub fn to_the_end<F>(&self, name: &'static str, change: F) -> ToTheEnd<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        ToTheEnd {
            name,
            tasks: self.clone(),
            runtime: Handle::current(),
            rest: Some(Box::pin(change)),
            _registered: self.register(name.to_owned()),
        }
    }

    /// Cancelled when the set shall end: `tokio::select!` on `shutdown().cancelled()`.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.set.shutdown
    }

    /// The first terminal error of this set or of one below it.
    pub fn failure(&self) -> Option<Failure> {
        self.set.failure.borrow().clone()
    }

    /// Completes with the first terminal error, never without one.
    pub async fn failed(&self) -> Failure {
        let mut failure = self.set.failure.subscribe();
        let seen = failure
            .wait_for(Option::is_some)
            .await
            .expect("the set holds the sender");
        seen.clone().expect("just waited for some")
    }

    /// Records a terminal error in the name of `task`; only the first one is kept.
    pub fn fail(&self, task: &str, reason: String) {
        let failure = Failure {
            task: format!("{}/{task}", self.set.name),
            reason,
        };
        tracing::error!(task = failure.task, reason = failure.reason, "task failed");
        let mut set = Some(self);
        while let Some(tasks) = set {
            tasks.set.failure.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert_with(|| failure.clone());
                is_first
            });
            set = tasks.set.parent.as_ref();
        }
    }

    /// Names of the tasks that run, oldest first.
    pub fn running(&self) -> Vec<String> {
        self.set
            .running
            .lock()
            .tasks
            .values()
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Asks every task to end and waits for all of them, at most `limit`; then aborts the rest and names them.
    pub async fn drain(&self, limit: Duration) -> Result<(), Stuck> {
        self.set.shutdown.cancel();
        if tokio::time::timeout(limit, self.all_ended()).await.is_ok() {
            return Ok(());
        }
        let waiting = self.running();
        self.abort_all();
        if waiting.is_empty() {
            Ok(())
        } else {
            Err(Stuck {
                set: self.set.name.clone(),
                limit,
                waiting,
            })
        }
    }

    async fn all_ended(&self) {
        let mut count = self.set.count.subscribe();
        loop {
            let ended = count.wait_for(|&count| count == 0);
            match tokio::time::timeout(DRAIN_REPORT_INTERVAL, ended).await {
                Ok(_) => return,
                Err(_) => tracing::info!(set = self.set.name, waiting = ?self.running(), "waiting for tasks to end"),
            }
        }
    }

    fn abort_all(&self) {
        // Taken out of the lock first: a task that is dropped on the spot takes the lock to sign off.
        let handles: Vec<_> = self
            .set
            .running
            .lock()
            .tasks
            .values()
            .filter_map(|(_, abort)| abort.clone())
            .collect();
        handles.iter().for_each(AbortHandle::abort);
    }

    fn register(&self, name: String) -> Registered {
        let mut running = self.set.running.lock();
        let id = running.next;
        running.next += 1;
        running.tasks.insert(id, (name, None));
        self.set.count.send_replace(running.tasks.len());
        Registered {
            tasks: self.clone(),
            id,
        }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks")
            .field("name", &self.set.name)
            .field("running", &self.running())
            .finish_non_exhaustive()
    }
}

/// Signs a task off however it ends: done, panicked, aborted, or dropped with its runtime.
struct Registered {
    tasks: Tasks,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut running = self.tasks.set.running.lock();
        running.tasks.remove(&self.id);
        self.tasks.set.count.send_replace(running.tasks.len());
    }
}

/// See [`Tasks::to_the_end`].
#[must_use = "it runs where it is awaited"]
pub struct ToTheEnd<T: Send + 'static> {
    name: &'static str,
    tasks: Tasks,
    runtime: Handle,
    /// Some until it has ended.
    rest: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    // Signs off after `drop` has started the task that goes on.
    _registered: Registered,
}

impl<T: Send + 'static> fmt::Debug for ToTheEnd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToTheEnd")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Future for ToTheEnd<T> {
    type Output = Result<T, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let rest = self.rest.as_mut().expect("it is not polled after its end");
        let ended = match std::panic::catch_unwind(AssertUnwindSafe(|| rest.as_mut().poll(context))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(value)) => Ok(value),
            Err(panic) => Err(format!("panicked: {}", panic_text(&*panic))),
        };
        self.rest = None;
        Poll::Ready(ended.map_err(|reason| {
            self.tasks.fail(self.name, reason.clone());
            let task = self.name.to_owned();
            Failure { task, reason }
        }))
    }
}

impl<T: Send + 'static> Drop for ToTheEnd<T> {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take() {
            let _entered = self.runtime.enter();
            self.tasks.spawn(self.name, rest.map(drop));
        }
    }
}

/// The text of a caught panic.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&'static str>() {
        return text;
    }
    panic
        .downcast_ref::<String>()
        .map_or("panic without a text", String::as_str)
}

thread_local! {
    static SIMULATED: Cell<u32> = const { Cell::new(0) };
}

/// While this guard lives, [`blocking`] on this thread runs its closure in line. Hold it on the thread of a single-threaded
/// runtime.
#[must_use = "the simulation ends when the guard is dropped"]
#[derive(Debug)]
pub struct Simulated {
    // Bound to its thread.
    _thread: PhantomData<*const ()>,
}

/// Marks this thread as one that simulates.
pub fn simulate() -> Simulated {
    SIMULATED.set(SIMULATED.get() + 1);
    Simulated { _thread: PhantomData }
}

/// Whether this thread simulates.
pub fn is_simulated() -> bool {
    SIMULATED.get() > 0
}

impl Drop for Simulated {
    fn drop(&mut self) {
        SIMULATED.set(SIMULATED.get() - 1);
    }
}

/// Runs code that blocks, off the async threads; in line (after giving way once) in a simulation. A panic of `f` goes on in the
/// caller. When the caller is dropped, `f` still runs to its end.
pub async fn blocking<T, F>(f: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    if is_simulated() {
        tokio::task::yield_now().await;
        return f();
    }
    match tokio::task::spawn_blocking(f).await {
        Ok(value) => value,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime shuts down before `f` began; whoever waits here is about to be dropped with it.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
