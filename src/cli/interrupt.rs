//! Ctrl-C: ends the process with exit code 130, unless a command has said that it looks for itself.

use std::sync::atomic::{AtomicBool, Ordering};

use super::exit::Exit;

static COOPERATIVE: AtomicBool = AtomicBool::new(false);
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Catch SIGINT from here on. Where the handler cannot be set, the system's own (end at once) stays.
pub fn install() {
    let set = ctrlc::set_handler(|| {
        let first = !REQUESTED.swap(true, Ordering::SeqCst);
        if !(first && COOPERATIVE.load(Ordering::SeqCst)) {
            std::process::exit(Exit::Interrupted as i32);
        }
    });
    if let Err(error) = set {
        tracing::debug!("cannot catch Ctrl-C: {error}");
    }
}

/// Say whether this command looks at [`requested`] often; if so, only a second Ctrl-C ends the process at once.
pub fn cooperative(yes: bool) {
    COOPERATIVE.store(yes, Ordering::SeqCst);
}

/// Whether Ctrl-C was pressed since the last [`clear`].
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Forget a Ctrl-C that was answered.
pub fn clear() {
    REQUESTED.store(false, Ordering::SeqCst);
}
