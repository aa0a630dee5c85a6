//! qwen3 and qwen3moe: as llama, with an RMS norm on each head of q and k.

use super::hparams::Keys;
use super::parts::declare_pre_norm_decoder;
use super::{Arch, Cx, Declare, HParams, ModelError, Result};
use crate::graph::{Activation, NodeId, RopePairs};

pub(super) struct Qwen3 {
    pub(super) experts: bool,
}

impl Arch for Qwen3 {
    fn name(&self) -> &'static str {
        if self.experts { "qwen3moe" } else { "qwen3" }
    }
    fn hparams(&self, keys: &Keys) -> Result<HParams> {
        let hp = keys.transformer()?;
        if self.experts && hp.experts.is_none() {
            let key = format!("{}.expert_count", self.name());
            return Err(ModelError::Key { key, why: "is missing".into() });
        }
        Ok(hp)
    }
    fn weights(&self, hp: &HParams, d: &mut Declare) -> Result<()> {
        declare_pre_norm_decoder(hp, d)?;
        for layer in 0..hp.n_layer {
            d.set_layer(Some(layer));
            d.need("attn_q_norm.weight", &[hp.d_k])?;
            d.need("attn_k_norm.weight", &[hp.d_k])?;
        }
        Ok(())
    }
    fn build(&self, cx: &mut Cx) -> Result<NodeId> {
        cx.pre_norm_decoder(RopePairs::Halves, Activation::Silu)
    }
}
