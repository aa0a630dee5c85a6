//! Attention over the rows of a layer's cache.

use super::{Planner, Result, Scratch, Step, cpu_buffer};
use crate::backend::Inputs;
use crate::cpu::attention::{AttentionParams, KvRows, Work};
use crate::cpu::memory::{Dst, Src};
use crate::graph::{Input, Op};
use crate::kv::{KvFormat, Visible};

struct Attention {
    work: Work,
    params: AttentionParams<'static>,
    window: Option<u32>,
    q: Src,
    rows: [(KvFormat, Src); 2],
    capacity: usize,
    out: Dst,
}

pub(super) fn step(p: &Planner, n_head: usize, scale: f32, softcap: Option<f32>) -> Result<Box<dyn Step>> {
    let (op, kv) = p.kv(1)?;
    let Op::Kv { n_head_kv, d_k, d_v, .. } = *op else { return Err("reads no cache".into()) };
    let Op::Input(Input::Visible { window }) = p.segment.graph.node(p.input(2)?).op else {
        return Err("its third input does not say what is visible".into());
    };
    let window_on = |buffer, format: KvFormat, d| -> Result<(KvFormat, Src)> {
        let buffer = cpu_buffer(buffer)?;
        let bytes = n_head_kv * kv.capacity * format.row_bytes(d);
        if bytes > crate::backend::Buffer::bytes(buffer) {
            return Err("its cache is smaller than its shape".into());
        }
        // SAFETY: the plan holds the cache; the write that this node waits for is a step before.
        Ok((format, unsafe { Src::new(buffer.ptr(), bytes) }))
    };
    Ok(Box::new(Attention {
        work: Work::new(p.backend.isa()),
        params: AttentionParams { n_head, n_head_kv, d_k, d_v, scale, softcap, sinks: None },
        window,
        q: p.src(0)?,
        rows: [window_on(&*kv.k, kv.formats.0, d_k)?, window_on(&*kv.v, kv.formats.1, d_v)?],
        capacity: kv.capacity,
        out: p.dst()?,
    }))
}

impl Attention {
    fn visible<'a>(&self, inputs: &'a Inputs) -> Option<&'a Visible> {
        inputs.visible.iter().find(|(window, _)| *window == self.window).map(|(_, visible)| visible)
    }
}

impl Step for Attention {
    fn chunks(&mut self, inputs: &Inputs) -> usize {
        let Some(visible) = inputs.visible.iter().find(|(window, _)| *window == self.window) else {
            return 0;
        };
        self.work.prepare(&visible.1, &self.params)
    }
    fn run(&self, chunk: usize, inputs: &Inputs, scratch: &mut Scratch) {
        let Some(visible) = self.visible(inputs) else { return };
        let p = &self.params;
        let [k, v] = [(0, p.d_k), (1, p.d_v)].map(|(i, d)| {
            let (format, src) = &self.rows[i];
            KvRows::new(*format, src.slice(), self.capacity, p.n_head_kv, d)
        });
        let emit = &mut |token: usize, head: usize, row: &[f32]| {
            let at = (token * p.n_head + head) * p.d_v;
            // SAFETY: all chunks together emit each token and head once.
            let out = unsafe { self.out.slice::<f32>(at..at + p.d_v) };
            out.copy_from_slice(row);
        };
        self.work.run(chunk, p, self.q.slice(), &k, &v, visible, &mut scratch.attention, emit);
    }
}
