//! A plan carried out: every check first, then tensor after tensor, a slab of rows at a time.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use chaski_gguf::{Writer, keys};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::calibrated::Calibrated;
use super::convert::{self, Rows};
use super::measures::{Measures, Sums};
use super::output::{self, Partial};
use super::{Imatrix, Plan, Planned, QuantError, Source};

/// Values of a slab: what is converted before it is written.
const SLAB: usize = 1 << 22;

/// What is to be done.
pub struct Job<'a> {
    /// The source.
    pub source: &'a dyn Source,
    /// The formats of its tensors.
    pub plan: &'a Plan,
    /// The file to be written.
    pub path: &'a Path,
    /// Metadata to be set besides what the source has and what every quantized file gets.
    pub metadata: Vec<(String, chaski_gguf::OwnedValue)>,
    /// How important the columns are.
    pub imatrix: Option<&'a Imatrix>,
    /// Threads, at least 1.
    pub threads: usize,
    /// Measure what is lost, tensor by tensor.
    pub measure: bool,
}

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Bytes of the source that are done.
    pub bytes: u64,
    /// The tensor at hand.
    pub tensor: &'a str,
}

/// How it ended.
#[derive(Debug)]
pub enum Outcome {
    /// The file is there.
    Done(Written),
    /// It was broken off; what is there will be taken up by the next run.
    Stopped {
        /// Tensors that are done.
        tensors: usize,
    },
}

/// A file that was written.
#[derive(Debug)]
pub struct Written {
    /// Its size in bytes.
    pub bytes: u64,
    /// Tensors that an earlier run had left, and that were not converted again.
    pub resumed: usize,
    /// For every tensor of the plan what was lost; none where nothing was, or where it was not measured. What a source could
    /// not say exactly ([`super::Piece::lost`]) is always measured.
    pub measures: Vec<Option<Measures>>,
}

