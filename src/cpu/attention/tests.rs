//! Attention against a naive oracle in f64, and the independence of a token's bits from everything around it.

use super::*;
use crate::cpu::isa::Isa;
use crate::kv::random::Random;
use crate::kv::{Cells, KvFormat, SeqPos, Visible};

/// The shape of an attention and its cache.
#[derive(Clone)]
struct Shape {
    n_head: usize,
    n_head_kv: usize,
    d_k: usize,
    d_v: usize,
    scale: f32,
    softcap: Option<f32>,
    sinks: Option<Vec<f32>>,
    formats: (KvFormat, KvFormat),
    window: Option<u32>,
    causal: bool,
}

impl Shape {
    fn of(n_head: usize, n_head_kv: usize, d_k: usize, d_v: usize) -> Shape {
        Shape {
            n_head,
            n_head_kv,
            d_k,
            d_v,
            scale: 1.0 / (d_k as f32).sqrt(),
            softcap: None,
            sinks: None,
            formats: (KvFormat::F32, KvFormat::F32),
            window: None,
            causal: true,
        }
    }
    fn params(&self) -> AttentionParams<'_> {
        AttentionParams {
            n_head: self.n_head,
            n_head_kv: self.n_head_kv,
            d_k: self.d_k,
            d_v: self.d_v,
            scale: self.scale,
            softcap: self.softcap,
            sinks: self.sinks.as_deref(),
        }
    }
}

/// A token's q, k and v: a function of its sequence and position alone.
fn token(shape: &Shape, at: SeqPos) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let mut random = Random::new(u64::from(at.seq) << 32 | u64::from(at.pos));
    let q = random.normals(shape.n_head * shape.d_k);
    let k = random.normals(shape.n_head_kv * shape.d_k);
    (q, k, random.normals(shape.n_head_kv * shape.d_v))
}

/// A cache with its cells.
struct Cache {
    shape: Shape,
    cells: Cells,
    k: Vec<u8>,
    v: Vec<u8>,
    work: Work,
    scratch: Scratch,
    visible: Visible,
    /// The order in which chunks are run.
    order: Random,
}

impl Cache {
    /// For the best instruction set of this machine.
    fn new(shape: &Shape, capacity: u32) -> Cache {
        Cache::with(Isa::detect(), shape, capacity)
    }

    fn with(isa: Isa, shape: &Shape, capacity: u32) -> Cache {
        let bytes =
            |format: KvFormat, d| vec![0xAA; shape.n_head_kv * capacity as usize * format.row_bytes(d)];
        Cache {
            shape: shape.clone(),
            cells: Cells::new(capacity, 8),
            k: bytes(shape.formats.0, shape.d_k),
            v: bytes(shape.formats.1, shape.d_v),
            work: Work::new(isa),
            scratch: Scratch::default(),
            visible: Visible::default(),
            order: Random::new(99),
        }
    }

    fn rows(&self) -> (KvRows<'_>, KvRows<'_>) {
        let (s, capacity) = (&self.shape, self.cells.capacity());
        (
            KvRows::new(s.formats.0, &self.k, capacity, s.n_head_kv, s.d_k),
            KvRows::new(s.formats.1, &self.v, capacity, s.n_head_kv, s.d_v),
        )
    }

    /// Append a batch and attend: `[d_v, n_head, n]`.
    fn run(&mut self, batch: &[SeqPos]) -> Vec<f32> {
        let shape = self.shape.clone();
        let mut cells = Vec::new();
        self.cells.append(batch, &mut cells).unwrap();
        let cells: Vec<i32> = cells.into_iter().map(|c| c as i32).collect();
        let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
        for at in batch {
            let token = token(&shape, *at);
            q.extend(token.0);
            k.extend(token.1);
            v.extend(token.2);
        }
        let capacity = self.cells.capacity();
        for (x, d, format, rows) in
            [(&k, shape.d_k, shape.formats.0, &mut self.k), (&v, shape.d_v, shape.formats.1, &mut self.v)]
        {
            let mut place: Vec<Option<&mut [u8]>> =
                rows.chunks_exact_mut(format.row_bytes(d)).map(Some).collect();
            let row = |bytes: std::ops::Range<usize>| place[bytes.start / bytes.len()].take().unwrap();
            write_rows(0..batch.len(), x, (d, shape.n_head_kv), &cells, (format, capacity), row);
        }
        self.attend(batch, &q)
    }

