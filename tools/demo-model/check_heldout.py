"""Proves that the held-out questions are held out.

    python check_heldout.py [--out out]

No held-out question may stand in the training corpus, however it is written, nor may its frame: what is left of it
when the words that name its subject are taken out.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from corpus import HERE, Facts
from grammar import plain


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=HERE / "out")
    a = p.parse_args()
    trained = set()
    lines = (line for name in ("train", "finish") for line in open(a.out / f"{name}.jsonl"))
    for row in map(json.loads, lines):
        if "messages" in row:
            trained |= {plain(m["content"]) for m in row["messages"] if m["role"] == "user"}
        else:
            trained |= {plain(x[3:]) for x in row["text"].split("\n") if x.startswith("Q: ")}
    frames = {plain(re.sub(r"\{\w\}", " _ ", f)) for f in open(a.out / "frames.txt")}
    facts = Facts()
    subjects = {plain(s) for f in facts.all for k in ("names", "verbs", "asks", "flags") for s in f.get(k, [])}
    subjects |= {plain(s) for f in facts.formats for s in [f["name"], *f["names"]]} | {str(n) for n in range(21)}
    pattern = re.compile(r"(?<![\w-])(" + "|".join(sorted(map(re.escape, subjects), key=len, reverse=True)) + r")(?![\w-])")
    asked = [json.loads(line)["question"] for name in ("questions", "blind") for line in open(HERE / "heldout" / f"{name}.jsonl")]
    # The conversations are made of common turns ("Hello!"), so only the questions are held against the corpus.
    faults = [f"in the training corpus: {q}" for q in asked if plain(q) in trained]
    faults += [f"frame of the training corpus: {q}" for q in asked if " ".join(pattern.sub(" _ ", plain(q)).split()) in frames]
    print(f"{len(asked)} questions against {len(trained)} of the corpus and {len(frames)} frames: {len(faults)} found again")
    print("\n".join(faults))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
