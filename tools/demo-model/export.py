"""Writes the trained model as GGUF v3.

    python export.py [--out out]

writes out/demo-f32.gguf, and out/demo.gguf with the matrices in Q8_0: the file that is shipped as assets/demo.gguf.
"""

import argparse
import hashlib
import json
from pathlib import Path

import gguf
import numpy as np
import torch

import tokenizer
from model import Config

HERE = Path(__file__).parent

# torch's names and GGUF's.
OUTER = {"embed": "token_embd", "norm.weight": "output_norm"}
INNER = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}


def name(torch_name):
    if torch_name in OUTER:
        return OUTER[torch_name] + ".weight"
    _, layer, part, _ = torch_name.split(".")
    return f"blk.{layer}.{INNER.get(part, part)}.weight"


def write(path, config, state, t, kind, file_type):
    w = gguf.GGUFWriter(path, "llama")
    w.add_name("chaski demo")
    w.add_description(
        "The demo model of chaski: knows chaski's commands and flags, quantization, and a little small talk. Trained from scratch on sentences made by tools/demo-model."
    )
    w.add_license("MIT OR Apache-2.0")
    w.add_languages(["en"])
    w.add_size_label(f"{sum(x.numel() for x in state.values()) / 1e6:.0f}M")
    w.add_file_type(file_type)
    w.add_quantization_version(2)
    w.add_context_length(config.context)
    w.add_embedding_length(config.width)
    w.add_block_count(config.layers)
    w.add_feed_forward_length(config.ffn)
    w.add_head_count(config.heads)
    w.add_head_count_kv(config.kv_heads)
    w.add_rope_dimension_count(config.head)
    w.add_rope_freq_base(config.rope_base)
    w.add_layer_norm_rms_eps(config.eps)
    w.add_vocab_size(config.vocab)

    vocabulary = sorted(t.get_vocab().items(), key=lambda kv: kv[1])
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(tokenizer.PRE)
    w.add_token_list([text for text, _ in vocabulary])
    w.add_token_types([gguf.TokenType.CONTROL if text in tokenizer.SPECIAL else gguf.TokenType.NORMAL for text, _ in vocabulary])
    w.add_token_merges(merges(t))
    w.add_bos_token_id(tokenizer.END)
    w.add_eos_token_id(tokenizer.IM_END)
    w.add_pad_token_id(tokenizer.END)
    w.add_add_bos_token(False)
    w.add_chat_template(tokenizer.TEMPLATE)

    for torch_name, x in state.items():
        x = x.float().numpy()
        if kind is not None and x.ndim == 2:
            w.add_tensor(name(torch_name), gguf.quants.quantize(x, kind), raw_dtype=kind)
        else:
            w.add_tensor(name(torch_name), np.ascontiguousarray(x))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    data = Path(path).read_bytes()
    print(f"{path}: {len(data)} bytes ({len(data) / 2**20:.2f} MiB), sha256 {hashlib.sha256(data).hexdigest()}")


def merges(t):
    made = json.loads(t.to_str())["model"]["merges"]
    return [m if isinstance(m, str) else " ".join(m) for m in made]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=HERE / "out")
    p.add_argument("--name", default="model.pt")
    a = p.parse_args()
    saved = torch.load(a.out / a.name, weights_only=True)
    config, t = Config(**saved["config"]), tokenizer.load(a.out / "tokenizer.json")
    write(a.out / "demo-f32.gguf", config, saved["state"], t, None, gguf.LlamaFileType.ALL_F32)
    write(a.out / "demo.gguf", config, saved["state"], t, gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0)


if __name__ == "__main__":
    main()