    fn attend(&mut self, batch: &[SeqPos], q: &[f32]) -> Vec<f32> {
        let shape = self.shape.clone();
        self.cells.visible(batch, shape.window, shape.causal, &mut self.visible);
        let params = shape.params();
        let n = self.work.prepare(&self.visible, &params);
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.order.below(i as u32 + 1) as usize);
        }
        let mut out = vec![f32::NAN; batch.len() * shape.n_head * shape.d_v];
        let mut emitted = 0;
        let mut scratch = std::mem::take(&mut self.scratch);
        let (k, v) = self.rows();
        for chunk in order {
            self.work.run(chunk, &params, q, &k, &v, &self.visible, &mut scratch, &mut |t, h, row| {
                out[(t * shape.n_head + h) * shape.d_v..][..shape.d_v].copy_from_slice(row);
                emitted += 1;
            });
        }
        self.scratch = scratch;
        assert_eq!(emitted, batch.len() * shape.n_head, "every result once");
        out
    }

    /// The same in f64, from the rows as decoded and with all scores at once.
    fn oracle(&self, batch: &[SeqPos]) -> Vec<f64> {
        let shape = &self.shape;
        let (k, v) = self.rows();
        let decoded = |rows: &KvRows| -> Vec<Vec<f64>> {
            let decode = |i: usize| {
                let mut row = vec![0.0; rows.dim];
                rows.format.decode_row(&rows.bytes[i * rows.row_bytes..][..rows.row_bytes], &mut row);
                row.into_iter().map(f64::from).collect()
            };
            (0..shape.n_head_kv * rows.capacity).map(decode).collect()
        };
        let (k, v) = (decoded(&k), decoded(&v));
        let mut out = Vec::new();
        for at in batch {
            let q = token(shape, *at).0;
            let mut cells = Vec::new();
            for span in self.cells.spans(at.seq) {
                for pos in span.pos..span.end() {
                    let near = shape.window.is_none_or(|w| i64::from(pos) > i64::from(at.pos) - i64::from(w));
                    if near && (!shape.causal || pos <= at.pos) {
                        cells.push(span.cell(pos));
                    }
                }
            }
            for head in 0..shape.n_head {
                let kv_head = head / (shape.n_head / shape.n_head_kv);
                let q: Vec<f64> = q[head * shape.d_k..][..shape.d_k].iter().map(|x| f64::from(*x)).collect();
                let row = |cell: u32| kv_head * self.cells.capacity() + cell as usize;
                let scores: Vec<f64> = cells
                    .iter()
                    .map(|cell| {
                        let dot: f64 = k[row(*cell)].iter().zip(&q).map(|(a, b)| a * b).sum();
                        let s = dot * f64::from(shape.scale);
                        shape.softcap.map_or(s, |cap| f64::from(cap) * (s / f64::from(cap)).tanh())
                    })
                    .collect();
                let sink = shape.sinks.as_ref().map(|sinks| f64::from(sinks[head]));
                let max = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().copied().chain(sink).map(|s| (s - max).exp()).sum();
                let mut result = vec![0.0; shape.d_v];
                for (cell, s) in cells.iter().zip(&scores) {
                    for (r, x) in result.iter_mut().zip(&v[row(*cell)]) {
                        *r += (s - max).exp() / sum * x;
                    }
                }
                out.extend(result);
            }
        }
        out
    }

    /// Queries may be rounded to 16 bits for K rows of integers.
    fn limit(&self) -> f64 {
        if matches!(self.shape.formats.0, KvFormat::F32 | KvFormat::F16 | KvFormat::BF16) {
            2e-6
        } else {
            5e-5
        }
    }

    fn check(&mut self, batch: &[SeqPos]) {
        let out = self.run(batch);
        let oracle = self.oracle(batch);
        assert_eq!(out.len(), oracle.len());
        for (i, (a, b)) in out.iter().zip(&oracle).enumerate() {
            assert!((f64::from(*a) - b).abs() <= self.limit() * b.abs().max(1.0), "element {i}: {a} and {b}");
        }
    }
}

