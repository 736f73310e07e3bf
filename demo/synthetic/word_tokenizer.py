"""A small SentencePiece model for the demo, in the form of LLaMA's."""

import io
from collections.abc import Iterable

import sentencepiece

#: Room for 256 bytes, the letters, and every word of the demo's language and prompts with the pieces it is merged from.
VOCABULARY = 800


def train_tokenizer(expressions: Iterable[str], prompt_sentences: Iterable[str]) -> bytes:
    """A SentencePiece BPE model (the bytes of tokenizer.model), a pure function of the texts.

    Settings as in LLaMA's own model: byte fallback, no normalization, split digits, <unk> 0, <s> 1, </s> 2. Each word
    counts once, however often it is used: the vocabulary then has room for words, not for parts of frequent ones.
    Expressions are lower-cased, as prompts have them.
    """
    prompts = [line for sentence in prompt_sentences for line in sentence.splitlines() if line.strip()]
    words = {word for text in expressions for word in text.lower().split()}
    words |= {word for line in prompts for word in line.split()}
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*sorted(words), *prompts]),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY,
        hard_vocab_limit=False,
        character_coverage=1.0,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()
