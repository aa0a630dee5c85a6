//! One differential harness, stamped over every kernel of every instruction set that this machine has: it is driven
//! by the tables, so a new kernel is tested with no edit here.
//!
//! The oracle is the format's own `decode` and a sum in f64.

use std::collections::HashSet;

use super::act::{self, BlockQ8x32, BlockQ8x256, quantize};
use super::isa::Isa;
use super::kernel::{Kernel, OutTile, Tile, all, choose};
use super::scratch::Scratch;
use super::vector::vector;
use crate::tensor::{Act, Format};

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same numbers everywhere.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Uniform in -1 .. 1.
    fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
    fn unit_vec(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }
}

/// A slice whose last byte is the last of its page, with a page after it that must not be read: what a kernel reads
/// past its blocks kills the test. (The last tensor of a mapped file may end so.)
struct Guarded {
    map: *mut u8,
    map_len: usize,
    start: usize,
}

/// A multiple of every page size in use.
const PAGE: usize = 65536;

impl Guarded {
    fn new(bytes: &[u8]) -> Guarded {
        use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
        let len = bytes.len().next_multiple_of(PAGE);
        // SAFETY: a new private mapping, of which the last page is then closed and the rest filled within bounds.
        unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            let map =
                mmap_anonymous(std::ptr::null_mut(), len + PAGE, protection, MapFlags::PRIVATE).unwrap();
            mprotect(map.cast::<u8>().add(len).cast(), PAGE, MprotectFlags::empty()).unwrap();
            let map = map.cast::<u8>();
            let start = len - bytes.len();
            map.add(start).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            Guarded { map, map_len: len + PAGE, start }
        }
    }
}

impl std::ops::Deref for Guarded {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let end = self.map_len - PAGE;
        // SAFETY: `start .. end` of the mapping was filled when it was made.
        unsafe { std::slice::from_raw_parts(self.map.add(self.start), end - self.start) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrows it any more.
        unsafe { rustix::mm::munmap(self.map.cast(), self.map_len).unwrap() }
    }
}

fn decode(format: Format, bytes: &[u8]) -> Vec<f32> {
    let info = format.info();
    let mut values = vec![0.0; bytes.len() / info.block_bytes * info.block_len];
    (info.decode)(bytes, &mut values);
    values
}

/// Largest magnitude; NaN where there is one.
fn magnitude(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |max, v| if v.is_nan() || v.abs() > max { v.abs() } else { max })
}

/// A block of random bytes that decodes to moderate values, where the format allows.
fn random_block(format: Format, random: &mut Random) -> Vec<u8> {
    let mut draw = || -> Vec<u8> { (0..format.info().block_bytes).map(|_| random.bits() as u8).collect() };
    let mut any = None;
    for _ in 0..100 {
        let block = draw();
        let max = magnitude(&decode(format, &block));
        if (1e-3..64.0).contains(&max) {
            return block;
        }
        if any.is_none() && max < 1e30 {
            any = Some(block);
        }
    }
    any.expect("some random block is finite")
}

/// Random blocks whose bytes are set to `byte` one after the other, save those that would make them infinite: quants,
/// scales and minima at the ends of their ranges.
fn extreme_block(format: Format, byte: u8, random: &mut Random) -> Vec<u8> {
    let mut block = random_block(format, random);
    for i in 0..block.len() {
        let old = std::mem::replace(&mut block[i], byte);
        let finite = magnitude(&decode(format, &block)) < 1e30;
        if !finite {
            block[i] = old;
        }
    }
    block
}

/// Activations of `cols` columns in the kernel's format, `pad` bytes between columns.
fn activations(act: Act, x: &[Vec<f32>], pad: usize) -> (Vec<u8>, usize) {
    let stride = act.row_bytes(x[0].len()) + pad;
    let mut acts = vec![0f32; stride * x.len() / 4];
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut acts);
    for (x, out) in x.iter().zip(bytes.chunks_exact_mut(stride)) {
        quantize(Isa::Reference, act, x, &mut out[..stride - pad]);
    }
    (bytemuck::cast_slice(&acts).to_vec(), stride)
}

