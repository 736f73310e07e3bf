"""Text without special tokens <-> ids, by the two kinds of vocabulary that Llama models are released with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import sentencepiece
import tokenizers

from glus.common.errors import DataError, InputError, UserError
from glus.common.files import is_there, read_regular
from glus.common.json_file import read_object

REMEDY = "copy it again from the release"
#: Bytes of a vocabulary at most: the largest released ones have 40 MB.
LARGEST = 2**29

SENTENCEPIECE, FAST = "tokenizer.model", "tokenizer.json"


class Vocabulary(Protocol):
    """What a Tokenizer needs: ids of plain text, text of ids, and the ids of the special tokens."""

    size: int
    bos_id: int
    eos_id: int
    pad_id: int

    def encode(self, text: str) -> list[int]:
        """Ids of a text that holds no special token."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids."""

    def ids_of(self, tokens: Sequence[str]) -> dict[str, int]:
        """The ids of those `tokens` that are one piece of the vocabulary."""


class SentencePieceVocabulary:
    """LLaMA's own tokenizer.model. Raises DataError where the file is no SentencePiece model.

    Without `dummy_prefix` a text gets no blank before its first word (transformers' LlamaTokenizer that is not legacy).
    """

    def __init__(self, file: Path, dummy_prefix: bool = True):
        try:
            content = _read(file)
            if not dummy_prefix:
                content = _without_dummy_prefix(content)
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=content)
        except (RuntimeError, OSError, ValueError) as error:
            raise DataError(f"{file} is no SentencePiece model ({error}): {REMEDY}", file=str(file)) from error
        self.size: int = self._pieces.vocab_size()
        self.bos_id: int = self._pieces.bos_id()
        self.eos_id: int = self._pieces.eos_id()
        # The released LLaMA vocabularies name no padding; LISA and GLUS pad with <unk>.
        self.pad_id: int = max(self._pieces.pad_id(), self._pieces.unk_id())

    def encode(self, text: str) -> list[int]:
        """Ids of a text that holds no special token."""
        ids: list[int] = self._pieces.encode(text)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids."""
        text: str = self._pieces.decode(list(ids))
        return text

    def ids_of(self, tokens: Sequence[str]) -> dict[str, int]:
        """None: added tokens are never pieces of a SentencePiece model."""
        return {}


class FastVocabulary:
    """A tokenizer.json (Hugging Face's tokenizers; SmolLM2) with the tokenizer_config.json that names its specials.

    Raises DataError where either is damaged, or where no end of text is named.
    """

    def __init__(self, file: Path):
        try:
            self._tokens = tokenizers.Tokenizer.from_buffer(_read(file))
        except UserError:
            raise
        except Exception as error:  # the Rust library raises nothing narrower
            raise DataError(f"{file} is no tokenizer ({error}): {REMEDY}", file=str(file)) from error
        self._tokens.no_truncation()
        self._tokens.no_padding()
        named = special_names(file.parent)
        ids = {key: self._tokens.token_to_id(token) for key, token in named.items()}
        eos = ids.get("eos_token")
        if eos is None:
            raise DataError(
                f"{file.parent}: tokenizer_config.json and special_tokens_map.json name no eos_token of {file.name}: "
                "copy them from the release too"
            )
        self.size: int = max(self._tokens.get_vocab(with_added_tokens=True).values()) + 1
        self.eos_id: int = eos
        bos, unknown, pad = (ids.get(key) for key in ("bos_token", "unk_token", "pad_token"))
        self.bos_id: int = eos if bos is None else bos
        self.pad_id: int = next((each for each in (pad, unknown) if each is not None), eos)

    def encode(self, text: str) -> list[int]:
        """Ids of a text that holds no special token."""
        ids: list[int] = self._tokens.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens by name."""
        text: str = self._tokens.decode(list(ids), skip_special_tokens=False)
        return text

    def ids_of(self, tokens: Sequence[str]) -> dict[str, int]:
        """The ids of those `tokens` that are one piece of the vocabulary."""
        ids = {token: self._tokens.token_to_id(token) for token in tokens}
        return {token: token_id for token, token_id in ids.items() if token_id is not None}


def _read(file: Path) -> bytes:
    try:
        return read_regular(file, "vocabulary", LARGEST)
    except InputError as error:
        raise DataError(str(error), file=str(file)) from error


def _without_dummy_prefix(content: bytes) -> bytes:
    """Raises ValueError where the bytes are no SentencePiece model."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf's DecodeError, whose module differs between its releases
        raise ValueError(str(error)) from error
    model.normalizer_spec.add_dummy_prefix = False
    return bytes(model.SerializeToString())


def open_vocabulary(file: Path) -> Vocabulary:
    """The vocabulary in a tokenizer.json, or else in a SentencePiece model."""
    return FastVocabulary(file) if file.suffix == ".json" else SentencePieceVocabulary(file)


def special_names(folder: Path) -> dict[str, str]:
    """bos_token, eos_token, ... -> the token, as tokenizer_config.json and special_tokens_map.json name them."""
    named: dict[str, str] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        if not is_there(path):
            continue
        content = read_object(path, "table of special tokens", raises=DataError, remedy=REMEDY)
        for key, token in content.items():
            text = token.get("content") if isinstance(token, dict) else token
            if key.endswith("_token") and isinstance(text, str):
                named[key] = text
    return named
