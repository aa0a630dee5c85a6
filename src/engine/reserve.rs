//! Memory before bytes: everything that an engine will need is had on every device before the first weight is moved, from
//! the last layer to the first, so that a device that has too little says so at once and says how far it came.

use std::collections::VecDeque;
use std::sync::Arc;

use super::reach::{compile_shapes, rows_bytes};
use super::{BatchShape, Engine, EngineError, EngineOptions, settle, split, weights_read};
use crate::backend::{Backend, BackendError, Inputs, KvLayer};
use crate::exec::{Device, Homes, Lowered};
use crate::kv::{Cells, KvFormat};
use crate::model::Model;

/// Memory that was refused.
pub(super) struct Refused {
    /// What was refused.
    pub error: EngineError,
    /// More layers than this (counted from the end, the output as the first of them) cannot fit: the caches of so many were
    /// all that was had. None where that is not known, because fewer layers would have left more memory for what was refused.
    pub most: Option<usize>,
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Refused {
        Refused { error, most: None }
    }
}

impl From<BackendError> for Refused {
    fn from(error: BackendError) -> Refused {
        Refused { error: error.into(), most: None }
    }
}

impl Refused {
    /// Whether it is memory of this device that was refused.
    pub(super) fn memory_of(&self, device: &str) -> bool {
        is_memory_of(&self.error, device)
    }
}

/// Whether an error says that memory of this device was refused.
pub(super) fn is_memory_of(error: &EngineError, device: &str) -> bool {
    matches!(error, EngineError::Backend(BackendError::OutOfMemory { device: of, .. }) if of == device)
}

/// The shapes that memory is had for: the largest batch, and a single token. What another shape needs beyond that is had
/// when it comes.
pub(super) fn shapes(options: &EngineOptions) -> [BatchShape; 2] {
    let n_tokens = options.n_ubatch.max(1).min(options.n_ctx);
    [
        BatchShape { n_tokens, n_out: options.n_outputs.min(n_tokens) },
        BatchShape { n_tokens: n_tokens.min(1), n_out: n_tokens.min(1) },
    ]
}

impl Engine {
    /// An engine whose memory is had, and whose weights are still to come: see [`Engine::fill`].
    pub(super) fn reserve(
        model: Arc<Model>,
        mut options: EngineOptions,
        backends: &[Arc<dyn Backend>],
        mut homes: (Vec<usize>, Vec<usize>),
    ) -> Result<Engine, Refused> {
        options.n_ubatch = options.n_ubatch.max(1);
        let refs: Vec<&dyn Backend> = backends.iter().map(|b| &**b).collect();
        let declined = settle(&model, &options, &mut homes, &refs)?;
        let by = Homes { weights: &homes.0, kv: &homes.1 };
        let compiled = compile_shapes(&model, &mut options, &by, &refs)?;
        let mut devices = Vec::new();
        for backend in backends {
            let weights = vec![None; model.weights().list().len()];
            let kv = vec![None; homes.1.len()];
            let arena = backend.alloc(0, "intermediates")?;
            devices.push(Device { backend: backend.clone(), arena, weights, kv });
        }
        let cells = Cells::new(options.n_ctx as u32, options.n_sequences);
        let mut engine = Engine {
            model,
            options,
            devices,
            homes,
            declined,
            offloaded: None,
            cells,
            plans: VecDeque::new(),
            inputs: Inputs::default(),
            rows: Vec::new(),
            profile: None,
            too_large: None,
        };
        engine.reserve_caches()?;
        let mut lowered = Vec::new();
        for (graph, layout) in compiled {
            engine.reserve_arenas(&layout.arena)?;
            lowered.push(graph);
        }
        engine.reserve_weights(&lowered)?;
        Ok(engine)
    }

    /// The caches, each on the device of its layer.
    fn reserve_caches(&mut self) -> Result<(), Refused> {
        let hp = self.model.hparams();
        let options = &self.options;
        for (layer, home) in self.homes.1.iter().enumerate().rev() {
            let Some(device) = self.devices.get_mut(*home) else { continue };
            let rows = |format: KvFormat, dim: usize, what: &str| {
                let bytes = rows_bytes(options.n_ctx, hp.n_head_kv, format, dim);
                let most = Some(hp.n_layer.saturating_sub(layer));
                device.backend.alloc(bytes, what).map_err(|error| Refused { error: error.into(), most })
            };
            device.kv[layer] = Some(KvLayer {
                k: rows(options.kv.k, hp.d_k, "the K cache")?,
                v: rows(options.kv.v, hp.d_v, "the V cache")?,
                formats: (options.kv.k, options.kv.v),
                capacity: options.n_ctx,
            });
        }
        Ok(())
    }

    /// Arenas of at least these sizes, by device. Where one grows, all plans go: they hold windows into the arenas.
    pub(super) fn reserve_arenas(&mut self, bytes: &[usize]) -> super::Result<()> {
        for (device, bytes) in self.devices.iter_mut().zip(bytes) {
            if device.arena.bytes() < *bytes {
                self.plans.clear();
                device.arena = device.backend.alloc(*bytes, "intermediates")?;
            }
        }
        Ok(())
    }

    /// Memory of every weight where a node reads it: those of the output first, then layer by layer from the last to the
    /// first, then those of the embedding.
    fn reserve_weights(&mut self, lowered: &[Lowered]) -> Result<(), Refused> {
        let n_layer = self.model.hparams().n_layer;
        let mut wanted: Vec<_> = lowered.iter().flat_map(weights_read).collect();
        let parts = split::parts(&self.model, self.options.kv)?;
        wanted.sort_by_key(|(device, weight)| {
            (parts.get(weight.0 as usize).map(|part| part.number(n_layer)), *device, *weight)
        });
        wanted.dedup();
        for (number, weight) in wanted {
            let index = weight.0 as usize;
            let (decl, device) = (&self.model.weights().list()[index], &mut self.devices[number]);
            device.weights[index] = Some(device.backend.alloc_weight(self.model.file(), decl.index)?);
        }
        Ok(())
    }

    /// Bring the weights, and make the plan of the largest batch ready.
    pub(super) fn fill(&mut self) -> super::Result<()> {
        for device in &self.devices {
            for (weight, decl) in device.weights.iter().zip(self.model.weights().list()) {
                if let Some(weight) = weight {
                    device.backend.fill_weight(self.model.file(), decl.index, weight)?;
                }
            }
        }
        let [largest, _] = shapes(&self.options);
        self.prepare(largest).map(|_| ())
    }
}
