"""Other words for the same thing: synonyms, scrambled key words, and sentences that come before a question."""

import re

from grammar import expand, lines

SYNONYMS = """
big large huge
large big huge
small little tiny
model network llm
file gguf
gpu graphics card|video card|graphics chip
graphics card gpu|video card
cpu processor
ram memory|main memory
memory ram
vram gpu memory|video memory|memory of my card
see look at|view|find|check
show display|print|list
list show|display
flag option|switch|setting
choose pick|select|decide on|determine
pick choose|select
set specify|change|configure|define|adjust|give
change adjust|alter|modify|set
use employ|take|work with|apply
get obtain|receive|have
make create|produce|build
create make|produce|generate
write save|store|put
save store|keep|write
keep leave|hold
limit restrict|cap|bound|reduce
turn off disable|switch off|deactivate|get rid of
turn on enable|switch on|activate
disable turn off|switch off
stop end|halt|finish
end finish|stop
avoid prevent|not have
prevent avoid|stop
answer reply|response|output
answers replies|responses|outputs
text words|sentence|string
faster quicker|speedier
slow sluggish|not fast
measure determine|test|find|get
compute calculate|work out|determine
check test|examine|verify
find out learn|discover|see|determine
run start|launch|execute|use
start launch|begin|open
load open|read
read take|load
conversation chat|dialogue|discussion
chat conversation|talk
talk speak|chat
prompt question|input|text
longer bigger|larger
smaller less|more compact|tinier
bigger larger|longer
context context window|context length
tokens token
quality accuracy
broken damaged|corrupt|defective
damaged broken|corrupt
error failure|problem
exit code return code|exit status|status code
random unpredictable|varied
repeat redo|do again
repeating saying again
compare contrast|put side by side
convert turn|change|transform
shrink reduce|compress
quantize compress
original unquantized model
my the|our|this
a the|some|one
the my|this|that
speed performance|throughput
seed random seed
too large too big|larger than allowed
too big too large
machine computer|pc|box|laptop
silence mute|hush
hide suppress|remove
forget drop|lose
resume continue|go on with
continue resume|go on with
pass give|hand over
give pass|hand over
name specify|say
print output|show
certain given|particular|specific
several multiple|many
exactly precisely
automatically by itself
template format
weights parameters
layers blocks
difference distinction
best ideal|optimal
terminal console|shell
one a single|just one
single one|sole
raw unprocessed|bare
report overview|summary
vector embedding
question request|query
resume pick up
bench benchmark
tensors weights
metadata information
fits goes in
old previous|earlier
forbid ban|rule out
ban forbid|block
choose pick
lock pin|fix
watch look|monitor
read take in
piece part
meaning sense
thinking reasoning
messages output|text
colors colours
install set up|add
script program
behave act
creative inventive
shorter briefer|smaller
force make|compel
fill use up
likely probable
unlikely improbable
reproducible repeatable
directory folder
hardware machine|devices
"""

TABLE = {}
for line in SYNONYMS.strip().split("\n"):
    words = line.split(" ")
    # The key is as many words as make sense: "turn off", "exit code", "graphics card", "find out", "too large".
    n = 2 if " ".join(words[:2]) in ("turn off", "turn on", "exit code", "graphics card", "find out", "too large", "too big") else 1
    rest = words[n:]
    TABLE[" ".join(words[:n])] = " ".join(rest).split("|") if "|" in line else rest
PATTERN = re.compile(r"(?<![-\w])(" + "|".join(sorted(map(re.escape, TABLE), key=len, reverse=True)) + r")(?![-\w])")


def vary(text, rng, share=0.3):
    """The phrase with some words exchanged."""
    return PATTERN.sub(lambda m: rng.choice(TABLE[m[1]]) if rng.random() < share else m[1], text)


STOP = set("the a an of to is do does it in i my for me you on and or that this with be are as at what how when where which there by".split())


def scramble(phrases, rng, filler):
    """The key words of a phrase or two, in any order, with other words between."""
    words = [w for p in phrases for w in p.split(" ") if w.lower() not in STOP or rng.random() < 0.3]
    if rng.random() < 0.5:
        rng.shuffle(words)
    made = []
    for w in words:
        made += rng.choices(filler, k=rng.choice([0, 0, 1, 1, 2, 3]))
        made.append(w)
    made += rng.choices(filler, k=rng.choice([0, 0, 1, 2]))
    return " ".join(made)


