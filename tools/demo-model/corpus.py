"""Writes the corpus: conversations and plain text out of the table of facts.

    python corpus.py [--turns 420000] [--seed 1] [--out out]

writes out/train.jsonl (a conversation or a text a line), out/finish.jsonl (a quarter as much for the end of the training,
most of it asked in written questions), out/frames.txt (every question frame used) and, with another seed,
heldout/text.txt (plain text for perplexity: other questions, in the same frames).
"""

import argparse
import json
import random
import time
from pathlib import Path

import frames as fr
import outside
import wording
import written

HERE = Path(__file__).parent
PARAMETERS = {"8B": 8.03e9, "1B": 1.24e9, "3B": 3.21e9, "7B": 6.74e9, "13B": 13.0e9, "70B": 70.6e9}
NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
LENGTHS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
UNITS = [
    (("hours", "a day", "24")), ("minutes", "an hour", "60"), ("seconds", "a minute", "60"), ("days", "a week", "7"), ("months", "a year", "12"),
    ("weeks", "a year", "52"), ("seconds", "an hour", "3600"), ("minutes", "a day", "1440"), ("years", "a century", "100"), ("years", "a decade", "10"),
    ("bits", "a byte", "8"), ("bytes", "a KiB", "1024"), ("KiB", "a MiB", "1024"), ("MiB", "a GiB", "1024"), ("GiB", "a TiB", "1024"), ("bytes", "a kB", "1000"),
    ("MB", "a GB", "1000"), ("GB", "a TB", "1000"), ("centimetres", "a metre", "100"), ("metres", "a kilometre", "1000"), ("millimetres", "a centimetre", "10"),
    ("grams", "a kilogram", "1000"), ("kilograms", "a ton", "1000"), ("millilitres", "a litre", "1000"), ("centimetres", "an inch", "2.54"),
    ("inches", "a foot", "12"), ("kilometres", "a mile", "1.609"), ("things", "a dozen", "12"), ("days", "a year", "365"), ("quarters", "a year", "4"),
]
COUNT_FRAMES = fr.lines("""
[how many] {n} [are there in|are in|has|does|make|go into|fit into|are] {u}
[how many] {n} [does] {u} [have|contain|hold]
[{u} has|{u} is|{u} are] how many {n}
[number of|the number of|tell me the number of|count the] {n} [in|per|of] {u}
{n} [in|per] {u}
[tell me|do you know|can you say|I forgot|I want to know] how many {n} [are in|there are in|make] {u}
[what is|how long is|how much is] {u} in {n}
""")
NEXT_FRAMES = fr.lines("""
[what|which] {k} [comes|is|follows] [after|next after|behind] {d}
[what|which] {k} follows {d}
[what comes|what is|tell me what comes|what's] after {d}
[the|what is the|tell me the|name the] {k} after {d}
[after] {d} [comes|comes what|comes which {k}|follows]
[today is|it is|yesterday was] {d}, what [comes next|is next|is tomorrow]
""")
BEFORE_FRAMES = fr.lines("""
[what|which] {k} [comes|is|was] before {d}
[what comes|what is|tell me what comes|what's] before {d}
[the|what is the|tell me the|name the] {k} before {d}
[before] {d} [comes|comes what|comes which {k}]
""")
NTH_FRAMES = fr.lines("""
[what|which] is the {o} {k} [|of the {p}|in the {p}]
[what|which] {k} [is|comes] {o}
[name|tell me|say] the {o} {k} [|of the {p}]
the {o} {k} [|of the {p}|is]
""")
LIST_FRAMES = fr.lines("""
[list|name|tell me|what are|give me|say|which are] [the|all|all the] {k}s [|of the {p}|in order]
[which|what] {k}s [are there|does the {p} have|do you know]
""")


def load():
    return json.loads((HERE / "facts.json").read_text())


def held_out():
    """The questions that no training may see, even where chance would make one."""
    lists = ("questions", "blind")
    return {fr.plain(json.loads(line)["question"]) for name in lists for line in open(HERE / "heldout" / f"{name}.jsonl")}


def short(x):
    """2.625 -> '2.625', 8.0 -> '8'"""
    return f"{x:g}"


