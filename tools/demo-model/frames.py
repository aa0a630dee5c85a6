"""The ways of asking: question frames, what stands around them, and how a person mistypes them.

A frame is a little grammar: [a|b|] is one of a, b or nothing, and {s} is where the subject goes. Nothing in this file
may be taken over into the held-out questions: check_heldout.py compares.
"""

import re

import wording
from grammar import count, expand, lines, plain, tidy  # noqa: F401

# A thing: a concept, a format, a flag, a command.
THING = """
[what is|what's|whats|what exactly is|what actually is|what in the world is|so what is|and what is|what on earth is] {s}
[what does|what would|what will|what can] {s} [mean|do|do exactly|say|stand for|change|tell me]
[what is|what's] {s} [for|good for|used for|about|all about|supposed to be|meant for|actually|again|in simple words|in short]
[what is|what's] the [meaning|purpose|point|idea|use|definition|role|sense|function] of {s}
[what is|what's] [meant|understood] by {s}
[explain|describe|define|explain to me|describe to me|clarify] {s} [|in one sentence|to me|briefly|simply|in short|for a beginner]
[tell me|say|teach me|tell us] [about|something about|more about|what you know about|a bit about|what is|what exactly is] {s}
[tell me|show me|explain|I wonder|I wonder about|I want to know|I would like to know|I'd like to know|I need to know] what {s} [is|means|does|is for|is good for]
[can|could|would|will] you [explain|describe|define|tell me about|tell me more about|say something about|introduce|clarify] {s} [|to me|for me|briefly]
[can|could] you [tell me|explain|say] what {s} [is|does|means|stands for|is about]
[do you know|do you know about|have you heard of|are you familiar with|know anything about] {s}
do you know what {s} [is|means|does|is for]
[what about|how about|and|so|ok and|about|regarding|concerning|on|re] {s}
{s} [|is what|what is it|what is that|meaning|definition|explained|explanation|please explain|what does it do|what's that|info|help|in short|in one sentence|how does it work|purpose|tell me]
[how does|how would|how do] {s} [work|actually work|function|help|help me]
[why|why would I need|why would anyone use|why is there|why use|why do people use|why do we need|when do I use|when should I use|when would I use|when do I need] {s}
[I do not understand|I don't understand|I don't get|I never understood|I am confused by|I have trouble with|I am unsure about|I forgot about] {s}
[I do not know|I don't know|I have no idea|I am not sure|I forgot|nobody told me] what {s} [is|means|does|is for]
[I read about|I heard of|I saw|someone mentioned|they talk about|people mention|the docs mention|I came across|I stumbled over] {s} [|, what is it|, what is that|, what does it mean|, what does it do|. What is that]
[I have a question about|a question about|question about|question on|help with|help me with|help me understand|I need help with|some help with|I am asking about|my question is about|I'm curious about|I want to learn about|I want to understand|I would like to understand|let's talk about|let us talk about] {s}
[is|are] {s} [useful|important|something I need|something I should know|a good idea|worth it]
[give me|I need|write|I want] [a definition of|an explanation of|a short explanation of|a description of|information about|information on|details about|the details of|the meaning of|the basics of|a summary of] {s}
[what kind of thing|what sort of thing|which kind of thing] is {s}
[what should I know|what do I have to know|what must I know|what can you tell me|what can you say|what do you know] about {s}
[look up|remind me of|remind me what|summarize|elaborate on] {s} [|is]
[in simple terms|in plain words|in short|in a nutshell|basically|for dummies], what [is|does it mean,] {s}
[who needs|who uses|where does one use|where is] {s} [|used]
[what is|what's] [so special about|special about|the deal with|the story with|up with|the matter with] {s}
"""

