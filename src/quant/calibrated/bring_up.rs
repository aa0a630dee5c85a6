//! Rounded tensors as the second model takes them: decoded, in the format that the source has, in memory or in a scratch file.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chaski_gguf::{Gguf, Writer};
use tempfile::{Builder, NamedTempFile, TempPath};

use crate::quant::{Planned, QuantError};

/// What is handed to the second model, and how much of it may be in memory.
pub(super) struct Handed {
    /// Where scratch files lie.
    pub(super) folder: PathBuf,
    /// Bytes that may still be in memory.
    room: u64,
    /// Files that the system does not let go while they are mapped; they go with this value.
    files: Vec<TempPath>,
}

impl Handed {
    /// With room for so many bytes in memory.
    pub(super) fn new(room: u64) -> Handed {
        Handed { folder: PathBuf::from("."), room, files: Vec::new() }
    }

    /// A rounded tensor as a file of its own.
    ///
    /// # Errors
    /// The disk is full, or the system refuses.
    pub(super) fn file(&mut self, planned: &Planned, rounded: &[u8]) -> Result<Arc<Gguf>, QuantError> {
        let bytes = decoded(planned, rounded);
        let mut writer = Writer::new();
        writer.tensor(&planned.name, &planned.shape, planned.from, &bytes)?;
        let size = bytes.len() as u64;
        if size <= self.room {
            self.room -= size;
            let mut file = Vec::new();
            writer.write_to(&mut file)?;
            return Ok(Arc::new(Gguf::from_bytes(&file)?));
        }
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| QuantError::Io { path, source }
        };
        let scratch: NamedTempFile =
            Builder::new().prefix(".chaski-rounded-").tempfile_in(&self.folder).map_err(io(&self.folder))?;
        let mut out = BufWriter::with_capacity(1 << 18, scratch.as_file());
        writer.write_to(&mut out)?;
        out.flush().map_err(io(scratch.path()))?;
        drop(out);
        let path = scratch.into_temp_path();
        let file = Gguf::open(&path)?;
        if cfg!(unix) {
            // The map outlives the name: whatever ends this process, nothing is left behind.
            path.close().map_err(io(&self.folder))?;
        } else {
            self.files.push(path);
        }
        Ok(Arc::new(file))
    }
}

/// The values of a rounded tensor, in the format of the source.
fn decoded(planned: &Planned, rounded: &[u8]) -> Vec<u8> {
    let mut values = vec![0.0f32; usize::try_from(planned.n_values()).unwrap_or(0)];
    (planned.to.info().decode)(rounded, &mut values);
    let mut bytes = vec![0; usize::try_from(planned.bytes.0).unwrap_or(0)];
    (planned.from.info().quantize)(&values, None, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use chaski_gguf::Format;

    use super::*;

    #[test]
    fn what_has_no_room_lies_in_a_file_without_a_name_and_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let planned = Planned {
            name: "blk.0.ffn_up.weight".into(),
            shape: vec![32, 2],
            from: Format::F16,
            to: Format::Q8_0,
            bytes: (128, 68),
            substituted: None,
            why: String::new(),
        };
        let values: Vec<f32> = (0..64).map(|i| (i as f32 * 0.3).sin()).collect();
        let mut rounded = vec![0; 68];
        (Format::Q8_0.info().quantize)(&values, None, &mut rounded);
        let mut handed = Handed::new(128);
        handed.folder = folder.path().to_owned();
        let bytes = |file: &Gguf| file.require_tensor("blk.0.ffn_up.weight").unwrap().bytes.to_vec();
        let in_memory = handed.file(&planned, &rounded).unwrap();
        assert_eq!((handed.room, in_memory.paths().count()), (0, 0));
        let on_disk = handed.file(&planned, &rounded).unwrap();
        assert_eq!(on_disk.paths().count(), 1);
        assert_eq!(bytes(&on_disk), bytes(&in_memory));
        if cfg!(unix) {
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
        handed.folder = folder.path().join("nowhere");
        assert!(matches!(handed.file(&planned, &rounded), Err(QuantError::Io { .. })));
    }
}
