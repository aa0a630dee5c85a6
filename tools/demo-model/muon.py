"""Muon: momentum whose matrix is made orthogonal before it is applied (Keller Jordan, 2024), in f32 or, as there, bfloat16.

Matrices learn from fewer tokens than with AdamW, at the cost of a few small matrix products a step.
"""

import torch


def orthogonal(g, kind, steps=4):
    """About U V^T of g = U S V^T, for a batch of matrices [n, rows, columns], by Newton-Schulz iterations of degree 5."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = g.shape[-2] > g.shape[-1]
    x = g.mT if wide else g
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(kind)
    for _ in range(steps):
        xx = x @ x.mT
        x = a * x + (b * xx + c * xx @ xx) @ x
    return (x.mT if wide else x).float()


class Muon(torch.optim.Optimizer):
    """For matrices only. Matrices of one shape are handled as a batch."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.0, kind=torch.float):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "kind": kind})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                shapes.setdefault(p.shape, []).append(p)
            for shape, params in shapes.items():
                updates = []
                for p in params:
                    m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    m.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(torch.lerp(p.grad, m, group["momentum"]))
                made = orthogonal(torch.stack(updates), group["kind"])
                scale = group["lr"] * max(1, shape[0] / shape[1]) ** 0.5
                for p, u in zip(params, made):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(u, alpha=scale)