# A flag or command given by its spelling.
FLAG = """
[what does|what will|what would] {s} do
[what is|what's|whats] {s} [|for|good for|used for|about]
[what does|what can] {s} [mean|change|set|control|do to the run]
[explain|describe|what about|how about|tell me about|help with|document] {s}
[how|how exactly|when|why] [do|would|should|can] I use {s}
[the|what is the] [flag|option|switch|parameter|argument] {s}
[what does|what's] the [flag|option|switch|parameter] {s} [do|for|mean]
{s} [|flag|option|meaning|what does it do|what is it|usage|help|explained|documentation|default]
[what happens|what happens if I use|what happens if I pass|what happens when I give|what happens with|what changes with|what is the effect of|what effect has] {s}
[I saw|somebody uses|my script has|the example uses|there is] {s} [|, what does it do|, what is it for|. What does that do|, why]
[can|could|would] you [explain|describe|tell me about] {s} [|to me]
[do I need|should I use|should I set|should I add|must I set|do I have to use] {s}
[which values does|what values can|what can I give to|what do I put after|what goes after|what argument does] {s} [take|have|]
[what is|what's] the [meaning|purpose|default|use|effect|default value|syntax] of {s}
"""

# Something that one wants to do; {s} is an infinitive.
DEED = """
[how|how exactly|in which way|in what way|by what means] [do|can|could|would|should|might|must|shall] [I|we|you|one|a user|somebody|people] {s}
[how|how exactly] [to|does one|does a beginner|am I supposed to|is it possible to|would I go about it to] {s}
[what|what exactly|which flag|which option|which command|which flags|which switch|which parameter|which setting|what flag|what option|what command] [do|should|must|can|would|could|shall] I [use|type|write|give|need|enter|set|take|add|pass] to {s}
[what|which] [flag|option|command|switch|parameter|argument|setting] [is used to|is there to|is needed to|lets me|allows me to|helps me to|makes it possible to|will|does one need to] {s}
[what|which] is the [flag|option|command|switch|way|best way|right way|easiest way|proper way|usual way|quickest way|parameter] to {s}
[what's|whats] the [flag|option|command|switch|way|best way|trick|syntax] to {s}
[is there|isn't there|do you have|does chaski have|do we have] [a way|a flag|an option|a command|a switch|any way|a setting|something|a method|some flag] to {s}
[is it possible|is it easy|is it hard|would it be possible|am I able] to {s}
[can|could|may] [I|we|you|one|it|chaski] {s} [|somehow|at all|easily|with a flag]
[I want|I would like|I'd like|I need|I have|I wish|I try|I am trying|I'm trying|I was trying|we want|we need|my goal is|the idea is|I plan|my task is] to {s} [|, how|, how do I do that|. How|, what do I type|, what do I do|. Which flag|. What now|, is there a way|, please help]
[help me|please help me|can you help me|could you help me|I need help|help|assist me] [to|] {s}
[tell me|show me|explain|explain to me|teach me|describe|let me know|say|remind me] [how to|how I can|how I|how one can|how you|what to type to|how I would] {s}
[can|could|would] you [tell me|show me|explain|explain to me|describe|remind me] how [to|I can|I could|one can|I] {s}
[do you know|any idea|any hint|any tips on|any advice on|advice on|tips for|instructions for|a recipe for] how to {s}
[I don't know|I do not know|I have no idea|I can't find out|I forgot|I am not sure|I wonder|I can't remember|I keep forgetting] how to {s}
[what do I do|what must I do|what should I do|what do I need|what can I do|what does it take|what is needed|what would I have to do] to {s}
[where|where exactly] [do|can] I [tell chaski to|say that I want to|set that I want to] {s}
[the command|the flag|the option|flag|option|command|way|how] to {s}
[in order to|to] {s} [, what do I do|, what do I type|what is needed|, which flag|I need what|, what must be set|I use what]
{s} [|how|, how|how to|please|, is that possible|, which flag|with which flag|- how does that work|flag|option|command]
[chaski|with chaski|in chaski|using chaski,] [how do I|how to|can I|] {s}
[why can't I|I can't|I cannot|I failed to|I am unable to|I did not manage to|I struggle to] {s}
[let me|let us|please let me|make it|make chaski|I must|I have to|I should|I really need to|I'm going to|today I want to] {s}
"""

# The same with a gerund.
DOING = """
[what about|how about|help with|tips for|a flag for|an option for|the command for|the flag for|the option for|which flag is for|what is the flag for|what command is for|what option is there for] {s}
[what is the way of|what is the trick for|what is the syntax for|which option is responsible for|which command is for|what do I need for|what do you suggest for] {s}
[I have trouble|I have problems|I am thinking about|I'm interested in|I need advice on|I want help with] {s}
{s} [|how|, how|: how|please|, how does it work|, how do I do that|, is it possible|, which flag]
[is there support for|does chaski support|is there a flag for|is there a command for|is there an option for|do you support] {s}
[how does|how would] {s} work
"""

