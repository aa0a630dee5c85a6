//! Ctrl-C: ends the process with exit code 130, unless a command has said that it looks for itself.

use std::sync::atomic::{AtomicU32, Ordering};

use super::exit::Exit;

/// How many times it is pressed, without being answered, until the process ends.
static PRESSES_TO_END: AtomicU32 = AtomicU32::new(1);
/// How many times it was.
static PRESSED: AtomicU32 = AtomicU32::new(0);

/// Catch SIGINT from here on. Where the handler cannot be set, the system's own (end at once) stays.
pub fn install() {
    let set = ctrlc::set_handler(|| {
        let pressed = PRESSED.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        if pressed >= PRESSES_TO_END.load(Ordering::SeqCst) {
            std::process::exit(Exit::Interrupted as i32);
        }
    });
    if let Err(error) = set {
        tracing::debug!("cannot catch Ctrl-C: {error}");
    }
}

/// Say whether this command looks at [`requested`] often; if so, only a second Ctrl-C ends the process at once.
pub fn cooperative(yes: bool) {
    PRESSES_TO_END.store(if yes { 2 } else { 1 }, Ordering::SeqCst);
}

/// As [`cooperative`], where a second Ctrl-C means impatience rather than despair: the fifth ends the process.
pub fn patient() {
    PRESSES_TO_END.store(5, Ordering::SeqCst);
}

/// Whether Ctrl-C was pressed since the last [`clear`].
pub fn requested() -> bool {
    PRESSED.load(Ordering::SeqCst) > 0
}

/// Forget a Ctrl-C that was answered.
pub fn clear() {
    PRESSED.store(0, Ordering::SeqCst);
}
