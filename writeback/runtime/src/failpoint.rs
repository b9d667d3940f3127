//! Crash points: places in the code that a test can name to stop, delay or fail the process there.
//!
//! They are armed only when `FOREBAY_FAILPOINTS` is set at start (`name=action;name=action`, actions of the crate `fail`, plus
//! `return(abort)` which ends the process on the spot and `return(error)` which the call site turns into its own error).
//! Before it ends the process, a point writes its name as a line to the file named by `FOREBAY_FAILPOINTS_LOG`, so that a
//! test can prove that its fault hit. Unarmed, a point costs one relaxed load.
//!
//! `crash_point!("data-synced-not-acked")` evaluates to `Option<String>`: the text of a `return(...)` action.

use std::{
    env,
    fs::OpenOptions,
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
};

/// Environment variable with the points and their actions.
pub const POINTS_VAR: &str = "FOREBAY_FAILPOINTS";
/// Environment variable with the file that gets the name of the point that ended the process.
pub const LOG_VAR: &str = "FOREBAY_FAILPOINTS_LOG";

static ARMED: AtomicBool = AtomicBool::new(false);

/// A text in `FOREBAY_FAILPOINTS` that is no list of points.
#[derive(Debug, thiserror::Error)]
#[error("{POINTS_VAR}: `{entry}`: {reason}; expected name=action;name=action")]
pub struct BadPoints {
    entry: String,
    reason: String,
}

/// Arms the points that the environment names. Call once at the start of the process, before any task runs.
pub fn init() -> Result<(), BadPoints> {
    match env::var(POINTS_VAR) {
        Ok(points) => arm(&points),
        Err(_) => Ok(()),
    }
}

/// Arms the points of `points` (`name=action;name=action`), for the whole process.
pub fn arm(points: &str) -> Result<(), BadPoints> {
    for entry in points.split(';').map(str::trim).filter(|e| !e.is_empty()) {
        let bad = |reason: String| BadPoints {
            entry: entry.to_owned(),
            reason,
        };
        let (name, actions) = entry.split_once('=').ok_or_else(|| bad("no `=`".into()))?;
        fail::cfg(name.trim(), actions.trim()).map_err(bad)?;
        ARMED.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Takes the actions from a point again.
pub fn disarm(name: &str) {
    fail::remove(name);
}

/// Whether any point was ever armed.
#[inline]
pub fn armed() -> bool {
    ARMED.load(Ordering::Relaxed)
}

/// What the macro calls when points are armed.
#[cold]
pub fn reach(name: &str) -> Option<String> {
    let answer = fail::eval(name, |text| text).flatten();
    if answer.as_deref() == Some("abort") {
        record(name);
        std::process::abort();
    }
    answer
}

fn record(name: &str) {
    let Ok(path) = env::var(LOG_VAR) else { return };
    let written = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut log| {
            log.write_all(format!("{name}\n").as_bytes())?;
            log.sync_all()
        });
    if let Err(e) = written {
        tracing::error!(point = name, log = path, error = %e, "cannot write the name of the crash point");
    }
}

/// A named place that a test can arm. Evaluates to the text of a `return(...)` action, `None` otherwise.
///
/// ```
/// use forebay_runtime::crash_point;
/// fn save() -> Result<(), String> {
///     if crash_point!("doc-saved-not-told").as_deref() == Some("error") {
///         return Err("asked to fail".into());
///     }
///     Ok(())
/// }
/// assert!(save().is_ok());
/// forebay_runtime::failpoint::arm("doc-saved-not-told=return(error)").unwrap();
/// assert!(save().is_err());
/// ```
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        if $crate::failpoint::armed() {
            $crate::failpoint::reach($name)
        } else {
            None::<::std::string::String>
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_armed_point_answers_at_its_turn_and_others_stay_silent() {
        arm("failpoint-test-a=2*off->return(error); failpoint-test-b=return(text)").unwrap();
        let answers: Vec<_> = (0..4).map(|_| crash_point!("failpoint-test-a")).collect();
        assert_eq!(
            answers,
            [None, None, Some("error".to_owned()), Some("error".to_owned())]
        );
        assert_eq!(crash_point!("failpoint-test-b").as_deref(), Some("text"));
        assert_eq!(crash_point!("failpoint-test-c"), None);
        disarm("failpoint-test-a");
        assert_eq!(crash_point!("failpoint-test-a"), None);
    }

    #[test]
    fn a_text_that_is_no_list_of_points_is_refused() {
        for bad in ["nonsense", "name=nonsense", "ok-point=off;x"] {
            let said = arm(bad).unwrap_err().to_string();
            assert!(said.contains("FOREBAY_FAILPOINTS"), "{said}");
        }
    }
}