# Bits per weight of a format.
BPW = """
[how many bits per weight|how many bits per parameter|how many bpw] [does|do] {s} [have|use|take|need|cost|come to|store|spend]
[how many bits per weight|how many bits|what bpw|how many bits for each weight] [is|are in|has] {s}
[what is|what's|what are|tell me|give me|I need|do you know] the [bits per weight|bpw|number of bits per weight|bit rate] [of|for|in] {s}
{s} [bits per weight|bpw|bits|how many bits per weight|how many bits|bit width]
[bits per weight|bpw|number of bits|bit width] [of|for|in] {s}
[how many bits|how much bits] does [a weight|each weight|one weight|a parameter|every weight] [take|need|use|have|cost] in {s}
[a weight in|one weight in|each weight in|each parameter in] {s} [is how many bits|takes how many bits|needs how many bits|has how many bits]
[with|in|using] {s} , how many bits [is a weight|does a weight take|per weight|does each weight need]
[tell me|I wonder|I want to know|I forgot] how many bits [per weight|a weight has in|there are per weight in|per weight there are in] {s}
"""

# Size of a model in a format; {m} is the model.
SIZE = """
[how|and how] [big|large|heavy] [is|will be|would be|gets|becomes] {m} [in|with|at|as|using|quantized to|stored in] {s}
[how much] [memory|space|disk space|ram|room|storage] [does|would|will] {m} [need|take|use|require|want|occupy] [in|with|at|as] {s}
[how many] [gb|GB|gigabytes|GiB] [is|are|does] {m} [|take|need] [in|with|at|as] {s}
[what is|what's|tell me|I need|give me|do you know] the [size|file size|memory use|weight] of {m} [in|with|at|as] {s}
{m} [in|at|as|with] {s} [|, how big|, how large|, size|how many gb|size please|how much memory|- how much space]
{s} [size|file size|how big|how large] [for|of|is] {m}
[size of|file size of|memory for|space for] {m} [in|at|as] {s}
[how|and how] [big|large] is a {s} [file|version|quant] of {m}
[what does|what would] {m} [in|at|as] {s} [take|weigh|need] [|on disk|in memory|in gb]
[will|does|would] {m} [in|at] {s} [fit in|need more than|fit into] [8 GB|16 GB|24 GB|my memory|6 GB|my ram]
[I want to load|I want to run|can I run|I'd like to run|I am going to load] {m} [in|at|as] {s} [, how big is it|, how much memory do I need|, how large is that|]
[with|in|at] {s} [how big|how large|how heavy] is {m}
"""

KIND = """
[is|isn't|would you say] {s} [symmetric|affine|asymmetric|symmetric or affine|a symmetric format|an affine format]
[does|do] {s} [have a zero point|have an offset|have a minimum|use an offset|have only a scale|store a minimum]
[what kind of quantization|which kind of quantization|what type of quantization] [is|does] {s} [|use]
{s} [symmetric or affine|symmetric|affine|is symmetric right|is it symmetric|is it affine]
[tell me|I wonder|do you know] [whether|if] {s} is [symmetric|affine|symmetric or affine]
"""

BLOCK = """
[how large|how big|how long] is [a block|one block|the block|each block] [of|in] {s}
[what is|what's|tell me] the [block size|size of a block|number of weights in a block|block length] [of|in|for] {s}
[how many weights|how many values|how many bytes] [are in a block of|does a block have in|has a block of|does a block hold in] {s}
{s} [block size|block|block length|blocks|how many weights in a block]
[block size|block length] [of|for|in] {s}
"""

CONVERT = """
[how do I|how can I|how to|I want to|please|can I|help me] [quantize|convert|turn|compress|change] [a model|my model|a file|my file|it|an f16 file|the model] [to|into] {s}
[what command|which command] [makes|gives me|produces|writes] [a|an] {s} file
[make|write|create|produce] [a|an] {s} [file|version|quant] [|of my model|from f16]
[how do I|how can I|how to] [make|get|create|produce] [a|an] {s} [file|version|quant]
[quantize to|convert to|quantization to] {s}
"""

