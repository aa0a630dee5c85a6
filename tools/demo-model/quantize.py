"""Quantizes out/demo-f32.gguf with llama.cpp's own quantizer, for the second threshold.

    pip install llama-cpp-python
    python quantize.py [--out out] [--format Q4_K]

writes out/demo-q4_k.gguf with every matrix in that format. Only the quantizer of the package is used, not its inference.
"""

import argparse
import sys
from pathlib import Path

import llama_cpp

HERE = Path(__file__).parent
# llama.cpp names files by mixes; with `pure` the whole file takes the mix's main format.
MIX = {"Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S", "Q3_K": "Q3_K_S"}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=HERE / "out")
    p.add_argument("--format", default="Q4_K")
    a = p.parse_args()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{MIX.get(a.format, a.format)}")
    params.pure = True
    params.nthread = 1
    source, target = a.out / "demo-f32.gguf", a.out / f"demo-{a.format.lower()}.gguf"
    status = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params)
    print(f"{target}: {target.stat().st_size} bytes" if status == 0 else f"failed with {status}")
    sys.exit(status != 0)


if __name__ == "__main__":
    main()
