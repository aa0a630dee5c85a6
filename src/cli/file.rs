//! Texts: from files and from standard input.

use std::fs;
use std::io::{IsTerminal, Read};
use std::path::Path;

use super::exit::Failure;

/// The bytes of a text file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::input(format!("cannot read {}", path.display())).because(error))
}

/// The bytes of a text that a model is calibrated or measured by: not those of a model that was named in its place.
pub(super) fn read_text(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = read(path)?;
    match bytes.iter().position(|b| *b == 0) {
        None => Ok(bytes),
        Some(at) => {
            let why = "is no text: it has a zero byte";
            Err(Failure::input(format!("{}: {why} at offset {at}", path.display())))
        }
    }
}

/// Everything on standard input, to its end.
pub(super) fn read_stdin(what: &str) -> Result<Vec<u8>, Failure> {
    let mut stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        tracing::info!("reading {what} from the terminal; Ctrl-D ends it");
    } else {
        tracing::debug!("reading {what} from standard input");
    }
    let mut bytes = Vec::new();
    stdin
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::failed(format!("cannot read {what} from standard input")).because(e))?;
    Ok(bytes)
}
