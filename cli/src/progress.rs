//! Bars on stderr for work that takes a while; silent where stderr is no terminal or machines read.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{io::IsTerminal, time::Duration};

const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const BYTES_OPEN: &str = "{spinner} {msg} {bytes} {bytes_per_sec}";
const WORDS: &str = "{spinner} {msg}";

/// A bar over `total` bytes, or a spinner that counts them when nobody knows how many there are.
pub(crate) fn bytes(what: impl Into<String>, total: Option<u64>) -> ProgressBar {
    bar(total, if total.is_some() { BYTES } else { BYTES_OPEN }, what.into())
}

/// A spinner with words.
pub(crate) fn words(what: impl Into<String>) -> ProgressBar {
    bar(None, WORDS, what.into())
}

fn bar(total: Option<u64>, template: &str, what: String) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(template).expect("the templates above are well formed"));
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