class Facts:
    """The table, with everything that follows from it."""

    def __init__(self):
        table = load()
        self.commands, self.flags, self.topics, self.formats = (table[k] for k in ("commands", "flags", "topics", "formats"))
        self.all = self.commands + self.flags + self.topics
        self.by_id = {f["id"]: f for f in self.all}
        self.spellings = set()
        for f in self.flags:
            # A spelling that two commands share is asked for by itself only where it comes first.
            f["asked"] = [s for s in f["flags"] if s not in self.spellings]
            self.spellings.update(f["flags"])
        for f in self.formats:
            f["bpw"] = f["bytes"] * 8 / f["values"]
        self.format_names = {f["name"] for f in self.formats}

    def bpw(self, f):
        if f["values"] == 1:
            return f"{f['name']} has {short(f['bpw'])} bits per weight: {f['bytes']} byte{'s' * (f['bytes'] > 1)} for each."
        return f"{f['name']} has {short(f['bpw'])} bits per weight: {f['bytes']} bytes for each block of {f['values']} weights."

    def bpw_why(self, f):
        return f"Because {f['bytes']} bytes * 8 bits / {f['values']} weights = {short(f['bpw'])} bits per weight."

    def size(self, f, model="8B"):
        n = PARAMETERS[model]
        size = n * f["bpw"] / 8
        count = f"{n / 1e9:.3g}" if model != "8B" else "8.03"
        article = "An" if model == "8B" else "A"
        return f"{article} {model} model in {f['name']} takes about {size / 1e9:.1f} GB ({size / 2**30:.1f} GiB): {count} billion weights at {short(f['bpw'])} bits."

    def gib(self, f, model="8B"):
        return f"That is about {PARAMETERS[model] * f['bpw'] / 8 / 2**30:.1f} GiB."

    def kind(self, f):
        return f["name"] + {
            "symmetric": " is symmetric: it has a scale and no offset.",
            "affine": " is affine: it has a scale and a minimum.",
            "nonlinear": " is neither symmetric nor affine: its values come from a table.",
            "float": " is floating point, so it is neither symmetric nor affine.",
        }[f["kind"]]

    def block(self, f):
        if f["values"] == 1:
            return f"{f['name']} has no blocks: each weight takes {f['bytes']} byte{'s' * (f['bytes'] > 1)}."
        return f"A block of {f['name']} has {f['values']} weights in {f['bytes']} bytes."

    def is_(self, f):
        return f"{f['name']} is {f['is']}."

    def convert(self, f):
        return f"chaski quantize IN OUT {f['name']} writes a file in {f['name']}."

    def smaller(self, a, b):
        if a["bpw"] == b["bpw"]:
            return f"{a['name']} and {b['name']} are equally large: {short(a['bpw'])} bits per weight."
        a, b = sorted((a, b), key=lambda f: f["bpw"])
        return f"{a['name']} is smaller than {b['name']}: {short(a['bpw'])} against {short(b['bpw'])} bits per weight."


def spell_format(f, rng):
    """A format as people write it."""
    k = rng.random()
    name = f["name"]
    if k < 0.55:
        return name
    if k < 0.8:
        return name.lower()
    if k < 0.9 and f["names"]:
        return rng.choice(f["names"])
    return name.replace("_", rng.choice(["", " ", "-"])) if "_" in name else name.lower()


def spell_flag(s, rng):
    k = rng.random()
    if k < 0.5 or len(s.lstrip("-")) < 2:
        return s if k < 0.75 else rng.choice(["the flag ", "the option ", "the "]) + s + ("" if k < 0.9 else " flag")
    if k < 0.65:
        return f"the {s} {rng.choice(['flag', 'option', 'switch', 'parameter', 'setting'])}"
    if k < 0.75:
        return f"{rng.choice(['flag', 'option', 'the flag', 'the option', 'chaski run'])} {s}"
    bare = s.lstrip("-")
    if "-" in bare:
        return bare if k < 0.9 else bare.replace("-", " ")
    return bare if bare in ("ngl", "ctk", "ctv", "mlock", "ub", "tb") else s


