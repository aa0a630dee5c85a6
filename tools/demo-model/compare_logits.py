"""Holds torch's logits of the trained model against chaski's on out/demo-f32.gguf.

    python compare_logits.py [--out out] [--chaski ../../target/release/chaski]
"""

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np
import torch

import tokenizer
from model import Config, Model

HERE = Path(__file__).parent


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=HERE / "out")
    p.add_argument("--name", default="model.pt")
    p.add_argument("--chaski", type=Path, default=HERE / "../../target/release/chaski")
    a = p.parse_args()
    saved = torch.load(a.out / a.name, weights_only=True)
    model = Model(Config(**saved["config"]))
    model.load_state_dict(saved["state"])
    t = tokenizer.load(a.out / "tokenizer.json")
    file = a.out / "demo-f32.gguf"
    messages = [{"role": "user", "content": "How do I put 12 layers on the GPU?"}, {"role": "assistant", "content": "Use -ngl N."}, {"role": "user", "content": "why? Häh"}]
    ids = tokenizer.prompt(t, messages)
    text = subprocess.run([a.chaski, "template", file, "--messages", "/dev/stdin"], input=json.dumps(messages), capture_output=True, text=True, check=True).stdout
    printed = subprocess.run([a.chaski, "tokenize", file, text, "--ids"], capture_output=True, text=True, check=True).stdout
    assert [int(x) for x in printed.split()] == ids, "the tokenizers differ"
    out = a.out / "logits.f32"
    subprocess.run([a.chaski, "logits", file, "--tokens", ",".join(map(str, ids)), "--out", out, "--cpu-exact", "-ctk", "f32", "-ctv", "f32", "-q"], check=True)
    theirs = np.fromfile(out, dtype="<f4").reshape(len(ids), -1)
    with torch.no_grad():
        ours = model(torch.tensor([ids]))[0].numpy()
    print(f"{len(ids)} tokens: normalised mean squared error {((ours - theirs) ** 2).sum() / (ours**2).sum():.2e}, same best token at {(ours.argmax(-1) == theirs.argmax(-1)).sum()}")


if __name__ == "__main__":
    main()
