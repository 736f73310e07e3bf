"""The language half: CLIP turns frames into tokens, a causal language model reads them, [SEG] states come out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from glus.model.language.language_families import FAMILIES, PROJECTORS
from glus.model.language.prefix import Prefix, growing, grown
from glus.model.language.prompt_rows import PromptRows, Reading
from glus.model.model_config import ModelConfig
from glus.model.preprocess import for_vision_tower

#: Random texts with which the deviation of [SEG] states is measured, and their length in tokens.
_TEXTS, _LENGTH = 128, 12


class Language(nn.Module):
    """A causal language model with a CLIP vision tower. `vocab_size` and `seg_id` come from the tokenizer."""

    def __init__(self, config: ModelConfig, vocab_size: int, seg_id: int):
        super().__init__()
        sizes, vision = config.language, config.vision
        self.config = config
        self.seg_id = seg_id
        # Named for the first family; released names are mapped to it.
        self.llama = FAMILIES[sizes.family].build(sizes, vocab_size)
        self.vision_tower = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=vision.hidden_size,
                intermediate_size=vision.intermediate_size,
                num_hidden_layers=vision.layers_run,
                num_attention_heads=vision.heads,
                image_size=vision.image_size,
                patch_size=vision.patch_size,
                attn_implementation="sdpa",
            )
        )
        if vision.spread:
            _spread_vision(self.vision_tower, vision.spread)
        self.mm_projector = PROJECTORS[vision.projector](vision.hidden_size, sizes.hidden_size)
        # Named and numbered as in LISA and GLUS, so that released weights fit.
        self.text_hidden_fcs = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Linear(sizes.hidden_size, sizes.hidden_size),
                    nn.ReLU(),
                    nn.Linear(sizes.hidden_size, config.prompt_width),
                )
            ]
        )
        # Fresh [SEG] prompts about as long as the decoder's own tokens (He et al. 2015); loaded weights replace this.
        for layer in self.text_hidden_fcs.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        # On the meta device there is nothing to measure; the rank that holds the weights does it.
        if sizes.seg_spread and not next(self.parameters()).is_meta:
            _spread_seg_states(self, sizes.seg_spread)

    @property
    def dtype(self) -> torch.dtype:
        """What its parameters are, and what it wants pixels in."""
        return next(self.mm_projector.parameters()).dtype

    def frame_tokens(self, frames: Sequence[Tensor]) -> Tensor:
        """Tokens of the frames of V videos, all encoded together.

        frames: V x uint8 [F_v, 3, H_v, W_v]. Returns float [sum of F_v, P, hidden].
        """
        return self.project(self.frame_patches(frames))

    def frame_patches(self, frames: Sequence[Tensor]) -> Tensor:
        """What CLIP makes of each patch of the frames of `frame_tokens`: float [sum of F_v, patches, its width]."""
        sizes = self.config.vision
        pixels = [for_vision_tower(each, sizes.image_size, sizes.mean, sizes.std, self.dtype) for each in frames]
        return self.patches(torch.cat(pixels))

    def encode_frames(self, pixels: Tensor) -> Tensor:
        """Tokens of frames. pixels: float [N, 3, s, s] as CLIP wants them. Returns float [N, P, hidden]."""
        return self.project(self.patches(pixels))

    def patches(self, pixels: Tensor) -> Tensor:
        """What CLIP makes of each patch of frames: float [N, patches, its width]."""
        patches: Tensor = self.vision_tower(pixels).last_hidden_state[:, 1:]
        return patches

    def project(self, patches: Tensor) -> Tensor:
        """Tokens float [N, P, hidden] of patches float [N, patches, CLIP's width]."""
        pool = self.config.vision.pool
        pooled = F.avg_pool1d(patches.transpose(1, 2), pool).transpose(1, 2) if pool > 1 else patches
        return self.mm_projector(pooled)

    def read(
        self,
        ids: Tensor,
        attention: Tensor,
        images: Tensor,
        video_of: Tensor | None = None,
        prefix: Prefix | None = None,
        share: bool = False,
        layer: int | None = None,
    ) -> Reading:
        """Run the language model over prompts whose images are filled in, or over what of them comes after `prefix`.

        ids: int64 [E, L], IMAGE_TOKEN_ID for each image (the same number F in every row); attention: bool [E, L],
        False for padding, which stands at the end; images: float [V, F, P, hidden], the tokens of V videos' images;
        video_of: int64 [E], ascending, whose images they are (left out: those of the one video, or one's own).
        With `share` the prompts of a video are read in one row where they begin alike (prompt_rows.py), by a mask that
        flash-attn does not take. `layer`: the reading keeps the states after that many layers too.
        """
        ids, attention = ids.cpu(), attention.cpu()
        if video_of is None:
            video_of = torch.zeros(len(ids), dtype=torch.int64) if len(images) == 1 else torch.arange(len(ids))
        rows = PromptRows.of(ids, attention, images.shape[1], images.shape[2], video_of.cpu(), share)
        embedded = self._embed(rows, images)
        if torch.is_grad_enabled() and not embedded.requires_grad:
            # LoRA alone is trained: ZeRO-3 knows by the gradient of its input that a layer's backward pass is over.
            embedded.requires_grad_()
        # Padding stands at the end, where nothing that counts sees it: without a mask, attention has faster kernels.
        packed = rows.mask(embedded, self.config.language.sliding_window) if rows.packed else {}
        with _entering(self.llama.model, layer) as entered:
            hidden = self.llama.model(
                inputs_embeds=embedded,
                past_key_values=None if prefix is None else prefix.shared(),
                use_cache=False,
                **packed,
            ).last_hidden_state
        return Reading(hidden, ids, attention, rows.place, entered[0] if entered else None)

    def prefix(self, ids: Tensor, frame_tokens: Tensor, before: Prefix | None = None) -> Prefix:
        """Keys and values of the tokens that prompts begin with; `before`, where given, is the beginning of that.

        ids: int64 [L], IMAGE_TOKEN_ID for each of F frames; frame_tokens: float [F, P, hidden].
        """
        row, images = ids.cpu().unsqueeze(0), frame_tokens.unsqueeze(0)
        every, first = torch.ones_like(row, dtype=torch.bool), torch.zeros(1, dtype=torch.int64)
        rows = PromptRows.of(row, every, images.shape[1], images.shape[2], first, share=False)
        cache = growing(before, self.config.language.layers)
        self.llama.model(inputs_embeds=self._embed(rows, images), past_key_values=cache, use_cache=True)
        return grown(cache)

    def _embed(self, rows: PromptRows, images: Tensor) -> Tensor:
        """Embeddings float [R, W, hidden] of rows, with images float [V, F, P, hidden] filled in."""
        device = images.device
        words = self.llama.get_input_embeddings()(rows.ids.to(device, non_blocking=True))
        shown = images.flatten(0, 2)[rows.image.to(device, non_blocking=True)].to(words.dtype)
        at = rows.at.to(device, non_blocking=True)
        return words.flatten(0, 1).index_copy(0, at, shown).view_as(words)

    def seg_states(self, hidden: Tensor) -> Tensor:
        """Project hidden states [..., hidden] to prompts of the mask decoder [..., C]."""
        return self.text_hidden_fcs[0](hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary logits [..., vocab] of hidden states [..., hidden]."""
        return self.llama.lm_head(hidden)


@contextmanager
def _entering(llama: Any, layer: int | None) -> Iterator[list[Tensor]]:
    """Yield a list that gets the states after `layer` layers, float [R, W, hidden], once `llama` has run.

    What a layer gets, not `output_hidden_states`: that is taken inside the layer before, past the hooks by which ZeRO-3
    knows of its backward pass, and then the gradients of that layer are lost. ZeRO-3 has a hook here too, which would
    take the gradient for one of the layer that follows: ours goes before it.
    """
    entered: list[Tensor] = []
    if layer is None:
        yield entered
        return
    hook = [*llama.layers, llama.norm][layer].register_forward_pre_hook(
        lambda module, given, named: entered.append(given[0] if given else named["hidden_states"]),
        with_kwargs=True,
        prepend=True,
    )
    try:
        yield entered
    finally:
        hook.remove()


@torch.no_grad()
def _spread_vision(tower: CLIPVisionModel, spread: float) -> None:
    """Draw patches that keep their variance, and position embeddings of deviation `spread`."""
    embeddings = next(module for module in tower.modules() if hasattr(module, "patch_embedding"))
    weight = embeddings.patch_embedding.weight
    nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    nn.init.normal_(embeddings.position_embedding.weight, std=spread)


@torch.no_grad()
def _spread_seg_states(language: Language, spread: float) -> None:
    """Scale and shift the last layer of `text_hidden_fcs`: over random texts, states get mean 0, deviation `spread`.

    Drawn as torch does, the states of different expressions are nearly alike, and the mask decoder learns to ignore
    them before they grow apart. After Mishkin and Matas, "All you need is a good init" (ICLR 2016).
    Measured effects: docs/log.md, "Learning from scratch".
    """
    embeddings = language.llama.get_input_embeddings()
    ids = torch.randint(embeddings.num_embeddings, (_TEXTS, _LENGTH))
    hidden = language.llama.model(inputs_embeds=embeddings(ids), use_cache=False).last_hidden_state[:, -1]
    states = language.seg_states(hidden)
    (projection,) = language.text_hidden_fcs
    assert isinstance(projection, nn.Sequential)
    last = projection[-1]
    assert isinstance(last, nn.Linear)
    factor = spread / (states - states.mean(0)).square().mean().sqrt()
    last.weight.mul_(factor)
    last.bias.mul_(factor).sub_(factor * states.mean(0))