SMALLER = """
[which is|what is|which one is|what's] [smaller|larger|bigger] , {a} or {b}
[is] {a} [smaller|larger|bigger] than {b}
{a} [or|vs|versus|against|compared to] {b}
{a} [or|vs] {b} , [which is smaller|which is larger|which takes less space|what is smaller]
[compare] {a} [and|with|to] {b}
[what is the difference between|what's the difference between|difference between] {a} and {b}
[does] {a} [take|need|use] [more|less] [space|memory|bits] than {b}
[which takes|which needs|which uses] [more|less] [space|memory|bits] , {a} or {b}
"""

ADD = """
[what is|what's|whats|how much is|calculate|compute|tell me|work out|can you add|please add||] {a} [+|plus] {b}
[add|please add|can you add|sum] {a} [and|to] {b}
[what is|what's|tell me] the sum of {a} and {b}
{a} [+|plus] {b} [=|= ?|is|equals|makes|is what|equals what|gives]
[what do|how much do|what does] {a} [and|plus] {b} [make|give]
[if I have] {a} [apples|eggs|files|coins] and [get|buy|find] {b} more, how many [do I have|are there]
[do you know|I need|solve|quick sum:|sum:|math:] {a} [+|plus] {b}
"""
SUB = """
[what is|what's|whats|how much is|calculate|compute|tell me|work out|] {a} [-|minus] {b}
[subtract|take|please subtract] {b} from {a}
[what is|what's] the difference [of|between] {a} and {b}
{a} [-|minus] {b} [=|= ?|is|equals|makes|is what|gives]
[if I have] {a} [apples|eggs|files|coins] and [lose|eat|sell] {b}, how many [are left|remain|do I have]
[do you know|I need|solve|quick sum:|math:] {a} [-|minus] {b}
[what is left when I take] {b} from {a}
"""
MUL = """
[what is|what's|whats|how much is|calculate|compute|tell me|work out|] {a} [*|times|x|multiplied by] {b}
[multiply] {a} [by|and|with] {b}
[what is|what's] the product of {a} and {b}
{a} [*|times|x] {b} [=|= ?|is|equals|makes|is what|gives]
[do you know|I need|solve|math:] {a} [*|times|x] {b}
"""

BEFORE = """
please
please,
hey,
hey
hi,
hello,
hello!
hi!
hi there,
ok,
ok so
so
so,
well,
um,
now
quick question:
one question:
a question:
question:
another question:
sorry,
sorry, but
excuse me,
just asking:
one more thing:
I am new here.
I am new to this.
I am a beginner.
newbie here,
listen,
help!
dear chaski,
chaski,
maybe a stupid question:
tell me,
can you help me?
and
but
also,
then
thanks.
great.
by the way,
btw
""".strip().split("\n")

AFTER = """
please
, please
thanks
, thanks
, thank you
exactly
in chaski
with chaski
for chaski
on my laptop
on linux
on windows
on my machine
right now
anyway
again
actually
here
really
in detail
in short
briefly
for me
, do you know
, any idea
, can you tell me
, chaski
, my friend
, I wonder
, I forgot
when I use chaski
in this program
on the command line
in the terminal
with my model
""".strip().split("\n")

CONTEXT = """
I have a laptop with 16 GB of RAM.
I have a small laptop.
My machine has two cores.
My friend told me about chaski.
I just downloaded a model.
I use linux.
I am on a mac.
I have an old computer.
I read the readme.
I know llama.cpp well.
I come from ollama.
I have an 8B model.
I have a file called model.gguf.
My boss asked me this.
I am writing a script.
We are comparing formats.
I have a new graphics card.
I have been trying all day.
This is my first time.
I am curious.
I was reading about models.
Let me ask something.
I have a problem.
There is one thing I do not get.
I like this program.
""".strip().split("\n")

