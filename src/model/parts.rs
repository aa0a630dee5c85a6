//! What architectures share: embedding, norms, attention, feed-forward blocks, experts, output.

use super::weights::full_name;
use super::{HParams, Model, ModelError, Result};
use crate::graph::{Activation, Builder, Input, NodeId, Op, RopePairs, hadamard_block};
use crate::kv::KvFormat;
use crate::model::Declare;

/// The shape of a batch, which a graph is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchShape {
    /// Tokens.
    pub n_tokens: usize,
    /// Rows whose logits are wanted.
    pub n_out: usize,
}

/// How K and V rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KvChoice {
    /// Format of the K rows.
    pub k: KvFormat,
    /// Format of the V rows.
    pub v: KvFormat,
    /// K (and the queries) are rotated by a Hadamard matrix before they are rounded.
    pub rotate_k: bool,
    /// V is rotated likewise, and the attention's result rotated back.
    pub rotate_v: bool,
}

/// Formats whose V rows are rotated before they are rounded. Measured (`benches/README.md`): the perplexity that a cache of
/// these costs falls by 29% to 65%, to which rotating K as well adds little; for the other formats V gains nothing.
const ROTATED_V: &[KvFormat] = &[KvFormat::Q4_0, KvFormat::Iq4Nl, KvFormat::F8E4M3];

impl KvChoice {
    /// Rows of these formats, V rotated where that was measured to pay.
    pub fn new(k: KvFormat, v: KvFormat) -> KvChoice {
        KvChoice { k, v, rotate_k: false, rotate_v: ROTATED_V.contains(&v) }
    }
}

/// A graph under construction, with the model that it is of.
pub struct Cx<'a> {
    /// The graph so far.
    pub g: Builder,
    /// The hyper-parameters.
    pub hp: &'a HParams,
    model: &'a Model,
    shape: BatchShape,
    kv: KvChoice,
    layer: Option<usize>,
}

/// Names of the matrices of a feed-forward block.
const FFN: [&str; 3] = ["ffn_gate", "ffn_up", "ffn_down"];