class Turn:
    """A question and its answer, and what a follow-up may ask: attr(format) carried over, why, GiB."""

    def __init__(self, user, answer, frame="", carry=None, why=None, gib=None, fact=None, must=None):
        self.user, self.answer, self.frame = user, answer, frame
        self.carry, self.why, self.gib, self.fact = carry, why, gib, fact
        self.must = must


class Maker:
    """Makes turns and conversations. Frames come from `frame_sets`, so that a held-out set may bring its own."""

    def __init__(self, facts, rng, noise=1.0, written_share=0.65):
        self.f, self.rng, self.noise, self.written_share = facts, rng, noise, written_share
        self.used, self.held = set(), held_out()
        self.weights = [w for _, w in self.FAMILIES]
        talk = {"talk": 1.6, "memory": 1.6, "cli": 1.2}
        self.fact_weights = [2.2 if x["id"] == "flag.gpu-layers" else talk.get(x.get("group"), 1.0 if x.get("names") or len(x.get("asks", [])) > 3 else 0.7) for x in facts.all]

    def say(self, frame, noise=1.0, **subject):
        text, frame = fr.say(frame, self.rng, noise * self.noise, loose=False, **subject)
        self.used.add(frame)
        return text

    # Families of single turns.

    def fact(self, f=None):
        rng = self.rng
        f = f or rng.choices(self.f.all, self.fact_weights)[0]
        if rng.random() < self.written_share:
            return self.spoken(f, wording.vary(rng.choice(written.of(f["id"])), rng, 0.12))
        ways = []
        names, flags = f.get("names", []), f.get("asked", [])
        if f["id"].startswith("command."):
            names = [*names, "chaski " + f["command"], f"the {f['command']} command"]
        if names:
            ways += [("thing", names)] * (2 if f["id"][:2] in ("q.", "m.", "kv") else 1)
        if flags:
            ways += [("flag", flags)] * 2
        if f.get("verbs"):
            ways += [("deed", f["verbs"])] * 3
        if f.get("asks"):
            ways += [("ask", f["asks"])] * (3 if f.get("verbs") or names else 1)
        way, values = rng.choice(ways)
        s = rng.choice(values)
        phrases = [*f.get("verbs", []), *f.get("asks", []), *names]
        roll = rng.random()
        if roll < 0.34 and f.get("group") != "talk":
            return self.loose(f, phrases, flags)
        if way in ("deed", "ask") and f.get("group") != "talk":
            s = wording.vary(s, rng, 0.25)
        if way == "thing":
            frame = rng.choice(fr.THING)
        elif way == "flag":
            frame, s = rng.choice(fr.FLAG), spell_flag(s, rng)
        elif way == "deed":
            frame = rng.choice(fr.DEED)
            if rng.random() < 0.15:
                frame, s = rng.choice(fr.DOING), fr.gerund(s)
        else:
            frame = "{s}"
            if f.get("group") == "talk" and rng.random() < 0.5:
                text = s[:1].upper() + s[1:] if rng.random() < 0.5 else s
                return Turn(text + rng.choice(["", "", ".", "!", "?" if s.split()[0] in ("what", "who", "how", "are", "do", "can") else "!"]), f["answer"], s, fact=f, why=f.get("why"), must=f["must"])
        return self.spoken(f, frame, s=s)

    def spoken(self, f, frame, **subject):
        """A fact asked for by a frame."""
        text, frame = fr.say(frame, self.rng, self.noise * (0.5 if f.get("group") == "talk" else 1), **subject)
        self.used.add(frame)
        return Turn(text, f["answer"], why=f.get("why"), fact=f, must=f["must"])

    def loose(self, f, phrases, flags):
        """A question with no frame: key words in any order, or a sentence about the matter and a cry for help."""
        rng = self.rng
        if rng.random() < 0.5 or not phrases:
            picked = rng.sample(phrases, min(len(phrases), rng.choice([1, 1, 2]))) or [rng.choice(flags)]
            if flags and rng.random() < 0.2:
                picked.append(rng.choice(flags))
            text = wording.vary(wording.scramble([wording.vary(p, rng) for p in picked], rng, fr.FILLER), rng, 0.2)
        else:
            first, second = rng.choice(phrases), rng.choice(phrases)
            if f.get("verbs"):
                first = rng.choice(LOOSE) + rng.choice(f["verbs"])
            text = wording.vary(first, rng, 0.3)
            text += wording.tail(rng) if rng.random() < 0.6 else "{s}"
            if "{s}" in text:
                frame = rng.choice(fr.DEED) if second in f.get("verbs", []) else "{s}" if second in f.get("asks", []) else rng.choice(fr.THING)
                text = text.replace("{s}", rng.choice([". ", "; ", ", ", " - ", "\n"]) + fr.expand(frame, rng).replace("{s}", wording.vary(second, rng, 0.3)))
        text, _ = fr.say(text.replace("[", "").replace("]", ""), rng, self.noise)
        return Turn(text, f["answer"], why=f.get("why"), fact=f, must=f["must"])

    ATTRIBUTES = ("bpw", "size", "kind", "block", "is_", "convert", "other")

    def attribute(self, name, f, model="8B"):
        """The answer about one attribute of one format."""
        return self.f.size(f, model) if name == "size" else getattr(self.f, name)(f)

    def format(self):
        rng = self.rng
        name = rng.choices(("bpw", "size", "kind", "block", "is_", "convert"), (4, 5, 2, 1.5, 4, 1.5))[0]
        f = rng.choice([x for x in self.f.formats if name != "convert" or x["name"] != "FP8"])
        s, model = spell_format(f, rng), "8B"
        if name == "size":
            if rng.random() < 0.28:
                model = rng.choice(list(PARAMETERS))
            m = rng.choice([f"{'an' if model == '8B' else 'a'} {model} model", f"{'an' if model == '8B' else 'a'} {model} model", f"{model}", f"the {model} model", f"my {model} model", f"{'an' if model == '8B' else 'a'} {model}", f"{'an' if model == '8B' else 'a'} {model[:-1]} billion parameter model", f"llama {model}"])
            if rng.random() < 0.3:
                m = m.lower()
            text = self.say(written.frame("size", fr.SIZE, rng), s=s, m=m)
        else:
            frame = written.frame("thing" if name == "is_" else name, {"bpw": fr.BPW, "kind": fr.KIND, "block": fr.BLOCK, "is_": fr.THING, "convert": fr.CONVERT}[name], rng)
            if name == "is_" and rng.random() < 0.3:
                s = rng.choice(["the {} format", "the format {}", "{} quantization", "the {} quantization", "a {} file"]).format(s)
            text = self.say(frame, s=s)
        return self.format_turn(text, name, f, model)

    def format_turn(self, text, name, f, model):
        return Turn(
            text, self.attribute(name, f, model), carry=(name, f, model),
            why=self.f.bpw_why(f) if name == "bpw" and f["values"] > 1 else None,
            gib=self.f.gib(f, model) if name == "size" else None,
            must={"bpw": [f["name"], short(f["bpw"])], "size": [f["name"], f"{PARAMETERS[model] * f['bpw'] / 8e9:.1f} GB"], "is_": [self.f.is_(f)[:40]]}.get(name, [self.attribute(name, f, model)]),
        )

    def size_any(self):
        rng = self.rng
        frame = rng.choice(fr.lines("""
            [how|and how] [big|large|heavy] is {s}
            [how much] [memory|space|ram|disk space|vram] does {s} [need|take|use]
            [what is|what's] the size of {s}
            {s} [size|, how big|, how much memory]
            [how many gb|how many gigabytes] [is|are|does] {s} [|need]
        """))
        return Turn(self.say(frame, s=rng.choice(["an 8B model", "an 8b model", "an 8 billion parameter model", "a model with 8 billion parameters", "8B"])),
                    "That depends on the format: an 8B model takes about 16.1 GB in F16, 8.5 GB in Q8_0 and 4.5 GB in Q4_K.", must=["16.1 GB", "8.5 GB"])

    def smaller(self):
        a, b = self.rng.sample(self.f.formats, 2)
        return Turn(self.say(written.frame("smaller", fr.SMALLER, self.rng), a=spell_format(a, self.rng), b=spell_format(b, self.rng)), self.f.smaller(a, b), must=[self.f.smaller(a, b)])

    def sum(self):
        rng = self.rng
        op = rng.choices("+-*", (5, 3, 2))[0]
        top = 10 if op == "*" else 20
        a, b = rng.randint(0, top), rng.randint(0, top)
        if op == "-" and b > a:
            a, b = b, a
        value = {"+": a + b, "-": a - b, "*": a * b}[op]
        words = rng.random() < 0.2
        x, y = (NUMBERS[a], NUMBERS[b]) if words else (str(a), str(b))
        frame = written.frame({"+": "add", "-": "sub", "*": "mul"}[op], {"+": fr.ADD, "-": fr.SUB, "*": fr.MUL}[op], rng)
        text = self.say(frame, 0.5, a=x, b=y)
        if not words and rng.random() < 0.2:
            text = text.replace(f"{x} {op} {y}", f"{x}{op}{y}")
        answer = f"{a} {op} {b} = {value}."
        return Turn(text, answer, must=[answer[:-1]])

    def calendar(self):
        rng = self.rng
        k = rng.random()
        day = rng.random() < 0.5
        names, word, period = (DAYS, "day", "week") if day else (MONTHS, "month", "year")
        i = rng.randrange(len(names))
        d = names[i] if rng.random() < 0.7 else names[i].lower()
        if k < 0.3:
            n, u, v = rng.choice(UNITS)
            answer = f"{u[:1].upper()}{u[1:]} has {v} {n}."
            if u in ("an inch", "a mile"):
                answer = f"{u[:1].upper()}{u[1:]} is {v} {n}."
            if (n, u) == ("days", "a year"):
                answer = "A year has 365 days, a leap year 366."
            if rng.random() < 0.3:
                u = rng.choice(["one ", "1 ", "each "]) + u.split(" ", 1)[1]
            return Turn(self.say(written.frame("count", COUNT_FRAMES, rng), n=n, u=u), answer, must=[answer[:-1]])
        if k < 0.45:
            i = rng.randrange(12)
            m = MONTHS[i] if rng.random() < 0.7 else MONTHS[i].lower()
            answer = self.month_length(i)
            return Turn(self.say(written.frame("month_length", COUNT_FRAMES, rng), n="days", u=m, m=m), answer, carry=("month", i, None), must=[str(LENGTHS[i])])
        if k < 0.66:
            answer = self.after(names, i)
            return Turn(self.say(written.frame(f"next_{word}", NEXT_FRAMES, rng), d=d, m=d, k=word), answer, carry=("after", names, i), must=[answer[:-1]])
        if k < 0.84:
            answer = f"{names[i - 1]} comes before {names[i]}."
            return Turn(self.say(written.frame(f"before_{word}", BEFORE_FRAMES, rng), d=d, m=d, k=word), answer, carry=("before", names, i), must=[answer[:-1]])
        if k < 0.95:
            answer = f"The {ORDINALS[i]} {word} of the {period} is {names[i]}."
            return Turn(self.say(rng.choice(NTH_FRAMES), o=ORDINALS[i] if rng.random() < 0.8 else f"{i + 1}.", k=word, p=period), answer, must=[answer[:-1]])
        answer = f"The {word}s are {', '.join(names[:-1])} and {names[-1]}."
        return Turn(self.say(rng.choice(LIST_FRAMES), k=word, p=period), answer, must=[answer])

    @staticmethod
    def month_length(i):
        return "February has 28 days, in a leap year 29." if i == 1 else f"{MONTHS[i]} has {LENGTHS[i]} days."

    @staticmethod
    def after(names, i):
        return f"{names[(i + 1) % len(names)]} comes after {names[i]}."

    def outside(self):
        frame, s, answer = outside.outside(self.rng)
        return Turn(self.say(frame, s=s), answer, must=["I only know"] if answer == outside.REFUSAL else ["no clock"])

    def invented(self):
        frame, s, answer = outside.invented(self.rng, self.f.spellings, self.f.format_names)
        return Turn(self.say(frame, s=s), answer, must=[answer[:24]])

    FAMILIES = [("fact", 58), ("format", 16), ("smaller", 2.5), ("size_any", 0.5), ("sum", 12), ("calendar", 6), ("outside", 10), ("invented", 5)]

    def turn(self):
        while True:
            turn = getattr(self, self.rng.choices([n for n, _ in self.FAMILIES], self.weights)[0])()
            if fr.plain(turn.user) not in self.held:
                return turn

    # Conversations.

    def follow(self, last):
        """A turn that depends on the one before, or None."""
        rng = self.rng
        k = rng.random()
        if last.why and k < 0.35:
            return Turn(written.frame("why", WHY_CASED, rng), last.why, fact=last.fact)
        if last.gib and k < 0.35:
            return Turn(written.frame("in_gib", fr.IN_GIB, rng), last.gib, carry=last.carry)
        if k < 0.12 and last.fact and last.fact.get("group") != "talk" and not last.fact.get("why"):
            return Turn(written.frame("more", fr.MORE, rng) if rng.random() < 0.6 else written.frame("why", WHY_CASED, rng), fr.MORE_ANSWER, fact=last.fact)
        if last.carry and last.carry[0] in self.ATTRIBUTES:
            name, f, model = last.carry
            if k > 0.75:  # another attribute of the same format
                name = rng.choice([n for n in ("bpw", "size", "kind", "block", "is_", "convert") if n != name and (n != "convert" or f["name"] != "FP8")])
                it = rng.choice(["it", "that", "this format", "that one"])
                text = {
                    "bpw": lambda: self.say(written.frame("bpw", fr.BPW, rng), s=it),
                    "size": lambda: self.say(written.frame("size", fr.SIZE, rng), s=it, m=f"{'an' if model == '8B' else 'a'} {model} model"),
                    "kind": lambda: self.say(written.frame("kind", fr.KIND, rng), s=it),
                    "block": lambda: self.say(written.frame("block", fr.BLOCK, rng), s=it),
                    "is_": lambda: self.say(rng.choice(["what is {s}", "explain {s}", "what does {s} mean", "tell me about {s}", "describe {s}", "what is {s} exactly"]), s=it),
                    "convert": lambda: self.say(rng.choice(["how do I quantize to {s}", "how do I convert a model to {s}", "how do I make {s}", "how can I get {s}", "which command makes {s}"]), s=it),
                }[name]()
                return self.format_turn(text, name, f, model)
            if name == "size" and k > 0.55:
                other = rng.choice([m for m in PARAMETERS if m != model])
                m = f"{'an' if other == '8B' else 'a'} {other} model" if rng.random() < 0.7 else other
                return self.format_turn(self.say(written.frame("and", fr.AND, rng, 0.4), s=m), name, f, other)
            g = rng.choice([x for x in self.f.formats if x is not f and (name != "convert" or x["name"] != "FP8")])
            return self.format_turn(self.say(written.frame("and", fr.AND, rng, 0.4), s=spell_format(g, rng)), name, g, model)
        if last.carry:
            name, x, i = last.carry
            if name == "month":
                j = rng.randrange(12)
                return Turn(self.say(written.frame("and", fr.AND, rng, 0.4), s=MONTHS[j]), self.month_length(j), carry=("month", j, None))
            j = rng.randrange(len(x))
            answer = self.after(x, j) if name == "after" else f"{x[j - 1]} comes before {x[j]}."
            return Turn(self.say(written.frame("and", fr.AND, rng, 0.4), s=x[j]), answer, carry=(name, x, j))
        if last.fact:
            group = last.fact["id"].split(".")[0]
            peers = [x for x in self.f.all if x["id"].split(".")[0] == group and x is not last.fact]
            if group in ("flag", "command", "exit", "q", "m", "kv"):
                g = rng.choice(peers)
                names = g.get("asked") or g.get("names") or []
                if names:
                    s = rng.choice(names)
                    if group == "exit" and rng.random() < 0.5:
                        s = g["id"].split(".")[1]
                        s = s if s.isdigit() else names[0]
                    if group == "flag" and rng.random() < 0.3:
                        s = spell_flag(s, rng)
                    if last.fact["id"] in ("command.quantize", "command.compare", "q.choose"):
                        return None
                    return Turn(self.say(written.frame("and", fr.AND, rng, 0.4), s=s), g["answer"], fact=g, why=g.get("why"))
        return None

    def by_group(self, group):
        while True:
            turn = self.fact(self.rng.choice([f for f in self.f.all if f["id"] in group]))
            if fr.plain(turn.user) not in self.held:
                return turn

    def conversation(self, longest=4):
        rng = self.rng
        n = rng.choices(range(1, longest + 1), [5, 2, 2, 1.2] if longest == 4 else [1] * longest)[0]
        turns = []
        if n > 1 and rng.random() < 0.3:
            turns.append(self.by_group(("talk.hello", "talk.hello", "talk.how", "self.who", "self.can")))
        while len(turns) < n:
            turn = None
            if turns and rng.random() < 0.5:
                turn = self.follow(turns[-1])
            if turn is None and turns and len(turns) == n - 1 and rng.random() < 0.12:
                turn = self.by_group(("talk.thanks", "talk.bye", "talk.ok", "talk.thanks"))
            if turn is None and len(turns) == n - 1 == 1 and rng.random() < 0.02 and turns[-1].fact and turns[-1].fact["id"] == "command.quantize":
                f = rng.choice(self.f.formats)
                turn = self.format_turn(self.say(written.frame("and", fr.AND, rng, 0.4), s=spell_format(f, rng)), "convert", f, "8B")
            turns.append(turn or self.turn())
        return turns

    def text(self, size=1800):
        """Plain text: questions and answers, or a paragraph."""
        rng = self.rng
        parts, total = [], 0
        while total < size:
            if rng.random() < 0.65:
                t = self.turn()
                parts.append(f"Q: {t.user}\nA: {t.answer}\n")
            else:
                parts.append(" ".join(self.turn().answer for _ in range(rng.randint(2, 6))) + "\n")
            total += len(parts[-1]) + 1
        return "\n".join(parts)