/// Carry a plan out. `watch` is told of the progress and may break it off.
///
/// Memory is bounded: rows are converted in slabs of some 4 million values. The file lies under `NAME.partial` until it is
/// whole. Where a file of the same plan was left unfinished there, it is taken up; the bytes are the same in any case.
///
/// # Errors
/// Before the first byte: the output cannot be written, would replace its source, or does not fit on the disk. On the way:
/// a value is not finite, or the system refuses to write.
pub fn run(
    job: &Job<'_>,
    watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Outcome, QuantError> {
    carry_out(job, None, watch)
}

/// As [`run()`], but tensors are rounded by calibration, where that has to do with them. The plan's tensors come in the order
/// of their layers ([`Plan::sort_by_layer`]).
///
/// # Errors
/// As [`run()`], and what can be wrong with calibration.
pub fn run_calibrated(
    job: &Job<'_>,
    calibrated: &mut Calibrated<'_>,
    watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Outcome, QuantError> {
    carry_out(job, Some(calibrated), watch)
}

fn carry_out(
    job: &Job<'_>,
    mut calibrated: Option<&mut Calibrated<'_>>,
    watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Outcome, QuantError> {
    let head = head(job)?;
    let mut fingerprint = fingerprint(job, &head.bytes);
    if let Some(calibrated) = &calibrated {
        fingerprint = format!("{fingerprint} {}", calibrated.fingerprint());
    }
    let scratch = calibrated.as_ref().map_or(0, |c| c.memory().scratch());
    check_target(job, &head, &fingerprint, scratch)?;
    check_imatrix(job)?;
    let pool = ThreadPoolBuilder::new().num_threads(job.threads.max(1)).build().map_err(|error| {
        QuantError::Io { path: job.path.to_owned(), source: std::io::Error::other(error) }
    })?;
    let mut out = Partial::open(job.path, &fingerprint, &head.bytes, &head.ends)?;
    let resumed = out.measures().len();
    let mut measures = out.measures().to_vec();
    let mut done: u64 = job.plan.tensors.iter().take(resumed).map(|t| t.bytes.0).sum();
    if let Some(calibrated) = &mut calibrated {
        calibrated.scratch_in(&folder_of(job.path));
        for (planned, start) in job.plan.tensors.iter().zip(&head.starts).take(resumed) {
            calibrated.take_up(planned, &out.read(*start, planned.bytes.1)?)?;
        }
    }
    for (at, planned) in job.plan.tensors.iter().enumerate().skip(resumed) {
        let encoded = match &mut calibrated {
            None => Ok(ControlFlow::Continue(None)),
            Some(calibrated) => {
                calibrated.encode(planned, &mut |what| watch(Progress { bytes: done, tensor: what }))
            }
        };
        let mut tell = |bytes: u64| watch(Progress { bytes: done + bytes, tensor: &planned.name });
        let written = match encoded {
            Err(error) => Err(error),
            Ok(ControlFlow::Break(())) => Ok(ControlFlow::Break(())),
            Ok(ControlFlow::Continue(Some(encoded))) => {
                out.write(&encoded.bytes).map(|()| ControlFlow::Continue(encoded.measures))
            }
            Ok(ControlFlow::Continue(None)) => write_tensor(job, planned, &pool, &mut out, &mut tell),
        };
        let found = match written {
            Ok(ControlFlow::Continue(found)) => found,
            Ok(ControlFlow::Break(())) => {
                out.sync()?;
                return Ok(Outcome::Stopped { tensors: at });
            }
            Err(error) => {
                // What is whole stays for the next run; the error at hand is the one to tell.
                let _ = out.sync();
                return Err(error);
            }
        };
        let padding = head.ends.get(at).copied().unwrap_or(0) - head.starts.get(at).copied().unwrap_or(0);
        out.write(&vec![0; padding.saturating_sub(planned.bytes.1) as usize])?;
        done += planned.bytes.0;
        measures.push(found.clone());
        out.complete(found)?;
    }
    let bytes = head.ends.last().copied().unwrap_or(head.bytes.len() as u64);
    out.finish()?;
    Ok(Outcome::Done(Written { bytes, resumed, measures }))
}

/// Write one tensor. Breaks off where `tell` says so.
fn write_tensor(
    job: &Job<'_>,
    planned: &Planned,
    pool: &ThreadPool,
    out: &mut Partial,
    tell: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<ControlFlow<(), Option<Measures>>, QuantError> {
    let (from, to) = (planned.from.info(), planned.to.info());
    let row = planned.shape.first().copied().unwrap_or(1) as usize;
    let values = (SLAB / row.max(1)).max(1) * row;
    let slab = planned.from.bytes_of(values as u64).unwrap_or(0).max(1);
    let importance = match job.imatrix {
        Some(imatrix) if planned.from != planned.to => imatrix.importance(&planned.name, &planned.shape)?,
        _ => None,
    };
    // Every matrix of a stack of experts has importances of its own.
    let rows: u64 = planned.shape.get(1).copied().unwrap_or(1);
    let matrix = planned.from.bytes_of(rows.saturating_mul(row as u64)).unwrap_or(0).max(1);
    let mut sums: Option<Sums> = None;
    let mut buffer = Vec::new();
    let mut done = 0u64;
    while done < planned.bytes.0 {
        if tell(done).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let end = (done + slab).min((done / matrix + 1) * matrix).min(planned.bytes.0);
        let m = (done / matrix) as usize;
        let importance = importance.as_ref().and_then(|all| all.get(m * row..(m + 1) * row));
        let piece = pool.install(|| job.source.read(&planned.name, done..end))?;
        let not_finite = |bad: convert::NotFinite| QuantError::NotFinite {
            tensor: planned.name.clone(),
            index: done / from.block_bytes as u64 * from.block_len as u64 + bad.index,
            value: bad.value,
        };
        let found = if planned.from == planned.to {
            pool.install(|| convert::check_finite(&piece.bytes, planned.from)).map_err(not_finite)?;
            out.write(&piece.bytes)?;
            piece.lost
        } else {
            buffer.resize(
                piece.bytes.len() / from.block_bytes * from.block_len / to.block_len * to.block_bytes,
                0,
            );
            let rows = Rows {
                bytes: &piece.bytes,
                from: planned.from,
                to: planned.to,
                row,
                importance,
                measure: job.measure,
            };
            let found = pool.install(|| rows.convert(&mut buffer)).map_err(not_finite)?;
            out.write(&buffer)?;
            found
        };
        match (found, &mut sums) {
            (Some(found), Some(sums)) => sums.add(&found),
            (Some(found), sums) => *sums = Some(found),
            (None, _) => {}
        }
        done = end;
    }
    Ok(match tell(done) {
        ControlFlow::Break(()) => ControlFlow::Break(()),
        ControlFlow::Continue(()) => ControlFlow::Continue(sums.map(|sums| sums.measures())),
    })
}

/// Every check that needs no value of a weight: what [`run()`] would refuse before the first byte. `scratch` bytes are
/// needed beside the file.
///
/// # Errors
/// As [`run()`], before the first byte.
pub fn check(job: &Job<'_>, scratch: u64) -> Result<(), QuantError> {
    let head = head(job)?;
    // Of an unfinished file nothing is known yet: it may be of another plan.
    check_target(job, &head, "", scratch)?;
    check_imatrix(job)
}

/// Bytes of the file that this job writes.
///
/// # Errors
/// A value of the metadata cannot be written.
pub fn file_bytes(job: &Job<'_>) -> Result<u64, QuantError> {
    let head = head(job)?;
    Ok(head.ends.last().copied().unwrap_or(head.bytes.len() as u64))
}

/// The bytes before the tensors, and where each begins and ends with its padding, from the start of the file.
struct Head {
    bytes: Vec<u8>,
    starts: Vec<u64>,
    ends: Vec<u64>,
}

fn head(job: &Job<'_>) -> Result<Head, QuantError> {
    let mut writer = Writer::new();
    writer.copy_metadata(job.source.head(), |_| true)?;
    writer.set(keys::GENERAL_QUANTIZATION_VERSION, QUANTIZATION_VERSION)?;
    if let Some(id) = job.plan.file_type.id() {
        writer.set(keys::GENERAL_FILE_TYPE, id)?;
    } else {
        writer.remove(keys::GENERAL_FILE_TYPE);
    }
    writer.set(keys::CHASKI_QUANTIZE_VERSION, env!("CARGO_PKG_VERSION"))?;
    writer.set(keys::CHASKI_QUANTIZE_FILE_TYPE, job.plan.file_type.name())?;
    for (key, value) in &job.metadata {
        writer.set(key, value.clone())?;
    }
    for t in &job.plan.tensors {
        writer.tensor_with(&t.name, &t.shape, t.to, |_| Ok(()))?;
    }
    let layout = writer.layout()?;
    let starts: Vec<u64> = layout.tensors.iter().map(|range| range.start).collect();
    Ok(Head { bytes: layout.head, starts, ends: layout.tensors.iter().map(|range| range.end).collect() })
}

/// The version of the block formats that `general.quantization_version` names.
const QUANTIZATION_VERSION: u32 = 2;

/// What decides the bytes of the file: two runs with the same fingerprint write the same.
fn fingerprint(job: &Job<'_>, head: &[u8]) -> String {
    let mut hash = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), job.measure, head).hash(&mut hash);
    for path in job.source.files() {
        path.hash(&mut hash);
        if let Ok(about) = std::fs::metadata(&path) {
            (about.len(), about.modified().ok()).hash(&mut hash);
        }
    }
    for t in &job.plan.tensors {
        (t.from, t.to).hash(&mut hash);
    }
    for (name, entry) in job.imatrix.iter().flat_map(|imatrix| &imatrix.entries) {
        name.hash(&mut hash);
        entry.sums.iter().chain(&entry.counts).for_each(|v| v.to_bits().hash(&mut hash));
    }
    format!("{:016x}", hash.finish())
}

/// Whether the importances are of this model.
fn check_imatrix(job: &Job<'_>) -> Result<(), QuantError> {
    let Some(imatrix) = job.imatrix else { return Ok(()) };
    let mut known = 0;
    for t in &job.plan.tensors {
        known += usize::from(imatrix.importance(&t.name, &t.shape)?.is_some());
    }
    if known == 0 {
        let why = "it says nothing of any tensor of the model; it is of another one".to_owned();
        return Err(QuantError::Imatrix { why });
    }
    Ok(())
}

/// Whether the output can be written where it should be.
fn check_target(job: &Job<'_>, head: &Head, fingerprint: &str, scratch: u64) -> Result<(), QuantError> {
    let path = job.path;
    let target = |why: &str| QuantError::Target { path: path.to_owned(), why: why.to_owned() };
    if path.file_name().is_none() {
        return Err(target("is no name of a file"));
    }
    if let Ok(own) = std::fs::canonicalize(path) {
        if own.is_dir() {
            return Err(target("is a folder; name the file in it"));
        }
        if job.source.files().iter().filter_map(|p| std::fs::canonicalize(p).ok()).any(|p| p == own) {
            return Err(QuantError::OverSource { path: path.to_owned() });
        }
        if !own.is_file() {
            return Err(target("is no plain file"));
        }
    }
    let folder = folder_of(path);
    if !folder.is_dir() {
        return Err(target("its folder is not there"));
    }
    let there = match output::resumable(path, fingerprint, &head.ends) {
        // An unfinished file of another plan gives its room to this one.
        0 => std::fs::metadata(output::partial_path(path)).map_or(0, |about| about.len()),
        tensors => head.ends.get(tensors - 1).copied().unwrap_or(0),
    };
    let needed = head.ends.last().copied().unwrap_or(0).saturating_sub(there).saturating_add(scratch);
    match free_bytes(&folder) {
        Some(free) if free < needed => Err(QuantError::NoSpace { path: path.to_owned(), needed, free }),
        _ => Ok(()),
    }
}

/// The folder that a file lies in.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Bytes that this process may still write in a folder; none where the system does not tell.
#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let about = rustix::fs::statvfs(folder).ok()?;
    about.f_bavail.checked_mul(about.f_frsize)
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}
