"""torch.compile for decoder layers and for the parts of a segmenter: fewer kernels to launch, the same numbers.

Forward functions are compiled, not modules: hooks stay outside of the graph. ZeRO-3 gathers decoder layers and
segmenters by hooks, each as one leaf, so the parameters of what is compiled are there when it runs.
Sizes that change from batch to batch are symbols of the graph: it is made once, and once more where a size is 1.
"""

import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from glus.common.errors import ModelError, first_line
from glus.model.language.language_families import DECODER_LAYERS
from glus.model.methods import AnyModel
from glus.model.model_config import Compiled

#: Graphs of one function before torch gives up and runs it as it is: each layer's are counted together.
_MOST_GRAPHS = 64


def compile_parts(model: AnyModel, parts: Compiled, setting: str, backend: str = "inductor") -> None:
    """Compile the forward passes of `parts`, in place; each is compiled when it first runs.

    Before `recompute_activations`: what is recomputed is the compiled pass. `setting` is the key that asked for it,
    `backend` torch.compile's. While it runs, a part raises ModelError where it cannot be compiled.
    """
    if parts == "none":
        return
    limits: Any = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, _MOST_GRAPHS)
    if parts in ("llama", "all"):
        for layer in model.language.llama.model.layers:
            assert isinstance(layer, DECODER_LAYERS)
            layer.forward = _Layer(layer, setting, backend)
    if parts in ("segmenter", "all"):
        for part in _segmenter(model, setting).compiled_parts():
            part.forward = _Part(part.forward, setting, backend)


def check_compiler(parts: Compiled, kind: str, setting: str) -> None:
    """Raise ModelError where torch.compile would find no compiler. kind: "cpu" or "cuda"."""
    if parts == "none":
        return
    advice = f"{setting}={parts} compiles for this machine; install one, or set {setting}=none"
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        found = get_cpp_compiler()
    except Exception as error:  # torch's own class for it moves from release to release
        raise ModelError(f"no C++ compiler ({first_line(error)}): {advice}") from error
    if not shutil.which(found):
        raise ModelError(f"the C++ compiler {found} is not there: {advice}")
    if kind == "cuda" and find_spec("triton") is None:
        raise ModelError(f"triton is not installed, by which torch compiles for GPUs: {advice}")


def _segmenter(model: AnyModel, setting: str) -> Any:
    segmenter = getattr(model, "segmenter", None)
    if segmenter is None:
        raise ModelError(f"{setting}: a {model.config.method} has no segmenter: set it to llama or none")
    return segmenter


class _Graphs:
    """A function that torch compiles when it is first called."""

    def __init__(self, run: Callable[..., Any], setting: str, backend: str, dynamic: bool | None):
        self._run = torch.compile(run, backend=backend, dynamic=dynamic)
        self._setting = setting

    def call(self, *args: Any, **keys: Any) -> Any:
        try:
            return self._run(*args, **keys)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise ModelError(
                f"torch.compile ends with {type(error).__name__} ({first_line(error)}): set {self._setting}=none"
            ) from error


class _Layer(_Graphs):
    """A decoder layer's forward pass, all its sizes symbols."""

    def __init__(self, layer: Any, setting: str, backend: str):
        super().__init__(layer.forward, setting, backend, dynamic=True)
        # Attention takes the cache of its own number, which would make each layer a graph of its own.
        self._number, layer.self_attn.layer_idx = layer.self_attn.layer_idx, 0

    def __call__(self, *args: Any, past_key_values: Any = None, **keys: Any) -> Any:
        if past_key_values is not None:
            past_key_values = _OneLayer(past_key_values.layers[self._number])
        return self.call(*args, past_key_values=past_key_values, **keys)


class _OneLayer:
    """The cache of one layer, asked as a cache of all of them."""

    def __init__(self, layer: Any):
        self.layer = layer

    def update(self, keys: Tensor, values: Tensor, *args: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """Keys and values with those of the cache before them."""
        pair: tuple[Tensor, Tensor] = self.layer.update(keys, values)
        return pair


class _Part(_Graphs):
    """A part of a segmenter: its number of rows (frames, expressions) is a symbol, all other sizes stay."""

    def __init__(self, run: Callable[..., Any], setting: str, backend: str):
        super().__init__(run, setting, backend, dynamic=None)

    def __call__(self, *args: Any, **keys: Any) -> Any:
        for tensor in _tensors((args, list(keys.values()))):
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return self.call(*args, **keys)


def _tensors(given: Any) -> Iterator[Tensor]:
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, (tuple, list)):
        for each in given:
            yield from _tensors(each)
