"""The LLaMA tokenizer as the references use it: SentencePiece, slow and legacy, plus GLUS's added tokens; or Phi-3's.

Written on the vocabulary itself because current transformers releases tokenize these prompts otherwise: the slow
tokenizer of transformers 4.31 cuts the text at special tokens, strips blanks next to those that were added as plain
strings, and gives every remaining piece a dummy prefix of its own (tokenization_utils.py, tokenization_llama.py).
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from glus.common.errors import DataError
from glus.common.files import is_there
from glus.common.json_file import read_as
from glus.data_pipeline.batches.phi3_tokens import MARKS, Phi3Tokens, is_phi3
from glus.data_pipeline.batches.vocabulary import FAST, REMEDY, SENTENCEPIECE, open_vocabulary

SEG_TOKEN = "[SEG]"
IMAGE_START, IMAGE_END = "<im_start>", "<im_end>"
#: Added after the SentencePiece vocabulary, in this order, as GLUS's train_ds.py does.
ADDED_TOKENS = (SEG_TOKEN, IMAGE_START, IMAGE_END)
END_OF_TEXT = "</s>"
#: Stands for a frame in the text, and its id in the token ids (LLaVA's constants).
IMAGE_PLACEHOLDER, IMAGE_TOKEN_ID = "<image>", -200
#: Pieces of text whose ids are kept.
KEPT_PIECES = 256
#: The embedding table has a row for each id below the largest: a wrong one must not ask for terabytes.
LARGEST_ID = 2**22


class Tokenizer:
    """Text -> token ids.

    `folder_or_model` is a tokenizer.model or tokenizer.json file, or a folder that holds one (the former first) and
    perhaps added_tokens.json ({token: id}). Tokens of ADDED_TOKENS that neither names are added after the others, in
    their order, as the reference's train_ds.py does; `fresh` names them. Where added_tokens.json has Phi-3's tokens,
    text is cut as VideoLISA does (phi3_tokens.py), and only [SEG] is added. Raises DataError where a file is absent or
    damaged.
    """

    def __init__(self, folder_or_model: Path):
        path = Path(folder_or_model)
        model = _vocabulary_file(path)
        self._vocabulary = open_vocabulary(model)
        fast = model.suffix == ".json"
        stored = model.parent / "added_tokens.json"
        known = _added_tokens(stored) if is_there(stored) else {}
        if fast:
            known |= self._vocabulary.ids_of((*ADDED_TOKENS, *MARKS))
        phi3 = is_phi3(known)
        self.fresh = tuple(token for token in ((SEG_TOKEN,) if phi3 else ADDED_TOKENS) if token not in known)
        start = max([self._vocabulary.size, *(token_id + 1 for token_id in known.values())])
        self.added = known | {token: start + place for place, token in enumerate(self.fresh)}
        self.path = model
        self.bos_id: int = self._vocabulary.bos_id
        self.eos_id: int = self._vocabulary.eos_id
        self.pad_id: int = self._vocabulary.pad_id
        self.seg_id = self.added[SEG_TOKEN]
        # Without a special_tokens_map.json the reference's tokenizer takes </s> for plain text; the released folders
        # have that file. A tokenizer.json has an end of its own, for which </s> stands in the conversations.
        ends = fast or is_there(model.parent / "special_tokens_map.json")
        kept_together = (*self.added, END_OF_TEXT) if ends else (*self.added,)
        # Of a conversation all but the expression comes again and again. (Decorators would keep every tokenizer alive.)
        self._piece = lru_cache(KEPT_PIECES)(self._vocabulary.encode)
        self._part = Phi3Tokens(model, self.added).encode if phi3 else lru_cache(KEPT_PIECES)(self._encode_part)
        self._split = re.compile("(" + "|".join(re.escape(token) for token in kept_together) + ")")

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process reads the file again: what is kept of earlier texts is not sent.
        return Tokenizer, (self.path,)

    @property
    def vocab_size(self) -> int:
        """Rows that the embedding table needs, added tokens included."""
        return max(self._vocabulary.size, max(self.added.values()) + 1)

    def check_has(self, tokens: Sequence[str], prompts: str) -> None:
        """Raise DataError where one of `tokens`, which `prompts` need, is not an added token here."""
        absent = [token for token in tokens if token not in self.added]
        if absent:
            raise DataError(
                f"the tokenizer {self.path} has no token {absent[0]}, which sampling.prompts={prompts} needs: point "
                "model.tokenizer at Phi-3's, with its added_tokens.json, or choose other prompts",
                file=str(self.path),
            )

    def encode(self, text: str) -> list[int]:
        """Ids of `text`: begin-of-text first, IMAGE_TOKEN_ID for every <image> (LLaVA's tokenizer_image_token)."""
        ids = [self.bos_id]
        for number, part in enumerate(text.split(IMAGE_PLACEHOLDER)):
            ids += [IMAGE_TOKEN_ID] if number else []
            ids += self._part(part)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, for messages and reports; images and added tokens by name."""
        names = {token_id: token for token, token_id in self.added.items()} | {IMAGE_TOKEN_ID: IMAGE_PLACEHOLDER}
        text, run = "", []
        for token_id in [*ids, None]:
            if token_id is not None and token_id not in names:
                run.append(int(token_id))
                continue
            text += self._vocabulary.decode(run) if run else ""
            run = []
            text += names[token_id] if token_id is not None else ""
        return text

    def _encode_part(self, text: str) -> list[int]:
        pieces = [piece for piece in self._split.split(text) if piece]
        ids: list[int] = []
        for number, piece in enumerate(pieces):
            if piece in self.added:
                ids.append(self.added[piece])
            elif piece == END_OF_TEXT:
                ids.append(self.eos_id)
            else:
                if number and pieces[number - 1] in self.added:
                    piece = piece.lstrip()
                if number + 1 < len(pieces) and pieces[number + 1] in self.added:
                    piece = piece.rstrip()
                ids += self._piece(piece) if piece else []
        return ids


def _vocabulary_file(path: Path) -> Path:
    if is_there(path) and not path.is_dir():
        return path
    found = next((path / name for name in (SENTENCEPIECE, FAST) if is_there(path / name)), None)
    if found is None:
        raise DataError(
            f"no SentencePiece model at {path / SENTENCEPIECE if path.is_dir() else path}: "
            f"point model.tokenizer at a {SENTENCEPIECE} or {FAST}, or at its folder"
        )
    return found


def _added_tokens(path: Path) -> dict[str, int]:
    table = read_as(path, dict[str, int], "table of token ids", raises=DataError, remedy=REMEDY)
    for token, token_id in table.items():
        if not token or not 0 <= token_id < LARGEST_ID:
            raise DataError(f"{path}: {token!r} has the id {token_id}, which no token has; {REMEDY}", file=str(path))
    if len(set(table.values())) < len(table):
        raise DataError(f"{path}: gives two tokens the same id; {REMEDY}", file=str(path))
    return table


__all__ = ["Tokenizer"]