/// What no kernel writes.
const UNTOUCHED: f32 = -12345.0;

/// A kernel, in its usual form or in that for many columns.
#[derive(Clone, Copy)]
struct Form {
    kernel: &'static Kernel,
    wide: bool,
}

/// A matrix and columns for one form of a kernel.
struct Case {
    kernel: &'static Kernel,
    wide: bool,
    weights: Guarded,
    row_bytes: usize,
    rows: usize,
    acts: Guarded,
    act_bytes: usize,
    cols: usize,
    k: usize,
}

impl Case {
    fn new(Form { kernel, wide }: Form, rows: &[Vec<u8>], x: &[Vec<f32>]) -> Case {
        // Rows at odd addresses, columns at multiples of 4 only.
        let (acts, act_bytes) = activations(kernel.act, x, 4);
        let weights: Vec<u8> = rows.iter().flat_map(|row| row.iter().copied().chain([0x5a; 3])).collect();
        Case {
            kernel,
            wide,
            weights: Guarded::new(&weights[..weights.len() - 3]),
            row_bytes: rows[0].len() + 3,
            rows: rows.len(),
            acts: Guarded::new(&acts[..acts.len() - 4]),
            act_bytes,
            cols: x.len(),
            k: x[0].len(),
        }
    }

    /// The products of a part of the matrix; element (r, c) at `c * rows.len() + r`.
    fn run(&self, rows: std::ops::Range<usize>, cols: std::ops::Range<usize>) -> Vec<f32> {
        let stride = rows.len() + 2;
        let mut out = vec![UNTOUCHED; stride * cols.len() + 1];
        let tile = Tile {
            weights: &self.weights[rows.start * self.row_bytes..],
            row_bytes: self.row_bytes,
            rows: rows.len(),
            acts: &self.acts[cols.start * self.act_bytes..],
            act_bytes: self.act_bytes,
            cols: cols.len(),
            k: self.k,
            out: OutTile::new(&mut out, stride),
        };
        if self.wide {
            self.kernel.run_wide(&tile, &mut Scratch::default());
        } else {
            self.kernel.run(&tile);
        }
        let mut products = Vec::new();
        for column in out.chunks(stride) {
            let (inside, outside) = column.split_at(rows.len().min(column.len()));
            if column.len() == stride {
                products.extend_from_slice(inside);
                assert!(outside.iter().all(|&v| v == UNTOUCHED), "{}: wrote outside", self.describe());
            }
        }
        assert_eq!(out.last(), Some(&UNTOUCHED), "{}: wrote past the end", self.describe());
        products
    }

    fn describe(&self) -> String {
        let Case { kernel, k, .. } = self;
        let name = kernel.wide.as_ref().filter(|_| self.wide).map_or(kernel.name, |wide| wide.name);
        format!("{name} {} x {:?}, k = {k}", kernel.format, kernel.act)
    }

