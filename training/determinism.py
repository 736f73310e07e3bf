"""Only algorithms that give the same bits every time (engine.deterministic)."""

import contextlib
import os
from collections.abc import Iterator

import torch

from glus.common.errors import TrainingError

#: cuBLAS and flash-attn read these as they begin.
_SETTINGS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "FLASH_ATTENTION_DETERMINISTIC": "1"}
#: How torch says that an operation has no such algorithm.
_SIGNS = ("does not have a deterministic implementation", "Deterministic behavior was enabled")


@contextlib.contextmanager
def deterministic(asked: bool) -> Iterator[None]:
    """Deterministic algorithms within, where they are asked for; entered before the GPU is first used.

    Raises TrainingError where an operation has none: nothing is silently left out.
    """
    if not asked:
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    os.environ.update({name: value for name, value in _SETTINGS.items() if name not in os.environ})
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if not any(sign in text for sign in _SIGNS):
            raise
        raise TrainingError(f"engine.deterministic: {text.split('. ')[0]}: set engine.deterministic=false") from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
