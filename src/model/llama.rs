//! llama: Llama 1 to 3, Mistral, and Mixtral with its experts.

use super::hparams::Keys;
use super::parts::declare_pre_norm_decoder;
use super::{Arch, Cx, Declare, HParams, Result};
use crate::graph::{Activation, NodeId, RopePairs};

pub(super) struct Llama;

impl Arch for Llama {
    fn name(&self) -> &'static str {
        "llama"
    }
    fn hparams(&self, keys: &Keys) -> Result<HParams> {
        keys.transformer()
    }
    fn weights(&self, hp: &HParams, d: &mut Declare) -> Result<()> {
        declare_pre_norm_decoder(hp, d)
    }
    fn build(&self, cx: &mut Cx) -> Result<NodeId> {
        // The converter permutes the rows of q and k so that pairs are neighbours.
        cx.pre_norm_decoder(RopePairs::Adjacent, Activation::Silu)
    }
}