PREAMBLE = lines("""
[my|our|the|a] [boss|friend|colleague|teacher|brother|sister|neighbour|student|client|team|wife|father|mother|professor|manager] [says so|asked me|wants to know|told me|asked about this|is curious|needs this|recommended it|gave me this].
[my|our|this|the|that] [computer|laptop|machine|server|pc|box|script|program|model|file|terminal|workstation|desktop] is [old|new|small|big|slow|fast|strange|nice|odd|huge|tiny|fine|weak].
[I have|we have|I got|there is|I own|I bought|I was given|I use] [a|an old|a new|a small|a big|one|just one|some] [computer|laptop|machine|server|pc|box|script|program|model|file|terminal|question|problem|issue].
[I am|I'm|we are] [new|a beginner|lost|confused|curious|stuck|in a hurry|writing a script|testing|experimenting|learning|comparing things|doing homework|setting things up|an expert|a developer].
[yesterday|today|this morning|last week|just now|an hour ago|recently] [I installed chaski|I downloaded a model|I tried chaski|I read about it|it worked|it failed|I saw it|I got a file|something happened|I started].
[maybe|perhaps|sorry if] this is [a silly question|obvious|simple|easy|hard|in the manual|the wrong place|well known].
[the docs|the manual|the readme|the web|a blog|a post|the forum|a video] [did not help|says nothing|is unclear|mentions it|is too long|confused me].
[I tried|I looked at|I checked|I read|I searched] [everything|the help|the manual|the docs|a lot|twice|the web|many things] [|already|but no luck|without success].
[I like|I love|I enjoy|I hate|I need|we need] [this program|chaski|small models|short answers|simple things|the command line|this].
[it is|that is|this is] [for|about] [a test|a script|a talk|my work|school|a friend|a project|a server|fun|a report|my thesis|a demo|production|debugging].
[something|one thing|a detail|this point] [is unclear|bothers me|is missing|puzzles me|remains open].
[suppose|imagine|assume|say] [I have a model|I have a file|we run it|it runs|a user comes|I am at work|I start chaski|I write a script].
""")

TAIL = lines("""
[, what do I do|, what now|, any idea|, is that possible|, can that be done|, how|, possible|, is there a way|, how would that go|, what are my options|. Any ideas|. How|. Which flag|. Suggestions|. Is this possible|. Can chaski do that|. What command|. Which option|. What do I type|. Please help|. Help|. What to do|. What should I do|, can I|, which subcommand|. Which subcommand]
""")


WHO = "I we he she they you people somebody everyone nobody".split() + ["my friend", "my boss", "our team", "a colleague", "the customer", "my professor", "his wife"]
DID = """saw heard read wrote built bought sold found lost used tried opened closed moved started ended wanted needed liked hated called asked told showed sent
kept left brought took gave made broke fixed cleaned painted ran tested copied deleted checked watched learned forgot remembered mentioned recommended
installed expected noticed prefer want need like have own got""".split()
WHAT = """box card file script job cron server network disk share folder desk house car book paper talk lecture course thesis blog forum post video game shop office
train plane phone screen editor window shell terminal log table list number letter word sentence page report mail chat meeting project test demo model network driver
update version system tool program app website manual example recipe problem question answer idea plan day night week year morning evening friend child dog cat
garden kitchen school university company customer machine laptop computer""".split()
HOW = ["", "", "", "", "yesterday", "today", "last night", "this week", "for work", "for fun", "at home", "at school", "in the office", "by accident", "again", "twice", "all day", "with care", "too late", "on monday", "for a test", "as usual"]


def clause(rng):
    """A little sentence that has nothing to do with the question."""
    return f"{rng.choice(WHO)} {rng.choice(DID)} {rng.choice(['a', 'the', 'my', 'this', 'that', 'some', 'one', 'our'])} {rng.choice(['', '', 'old ', 'new ', 'big ', 'small ', 'good ', 'strange '])}{rng.choice(WHAT)} {rng.choice(HOW)}".strip()


def preamble(rng):
    if rng.random() < 0.5:
        text = clause(rng)
        return text[:1].upper() + text[1:] + rng.choice([".", ".", ",", ";", ":", ", so", ", and now", " and", " but", ", but"])
    text = expand(rng.choice(PREAMBLE), rng)
    return text[:1].upper() + text[1:]


def tail(rng):
    return expand(rng.choice(TAIL), rng)
