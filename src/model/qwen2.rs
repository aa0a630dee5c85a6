//! qwen2: Qwen 1.5, 2 and 2.5: as llama, with biases on q, k and v.

use super::hparams::Keys;
use super::parts::declare_pre_norm_decoder;
use super::{Arch, Cx, Declare, HParams, Result};
use crate::graph::{Activation, NodeId, RopePairs};

pub(super) struct Qwen2;

impl Arch for Qwen2 {
    fn name(&self) -> &'static str {
        "qwen2"
    }
    fn hparams(&self, keys: &Keys) -> Result<HParams> {
        keys.transformer()
    }
    fn weights(&self, hp: &HParams, d: &mut Declare) -> Result<()> {
        declare_pre_norm_decoder(hp, d)
    }
    fn build(&self, cx: &mut Cx) -> Result<NodeId> {
        cx.pre_norm_decoder(RopePairs::Halves, Activation::Silu)
    }
}
