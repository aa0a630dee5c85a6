"""Asks a model file the held-out questions and conversations through chaski, at temperature 0.

    python evaluate.py [--chaski ../../target/release/chaski] FILE.gguf ...

prints every wrong answer, then one line a file: questions right of both lists, conversations right, perplexity of
heldout/text.txt.
"""

import argparse
import json
import subprocess
from pathlib import Path

import checker

HERE = Path(__file__).parent


def rows(name):
    return [json.loads(line) for line in open(HERE / "heldout" / name)]


def ask(chaski, model, messages):
    """The answer to the last of the messages. A conversation goes through the model's own template first."""
    if len(messages) == 1:
        command = [chaski, "run", model, "-p", messages[0]["content"]]
    else:
        text = subprocess.run([chaski, "template", model, "--messages", "/dev/stdin"], input=json.dumps(messages), capture_output=True, text=True, check=True).stdout
        command = [chaski, "run", model, "--raw", "-p", text]
    return subprocess.run([*command, "--temp", "0", "-n", "120", "-q"], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout.strip()


def questions(chaski, model, name, quiet):
    right = 0
    asked = rows(name)
    for q in asked:
        answer = ask(chaski, model, [{"role": "user", "content": q["question"]}])
        faults = checker.wrong(answer, q["must"], q["must_not"])
        right += not faults
        if faults:
            if not quiet:
                print(f"- {q['topic']}: {q['question']}\n    {answer}\n    {'; '.join(faults)}")
    return right, len(asked)


def conversations(chaski, model, quiet):
    right = 0
    held = rows("conversations.jsonl")
    for talk in held:
        messages, faults = [], []
        for turn in talk["turns"]:
            messages.append({"role": "user", "content": turn["user"]})
            answer = ask(chaski, model, messages)
            faults += checker.wrong(answer, turn["must"], turn["must_not"])
            messages.append({"role": "assistant", "content": answer})
        right += not faults
        if faults and not quiet:
            print("- " + "\n  ".join(f"{m['role']}: {m['content']}" for m in messages) + f"\n    {'; '.join(faults)}")
    return right, len(held)


def perplexity(chaski, model):
    done = subprocess.run([chaski, "perplexity", model, "-f", HERE / "heldout" / "text.txt", "--json", "-q"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["perplexity"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("files", nargs="+", type=Path)
    p.add_argument("--chaski", type=Path, default=HERE / "../../target/release/chaski")
    p.add_argument("--quiet", action="store_true", help="only the figures")
    a = p.parse_args()
    figures = []
    for file in a.files:
        q, b = (questions(a.chaski, file, f"{name}.jsonl", a.quiet) for name in ("questions", "blind"))
        t = conversations(a.chaski, file, a.quiet)
        asked = ", ".join(f"{name} {right}/{of} ({100 * right / of:.1f}%)" for name, (right, of) in (("questions", q), ("blind", b)))
        figures.append(f"{file}: {asked}, conversations {t[0]}/{t[1]}, perplexity {perplexity(a.chaski, file):.3f}")
        print(figures[-1], flush=True)


if __name__ == "__main__":
    main()
