"""Trains the demo model on out/train.jsonl.

    python train.py [--out out] [--threads 2] [--compile]

writes out/tokenizer.json and out/model.pt (the averaged weights and the shapes). Progress goes to standard output and
out/train.log. The seed is fixed; sums of floats in another order still make two machines differ in the last bits.
"""

import argparse
import json
import math
import os
import random
import shutil
import sys
import time
from pathlib import Path

# Before torch is loaded: threads that wait for others spin, since a step is a thousand short operations (on a busy machine
# `OMP_WAIT_POLICY=passive` is faster), and freed memory stays here, since it would come back as pages to be cleared.
BEFORE = {"OMP_WAIT_POLICY": "active", "MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "20000000000", "MALLOC_TOP_PAD_": "500000000"}
if any(name not in os.environ for name in BEFORE):
    os.execve(sys.executable, [sys.executable, *sys.argv], BEFORE | os.environ)

import torch
import torch.nn.functional as F

import precision
import tokenizer
from model import Config, Model
from muon import Muon

HERE = Path(__file__).parent


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=HERE / "out")
    p.add_argument("--name", default="model.pt")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--batch", type=int, default=3072, help="tokens a step, padding included")
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--muon", type=float, default=0.02, help="learning rate of Muon for the matrices; 0 = AdamW for them too")
    p.add_argument("--decay", type=float, default=0.05)
    p.add_argument("--user-weight", type=int, default=12, help="weight of the user's words in the loss, in hundredths")
    p.add_argument("--user-until", type=float, default=0.2, help="share of the run after which only answers and plain text count")
    p.add_argument("--qat-from", type=float, default=0.7, help="share of the run after which weights are rounded to 4 bits in the forward pass")
    p.add_argument("--finish-rate", type=float, default=0.3, help="where the learning rates of the finish begin, as a share of the full ones")
    p.add_argument("--resume", action="store_true", help="go on from out/resume.pt, which a run writes every two minutes")
    p.add_argument("--layers", type=int, default=Config.layers)
    p.add_argument("--ffn", type=int, default=Config.ffn)
    p.add_argument("--minutes", type=float, default=0, help="end after so many minutes, the schedule fitted to it (for trials)")
    p.add_argument("--precision", choices=["auto", "f32", "bf16"], default="auto", help="of the matrix products; auto: bf16 where a trial finds it faster")
    p.add_argument("--compile", action=argparse.BooleanOptionalAction, default=shutil.which("c++") is not None, help="torch.compile: two minutes of compiling, then faster; needs a C++ compiler")
    return p.parse_args()


def batches(rows, size, rng):
    """Rows of like length side by side: lists of row numbers, each at most `size` tokens with padding."""
    order = list(range(len(rows)))
    rng.shuffle(order)
    made = []
    for at in range(0, len(order), 4096):
        batch, longest = [], 0
        for i in sorted(order[at : at + 4096], key=lambda i: len(rows[i][0]) + rng.random()):
            longest_now = max(longest, len(rows[i][0]))
            if batch and longest_now * (len(batch) + 1) > size:
                made.append(batch)
                batch, longest_now = [], len(rows[i][0])
            batch.append(i)
            longest = longest_now
        made.append(batch)
    rng.shuffle(made)
    return made


