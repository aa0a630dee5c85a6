"""Whether an answer holds the facts that it must.

`must` and `must_not` are lists of needles; a needle is one or more spellings with | between. An answer is right if it
has every `must` in one of its spellings, no `must_not`, and ends as a sentence does. Case does not count. A spelling
with a digit, or with a dash at its beginning, must stand alone: 4.5 is not in 14.5 or 4.56, nor -c in -ctk.
"""

import re


def has(answer, needle):
    for spelling in needle.split("|"):
        pattern = re.escape(spelling)
        if spelling.startswith("-") or re.search(r"\d", spelling):
            pattern = rf"(?<![\w-])(?<!\d\.){pattern}(?![\w-])(?!\.\d)"
        if re.search(pattern, answer, re.IGNORECASE):
            return True
    return False


def wrong(answer, must, must_not=()):
    """What is wrong with the answer; empty if it is right."""
    answer = " ".join(answer.split())
    faults = [f"lacks {n!r}" for n in must if not has(answer, n)]
    faults += [f"has {n!r}" for n in must_not if has(answer, n)]
    if not answer.endswith((".", "!", "?", "-")):
        faults.append("does not end")
    return faults


def self_test():
    assert has("It has 4.5 bits.", "4.5") and has("takes 4.5.", "4.5")
    assert not has("It has 14.5 bits.", "4.5") and not has("4.56", "4.5") and not has("3.4.5", "4.5")
    assert has("use -c N", "-c") and not has("use -ctk", "-c") and not has("--c", "-c")
    assert has("Lower is BETTER.", "lower is better") and has("a or b", "x|b")
    assert wrong("No end", ["no"]) and not wrong("An end.", ["end"]) and wrong("An end.", ["end"], ["an end"])


self_test()
