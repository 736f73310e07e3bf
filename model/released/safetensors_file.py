"""Files of safetensors: the header is checked before anything is mapped, and new files have the usual mode."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from glus.common.errors import InputError
from glus.common.files import give_usual_mode, open_regular

if TYPE_CHECKING:
    from torch import Tensor

#: Bytes of a header; 2,000 tensors take 0.3 MB.
LARGEST_HEADER = 32_000_000


def save_tensors(tensors: "Mapping[str, Tensor]", path: Path) -> None:
    """Write tensors (contiguous, none of them twice) to `path`. Raises OSError where the disk is full."""
    # Here: it brings torch, which those who read a checkpoint's state do not need.
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:  # its way to report a full disk
        raise OSError(str(error)) from error
    give_usual_mode(path)


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """The file mapped, as safetensors' `safe_open` gives it; tensors lie on the CPU.

    Raises InputError where it is no regular file, may not be read or has a header of unlikely size; SafetensorError
    where it is damaged.
    """
    with open_regular(path, "weights") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > LARGEST_HEADER:
        raise InputError(
            f"{path}: its header says that it has {size:,} bytes, too many for weights: the file is damaged or no "
            ".safetensors; copy it again",
            file=str(path),
        )
    with safe_open(path, framework="pt") as stored:
        yield stored
