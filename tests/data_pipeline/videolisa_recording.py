"""The recorded outputs of the public VideoLISA, as far as data is concerned."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glus.data_pipeline.batches.tokenizer import Tokenizer

CARRIED = Path(__file__).parents[1] / "data" / "parity_videolisa"


@dataclass(frozen=True)
class Recorded:
    """`values` are those of expected.json, `arrays` those of expected.npz; `tokenizer` is the recorded one's folder."""

    values: dict[str, Any]
    arrays: dict[str, np.ndarray]
    tokenizer: Path

    @classmethod
    def open(cls, folder: Path) -> "Recorded":
        arrays = np.load(folder / "expected.npz", allow_pickle=False)
        place = folder / "tokenizer" if (folder / "tokenizer").is_dir() else CARRIED / "tokenizer"
        return cls(json.loads((folder / "expected.json").read_text()), arrays, place)


def toy_tokenizer() -> Tokenizer:
    """A tokenizer in Phi-3's form with 572 tokens."""
    return Tokenizer(CARRIED / "tokenizer")


def recording_folder(given: str | None) -> Path:
    """The folder that --videolisa-fixture names, else the one in tests/data."""
    return Path(os.path.expanduser(given)) if given else CARRIED
