"""Text -> ids as the tokenizer of Phi-3 does it in VideoLISA: SentencePiece, slow, not legacy.

Follows LlamaTokenizer of transformers 4.41 with legacy false (tokenization_utils.py, tokenization_llama.py), which
differs from LLaMA's legacy form: only the beginning of a text gets a blank of its own, and tokens with `rstrip` swallow
the white space on their right.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from glus.common.errors import DataError
from glus.common.files import is_there
from glus.common.json_file import read_object
from glus.data_pipeline.batches.vocabulary import FAST, REMEDY, SENTENCEPIECE, SentencePieceVocabulary, special_names

#: Tokens that say that a tokenizer has Phi-3's form.
MARKS = ("<|assistant|>", "<|end|>")
#: The one of Phi-3's added tokens that leaves the white space on its right.
END_OF_TEXT = "<|endoftext|>"
_BLANK = "\u2581"
_UNKNOWN = "<unk>"
#: Pieces of text whose ids are kept.
KEPT_PIECES = 256


def is_phi3(added: Mapping[str, int]) -> bool:
    """Whether added tokens are those of Phi-3."""
    return all(mark in added for mark in MARKS)


class Phi3Tokens:
    """Ids of a text between two <image>.

    `model` is the tokenizer.model; `added` the added tokens with their ids. tokenizer_config.json next to the model
    says which of them swallow white space; without it, all of Phi-3's do but <|endoftext|>.
    Raises DataError where a file is damaged, or where only a tokenizer.json is there.
    """

    def __init__(self, model: Path, added: Mapping[str, int]):
        if model.suffix == ".json":
            raise DataError(
                f"{model}: a tokenizer with Phi-3's tokens is read from {SENTENCEPIECE}, as VideoLISA does, because "
                f"{FAST} cuts text otherwise: copy {SENTENCEPIECE} of the release next to it",
                file=str(model),
            )
        vocabulary = SentencePieceVocabulary(model, dummy_prefix=False)
        described = _described(model.parent / "tokenizer_config.json")
        for token, (token_id, _) in described.items():
            if added.get(token, token_id) != token_id:
                raise DataError(
                    f"{model.parent}: {token!r} is {added[token]} in added_tokens.json and {token_id} in "
                    f"tokenizer_config.json; {REMEDY}",
                    file=str(model.parent / "tokenizer_config.json"),
                )
        self._ids = {token: token_id for token, (token_id, _) in described.items()} | dict(added)
        marks = {token for token in added if token.startswith("<|") and token != END_OF_TEXT}
        self._swallows = {token for token, (_, rstrip) in described.items() if rstrip} if described else marks
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(re.escape(token) for token in longest_first) + ")")
        self._specials = {*special_names(model.parent).values(), _UNKNOWN}
        self._vocabulary = vocabulary
        # The reference puts <unk> before a text that begins with a blank, and drops its pieces from the result.
        self._dropped = len(vocabulary.encode(_UNKNOWN))
        self._piece = lru_cache(KEPT_PIECES)(self._encode_piece)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without a begin-of-text."""
        if not text:
            return []
        pieces = self._split.split(_BLANK + text.replace(_BLANK, " "))
        ids: list[int] = []
        for number, piece in enumerate(pieces):
            # Odd ones are added tokens.
            if number % 2:
                ids.append(self._ids[piece])
            else:
                swallowed = number > 0 and pieces[number - 1] in self._swallows
                ids += self._piece(piece.lstrip() if swallowed else piece)
        # The blank of the beginning is left out right before a special token.
        alone = len(pieces) > 1 and pieces[0] == _BLANK and pieces[1] in self._specials
        return ids[1:] if alone else ids

    def _encode_piece(self, piece: str) -> tuple[int, ...]:
        if not piece.startswith((_BLANK, " ")):
            return tuple(self._vocabulary.encode(piece))
        ids = self._vocabulary.encode(_UNKNOWN + piece)
        return tuple(ids[self._dropped :] if len(ids) >= self._dropped else ids)


def _described(path: Path) -> dict[str, tuple[int, bool]]:
    """Token -> its id and whether it swallows the white space on its right, by tokenizer_config.json; {} without."""
    if not is_there(path):
        return {}
    content = read_object(path, "tokenizer's settings", raises=DataError, remedy=REMEDY)
    table = content.get("added_tokens_decoder", {})
    found: dict[str, tuple[int, bool]] = {}
    for key, entry in table.items() if isinstance(table, dict) else ():
        text = entry.get("content") if isinstance(entry, dict) else None
        if not (isinstance(text, str) and text and key.isdecimal() and len(key) <= 7):
            raise DataError(
                f"{path}: added_tokens_decoder has an entry {key!r} that is no token; {REMEDY}", file=str(path)
            )
        found[text] = (int(key), entry.get("rstrip") is True)
    return found
