"""The demo model in torch: a small Llama (RMS norm, rotary pairs of neighbours, grouped queries, SwiGLU, tied head)."""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    """Shapes. Every matrix has an input width that is a multiple of 256, so that K-quants apply."""

    vocab: int = 3072
    width: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    head: int = 64
    ffn: int = 768
    context: int = 1024
    rope_base: float = 10000.0
    eps: float = 1e-5

    def dict(self):
        return asdict(self)


def rope_table(config, length):
    """Cosine and sine, each [length, head / 2], of position times base^(-2i/head)."""
    i = torch.arange(0, config.head, 2, dtype=torch.float64)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), config.rope_base ** (-i / config.head))
    return angle.cos().float(), angle.sin().float()


def rotate(x, cos, sin):
    """Turns neighbouring pairs of x [batch, tokens, heads, head]: the layout that GGUF's llama architecture stores."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[:, None].to(x.dtype), sin[:, None].to(x.dtype)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


def fake_q4(w):
    """w as 4-bit affine rounding in groups of 32 leaves it; the gradient passes straight through."""
    g = w.detach().unflatten(-1, (-1, 32))
    low = g.amin(-1, keepdim=True).clamp(max=0)
    step = ((g.amax(-1, keepdim=True) - low) / 15).clamp(min=1e-8)
    q = ((g - low) / step).round_().clamp_(0, 15).mul_(step).add_(low)
    return w + (q.flatten(-2) - w.detach())


def attention(q, k, v):
    """Causal attention of q [batch, heads, tokens, head] over k and v, which have fewer heads. Written out: on rows as short
    as these a quarter of a step went into going backward through torch's fused kernel."""
    b, heads, t, head = q.shape
    kv_heads = k.shape[1]
    q = q.reshape(b * kv_heads, heads // kv_heads * t, head) * head**-0.5
    scores = q @ k.reshape(b * kv_heads, t, head).mT
    future = torch.ones(t, t, dtype=torch.bool).triu(1)
    scores = scores.view(b * kv_heads, -1, t, t).masked_fill(future, float("-inf"))
    p = scores.softmax(-1, dtype=torch.float).to(v.dtype).view(b * kv_heads, -1, t)
    return (p @ v.reshape(b * kv_heads, t, head)).view(b, heads, t, head)


class Norm(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.width))
        self.eps = config.eps

    def forward(self, x):
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps)


class Linear(nn.Module):
    def __init__(self, inputs, outputs, std):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * std)

    def forward(self, x, quant):
        return F.linear(x, fake_q4(self.weight) if quant else self.weight)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        std, out = c.width**-0.5, c.width**-0.5 / (2 * c.layers) ** 0.5
        self.attn_norm, self.ffn_norm = Norm(c), Norm(c)
        self.q = Linear(c.width, c.heads * c.head, std)
        self.k = Linear(c.width, c.kv_heads * c.head, std)
        self.v = Linear(c.width, c.kv_heads * c.head, std)
        self.o = Linear(c.heads * c.head, c.width, out)
        self.gate = Linear(c.width, c.ffn, std)
        self.up = Linear(c.width, c.ffn, std)
        self.down = Linear(c.ffn, c.width, out)

    def forward(self, x, cos, sin, quant: bool):
        c, (b, t, _) = self.c, x.shape
        h = self.attn_norm(x)
        q = rotate(self.q(h, quant).view(b, t, c.heads, c.head), cos, sin).transpose(1, 2)
        k = rotate(self.k(h, quant).view(b, t, c.kv_heads, c.head), cos, sin).transpose(1, 2)
        v = self.v(h, quant).view(b, t, c.kv_heads, c.head).transpose(1, 2)
        a = attention(q, k, v).transpose(1, 2).flatten(-2)
        x = x + self.o(a, quant)
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h, quant)) * self.up(h, quant), quant)


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed = nn.Parameter(torch.randn(c.vocab, c.width) * 0.02)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = Norm(c)
        cos, sin = rope_table(c, c.context)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, ids, quant: bool = False, wanted=None):
        """Logits [batch, tokens, vocab] of ids [batch, tokens], or [n, vocab] of the n wanted of batch * tokens positions.

        quant: with the weights as 4 bits would leave them.
        """
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        embed = fake_q4(self.embed) if quant else self.embed
        x = F.embedding(ids, embed)
        for block in self.blocks:
            x = block(x, cos, sin, quant)
        x = self.norm(x)
        if wanted is not None:
            x = x.flatten(0, 1)[wanted]
        return F.linear(x, embed)