impl<'a> Cx<'a> {
    /// An empty graph.
    pub fn new(model: &'a Model, shape: BatchShape, kv: KvChoice) -> Cx<'a> {
        let g = Builder::new(shape.n_tokens, shape.n_out);
        Cx { g, hp: &model.hp, model, shape, kv, layer: None }
    }
    /// What follows belongs to this layer.
    pub fn set_layer(&mut self, layer: Option<usize>) {
        self.layer = layer;
        self.g.set_layer(layer);
    }
    /// A declared weight of the current layer.
    ///
    /// # Errors
    /// It was declared as optional and the file does not hold it.
    pub fn weight(&mut self, name: &str) -> Result<NodeId> {
        self.try_weight(name)
            .ok_or_else(|| ModelError::Tensor { name: full_name(self.layer, name), why: "is missing".into() })
    }
    /// A declared weight of the current layer, if the file holds it.
    pub fn try_weight(&mut self, name: &str) -> Option<NodeId> {
        let name = full_name(self.layer, name);
        let (id, decl) = self.model.weights.get(&name)?;
        Some(self.g.weight(id, &decl.name, decl.shape, decl.format))
    }
    /// The embedded tokens, `[n_embd, n]`.
    ///
    /// # Errors
    /// The embedding is missing.
    pub fn embed(&mut self) -> Result<NodeId> {
        let table = self.weight("token_embd.weight")?;
        let tokens = self.g.input(Input::Tokens);
        Ok(self.g.get_rows("embd", table, tokens)?)
    }
    /// A matrix product with `{weight}.weight`, and `{weight}.bias` where the file holds one.
    ///
    /// # Errors
    /// The weight is missing or does not fit.
    pub fn linear(&mut self, name: &str, weight: &str, x: NodeId) -> Result<NodeId> {
        let w = self.weight(&format!("{weight}.weight"))?;
        let y = self.g.matmul(name, w, x)?;
        match self.try_weight(&format!("{weight}.bias")) {
            Some(bias) => Ok(self.g.add(&format!("{name}_bias"), y, bias)?),
            None => Ok(y),
        }
    }
    /// RMS norm by `{name}.weight`.
    ///
    /// # Errors
    /// The weight is missing or does not fit.
    pub fn norm(&mut self, name: &str, x: NodeId) -> Result<NodeId> {
        let weight = self.weight(&format!("{name}.weight"))?;
        Ok(self.g.rms_norm(name, x, weight, self.hp.eps)?)
    }
    /// The angles of the batch's positions, for all layers.
    ///
    /// # Errors
    /// The file's frequency factors do not fit.
    pub fn rope_table(&mut self) -> Result<NodeId> {
        let factors = self.try_weight("rope_freqs.weight");
        Ok(self.g.rope_table(self.hp.rope.params, factors)?)
    }
    /// Self-attention of the current layer over `x [n_embd, n]`: q, k, v, per-head norms where the
    /// file holds them, rotary embedding, cache, softmax, output matrix.
    ///
    /// # Errors
    /// A weight is missing or does not fit.
    pub fn attention(&mut self, x: NodeId, pairs: RopePairs, table: NodeId) -> Result<NodeId> {
        let HParams { n_head, n_head_kv, d_k, d_v, .. } = *self.hp;
        let n = self.g.n_tokens();
        let layer = self.layer.unwrap_or(0);
        let q = self.linear("q", "attn_q", x)?;
        let k = self.linear("k", "attn_k", x)?;
        let v = self.linear("v", "attn_v", x)?;
        let mut q = self.g.view("q_heads", q, &[d_k, n_head, n])?;
        let mut k = self.g.view("k_heads", k, &[d_k, n_head_kv, n])?;
        let mut v = self.g.view("v_heads", v, &[d_v, n_head_kv, n])?;
        if self.try_weight("attn_q_norm.weight").is_some() {
            q = self.norm("attn_q_norm", q)?;
        }
        if self.try_weight("attn_k_norm.weight").is_some() {
            k = self.norm("attn_k_norm", k)?;
        }
        q = self.g.rope("q_rope", pairs, q, table)?;
        k = self.g.rope("k_rope", pairs, k, table)?;
        let choice = self.kv;
        // A row without a block stays as it is: no node, which a device might decline.
        let (rotate_k, rotate_v) = (
            choice.rotate_k && hadamard_block(d_k).is_some(),
            choice.rotate_v && hadamard_block(d_v).is_some(),
        );
        if rotate_k {
            q = self.g.add_op("q_rotated", Op::Hadamard, &[q])?;
            k = self.g.add_op("k_rotated", Op::Hadamard, &[k])?;
        }
        if rotate_v {
            v = self.g.add_op("v_rotated", Op::Hadamard, &[v])?;
        }
        let leaf = self.g.kv(layer, choice.k, choice.v, n_head_kv, d_k, d_v);
        let cells = self.g.input(Input::Cells);
        let written = self.g.add_op("kv_write", Op::KvWrite, &[k, v, leaf, cells])?;
        let visible = self.g.input(Input::Visible { window: None });
        let op = Op::Attention { n_head, scale: 1.0 / (d_k as f32).sqrt(), softcap: None };
        let mut y = self.g.add_op("attn", op, &[q, written, visible])?;
        if rotate_v {
            let heads = self.g.view("attn_heads", y, &[d_v, n_head, n])?;
            let back = self.g.add_op("attn_rotated", Op::Hadamard, &[heads])?;
            y = self.g.view("attn_row", back, &[d_v * n_head, n])?;
        }
        self.linear("attn_out", "attn_output", y)
    }
    /// A gated feed-forward block: down(act(gate x) * up x).
    ///
    /// # Errors
    /// A weight is missing or does not fit.
    pub fn ffn(&mut self, x: NodeId, act: Activation) -> Result<NodeId> {
        let gate = self.linear("ffn_gate", FFN[0], x)?;
        let up = self.linear("ffn_up", FFN[1], x)?;
        let h = self.g.glu("ffn_act", act, gate, up)?;
        self.linear("ffn_down", FFN[2], h)
    }
    /// A mixture of experts: softmax over all experts, the best `used`, their weights made to sum
    /// to one, and the weighted sum of what they give.
    ///
    /// # Errors
    /// A weight is missing or does not fit.
    pub fn experts(&mut self, x: NodeId, used: usize, act: Activation) -> Result<NodeId> {
        let n = self.g.shape(x).rows();
        let logits = self.linear("ffn_router", "ffn_gate_inp", x)?;
        let probs = self.g.add_op("ffn_probs", Op::Softmax, &[logits])?;
        let ids = self.g.add_op("ffn_experts", Op::TopK { k: used }, &[probs])?;
        let weights = self.g.add_op("ffn_chosen", Op::Gather, &[probs, ids])?;
        let weights = self.g.add_op("ffn_weights", Op::SumToOne, &[weights])?;
        let x = self.g.view("ffn_tokens", x, &[self.hp.n_embd, 1, n])?;
        let mut product = |name: &str, weight: &str, x: NodeId| -> Result<NodeId> {
            let w = self.weight(&format!("{weight}_exps.weight"))?;
            Ok(self.g.add_op(name, Op::MatMulExperts, &[w, x, ids])?)
        };
        let gate = product("ffn_gate", FFN[0], x)?;
        let up = product("ffn_up", FFN[1], x)?;
        let h = self.g.glu("ffn_act", act, gate, up)?;
        let w = self.weight(&format!("{}_exps.weight", FFN[2]))?;
        let down = self.g.add_op("ffn_down", Op::MatMulExperts, &[w, h, ids])?;
        Ok(self.g.add_op("ffn_out", Op::WeightedSum, &[down, weights])?)
    }
    /// The wanted rows of `x`: nothing after the last layer's attention is computed for the others.
    ///
    /// # Errors
    /// None in practice: the shapes are this crate's own.
    pub fn wanted_rows(&mut self, name: &str, x: NodeId) -> Result<NodeId> {
        if self.shape.n_out == self.shape.n_tokens {
            return Ok(x);
        }
        let rows = self.g.input(Input::OutRows);
        Ok(self.g.get_rows(name, x, rows)?)
    }
    /// The hidden state of the wanted rows, normed, times the output matrix (or the embedding,
    /// where the two are tied).
    ///
    /// # Errors
    /// A weight is missing or does not fit.
    pub fn output(&mut self, x: NodeId) -> Result<NodeId> {
        self.set_layer(None);
        let x = self.norm("output_norm", x)?;
        let w = match self.try_weight("output.weight") {
            Some(w) => w,
            None => self.weight("token_embd.weight")?,
        };
        let y = self.g.matmul("logits", w, x)?;
        match self.try_weight("output.bias") {
            Some(bias) => Ok(self.g.add("logits_bias", y, bias)?),
            None => Ok(y),
        }
    }
    /// A decoder of pre-norm blocks, as llama's: attention and feed-forward, each with its residual.
    ///
    /// # Errors
    /// A weight is missing or does not fit.
    pub fn pre_norm_decoder(&mut self, pairs: RopePairs, act: Activation) -> Result<NodeId> {
        let mut x = self.embed()?;
        let table = self.rope_table()?;
        for layer in 0..self.hp.n_layer {
            self.set_layer(Some(layer));
            let h = self.norm("attn_norm", x)?;
            let mut h = self.attention(h, pairs, table)?;
            if layer + 1 == self.hp.n_layer {
                h = self.wanted_rows("attn_wanted", h)?;
                x = self.wanted_rows("hidden_wanted", x)?;
            }
            x = self.g.add("attn_residual", x, h)?;
            let h = self.norm("ffn_norm", x)?;
            let h = match self.hp.experts {
                Some(experts) => self.experts(h, experts.used, act)?,
                None => self.ffn(h, act)?,
            };
            x = self.g.add("ffn_residual", x, h)?;
        }
        self.output(x)
    }
}

/// Declare what [`Cx::pre_norm_decoder`] uses.
///
/// # Errors
/// The file does not hold a weight, or in another shape.
pub fn declare_pre_norm_decoder(hp: &HParams, d: &mut Declare) -> Result<()> {
    let HParams { n_vocab, n_embd, n_head, n_head_kv, d_k, d_v, n_ff, .. } = *hp;
    d.set_layer(None);
    d.need("token_embd.weight", &[n_embd, n_vocab])?;
    d.need("output_norm.weight", &[n_embd])?;
    d.optional("output.weight", &[n_embd, n_vocab])?;
    d.optional("output.bias", &[n_vocab])?;
    d.optional("rope_freqs.weight", &[hp.rope.params.n_rot / 2])?;
    for layer in 0..hp.n_layer {
        d.set_layer(Some(layer));
        d.need("attn_norm.weight", &[n_embd])?;
        for (name, rows) in
            [("attn_q", n_head * d_k), ("attn_k", n_head_kv * d_k), ("attn_v", n_head_kv * d_v)]
        {
            d.need(&format!("{name}.weight"), &[n_embd, rows])?;
            d.optional(&format!("{name}.bias"), &[rows])?;
        }
        d.need("attn_output.weight", &[n_head * d_v, n_embd])?;
        d.optional("attn_output.bias", &[n_embd])?;
        d.need("ffn_norm.weight", &[n_embd])?;
        if let Some(e) = hp.experts {
            d.need("ffn_gate_inp.weight", &[n_embd, e.count])?;
            d.need("ffn_gate_exps.weight", &[n_embd, e.n_ff, e.count])?;
            d.need("ffn_up_exps.weight", &[n_embd, e.n_ff, e.count])?;
            d.need("ffn_down_exps.weight", &[e.n_ff, n_embd, e.count])?;
        } else {
            for (name, k, rows) in [(FFN[0], n_embd, n_ff), (FFN[1], n_embd, n_ff), (FFN[2], n_ff, n_embd)] {
                d.need(&format!("{name}.weight"), &[k, rows])?;
                d.optional(&format!("{name}.bias"), &[rows])?;
            }
        }
    }
    Ok(())
}
