"""Cost of a run: FLOP, bytes of memory and bytes on the wire, by formulas over a model without weights.

FLOP of a forward pass are counted, not estimated: each part runs on the meta device under torch.utils.flop_counter,
which counts matrix products, convolutions and attention (2 FLOP a multiply-add). With F for a part's forward pass:
    model FLOP = F                                 where no gradient flows (CLIP; SAM 2's image encoder and memory)
               = 2 F + F * trained share           where gradient flows through: F for the gradient of its inputs, and
                                                   F for that of its weights, as far as they are trained
Recomputed activations add another F of what is recomputed; they are not of the model and do not count for MFU.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from glus.model.glus import Glus
from glus.model.losses import mask_bce, mask_dice
from glus.model.memory import MemoryBank
from glus.model.methods import AnyModel
from glus.model.model_config import Method
from glus.model.pretraining.pretraining_glus import PretrainingGlus
from glus.model.selector.selector import Selector
from glus.model.videolisa.video_lisa import VideoLisa

#: Tokens that the language model's FLOP are counted at: the usual length of a packed row (three expressions; VideoLISA:
#: one), since attention grows with its square.
COUNTED_TOKENS: dict[Method, int] = {"glus": 1280, "videolisa": 2400, "selector": 1280, "pretraining": 1280}
#: Tokens of VideoLISA's answers that are learnt ("Sure, [SEG].<|end|>" and the like).
ANSWER_TOKENS = 8
#: Side of the mask that the losses are counted on.
_LOSS_SIDE = 512


@dataclass(frozen=True)
class Part:
    """One part of the model: FLOP of its forward pass for one unit, and how many times that training takes."""

    name: str
    unit: str
    forward: float
    times: float
    saved: int

    @property
    def training(self) -> float:
        """FLOP of forward and backward pass."""
        return self.forward * self.times


@dataclass(frozen=True)
class Load:
    """How much a step, or a micro-batch of it, holds: `shown` frames a video, `queries` of them query frames.

    `tokens` are those of all prompts, frames included; `pixels` those of a mask at its own size.
    """

    videos: int
    shown: int
    queries: int
    expressions: int
    tokens: int
    pixels: int

    def units(self) -> dict[str, int]:
        """How often each unit occurs."""
        masks = self.expressions * self.queries
        return {
            "frame": self.videos * self.shown,
            "token": self.tokens,
            "query frame": self.videos * self.queries,
            "expression": self.expressions,
            "[SEG]": masks,
            # The first frame of a clip looks at nothing, the last is looked at by nothing.
            "look back": self.expressions * (self.queries - 1),
            "pixel": masks * self.pixels,
        }


@dataclass(frozen=True)
class StepCost:
    """The parts of a model, priced."""

    parts: tuple[Part, ...]

    def model_flop(self, load: Load) -> float:
        """FLOP of forward and backward pass, without recomputation."""
        units = load.units()
        return sum(part.training * units[part.unit] for part in self.parts)

    def recomputed_flop(self, load: Load) -> float:
        """FLOP that recomputing Llama's activations adds."""
        units = load.units()
        return sum(part.forward * units[part.unit] for part in self.parts if part.unit == "token")

    def saved_bytes(self, load: Load) -> dict[str, int]:
        """Bytes kept for the backward pass, by part."""
        units = load.units()
        return {part.name: part.saved * units[part.unit] for part in self.parts}


def step_cost(empty: AnyModel, dtype: torch.dtype = torch.float32) -> StepCost:
    """Count the parts of a model without weights, which is moved to the meta device and to `dtype`."""
    model = empty.to("meta").to(dtype).train()
    # flash-attn takes as many FLOP as torch's attention, and keeps as much, but does not run on the meta device.
    model.language.llama.set_attn_implementation("sdpa")
    language = model.language
    tower, llama = _trained_share(language.vision_tower), _trained_share(language.llama.model.layers)
    frame, token = _language_parts(model, dtype)
    return StepCost(
        (
            Part("CLIP and projector", "frame", frame[0], 1.0 if tower == 0 else 2.0 + tower, frame[1]),
            Part("Llama", "token", token[0], 2.0 + llama, token[1]),
            *_METHODS[model.config.method](model, dtype),
        )
    )