LOOSE = [
    "I want to ", "I need to ", "I'd like to ", "I try to ", "we have to ", "", "", "I'm going to ", "somebody asked me to ", "I wish to ", "I'd love to ",
    "I'd rather ", "I prefer to ", "suppose I want to ", "say I want to ", "when I want to ", "if I want to ", "for a test I must ", "all I want is to ",
    "it would be nice to ", "I'm looking for a way to ", "I'm wondering how to ", "chaski should ", "it should ", "can it ", "the plan: ", "my wish: ",
    "what if I want to ", "before I start I want to ", "somehow I must ", "would it be able to ", "I was told to ", "they want me to ", "time to ",
]
WHY_CASED = fr.WHY + [w[:1].upper() + w[1:] for w in fr.WHY]


def record(turns, rng):
    system = rng.choice(fr.SYSTEMS) if rng.random() < 0.05 else None
    messages = [{"role": "system", "content": system}] if system else []
    for t in turns:
        messages += [{"role": "user", "content": t.user}, {"role": "assistant", "content": t.answer}]
    return {"messages": messages}


def write(path, maker, least):
    """Writes conversations and texts of so many turns in all."""
    turns = size = rows = 0
    with open(path, "w") as f:
        while turns < least:
            k = maker.rng.random()
            if k < 0.008:
                row = {"text": maker.text()}
                turns += 20
            else:
                talk = maker.conversation(24 if k < 0.014 else 4)
                row = record(talk, maker.rng)
                turns += len(talk)
            line = json.dumps(row, ensure_ascii=False)
            size += len(line)
            rows += 1
            f.write(line + "\n")
    print(f"{path.name}: {rows} rows, {turns} turns, {len(maker.used)} frames, {size / 1e6:.1f} MB")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--turns", type=int, default=420_000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--out", type=Path, default=HERE / "out")
    args = p.parse_args()
    args.out.mkdir(exist_ok=True)
    start, facts = time.time(), Facts()
    maker = Maker(facts, random.Random(args.seed))
    write(args.out / "train.jsonl", maker, args.turns)
    finish = Maker(facts, random.Random(args.seed + 2000), written_share=0.9)
    write(args.out / "finish.jsonl", finish, args.turns // 4)
    (args.out / "frames.txt").write_text("\n".join(sorted(maker.used | finish.used)) + "\n")
    held = Maker(facts, random.Random(args.seed + 1000))
    text = []
    while sum(map(len, text)) < 80_000:
        text.append(held.text())
    (HERE / "heldout").mkdir(exist_ok=True)
    (HERE / "heldout" / "text.txt").write_text("\n".join(text))
    print(f"{time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