    /// The oracle: the product, and how far from it f32 arithmetic may lie.
    ///
    /// A sum of n terms is off by at most about n units of 2^-24 of the sum of magnitudes (Higham, "Accuracy and
    /// Stability of Numerical Algorithms", 4.2). Terms are blocks for integer kernels; for float kernels values of one
    /// of at least 8 lanes. A block counts with its largest weight: values are differences in formats with minima.
    fn expected(&self, row: usize, col: usize) -> (f64, f64) {
        let info = self.kernel.format.info();
        let w = decode(self.kernel.format, &self.weights[row * self.row_bytes..][..self.row_bytes - 3]);
        let mut x = vec![0.0; self.k];
        let col_bytes = self.kernel.act.row_bytes(self.k);
        // Columns of a guarded slice are aligned to 4 as the whole is.
        act::decode(self.kernel.act, &self.acts[col * self.act_bytes..][..col_bytes], &mut x);
        let product: f64 = w.iter().zip(&x).map(|(&w, x)| f64::from(w) * x).sum();
        let blocks = w.chunks(info.block_len).zip(x.chunks(info.block_len));
        let magnitudes: f64 =
            blocks.map(|(w, x)| f64::from(magnitude(w)) * x.iter().map(|x| x.abs()).sum::<f64>()).sum();
        let terms = if self.kernel.act == Act::F32 { self.k / 8 } else { self.k / info.block_len };
        // What underflows is off by an absolute amount.
        let underflow = self.k as f64 * f64::from(f32::MIN_POSITIVE);
        (product, (terms + 8) as f64 * 2f64.powi(-24) * magnitudes + underflow)
    }

    /// Every product lies within the bound of the oracle.
    fn check(&self) {
        let products = self.run(0..self.rows, 0..self.cols);
        for (i, &got) in products.iter().enumerate() {
            let (row, col) = (i % self.rows, i / self.rows);
            let (expected, bound) = self.expected(row, col);
            assert!(
                (f64::from(got) - expected).abs() <= bound,
                "{}, row {row}, column {col}: {got} is further than {bound:e} from {expected}",
                self.describe()
            );
        }
    }
}

/// Every form of every kernel that this machine can run.
fn forms() -> impl Iterator<Item = Form> {
    Isa::all_available().flat_map(all).flat_map(|kernel| {
        let forms = [false, true].map(|wide| Form { kernel, wide });
        forms.into_iter().filter(|form| !form.wide || form.kernel.wide.is_some())
    })
}

fn random_rows(kernel: &Kernel, rows: usize, k: usize, random: &mut Random) -> Vec<Vec<u8>> {
    let blocks = k / kernel.format.info().block_len;
    (0..rows).map(|_| (0..blocks).flat_map(|_| random_block(kernel.format, random)).collect()).collect()
}

/// Row lengths that a kernel takes: tails of every kind where there are no blocks.
fn lengths(kernel: &Kernel) -> Vec<usize> {
    match kernel.format.info().block_len.max(kernel.act.block_len()) {
        1 => vec![1, 7, 8, 16, 31, 33, 64, 100, 257],
        32 => [1, 2, 3, 4, 5, 9].map(|n| 32 * n).to_vec(),
        n => vec![n, 2 * n, 3 * n],
    }
}

#[test]
fn every_format_has_a_kernel_everywhere_and_an_exact_one() {
    for isa in Isa::all_available() {
        for &format in Format::ALL {
            for exact in [false, true] {
                let kernel = choose(isa, format, exact);
                assert_eq!(kernel.format, format);
                assert!(!exact || kernel.act == Act::F32, "{isa} {format}");
            }
        }
    }
}

#[test]
fn products_of_random_blocks_agree_with_decoded_blocks() {
    let mut random = Random(1);
    for form in forms() {
        let kernel = form.kernel;
        for k in lengths(kernel) {
            let (m, n) = if form.wide { (37, 35) } else { (5, 5) };
            let rows = random_rows(kernel, m, k, &mut random);
            let x: Vec<_> = (0..n).map(|_| random.unit_vec(k)).collect();
            Case::new(form, &rows, &x).check();
        }
    }
}

#[test]
fn an_element_is_the_same_bits_wherever_it_stands_in_a_tile() {
    let mut random = Random(2);
    for form in forms() {
        let kernel = form.kernel;
        let k = lengths(kernel)[2];
        let rows = random_rows(kernel, 9, k, &mut random);
        let x: Vec<_> = (0..9).map(|_| random.unit_vec(k)).collect();
        let case = Case::new(form, &rows, &x);
        let whole = case.run(0..9, 0..9);
        for n in 1..=9 {
            for m in 1..=9 {
                let (row, col) = ((n * 5 + m) % (10 - n), (m * 3 + n) % (10 - m));
                let part = case.run(row..row + n, col..col + m);
                for (i, value) in part.iter().enumerate() {
                    let (r, c) = (row + i % n, col + i / n);
                    assert_eq!(
                        value.to_bits(),
                        whole[c * 9 + r].to_bits(),
                        "{}, row {r}, column {c} of {n} x {m} at {row}, {col}",
                        case.describe()
                    );
                }
            }
        }
    }
}