def collate(rows, batch):
    longest = max(len(rows[i][0]) for i in batch)
    longest = -(-longest // 8) * 8
    ids = torch.full((len(batch), longest), tokenizer.END)
    weights = torch.zeros(len(batch), longest)
    for r, i in enumerate(batch):
        x, w = rows[i]
        ids[r, : len(x)] = torch.tensor(x)
        weights[r, : len(w)] = torch.tensor(w, dtype=torch.float) / 100
    return ids, weights


def save(path, config, model, average):
    """Saves the averaged weights."""
    names = [n for n, _ in model.named_parameters()]
    torch.save({"config": config.dict(), "state": dict(zip(names, average))}, path)


def main():
    a = arguments()
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    torch.set_flush_denormal(True)
    rng = random.Random(a.seed)
    log = open(a.out / "train.log", "a")

    def say(text):
        print(text, flush=True)
        print(text, file=log, flush=True)

    config = Config(layers=a.layers, ffn=a.ffn)
    begin, cpu = time.time(), time.process_time()
    corpus = a.out / "train.jsonl"
    vocabulary = a.out / "tokenizer.json"
    t = tokenizer.load(vocabulary) if a.resume else tokenizer.train(corpus, config.vocab, vocabulary)

    def read(path):
        for line in open(path):
            ids, weights = tokenizer.example(t, json.loads(line), a.user_weight)
            yield ids[: config.context], weights[: config.context]

    # The finish is a second, lower descent of the learning rate over its own conversations. What the two descents end with
    # are neighbours, and their mean is better than either.
    rows = list(read(corpus))
    finish = list(read(a.out / "finish.jsonl"))
    plan = batches(rows, a.batch, rng)
    main_steps = len(plan)
    plan += [[len(rows) + i for i in batch] for batch in batches(finish, a.batch, rng)]
    rows += finish
    total = sum(len(r[0]) for r in rows)
    torch.manual_seed(a.seed)
    model = Model(config)
    say(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters, {len(rows)} rows, {total / 1e6:.2f}M tokens, {len(plan)} steps, prepared in {time.time() - begin:.0f} s")

    halves = a.precision == "bf16"
    if a.precision == "auto":
        gain = precision.gain(a.threads)
        halves = gain > 1.25
        say(f"products in {'bf16' if halves else 'f32'}: a trial of bf16 " + (f"was {gain:.1f} times as fast as f32" if gain else "failed"))

    matrices = [p for b in model.blocks for p in b.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": [model.embed], "weight_decay": 0.0}, {"params": vectors, "weight_decay": 0.0}]
    if not a.muon:
        groups.append({"params": matrices, "weight_decay": a.decay})
    optimizers = [torch.optim.AdamW(groups, lr=a.lr, betas=(0.9, 0.97), fused=True)]
    if a.muon:
        optimizers.append(Muon(matrices, lr=a.muon, weight_decay=a.decay, kind=torch.bfloat16 if halves else torch.float))
    for o in optimizers:
        for g in o.param_groups:
            g["full"] = g["lr"]
    average = [p.detach().clone() for p in model.parameters()]

    def loss(ids, targets, weights, wanted, quant: bool):
        each = F.cross_entropy(model(ids, quant, wanted), targets, reduction="none")
        return (each * weights).sum() / weights.sum(), each.detach()

    if a.compile:
        loss = torch.compile(loss, dynamic=True)

    shown = saved = start = time.time()
    seen = 0
    sums = [0.0, 0.0]
    first, begun, before_finish = 0, 0.0, None
    if a.resume:
        first, begun, weights, average, before_finish, states = torch.load(a.out / "resume.pt", weights_only=True)
        model.load_state_dict(weights)
        for o, state in zip(optimizers, states):
            o.load_state_dict(state)
        say(f"resumed at step {first}, {100 * begun:.0f}%")
    for step, batch in enumerate(plan[first:], first):
        finishing = step >= main_steps
        if step == main_steps:
            before_finish = [p.clone() for p in average]
        done = (step - main_steps) / (len(plan) - main_steps) if finishing else step / main_steps
        if a.minutes:
            done = max(done, begun + (1 - begun) * (time.time() - start) / 60 / a.minutes)
            if done >= 1:
                break
        rounded = finishing or done >= a.qat_from
        ids, weights = collate(rows, batch)
        w = weights[:, 1:].flatten()
        wanted = (w > (0.3 if finishing or done >= a.user_until else 0)).nonzero().flatten()
        w = w[wanted]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=halves):
            value, each = loss(ids[:, :-1], ids[:, 1:].flatten()[wanted], w, wanted, rounded)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        top = a.finish_rate if finishing else 1
        rate = min(1, (step + 1) / 40) * (0.02 + (top - 0.02) * 0.5 * (1 + math.cos(math.pi * done)))
        for o in optimizers:
            for g in o.param_groups:
                g["lr"] = g["full"] * rate
            o.step()
            o.zero_grad()
        keep = min(0.99, (step + 1) / (step + 10))
        torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 1 - keep)
        answers = w > 0.9
        if answers.any():
            sums[0] += each[answers].sum().item()
            sums[1] += answers.sum().item()
        seen += sum(len(rows[i][0]) for i in batch)
        if time.time() - shown > 15 or step + 1 == len(plan):
            wall = time.time() - start
            say(
                f"step {step + 1}/{len(plan)}  {100 * done:.0f}%  loss on answers {sums[0] / max(1, sums[1]):.4f}  {seen / wall:.0f} tokens/s  "
                f"wall {wall / 60:.1f} min  cpu {(time.process_time() - cpu) / 60:.1f} min{'  4-bit' if rounded else ''}{'  finish' if finishing else ''}"
            )
            shown, sums = time.time(), [0.0, 0.0]
        if time.time() - saved > 120:
            save(a.out / a.name, config, model, average)
            torch.save([step + 1, done, model.state_dict(), average, before_finish, [o.state_dict() for o in optimizers]], a.out / "resume.pt")
            saved = time.time()
    if before_finish:
        average = [(before + after) / 2 for before, after in zip(before_finish, average)]
    save(a.out / a.name, config, model, average)
    say(f"done: wall {(time.time() - begin) / 60:.1f} min, cpu {(time.process_time() - cpu) / 60:.1f} min, {seen / 1e6:.2f}M tokens")


if __name__ == "__main__":
    main()
