//! The file that grows: under a name of its own until it is whole, with a journal beside it, so that a run that was cut off
//! can be taken up again where it stopped.
//!
//! `NAME.partial` holds the bytes, `NAME.partial.json` what they are: a fingerprint of the plan, the sources and the options,
//! and how many tensors are certainly on the disk. A journal of another plan is not taken up; its file begins anew.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Measures, QuantError};

/// Bytes after which the journal is brought up to date, and the time after which it is in any case: what a run that is
/// killed loses.
const SYNC_EVERY: (u64, Duration) = (256 << 20, Duration::from_secs(2));

/// What is certainly on the disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Journal {
    fingerprint: String,
    tensors: usize,
    measures: Vec<Option<Measures>>,
}

/// An output under way.
pub(super) struct Partial {
    path: PathBuf,
    growing: PathBuf,
    file: BufWriter<File>,
    journal: Journal,
    /// Of the tensors written since the journal was brought up to date.
    fresh: Vec<Option<Measures>>,
    fresh_bytes: u64,
    synced: Instant,
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(suffix);
    path.with_file_name(name)
}

/// Where the bytes of `path` lie until they are whole.
pub(super) fn partial_path(path: &Path) -> PathBuf {
    with_suffix(path, ".partial")
}

fn journal_path(path: &Path) -> PathBuf {
    with_suffix(path, ".partial.json")
}

/// The journal of a partial file of this fingerprint, and how many of its tensors are there; none if there is none.
fn journal_of(path: &Path, fingerprint: &str, ends: &[u64]) -> Option<Journal> {
    let journal: Journal = serde_json::from_slice(&fs::read(journal_path(path)).ok()?).ok()?;
    let there = fs::metadata(partial_path(path)).ok()?.len();
    let end = ends.get(journal.tensors.checked_sub(1)?)?;
    let whole = journal.measures.len() == journal.tensors && there >= *end;
    (journal.fingerprint == fingerprint && whole).then_some(journal)
}

/// How many tensors of this plan a run that was cut off has left, to be taken up.
pub(super) fn resumable(path: &Path, fingerprint: &str, ends: &[u64]) -> usize {
    journal_of(path, fingerprint, ends).map_or(0, |journal| journal.tensors)
}

impl Partial {
    /// Open the partial file of `path`: at the end of the last tensor that a run of the same fingerprint left, or anew with
    /// `head`. `ends` are the offsets at which the tensors end, padding included.
    pub(super) fn open(
        path: &Path,
        fingerprint: &str,
        head: &[u8],
        ends: &[u64],
    ) -> Result<Partial, QuantError> {
        let partial = partial_path(path);
        let io = |source| QuantError::Io { path: partial.clone(), source };
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(&partial).map_err(io)?;
        // A child that has been forked and runs no program yet holds its parent's locks: for a moment, even after them.
        let mut patience = 10;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if patience > 0 => {
                    patience -= 1;
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(TryLockError::WouldBlock) => return Err(QuantError::Busy { path: partial }),
                // A file system without locks.
                Err(TryLockError::Error(error)) => {
                    tracing::debug!("cannot lock {}: {error}", partial.display());
                    break;
                }
            }
        }
        let found = journal_of(path, fingerprint, ends);
        let mut file = BufWriter::with_capacity(1 << 20, file);
        let journal = if let Some(journal) = found {
            let end = journal.tensors.checked_sub(1).and_then(|i| ends.get(i)).copied().unwrap_or(0);
            file.get_ref().set_len(end).map_err(io)?;
            file.seek(SeekFrom::Start(end)).map_err(io)?;
            journal
        } else {
            // The old journal must not outlive the bytes that it speaks of.
            match fs::remove_file(journal_path(path)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
                _ => {}
            }
            file.get_ref().set_len(0).map_err(io)?;
            file.write_all(head).map_err(io)?;
            Journal { fingerprint: fingerprint.to_owned(), ..Journal::default() }
        };
        Ok(Partial {
            path: path.to_owned(),
            growing: partial,
            file,
            journal,
            fresh: Vec::new(),
            fresh_bytes: 0,
            synced: Instant::now(),
        })
    }

    /// The measures of the tensors that are there already.
    pub(super) fn measures(&self) -> &[Option<Measures>] {
        &self.journal.measures
    }

    /// Bytes that an earlier run has left.
    pub(super) fn read(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, QuantError> {
        let io = |source| QuantError::Io { path: self.growing.clone(), source };
        let mut file = File::open(&self.growing).map_err(io)?;
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
        let mut found = Vec::new();
        let n = file.take(bytes).read_to_end(&mut found).map_err(io)?;
        if n as u64 == bytes { Ok(found) } else { Err(io(std::io::ErrorKind::UnexpectedEof.into())) }
    }

    /// Append bytes of the tensor whose turn it is.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), QuantError> {
        self.fresh_bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|source| QuantError::Io { path: self.growing.clone(), source })
    }

    /// The tensor whose turn it was is complete.
    pub(super) fn complete(&mut self, measures: Option<Measures>) -> Result<(), QuantError> {
        self.fresh.push(measures);
        let due = self.fresh_bytes >= SYNC_EVERY.0 || self.synced.elapsed() >= SYNC_EVERY.1;
        if due { self.sync() } else { Ok(()) }
    }

    /// Bring everything written to the disk, then the journal up to date.
    pub(super) fn sync(&mut self) -> Result<(), QuantError> {
        let io = |source| QuantError::Io { path: self.growing.clone(), source };
        self.file.flush().and_then(|()| self.file.get_ref().sync_data()).map_err(io)?;
        self.journal.tensors += self.fresh.len();
        self.journal.measures.append(&mut self.fresh);
        (self.fresh_bytes, self.synced) = (0, Instant::now());
        let text = serde_json::to_vec(&self.journal).map_err(std::io::Error::other).map_err(io)?;
        let (path, new) = (journal_path(&self.path), with_suffix(&self.path, ".partial.json.new"));
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).map_err(io)
    }

    /// Everything is written: give the file its name. What was there under it is replaced.
    pub(super) fn finish(mut self) -> Result<(), QuantError> {
        let io = |source| QuantError::Io { path: self.path.clone(), source };
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).map_err(io)?;
        fs::rename(&self.growing, &self.path).map_err(io)?;
        // The file is whole; a journal that stays behind is of no harm, as nothing lies beside it.
        let _ = fs::remove_file(journal_path(&self.path));
        Ok(())
    }
}
