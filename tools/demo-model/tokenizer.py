"""The tokenizer: byte-level BPE with digits one by one, which GGUF knows as the pre-tokenizer "smollm"."""

import json

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

# Ids 0, 1 and 2.
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
END, IM_START, IM_END = range(3)
PRE = "smollm"

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def texts(path):
    """Everything written in a corpus file, message by message."""
    for line in open(path):
        row = json.loads(line)
        yield from (m["content"] for m in row["messages"]) if "messages" in row else [row["text"]]


def train(corpus, vocab, out):
    """Trains on a corpus file and saves to `out`."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    t.train_from_iterator(texts(corpus), trainer)
    assert t.get_vocab_size() == vocab, "the corpus is too small for the vocabulary"
    t.save(str(out))
    return t


def load(path):
    return Tokenizer.from_file(str(path))


def plain(t, text):
    return t.encode(text, add_special_tokens=False).ids


def prompt(t, messages):
    """Ids of a conversation, with the assistant's turn opened: what the template renders to."""
    ids = []
    for m in messages:
        ids += [IM_START, *plain(t, f"{m['role']}\n{m['content']}"), IM_END, *plain(t, "\n")]
    return [*ids, IM_START, *plain(t, "assistant\n")]


def example(t, row, user_weight):
    """Ids of a row of the corpus, and how much the prediction of each counts, in hundredths."""
    if "text" in row:
        ids = [*plain(t, row["text"]), END]
        return ids, [50] * len(ids)
    ids, weights = [], []

    def add(more, weight):
        ids.extend(more)
        weights.extend([weight] * len(more))

    for m in row["messages"]:
        add([IM_START, *plain(t, m["role"] + "\n")], user_weight)
        add([*plain(t, m["content"]), IM_END], 100 if m["role"] == "assistant" else user_weight)
        add(plain(t, "\n"), user_weight)
    return ids, weights