#[test]
fn quants_and_scales_at_the_ends_of_their_ranges_do_not_overflow() {
    let mut random = Random(3);
    for form in forms() {
        let kernel = form.kernel;
        let k = lengths(kernel)[1];
        let blocks = k / kernel.format.info().block_len;
        let rows: Vec<Vec<u8>> = [0x00, 0xff, 0x80, 0x7f, 0xf0, 0x0f, 0x88, 0x3f]
            .into_iter()
            .map(|byte| (0..blocks).flat_map(|_| extreme_block(kernel.format, byte, &mut random)).collect())
            .collect();
        let x = [
            vec![1.0; k],
            vec![-1.0; k],
            (0..k).map(|i| if i % 2 == 0 { 3.0 } else { -3.0 }).collect(),
            vec![-0.0; k],
            vec![1e-30; k],
            vec![1e6; k],
            vec![f32::MIN_POSITIVE / 2.0; k],
        ];
        Case::new(form, &rows, &x).check();
    }
}

#[test]
fn nan_and_infinity_show_in_their_own_products_and_nowhere_else() {
    let mut random = Random(4);
    for form in forms() {
        let kernel = form.kernel;
        let k = lengths(kernel)[2];
        let mut rows = random_rows(kernel, 6, k, &mut random);
        let mut x: Vec<_> = (0..6).map(|_| random.unit_vec(k)).collect();
        let clean = Case::new(form, &rows, &x).run(0..6, 0..6);
        x[1][k / 2] = f32::NAN;
        x[4][0] = -f32::NAN;
        x[5][k - 1] = f32::INFINITY;
        // A last block of ones has a NaN for a scale, in formats whose scale can be one.
        let block = kernel.format.info().block_bytes;
        rows[2][(k / kernel.format.info().block_len - 1) * block..].fill(0xff);
        let nan_row = decode(kernel.format, &rows[2]).iter().any(|w| w.is_nan());
        let case = Case::new(form, &rows, &x);
        for (i, value) in case.run(0..6, 0..6).into_iter().enumerate() {
            let (row, col) = (i % 6, i / 6);
            if matches!(col, 1 | 4) || nan_row && row == 2 {
                assert!(value.is_nan(), "{}, row {row}, column {col}: {value}", case.describe());
            } else if col == 5 {
                let zero = decode(kernel.format, &rows[row])[k - 1] == 0.0;
                assert!(!value.is_finite() || zero, "{}, row {row}, column {col}: {value}", case.describe());
            } else if row != 2 {
                assert_eq!(
                    value.to_bits(),
                    clean[i].to_bits(),
                    "{}, row {row}, column {col}",
                    case.describe()
                );
            }
        }
    }
}

#[test]
#[should_panic(expected = "weights too short")]
fn a_tile_that_its_weights_do_not_hold_is_refused() {
    let kernel = choose(Isa::detect(), Format::F32, true);
    let mut out = [0.0; 8];
    kernel.run(&Tile {
        weights: &[0; 31],
        row_bytes: 16,
        rows: 2,
        acts: &[],
        act_bytes: 16,
        cols: 1,
        k: 4,
        out: OutTile::new(&mut out, 2),
    });
}