def _glus_parts(model: Glus, dtype: torch.dtype) -> Iterator[Part]:
    """A [SEG] state and a mask for each expression and query frame, memory between them."""
    segmenter, sizes = model.segmenter, model.config.segmenter
    decoder = _trained_share(segmenter.sam2.sam_mask_decoder)
    encoded = 3.0 if sizes.train_image_encoder else 1.0
    pixels, prompts = (
        _meta(dtype, 1, 3, sizes.image_size, sizes.image_size),
        _meta(dtype, 1, sizes.hidden_dim, grad=True),
    )
    features, none = segmenter.encode(pixels), MemoryBank.empty(sizes.memories)
    image = _count(lambda: segmenter.encode(pixels).levels)
    alone = _count(lambda: segmenter.step(features, prompts, none, 0, remember=False))
    remembered = _count(lambda: segmenter.step(features, prompts, none, 0))
    bank = segmenter.step(features, prompts, none, 0)[1]
    looking = _count(lambda: segmenter.step(features, prompts, bank, 1, remember=False))
    both = tuple(max(one + other - 2 * base, 0) for one, other, base in zip(remembered, looking, alone, strict=True))
    seg = _seg_cost(model, dtype, words=1)
    yield Part("lm_head and text_hidden_fcs", "[SEG]", seg[0], 3.0, seg[1])
    yield Part("SAM 2 image encoder", "query frame", image[0], encoded, image[1])
    yield Part("SAM 2 mask decoder", "[SEG]", alone[0], 2.0 + decoder, alone[1])
    yield Part("SAM 2 memory", "look back", both[0], 3.0 if sizes.train_memory else 1.0, int(both[1]))
    yield _loss_part(dtype, sizes.image_size // 4)


def _pretraining_parts(model: PretrainingGlus, dtype: torch.dtype) -> Iterator[Part]:
    """Those of GLUS that the stage's losses need. Heads of its own losses are not counted."""
    run = {"lm_head and text_hidden_fcs": model.reads}
    return (part for part in _glus_parts(model, dtype) if run.get(part.name, model.segments))


def _videolisa_parts(model: VideoLisa, dtype: torch.dtype) -> Iterator[Part]:
    """One [SEG] state an expression, a mask for each expression and dense frame, each frame alone."""
    segmenter: Any = model.segmenter
    config = model.config
    name, decoder = {"sam1": ("SAM 1", "sam1.mask_decoder"), "sam2": ("SAM 2", "sam2.sam_mask_decoder")}[
        config.segmenter.kind
    ]
    image_size = config.decoder.image_size
    share = _trained_share(segmenter.get_submodule(decoder))
    encoded = 3.0 if config.segmenter.train_image_encoder else 1.0
    pixels, prompts = _meta(dtype, 1, 3, image_size, image_size), _meta(dtype, 1, config.prompt_width, grad=True)
    features = segmenter.encode(pixels)
    image = _count(lambda: segmenter.encode(pixels))
    mask = _count(lambda: segmenter.decode(features, prompts))
    seg = _seg_cost(model, dtype, words=ANSWER_TOKENS)
    yield Part("lm_head and text_hidden_fcs", "expression", seg[0], 3.0, seg[1])
    yield Part(f"{name} image encoder", "query frame", image[0], encoded, image[1])
    yield Part(f"{name} mask decoder", "[SEG]", mask[0], 2.0 + share, mask[1])
    yield _loss_part(dtype, image_size // 4)


def _selector_parts(model: Selector, dtype: torch.dtype) -> Iterator[Part]:
    """One score an expression."""
    hidden = _meta(dtype, 1, 1, model.config.language.hidden_size, grad=True)
    score = _count(lambda: (model.language.logits(hidden), model.scores(hidden)))
    yield Part("lm_head, text_hidden_fcs and score_head", "expression", score[0], 3.0, score[1])


_METHODS: dict[Method, Callable[[Any, torch.dtype], Iterator[Part]]] = {
    "glus": _glus_parts,
    "videolisa": _videolisa_parts,
    "selector": _selector_parts,
    "pretraining": _pretraining_parts,
}


def _meta(dtype: torch.dtype, *shape: int, grad: bool = False) -> Tensor:
    return torch.empty(*shape, device="meta", dtype=dtype, requires_grad=grad)


def _loss_part(dtype: torch.dtype, side: int) -> Part:
    losses = _count(lambda: _mask_losses(_meta(dtype, 1, 1, side, side, grad=True), _LOSS_SIDE))
    return Part("mask losses", "pixel", losses[0], 2.0, losses[1] // _LOSS_SIDE**2)


def _seg_cost(model: AnyModel, dtype: torch.dtype, words: int) -> tuple[float, int]:
    """FLOP and kept bytes of the logits of `words` tokens and the projection of one [SEG] state."""
    hidden = model.config.language.hidden_size
    read = _meta(dtype, 1, words, hidden, grad=True)
    state = read if words == 1 else _meta(dtype, 1, 1, hidden, grad=True)
    return _count(lambda: (model.language.logits(read), model.language.seg_states(state)))


def _language_parts(model: AnyModel, dtype: torch.dtype) -> list[tuple[float, int]]:
    """FLOP and kept bytes of a frame and a token."""
    language, image = model.language, model.config.vision.image_size
    hidden = model.config.language.hidden_size
    frame = _meta(dtype, 1, 3, image, image)
    tokens = COUNTED_TOKENS[model.config.method]
    words = _meta(dtype, 1, tokens, hidden, grad=True)
    # Given in full: transformers would look into the values of a mask that it makes itself.
    causal = torch.ones(1, 1, tokens, tokens, dtype=torch.bool, device="meta")
    flop, saved = _count(lambda: language.llama.model(inputs_embeds=words, attention_mask=causal, use_cache=False)[0])
    return [_count(lambda: language.encode_frames(frame)), (flop / tokens, saved // tokens)]


def _mask_losses(logits: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """As Glus.forward takes them, of a mask of `side` x `side` pixels."""
    full = nn.functional.interpolate(logits.float(), size=(side, side), mode="bilinear", align_corners=False)
    target = torch.empty(1, side, side, device="meta")
    return mask_bce(full.flatten(0, 1), target), mask_dice(full.flatten(0, 1), target.clone())


def _count(run: Callable[[], object]) -> tuple[float, int]:
    """FLOP of a run, and bytes that it keeps for a backward pass, without parameters."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    kept: dict[int, tuple[Tensor, int]] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor if tensor._base is None else tensor._base, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = tensor, storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), _FlashAttention():
        run()
    return float(counter.get_total_flops()), sum(size for _, size in kept.values())


class _FlashAttention(TorchFunctionMode):
    """Attention that keeps what the fused kernels keep: on the meta device torch would keep all probabilities."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is nn.functional.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
            return _Attended.apply(given["query"], given["key"], given["value"])
        return function(*args, **(kwargs or {}))


class _Attended(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        context.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(each) for each in context.saved_tensors[:3])


def _trained_share(module: nn.Module) -> float:
    """Part of a module's matrices (by elements) that is trained."""
    sizes = [(each.numel(), each.requires_grad) for each in module.parameters() if each.dim() > 1]
    return sum(size for size, trained in sizes if trained) / max(sum(size for size, _ in sizes), 1)