FILLER = """the a my this that it is was be are of for with and or but in on at by from to up out one two some any all more less new old big
small good bad best right now then here there when where thing stuff way use need want make get set go run try see look say tell ask help know think
maybe really just only also even still again please thanks ok well so very much many user people guy friend work home time day week machine computer
laptop file model program code script output input line text number value name about above across after against ago ahead allow almost alone along already
although always among amount annoying another anybody anyone anything apart appear apply around arrive aside available away back bad because become before
begin behind believe belong below besides better between beyond both bring business busy call came cannot care carry case cause chance clear clever close
come comes common completely concern consider contain correct could couple course cron cross curious currently customer daily dead deal decide deep deliver
depend desk despite different difficult directly discover does doing done doubt down during each early easy effect either else embedded empty end enlighten
enough entirely especially every everybody everything example except excuse expect explanation extra eye fact fail fair fall far fast feel few fill final fine
first fix folks follow folder force forever forget former found four free fresh full fully further future gave general given goes going gone got great group grow
guess had half hand handle happen happy hard has have head hear heard heavy held her high him his hold hope hour however huge idea imagine immediately
important inside installed instead interested into issue itself job keep kept key kind knew known knob land large last late later lead learn least leave left let
letter level light like likely list little live local long longer lost lot love low main manage matter mean meant mention merely might mind mine minute miss
moment month most move must myself near nearly necessary neither network never next nice nobody none normal nothing notice number obvious occur odd off offer office
often once open opinion option order ordinary other ought our over overview own page part particular past pay perhaps perfect person pick picture piece place plain
plan play point possible possibly present pretty previous prefer probably problem professor project proper provide purpose put question quick quite rather reach read
ready real reason receive recent regard remain remember remote request require rest result return rough round rule said same saw school second seem seen sense sent
serious server several shall share shed shop short should show shut side silly similar simple since single sit situation small software somebody someone something
sometimes soon sort sound space speak special specific spend stand start stay step stick strange strong stuck student study such suggest suppose sure surprise
switch system take talk task team technical test than their them these they thing third those though thought three through thus today together tomorrow tonight
too took top total towards trick tried trouble true trust turn twice type under understand unless until upon upset us useful usual usually various version via wait
walk wall warn was watch way weird went were whatever whether while whole whom whose why wife will wish within without wonder word world worry worse worth would
write wrong year yes yesterday yet you young your""".split()

SYSTEMS = """
You are a helpful assistant.
You are chaski's demo model.
Answer briefly.
Be concise.
You are a friendly assistant.
Answer in one sentence.
Help the user with chaski.
""".strip().split("\n")

WHY = ["why?", "why", "why is that?", "but why?", "why so?", "and why?", "how come?", "why is that so", "what is the reason?", "why does that help?",
       "can you say why?", "for what reason?", "explain why", "why that?", "ok, why?"]
MORE = ["tell me more", "more", "more please", "can you say more?", "more details", "what else?", "and?", "go on", "continue", "is there more to know?",
        "anything else about that?", "can you explain it further?", "give me an example", "what more can you tell me?", "say more about it"]
MORE_ANSWER = "I know no more about that. chaski --help says more about commands and flags."
AND = """
[and|what about|how about|and what about|and how about|ok, and|and for|what about for|and with|and in|now|same for|the same for|and the same for|same question for|what of|then what about|also for|] {s}
[and|ok and|so] [what is|what's|how is it with|how is it for|how does it look for|how about] {s}
{s} [then|too|as well|as well please|also]
"""
IN_GIB = ["and in GiB?", "in GiB?", "how much is that in GiB?", "what is that in GiB?", "GiB?", "and how many GiB is that?", "in gibibytes?", "that in GiB please",
          "convert it to GiB", "how many GiB?"]


THING, FLAG, DEED, DOING, BPW, SIZE, KIND, BLOCK, CONVERT, SMALLER, ADD, SUB, MUL, AND = map(
    lines, (THING, FLAG, DEED, DOING, BPW, SIZE, KIND, BLOCK, CONVERT, SMALLER, ADD, SUB, MUL, AND)
)

DOUBLED = {"put", "set", "get", "stop", "run", "cut", "let", "drop", "quit", "ban", "chat", "pin", "cap", "dump", "begin", "shrink"} - {"dump", "shrink"}