#[test]
fn every_instruction_set_rounds_activations_to_the_same_bytes() {
    let mut random = Random(5);
    for act in [Act::F32, Act::Q8x32, Act::Q8x256] {
        let n = 512;
        let mut rows = vec![random.unit_vec(n), vec![0.0; n], vec![-0.0; n], vec![1e-37; n], vec![1e-36; n]];
        for scale in [1e-30, 3e38, 1.0, 127.0] {
            rows.push(random.unit_vec(n).iter().map(|x| x * scale).collect());
        }
        // Ties, and the largest magnitude in every lane.
        rows.push((0..n).map(|i| (i % 255) as f32 / 2.0 - 63.5).collect());
        for i in 0..64 {
            let mut row: Vec<f32> = random.unit_vec(n).iter().map(|x| x / 4.0).collect();
            row[i * 8 + i % 8] = -1.0;
            rows.push(row);
        }
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut row = random.unit_vec(n);
            row[37] = bad;
            rows.push(row);
        }
        for x in &rows {
            let mut expected = vec![0f32; act.row_bytes(n) / 4];
            quantize(Isa::Reference, act, x, bytemuck::cast_slice_mut(&mut expected));
            for isa in Isa::all_available() {
                let mut got = vec![7f32; expected.len()];
                quantize(isa, act, x, bytemuck::cast_slice_mut(&mut got));
                let (got, expected): (&[u8], &[u8]) =
                    (bytemuck::cast_slice(&got), bytemuck::cast_slice(&expected));
                assert_eq!(got, expected, "{isa} {act:?} of {x:?}");
            }
        }
    }
}

#[test]
fn rounded_activations_are_within_half_a_step_and_their_sums_are_right() {
    let mut random = Random(6);
    let x = random.unit_vec(512);
    for act in [Act::Q8x32, Act::Q8x256] {
        let mut bytes = vec![0f32; act.row_bytes(512) / 4];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut bytes);
        quantize(Isa::Reference, act, &x, bytes);
        let mut y = vec![0.0; 512];
        act::decode(act, bytes, &mut y);
        for (x, y) in x.chunks(act.block_len()).zip(y.chunks(act.block_len())) {
            let d = f64::from(magnitude(x)) / 127.0;
            assert!(x.iter().zip(y).all(|(&x, y)| (f64::from(x) - y).abs() <= d * 0.500_01));
        }
        match act {
            Act::Q8x32 => {
                for b in bytemuck::cast_slice::<u8, BlockQ8x32>(bytes) {
                    assert_eq!(b.s, b.d * b.q.iter().map(|&q| i32::from(q)).sum::<i32>() as f32);
                }
            }
            _ => {
                for b in bytemuck::cast_slice::<u8, BlockQ8x256>(bytes) {
                    for (s, q) in b.sums.iter().zip(b.q.chunks(16)) {
                        assert_eq!(*s, q.iter().map(|&q| i16::from(q)).sum::<i16>());
                    }
                }
            }
        }
    }
}

