"""A CUDA device that is not there: tensors that report cuda:0, and a look at every operation on them.

Floating-point numbers and pixels (uint8) have shapes alone: their values are on the meta device. Integers and booleans
keep their values, on the CPU, so that shapes which follow from values are the real ones. C++ takes the tensors for meta
tensors; inside `PretendedCuda` the meta device therefore is cuda:0, and no other meta tensor may be used there.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CUDA, META = torch.device("cuda", 0), torch.device("meta")
#: Values of these are kept, in tensors of at most _KEPT_BYTES.
_KEPT_TYPES = (torch.bool, torch.int8, torch.int16, torch.int32, torch.int64)
_KEPT_BYTES = 2**27
#: CUDA's allocator gives out multiples of this.
_BLOCK = 512
#: Operations whose output's size follows from values: CUDA waits for them.
_SIZED_BY_VALUES = ("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "equal")
_INDEXING = ("index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_")
#: They return storage of their input without saying so, or launch nothing.
_QUIET_VIEWS = ("_unsafe_view", "_reshape_alias", "lift_fresh", "alias", "detach")
_NO_KERNEL = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "is_same_size")


class Observer(Protocol):
    """Gets all that happens on the pretended device."""

    def began(self) -> None: ...
    def allocated(self, size: int) -> "Allocation": ...
    def synced(self, what: str) -> None: ...
    def mixed(self, operation: str, shapes: Sequence[torch.Size]) -> None: ...
    def launched(self, operation: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor], flop: float) -> None: ...


class Allocation:
    """Memory of one storage: bytes, and the part of the model that asked for them. Freed with its last tensor."""

    __slots__ = ("_free", "part", "size")

    def __init__(self, size: int, part: str, free: "Callable[[Allocation], None]"):
        self.size, self.part, self._free = size, part, free

    def __del__(self) -> None:
        self._free(self)


class PretendedTensor(torch.Tensor):
    """A tensor that reports cuda:0. inner: its values on the CPU, or its shape on the meta device."""

    inner: Tensor  # type: ignore[assignment]  # hides torch.Tensor.inner, a product
    held: Allocation

    @staticmethod
    def __new__(cls, inner: Tensor, held: Allocation) -> "PretendedTensor":
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=META,
        )

    def __init__(self, inner: Tensor, held: Allocation):
        self.inner, self.held = inner, held

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise RuntimeError(f"{func} of a pretended tensor outside of the trace")

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)

    def get_device(self) -> int:
        return 0

    def is_pinned(self, device: Any = None) -> bool:
        return False

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"PretendedTensor({tuple(self.shape)}, {self.dtype})"

    __str__ = __repr__

    def __format__(self, form: str) -> str:
        return repr(self)


class PretendedCuda(TorchDispatchMode):
    """Runs operations for the device and reports them to `observer`.

    Where a CUDA tensor meets one of the CPU, the observer gets a report and the operation goes on. Raises RuntimeError
    for an operation that needs values which only a GPU would know.
    """

    def __init__(self, observer: Observer, flop_of: Callable[[Any, Any, Any, Any], float]):
        super().__init__()
        self.observer, self._flop_of = observer, flop_of

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        mine = [each for each in tensors if isinstance(each, PretendedTensor)]
        here = _is_cuda(kwargs.get("device"))
        if not mine and not here:
            return func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        self.observer.began()
        with torch._C.DisableTorchFunction():
            if name == "_to_copy":
                return self._moved(func, args[0], kwargs)
            if name == "copy_":
                return self._copied(func, args, kwargs)
            if name == "_local_scalar_dense":
                return self._scalar(func, args[0])
            self._check(name, args, kwargs, tensors)
            out = _computed(func, name, args, kwargs, tensors)
            return self._finished(func, name, args, kwargs, tensors, out)

    def _moved(self, func: Any, source: Tensor, keys: dict[str, Any]) -> Tensor:
        """`Tensor.to`: between devices, or to another dtype or layout on the same."""
        mine = isinstance(source, PretendedTensor)
        asked = keys.pop("device", None)
        to_cuda = _is_cuda(asked) or (asked is None and mine)
        blocking = not keys.get("non_blocking")
        keys.pop("pin_memory", None)
        inner = source.inner if isinstance(source, PretendedTensor) else source
        if to_cuda:
            dtype = keys.get("dtype") or inner.dtype
            kept = inner.device.type == "cpu" and _is_kept(inner, dtype)
            out = self._wrapped(func(inner, **keys, device=inner.device if kept else META))
            if not mine and blocking and inner.numel():
                self.observer.synced("copy to the GPU")
            self.observer.launched(func, [source], [out], 0.0)
            return out
        if blocking and inner.numel():
            self.observer.synced("copy to the CPU")
        if inner.device.type == "meta":
            return torch.zeros(inner.shape, dtype=keys.get("dtype") or inner.dtype)
        return func(inner, **keys)

    def _copied(self, func: Any, args: Any, keys: dict[str, Any]) -> Tensor:
        into, source = args[0], args[1]
        between = isinstance(into, PretendedTensor) != isinstance(source, PretendedTensor)
        blocking = not (args[2] if len(args) > 2 else keys.get("non_blocking"))
        if between and blocking and source.numel():
            self.observer.synced("copy between devices")
        values = source.inner if isinstance(source, PretendedTensor) else source
        if not isinstance(into, PretendedTensor):
            return into if values.device.type == "meta" else func(into, values)
        if into.inner.device.type == "cpu":
            if values.device.type == "cpu":
                func(into.inner, values)
            else:
                into.inner = into.inner.to(META)
        self.observer.launched(func, [source], [into], 0.0)
        return into

    def _scalar(self, func: Any, source: PretendedTensor) -> Any:
        self.observer.synced("value read (item, bool, int, float)")
        if source.inner.device.type == "cpu":
            return func(source.inner)
        return 1.0 if source.dtype.is_floating_point else 1

    def _check(self, name: str, args: Any, kwargs: dict[str, Any], tensors: Sequence[Tensor]) -> None:
        """Report tensors of two devices, and what CUDA waits for."""
        foreign = [each for each in tensors if not isinstance(each, PretendedTensor) and each.dim() > 0]
        indices = args[1] if name in _INDEXING else ()
        if foreign and len(tensors) > len(foreign):
            if all(any(each is index for index in indices) for each in foreign):
                self.observer.synced("index from the CPU")
            else:
                self.observer.mixed(name, [each.shape for each in foreign])
        if any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices):
            self.observer.synced("index by a mask")
        if name in _SIZED_BY_VALUES:
            self.observer.synced(name)
        if name == "repeat_interleave" and kwargs.get("output_size") is None:
            self.observer.synced("repeat_interleave without output_size")

    def _wrapped(self, inner: Tensor) -> PretendedTensor:
        """A new tensor of the device, in memory of its own."""
        if inner.device.type == "cpu" and not _is_kept(inner, inner.dtype):
            inner = inner.to(META)
        size = inner.untyped_storage().nbytes() if inner.device == META else inner.numel() * inner.element_size()
        return PretendedTensor(inner, self.observer.allocated(-(-size // _BLOCK) * _BLOCK))

    def _finished(
        self, func: Any, name: str, args: Any, kwargs: dict[str, Any], tensors: Sequence[Tensor], out: Any
    ) -> Any:
        """The outputs as tensors of the device: new ones, views, or the inputs that were written into."""
        schema = func._schema
        owners: dict[str, Any] = {}
        for number, argument in enumerate(schema.arguments):
            value = args[number] if number < len(args) else kwargs.get(argument.name)
            if argument.alias_info is not None:
                owners |= dict.fromkeys(argument.alias_info.before_set, value)
        outs = list(out) if isinstance(out, tuple | list) else [out]
        returns = schema.returns if len(schema.returns) == len(outs) else [schema.returns[0]] * len(outs)
        made: list[Any] = []
        viewed = name in _QUIET_VIEWS
        for value, spec in zip(outs, returns, strict=True):
            alias = spec.alias_info
            base = owners.get(next(iter(alias.before_set), "")) if alias else tensors[0] if viewed else None
            base = base[0] if isinstance(base, list | tuple) else base
            if not isinstance(value, Tensor):
                made.append(value)
            elif isinstance(base, PretendedTensor) and alias is not None and alias.is_write:
                if value.device == META:
                    base.inner = base.inner.to(META)
                made.append(base)
            elif isinstance(base, PretendedTensor):
                viewed = True
                made.append(PretendedTensor(value, base.held))
            else:
                made.append(self._wrapped(value))
        if not viewed and name not in _NO_KERNEL:
            results = [each for each in made if isinstance(each, PretendedTensor)]
            self.observer.launched(func, tensors, results, self._flop_of(func, args, kwargs, out))
        return type(out)(made) if isinstance(out, tuple | list) else made[0]


def _computed(func: Any, name: str, args: Any, kwargs: dict[str, Any], tensors: Sequence[Tensor]) -> Any:
    """Run an operation on the tensors inside: with values where all are known, else with shapes."""
    keys = {key: value for key, value in kwargs.items() if key not in ("device", "pin_memory")}
    if not tensors:  # a factory: shapes say which dtype comes out
        out = func(*args, **keys, device=META)
        return func(*args, **keys, device="cpu") if isinstance(out, Tensor) and _is_kept(out, out.dtype) else out
    known = all(_inside(each).device.type == "cpu" for each in tensors)
    if known and all(_is_kept(_inside(each), each.dtype) or each.dim() == 0 for each in tensors):
        return func(*_unwrapped(args), **_unwrapped(keys))
    if name in _INDEXING:
        args = (args[0], _places(args[1]), *args[2:])
    elif name in _SIZED_BY_VALUES or name == "repeat_interleave" and keys.get("output_size") is None:
        if name != "masked_select":
            raise RuntimeError(f"{name} of values that the trace does not know")
        count = int(_inside(args[1]).expand(torch.broadcast_shapes(args[0].shape, args[1].shape)).sum())
        return torch.empty(count, dtype=args[0].dtype, device=META)
    return func(*_on_meta(args), **_on_meta(keys))


def _places(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Indices with masks as the places where they are true, by their values."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            found.append(index)
            continue
        mask = _inside(index)
        if mask.device == META:
            raise RuntimeError("index by a mask whose values the trace does not know")
        found += mask.nonzero(as_tuple=True)
    return found


def _is_cuda(device: Any) -> bool:
    """Whether a device that an operation names is the pretended one: C++ takes it for the meta device."""
    return device is not None and torch.device(device).type in ("cuda", "meta")


def _is_kept(tensor: Tensor, dtype: torch.dtype) -> bool:
    return dtype in _KEPT_TYPES and tensor.numel() * dtype.itemsize <= _KEPT_BYTES


def _inside(tensor: Tensor) -> Tensor:
    return tensor.inner if isinstance(tensor, PretendedTensor) else tensor


_unwrapped = functools.partial(tree_map_only, Tensor, _inside)


def _on_meta(values: Any) -> Any:
    return tree_map_only(Tensor, lambda each: _inside(each).to(META), values)
