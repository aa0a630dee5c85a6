//! Input files: models with their overrides, and texts.

use std::fs;
use std::io::{IsTerminal, Read};
use std::path::Path;

use chaski_gguf::{Gguf, OpenOptions, OwnedValue};

use super::exit::Failure;

/// Open a model file and put the overrides of the command line above what it says.
pub(super) fn open(path: &Path, mmap: bool, overrides: &[(String, OwnedValue)]) -> anyhow::Result<Gguf> {
    let mut file = Gguf::open_with(path, &OpenOptions { mmap }).map_err(|error| named(path, error))?;
    for (key, value) in overrides {
        if file.get(key).is_none() {
            tracing::warn!("--override-kv {key}: the file has no such key; it is added");
        }
        file.override_value(key, value.clone())
            .map_err(|error| Failure::usage(format!("--override-kv {key}")).because(error))?;
    }
    Ok(file)
}

/// Say which file, where the error does not do so itself.
pub(super) fn named<E>(path: &Path, error: E) -> anyhow::Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    let path = path.display().to_string();
    if error.to_string().contains(&path) { error.into() } else { anyhow::Error::new(error).context(path) }
}

/// The bytes of a text file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::input(format!("cannot read {}", path.display())).because(error))
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