fn seq(seq: u32, positions: std::ops::Range<u32>) -> Vec<SeqPos> {
    positions.map(|pos| SeqPos { seq, pos }).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn one_token_gets_its_own_value() {
    let shape = Shape::of(4, 2, 32, 40);
    let mut cache = Cache::new(&shape, 16);
    let out = cache.run(&seq(3, 0..1));
    let v = token(&shape, SeqPos { seq: 3, pos: 0 }).2;
    assert_eq!(out[..40], v[..40]);
    assert_eq!(out[3 * 40..], v[40..]);
}

#[test]
fn prompts_agree_with_the_oracle_for_every_group_and_head_size() {
    for (n_head, n_head_kv) in [(2, 2), (4, 2), (4, 1), (8, 1)] {
        for (d_k, d_v) in [(32, 32), (40, 40), (72, 72), (80, 80), (64, 96), (128, 128), (96, 33)] {
            for isa in Isa::all_available() {
                let mut cache = Cache::with(isa, &Shape::of(n_head, n_head_kv, d_k, d_v), 256);
                cache.check(&seq(0, 0..75));
                cache.check(&seq(0, 75..76));
                cache.check(&seq(0, 76..140));
            }
        }
    }
}

#[test]
fn every_pair_of_formats_agrees_with_the_oracle_on_decoded_rows() {
    for &k in KvFormat::ALL {
        for &v in KvFormat::ALL {
            let mut shape = Shape::of(4, 2, 40, 72);
            shape.formats = (k, v);
            let mut cache = Cache::new(&shape, 128);
            cache.check(&seq(0, 0..20));
            cache.check(&seq(0, 20..21));
        }
    }
}

#[test]
fn windows_softcaps_sinks_and_sight_ahead_agree_with_the_oracle() {
    for window in [None, Some(1), Some(5), Some(64), Some(100)] {
        for softcap in [None, Some(2.0), Some(50.0)] {
            for sinks in [None, Some(vec![0.5, -3.0, 8.0, 40.0])] {
                for causal in [true, false] {
                    let shape =
                        Shape { window, softcap, sinks: sinks.clone(), causal, ..Shape::of(4, 2, 32, 32) };
                    let mut cache = Cache::new(&shape, 256);
                    cache.check(&seq(0, 0..90));
                    cache.check(&seq(0, 90..91));
                    cache.check(&seq(0, 91..160));
                }
            }
        }
    }
}

#[test]
fn sequences_in_one_batch_see_their_own_cells_and_a_shared_prefix() {
    let shape = Shape { formats: (KvFormat::F16, KvFormat::F16), ..Shape::of(4, 2, 32, 32) };
    let mut cache = Cache::new(&shape, 512);
    cache.check(&[seq(0, 0..30), seq(1, 0..7)].concat());
    cache.cells.copy(0, 2, 0..25).unwrap();
    cache.cells.copy(0, 3, 0..u32::MAX).unwrap();
    // In lockstep, then a longer piece of one of them among the others.
    for i in 0..10 {
        let batch: Vec<SeqPos> =
            [(0, 30), (1, 7), (2, 25), (3, 30)].map(|(s, p)| SeqPos { seq: s, pos: p + i }).into();
        cache.check(&batch);
    }
    cache.cells.truncate(1, 3).unwrap();
    cache.check(&[seq(2, 35..36), seq(1, 3..80), seq(0, 40..42)].concat());
}

#[test]
fn a_token_that_sees_nothing_gives_zeros() {
    for sinks in [None, Some(vec![1.0; 4])] {
        let shape = Shape { sinks, ..Shape::of(4, 2, 32, 32) };
        let mut cache = Cache::new(&shape, 64);
        cache.run(&seq(0, 0..5));
        let stranger = [SeqPos { seq: 4, pos: 9 }, SeqPos { seq: 77, pos: 0 }, SeqPos { seq: 0, pos: 4 }];
        let q: Vec<f32> = stranger.iter().flat_map(|at| token(&shape, *at).0).collect();
        let out = cache.attend(&stranger, &q);
        assert!(out[..2 * 4 * 32].iter().all(|x| *x == 0.0));
        assert!(out[2 * 4 * 32..].iter().all(|x| *x != 0.0 && x.is_finite()));
    }
}

#[test]
fn a_value_that_is_not_a_number_is_not_hidden() {
    let shape = Shape::of(2, 2, 32, 32);
    let mut cache = Cache::new(&shape, 64);
    cache.run(&seq(0, 0..3));
    let mut q = token(&shape, SeqPos { seq: 0, pos: 2 }).0;
    q[5] = f32::NAN;
    let out = cache.attend(&seq(0, 2..3), &q);
    assert!(out[..32].iter().all(|x| x.is_nan()));
    assert!(out[32..].iter().all(|x| x.is_finite()));
}

#[test]
fn bits_do_not_depend_on_how_a_prompt_is_cut_into_batches() {
    for window in [None, Some(70)] {
        let shape = Shape {
            window,
            formats: (KvFormat::Q8_0, KvFormat::Q4_0),
            softcap: Some(30.0),
            ..Shape::of(4, 2, 40, 40)
        };
        let n = 600;
        let whole = Cache::new(&shape, 640).run(&seq(0, 0..n));
        // In pieces of many sizes, in a cache where the cells lie elsewhere and other sequences run along.
        let mut cache = Cache::new(&shape, 1024);
        cache.run(&seq(5, 0..100));
        let row = shape.n_head * shape.d_v;
        let (mut at, mut size) = (0, 1);
        let mut others = 0;
        while at < n {
            let end = (at + size).min(n);
            let mut batch = seq(0, at..end);
            batch.push(SeqPos { seq: 1, pos: others });
            others += 1;
            let out = cache.run(&batch);
            assert_eq!(
                bits(&out[..(end - at) as usize * row]),
                bits(&whole[at as usize * row..end as usize * row]),
                "tokens {at}..{end}, window {window:?}"
            );
            (at, size) = (end, size % 37 + 1);
        }
    }
}

#[test]
fn bits_do_not_depend_on_whether_splits_are_chunks_of_their_own() {
    let shape = Shape { formats: (KvFormat::F16, KvFormat::Q8_0), ..Shape::of(4, 2, 32, 32) };
    let n = 3 * SPLIT + 70;
    let mut cache = Cache::new(&shape, n + 64);
    cache.run(&seq(0, 0..n - 40));
    let last = seq(0, n - 40..n);
    let apart = cache.run(&last);
    assert!(cache.work.apart && cache.work.chunks() > 2 * 3, "the plan splits the context");
    // The same tokens among enough others that units alone are chunks.
    let q: Vec<f32> = last.iter().flat_map(|at| token(&shape, *at).0).collect();
    let many: Vec<SeqPos> = last.iter().copied().cycle().take(last.len() * 52).collect();
    let q = q.repeat(52);
    let together = cache.attend(&many, &q);
    assert!(!cache.work.apart);
    assert_eq!(bits(&together[..apart.len()]), bits(&apart));
    let oracle = cache.oracle(&last);
    assert!(apart.iter().zip(&oracle).all(|(a, b)| (f64::from(*a) - b).abs() < 2e-6));
}

#[test]
fn chunks_may_run_on_any_threads() {
    let shape = Shape::of(4, 2, 32, 32);
    let n = 2 * SPLIT + 5;
    let mut cache = Cache::new(&shape, n + 64);
    cache.run(&seq(0, 0..n - 1));
    let last = seq(0, n - 1..n);
    let want = bits(&cache.run(&last));
    let q = token(&shape, last[0]).0;
    for _ in 0..20 {
        let chunks = cache.work.prepare(&cache.visible, &shape.params());
        let out = std::sync::Mutex::new(vec![f32::NAN; want.len()]);
        let next = std::sync::atomic::AtomicUsize::new(0);
        let (k, v) = cache.rows();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut scratch = Scratch::default();
                    loop {
                        let chunk = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if chunk >= chunks {
                            break;
                        }
                        let mut emit = |t: usize, h: usize, row: &[f32]| {
                            out.lock().unwrap()[(t * 4 + h) * 32..][..32].copy_from_slice(row);
                        };
                        let (params, visible) = (shape.params(), &cache.visible);
                        cache.work.run(chunk, &params, &q, &k, &v, visible, &mut scratch, &mut emit);
                    }
                });
            }
        });
        assert_eq!(bits(&out.into_inner().unwrap()), want);
    }
}