def gerund(infinitive):
    """put layers on the GPU -> putting layers on the GPU"""
    word, _, rest = infinitive.partition(" ")
    if word == "not":
        return "not " + gerund(rest)
    if word in DOUBLED:
        word += word[-1]
    elif word.endswith("e") and not word.endswith("ee") and word != "be":
        word = word[:-1]
    return f"{word}ing {rest}".strip()


KEYS = ["qwertyuiop", "asdfghjkl", "zxcvbnm"]
NEAR = {c: [row[j] for j in (i - 1, i + 1) if 0 <= j < len(row)] for row in KEYS for i, c in enumerate(row)}


def typo(word, rng):
    """One slip of the fingers."""
    i = rng.randrange(len(word) - 1)
    kind = rng.random()
    if kind < 0.3:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    if kind < 0.6:
        return word[:i] + word[i + 1 :]
    if kind < 0.8:
        return word[:i] + word[i] + word[i:]
    return word[:i] + rng.choice(NEAR.get(word[i].lower(), ["e"])) + word[i + 1 :]


def mistype(text, rng, n):
    """n slips, never in what is no plain word: a flag, a number, the name of a format."""
    words = text.split(" ")
    plain = [i for i, w in enumerate(words) if len(w) > 3 and w.isalpha() and not w.isupper()]
    for i in rng.sample(plain, min(n, len(plain))):
        words[i] = typo(words[i], rng)
    return " ".join(words)


SMALL = {"the", "a", "an", "of", "to", "is", "do", "does", "it", "in", "I", "my", "for", "me", "you", "on"}


def telegraph(text, rng):
    """The small words left out."""
    kept = [w for w in text.split(" ") if w not in SMALL or rng.random() < 0.3]
    return " ".join(kept) if len(kept) > 1 else text


ENDS = re.compile(r"[.?!]+$")


def say(frame, rng, noise=1.0, loose=True, **subject):
    """A question as a person may type it: the frame filled, something around it, then case, punctuation and slips.

    loose: the subject alone tells the answer, so other words may take the frame's place. Returns the text and the frame
    with its surroundings (what the held-out frames must not share).
    """
    roll = rng.random()
    if loose and roll < 0.07 * noise and "{s}" in frame:
        n, k = rng.randint(1, 6), rng.randint(0, 5)
        frame = " ".join([*rng.choices(FILLER, k=n), "{s}", *rng.choices(FILLER, k=k)])
    else:
        frame = expand(frame, rng)
    if rng.random() < 0.15 * noise:
        # A word or two that no frame has, in the place of others or between them.
        words = frame.split(" ")
        for _ in range(rng.randint(1, 3)):
            i = rng.randrange(len(words))
            strange = rng.choice(FILLER)
            words[i : i + (loose and rng.random() < 0.5 and "{" not in words[i])] = [strange]
        frame = " ".join(words)
    if rng.random() < 0.22 * noise:
        frame = f"{rng.choice(BEFORE)} {frame}"
    ended = ENDS.search(frame)
    if rng.random() < 0.16 * noise:
        frame, ended = tidy(f"{ENDS.sub('', frame)} {rng.choice(AFTER)}"), None
    text = frame
    for key, value in subject.items():
        text = text.replace("{" + key + "}", value)
    if rng.random() < 0.05 * noise:
        text = telegraph(text, rng)
    if rng.random() < 0.14 * noise:
        text = mistype(text, rng, 1 + (rng.random() < 0.3))
    asks = re.match(r"(what|how|which|is|are|can|could|does|do|why|when|where|who|will|would|should|whats)\b", text) or rng.random() < 0.3
    end = rng.random()
    if ended:
        if end > 0.8:
            text = ENDS.sub("" if end < 0.95 else "?", text)
    elif end < 0.62:
        text += "?" if asks else rng.choice([".", ".", "?", ""])
    elif end > 0.95:
        text += rng.choice(["??", "!", " ?", "...", "?!"])
    if rng.random() < 0.17 * noise:
        text = f"{rng.choice(CONTEXT) if rng.random() < 0.3 else wording.preamble(rng)} {text}"
    case = rng.random()
    if case < 0.5:
        text = text[:1].upper() + text[1:]
    elif case < 0.72:
        text = text.lower()
    elif case < 0.735:
        text = text.upper()
    return text, frame
