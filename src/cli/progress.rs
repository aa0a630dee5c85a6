//! Progress bars, on a terminal only.

use indicatif::{ProgressBar, ProgressStyle};

use super::output::Terminal;

/// A bar over `total` bytes on standard error; one that shows nothing where bars are not wanted.
pub(super) fn bytes(terminal: Terminal, label: &str, total: u64) -> ProgressBar {
    if !terminal.progress {
        return ProgressBar::hidden();
    }
    styled(label, total, "{msg} {wide_bar} {bytes}/{total_bytes} {eta}")
}

/// As [`bytes`], over tokens.
pub(super) fn tokens(terminal: Terminal, label: &str, total: u64) -> ProgressBar {
    if !terminal.progress {
        return ProgressBar::hidden();
    }
    styled(label, total, "{msg} {wide_bar} {pos}/{len} tokens {eta}")
}

/// As [`bytes`], over windows of a text.
pub(super) fn windows(terminal: Terminal, label: &str, total: u64) -> ProgressBar {
    if !terminal.progress {
        return ProgressBar::hidden();
    }
    styled(label, total, "{msg} {wide_bar} {pos}/{len} windows {eta}")
}

/// As [`bytes`], over repetitions of a measurement.
pub(super) fn repetitions(terminal: Terminal, label: &str, total: u64) -> ProgressBar {
    if !terminal.progress {
        return ProgressBar::hidden();
    }
    styled(label, total, "{msg} {wide_bar} {pos}/{len} {elapsed}")
}

fn styled(label: &str, total: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(label.to_owned());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
