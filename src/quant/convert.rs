//! From the blocks of one format to those of another: rows side by side on all threads, and what is not finite refused.

use chaski_gguf::Format;
use rayon::prelude::*;

use super::measures::Sums;

/// Values that a thread decodes at once: they stay in its cache until they are encoded.
const CHUNK: usize = 1 << 14;

/// A run of whole rows to be converted.
pub(super) struct Rows<'a> {
    /// The blocks.
    pub bytes: &'a [u8],
    /// Their format.
    pub from: Format,
    /// The format wanted.
    pub to: Format,
    /// Values of a row: whole blocks of both formats.
    pub row: usize,
    /// The importance of each column, where it is known.
    pub importance: Option<&'a [f32]>,
    /// Whether the difference is measured.
    pub measure: bool,
}

/// The first value that is not finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct NotFinite {
    /// Its place within the rows.
    pub index: u64,
    /// The value.
    pub value: f32,
}

impl Rows<'_> {
    /// Convert into `out`, which has room for the same rows in the other format. Runs in the pool of threads of the caller.
    pub(super) fn convert(&self, out: &mut [u8]) -> Result<Option<Sums>, NotFinite> {
        let bytes_of =
            |format: Format, values: usize| values / format.info().block_len * format.info().block_bytes;
        let rows = (CHUNK / self.row.max(1)).max(1);
        let values = rows * self.row;
        let chunks = self.bytes.par_chunks(bytes_of(self.from, values).max(1));
        let outs = out.par_chunks_mut(bytes_of(self.to, values).max(1));
        let parts: Vec<Result<Option<Sums>, NotFinite>> = chunks
            .zip(outs)
            .enumerate()
            .map_init(
                || (Vec::new(), Vec::new()),
                |(x, y), (i, (bytes, out))| {
                    let n = bytes.len() / self.from.info().block_bytes * self.from.info().block_len;
                    x.resize(n, 0.0f32);
                    (self.from.info().decode)(bytes, x);
                    if let Some(at) = first_not_finite(x) {
                        return Err(NotFinite { index: (i * values + at) as u64, value: x[at] });
                    }
                    (self.to.info().quantize)(x, self.importance, out);
                    Ok(self.measure.then(|| {
                        y.resize(n, 0.0f32);
                        (self.to.info().decode)(out, y);
                        let mut sums = Sums::new(self.row);
                        sums.add_rows(x, y, self.to);
                        sums
                    }))
                },
            )
            .collect();
        // In the order of the rows, so that neither the sums nor the first fault depend on threads.
        let mut total: Option<Sums> = None;
        for part in parts {
            match (part?, &mut total) {
                (Some(sums), Some(total)) => total.add(&sums),
                (sums, total) => *total = sums,
            }
        }
        Ok(total)
    }
}

/// Refuse floats that are not finite; blocks of a quantized format are passed over, as their scales were made from values
/// that were looked at. Runs in the pool of threads of the caller.
pub(super) fn check_finite(bytes: &[u8], format: Format) -> Result<(), NotFinite> {
    let info = format.info();
    if !matches!(format, Format::F32 | Format::F16 | Format::BF16) {
        return Ok(());
    }
    let found = bytes.par_chunks(CHUNK * info.block_bytes).enumerate().find_map_first(|(i, bytes)| {
        let mut x = vec![0.0f32; bytes.len() / info.block_bytes];
        (info.decode)(bytes, &mut x);
        let at = first_not_finite(&x)?;
        Some(NotFinite { index: (i * CHUNK + at) as u64, value: x[at] })
    });
    found.map_or(Ok(()), Err)
}

/// The place of the first value that is not finite.
fn first_not_finite(values: &[f32]) -> Option<usize> {
    // Summing up flags vectorizes; looking for the first does not, and there is none as a rule.
    let mut bad = 0u32;
    for v in values {
        bad |= u32::from(!v.is_finite());
    }
    if bad == 0 { None } else { values.iter().position(|v| !v.is_finite()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(bytes: &[u8], row: usize) -> Rows<'_> {
        Rows { bytes, from: Format::F32, to: Format::Q8_0, row, importance: None, measure: true }
    }

    #[test]
    fn rows_are_encoded_as_one_after_the_other() {
        let row = 96;
        let values: Vec<f32> =
            (0..row * 1000).map(|i| (i as f32 * 0.37).sin() * (1 + i % 7) as f32).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut out = vec![0; row * 1000 / 32 * 34];
        let sums = rows(&bytes, row).convert(&mut out).unwrap().unwrap();
        let mut expected = vec![0; out.len()];
        Format::Q8_0.info().encode.unwrap()(&values, &mut expected);
        assert_eq!(out, expected);
        let snr = sums.measures().snr_db.unwrap();
        assert!((40.0..60.0).contains(&snr), "{snr}");
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_named() {
        let mut values = vec![1.0f32; 32 * 2000];
        values[33_333] = f32::NAN;
        values[50_000] = f32::INFINITY;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut out = vec![0; 34 * 2000];
        let found = rows(&bytes, 32).convert(&mut out).unwrap_err();
        assert_eq!(found.index, 33_333);
        assert!(found.value.is_nan());
    }
}
