//! The scan of every tensor's values for what no kernel can repair: NaN and infinity.

use crate::{Error, Gguf, Result, TensorInfo};

/// Values that are decoded at once, at least one block.
const CHUNK: usize = 4096;

impl Gguf {
    /// Decode every tensor and refuse the first value that is not finite, such as a broken scale makes.
    /// `progress` is told the bytes that are done and the bytes that there are.
    ///
    /// # Errors
    /// Names the tensor, the block and its byte offset; or the file was cut since it was opened.
    pub fn check_payload(&self, mut progress: impl FnMut(u64, u64)) -> Result<()> {
        let total: u64 = self.tensors().iter().map(|t| t.bytes).sum();
        let mut done = 0;
        let mut values = Vec::new();
        for info in self.tensors() {
            let bytes = self.require_tensor(&info.name)?.bytes;
            let format = info.format.info();
            let blocks_at_once = (CHUNK / format.block_len).max(1);
            let values_at_once = blocks_at_once * format.block_len;
            values.resize(values_at_once, 0.0);
            for (chunk, blocks) in bytes.chunks(blocks_at_once * format.block_bytes).enumerate() {
                let n = blocks.len() / format.block_bytes * format.block_len;
                let values = values.get_mut(..n).unwrap_or_default();
                (format.decode)(blocks, values);
                if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                    let value = values.get(i).copied().unwrap_or(f32::NAN);
                    return Err(self.not_finite(info, chunk * values_at_once + i, value));
                }
                done += blocks.len() as u64;
                progress(done, total);
            }
        }
        Ok(())
    }

    fn not_finite(&self, info: &TensorInfo, i: usize, value: f32) -> Error {
        let format = info.format.info();
        let block = i / format.block_len;
        let offset = self.file_offset(info) + (block * format.block_bytes) as u64;
        let why = format!(
            "block {block} ({}) decodes to {value} at its value {}",
            info.format,
            i % format.block_len
        );
        self.in_shard(info.shard, Error::Malformed { what: format!("tensor {}", info.name), why, offset })
    }
}
