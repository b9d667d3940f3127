use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_panic_becomes_the_first_terminal_error_and_the_process_lives() {
    let tasks = Tasks::new("engine");
    tasks.spawn("flusher", async {
        blocking(|| ()).await;
        fail_with(7)
    });
    let failure = tasks.failed().await;
    assert_eq!(
        failure,
        Failure {
            task: "engine/flusher".into(),
            reason: "panicked: torn 7".into()
        }
    );
    tasks.spawn("second", async { Err::<(), _>("later") }).ended().await;
    assert_eq!(tasks.failure(), Some(failure), "only the first error is kept");
}

#[tokio::test]
async fn a_failure_below_reaches_the_top_and_not_the_sibling() {
    let top = Tasks::new("serve");
    let (engine, door) = (top.child("engine"), top.child("door"));
    engine
        .spawn("persist", async { Err::<(), _>("no store") })
        .ended()
        .await;
    assert_eq!(
        top.failed().await.to_string(),
        "task serve/engine/persist failed: no store"
    );
    assert_eq!(door.failure(), None);
}

#[tokio::test]
async fn drain_asks_waits_and_ends_with_nobody_left() {
    let tasks = Tasks::new("engine");
    let tidied = Arc::new(AtomicBool::new(false));
    let (shutdown, flag) = (tasks.shutdown().clone(), Arc::clone(&tidied));
    tasks.spawn("tidy", async move {
        shutdown.cancelled().await;
        tokio::task::yield_now().await;
        flag.store(true, Ordering::SeqCst);
    });
    tasks.drain(LIMIT).await.unwrap();
    assert!(tidied.load(Ordering::SeqCst));
    assert!(tasks.running().is_empty());
    tasks.drain(LIMIT).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn drain_names_whom_it_waited_for_and_aborts_them() {
    let tasks = Tasks::new("engine");
    tasks.spawn("polite", async {});
    tasks.spawn("uploader", std::future::pending::<()>());
    let stuck = tasks.drain(LIMIT).await.unwrap_err();
    assert_eq!(
        stuck,
        Stuck {
            set: "engine".into(),
            limit: LIMIT,
            waiting: vec!["uploader".into()]
        }
    );
    tasks.drain(LIMIT).await.expect("the abort took effect");
}

#[tokio::test]
async fn shutdown_of_a_set_reaches_the_sets_below_it_only() {
    let top = Tasks::new("serve");
    let (engine, door) = (top.child("engine"), top.child("door"));
    door.drain(LIMIT).await.unwrap();
    assert!(!top.shutdown().is_cancelled() && !engine.shutdown().is_cancelled());
    top.drain(LIMIT).await.unwrap();
    assert!(engine.shutdown().is_cancelled());
}

#[tokio::test]
async fn an_aborted_task_signs_off_and_is_no_failure() {
    let tasks = Tasks::new("engine");
    let started = tasks.spawn("wait", std::future::pending::<()>());
    started.abort();
    started.ended().await;
    assert!(tasks.running().is_empty());
    assert_eq!(tasks.failure(), None);
}

#[tokio::test]
async fn blocking_leaves_the_thread_unless_it_is_simulated() {
    let here = std::thread::current().id();
    assert_ne!(blocking(|| std::thread::current().id()).await, here);
    let guard = simulate();
    assert_eq!(blocking(|| std::thread::current().id()).await, here);
    drop(guard);
    assert!(!is_simulated());
}

#[tokio::test]
async fn a_panic_in_blocking_code_goes_on_in_the_caller() {
    let tasks = Tasks::new("engine");
    tasks.spawn("disk", async { blocking(|| fail_with(8)).await });
    assert_eq!(tasks.failed().await.reason, "panicked: torn 8");
}

fn fail_with(number: u32) {
    panic!("torn {number}");
}

#[tokio::test]
async fn a_change_that_nobody_awaits_any_more_goes_on_and_a_drain_waits_for_it() {
    let (tasks, done) = (Tasks::new("set"), Arc::new(AtomicBool::new(false)));
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let ended = Arc::clone(&done);
    let mut change = Box::pin(tasks.to_the_end("change", async move {
        let _ = gone.await;
        ended.store(true, Ordering::SeqCst);
        7
    }));
    assert!(futures::poll!(&mut change).is_pending());
    drop(change);
    assert_eq!(tasks.running(), ["change"]);
    let drained = tokio::spawn({
        let tasks = tasks.clone();
        async move { tasks.drain(Duration::from_secs(60)).await }
    });
    go.send(()).unwrap();
    drained.await.unwrap().unwrap();
    assert!(done.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_change_answers_whoever_awaits_it_and_its_panic_is_terminal() {
    let tasks = Tasks::new("set");
    assert_eq!(tasks.to_the_end("change", async { 7 }).await, Ok(7));
    assert!(tasks.running().is_empty() && tasks.failure().is_none());
    let failed = tasks.to_the_end("change", async { panic!("as asked") }).await;
    let failed: Result<(), Failure> = failed;
    assert!(failed.unwrap_err().reason.contains("as asked"));
    assert!(tasks.failure().unwrap().task.ends_with("/change"));
}