#[test]
fn vector_functions_agree_with_sums_in_f64_at_every_length() {
    use half::{bf16, f16};
    let mut random = Random(7);
    for isa in Isa::all_available() {
        let v = vector(isa);
        for n in (0..70).chain([128, 300]) {
            let (a, b) = (random.unit_vec(n), random.unit_vec(n));
            let half: Vec<f16> = b.iter().map(|&x| f16::from_f32(x)).collect();
            let brain: Vec<bf16> = b.iter().map(|&x| bf16::from_f32(x)).collect();
            let of_half: Vec<f32> = half.iter().map(|x| x.to_f32()).collect();
            let of_brain: Vec<f32> = brain.iter().map(|x| x.to_f32()).collect();
            let bound = 1e-6 * (n + 1) as f64;
            for (got, b) in
                [(v.dot(&a, &b), &b), (v.dot_f16(&a, &half), &of_half), (v.dot_bf16(&a, &brain), &of_brain)]
            {
                let dot: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                assert!((f64::from(got) - dot).abs() <= bound, "{isa} dot of {n}: {got}, {dot}");
            }
            type Axpy<'a> = (&'a str, &'a dyn Fn(&mut [f32]), &'a [f32]);
            let axpys: [Axpy; 3] = [
                ("f32", &|acc| v.axpy(acc, 0.3, &b), &b),
                ("f16", &|acc| v.axpy_f16(acc, 0.3, &half), &of_half),
                ("bf16", &|acc| v.axpy_bf16(acc, 0.3, &brain), &of_brain),
            ];
            for (what, axpy, x) in axpys {
                let mut acc = a.clone();
                axpy(&mut acc);
                for ((acc, a), x) in acc.iter().zip(&a).zip(x) {
                    assert!((acc - (a + 0.3 * x)).abs() <= 1e-6, "{isa} axpy of {n} {what}");
                }
            }
            let mut scaled = a.clone();
            v.scale(&mut scaled, -2.5);
            assert!(scaled.iter().zip(&a).all(|(s, a)| *s == -2.5 * a), "{isa} scale of {n}");
            assert_eq!(v.max(&a), a.iter().copied().fold(f32::NEG_INFINITY, f32::max), "{isa} max of {n}");
            let sum: f64 = a.iter().map(|&a| f64::from(a)).sum();
            assert!((f64::from(v.sum(&a)) - sum).abs() <= bound, "{isa} sum of {n}");
            let mut exps = a.clone();
            let got = v.exp_sum(&mut exps, 0.5);
            let sum: f64 = exps.iter().map(|&a| f64::from(a)).sum();
            assert!((f64::from(got) - sum).abs() <= bound, "{isa} exp_sum of {n}");
            assert!(
                exps.iter().zip(&a).all(|(e, a)| (e / (a - 0.5).exp() - 1.0).abs() < 4e-7),
                "{isa} exp of {n}"
            );
        }
    }
}

#[test]
fn the_largest_value_is_found_in_every_place_and_nan_is_passed_over() {
    for isa in Isa::all_available() {
        let v = vector(isa);
        for n in 1..70 {
            for i in 0..n {
                let mut x = vec![-5.0; n];
                x[i] = -4.0;
                assert_eq!(v.max(&x), -4.0, "{isa}, place {i} of {n}");
                x[(i + 1) % n] = f32::NAN;
                assert_eq!(
                    v.max(&x),
                    if n == 1 { f32::NEG_INFINITY } else { -4.0 },
                    "{isa}, place {i} of {n}"
                );
            }
        }
        assert_eq!(v.max(&[]), f32::NEG_INFINITY);
    }
}

#[test]
fn exponentials_are_right_to_the_last_places_over_the_whole_range() {
    for isa in Isa::all_available() {
        let mut x: Vec<f32> = (-87_200..88_700).map(|i| i as f32 / 1000.0).collect();
        let expected: Vec<f64> = x.iter().map(|&x| f64::from(x).exp()).collect();
        vector(isa).exp_sum(&mut x, 0.0);
        for (got, expected) in x.iter().zip(expected) {
            let error = (f64::from(*got) / expected - 1.0).abs();
            assert!(error < 3e-7, "{isa}: {got} for {expected}");
        }
        let mut ends = [f32::NEG_INFINITY, -1000.0, -87.5, 0.0, f32::INFINITY, 1000.0, f32::NAN, f32::MAX];
        vector(isa).exp_sum(&mut ends, 0.0);
        assert_eq!(ends[..6], [0.0, 0.0, 0.0, 1.0, f32::INFINITY, f32::INFINITY], "{isa}");
        assert!(ends[6].is_nan(), "{isa}");
        assert_eq!(ends[7], f32::INFINITY, "{isa}");
    }
}

#[test]
fn kernels_are_listed_once() {
    for isa in Isa::all_available() {
        let mut seen = HashSet::new();
        for kernel in all(isa) {
            assert!(seen.insert((kernel.format, kernel.act, kernel.name)), "{isa} {}", kernel.format);
        }
    }
}
