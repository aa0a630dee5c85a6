"""Little grammars of questions: [a|b|] is one of a, b or nothing."""

import re


def lines(text):
    return [line.strip() for line in text.strip().split("\n")]


CHOICE = re.compile(r"\[([^\[\]]*)\]")


def expand(frame, rng):
    """One sentence frame of a little grammar."""
    return tidy(CHOICE.sub(lambda m: rng.choice(m[1].split("|")), frame))


def count(frame):
    """How many frames a little grammar makes."""
    n = 1
    for m in CHOICE.finditer(frame):
        n *= m[1].count("|") + 1
    return n


def tidy(text):
    return re.sub(r"\s+([,.:!?])", r"\1", re.sub(r"\s+", " ", text)).strip()


def plain(text):
    """The words alone: what two spellings of one question share."""
    return " ".join(re.sub(r"[^\w\s-]", " ", text.lower()).split())
