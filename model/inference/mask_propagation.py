"""Masks of a few frames followed through the video by SAM 2's own memory, without a language model.

VideoLISA's post-optimisation does this with XMem++, which is outside its repository; this is a departure
(docs/fidelity.md). The steps are those of sam2's SAM2VideoPredictor (add_new_mask, propagate_in_video).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glus.common.errors import ModelError
from glus.model.inference.video_segmenter import FrameMasks
from glus.model.model_config import ModelConfig, SegmenterConfig
from glus.model.segmenter import Segmenter

#: Logit of given masks on their own frames (SAM2Base._use_mask_as_output).
_GIVEN = 10.0


class MaskPropagation(nn.Module):
    """A SAM 2 that follows given masks."""

    def __init__(self, sizes: SegmenterConfig):
        super().__init__()
        self.config = ModelConfig(segmenter=sizes)
        self.segmenter = Segmenter(sizes)

    @torch.no_grad()
    def follow(
        self,
        frame: Callable[[int], Tensor],
        frames: int,
        given: Sequence[int],
        masks: Tensor,
        expressions_together: int = 16,
    ) -> Iterator[FrameMasks]:
        """Masks of all frames: from the first given one on to the end, then from it back to the start.

        frame: index -> uint8 [3, H, W] on the model's device; given: indices of D frames; masks: bool [E, D, H, W],
        which these frames keep. Each frame is encoded once for all expressions. What is held does not grow with the
        video. Raises ModelError where no frame is given or one is not in the video.
        """
        places = {index: place for place, index in enumerate(given)}
        if not places or not all(0 <= index < frames for index in places):
            raise ModelError(f"frames {sorted(places)} of a video of {frames} frames: give at least one that it has")
        chunks = list(torch.arange(len(masks), device=masks.device).split(expressions_together))
        tracks = [_Track(self.segmenter.sam2, frames) for _ in chunks]
        start = min(places)
        encoded = {index: self._encode(frame(index)) for index in places}
        for track, rows in zip(tracks, chunks, strict=True):
            for index, place in places.items():
                track.condition(index, encoded[index], self._input(masks[rows, place]))
        del encoded
        for indices, reverse in ((range(start, frames), False), (range(start - 1, -1, -1), True)):
            for index in indices:
                picture = frame(index)
                if index in places:
                    logits = torch.where(masks[:, places[index]], _GIVEN, -_GIVEN)
                else:
                    features = self._encode(picture)
                    low = torch.cat(
                        [t.step(index, features, len(rows), reverse) for t, rows in zip(tracks, chunks, strict=True)]
                    )
                    logits = self.segmenter.full_size(low[:, 0], *picture.shape[-2:])
                everything = torch.ones(len(masks), dtype=torch.bool, device=masks.device)
                yield FrameMasks(index, logits, everything, torch.arange(len(masks), device=masks.device))

    def _encode(self, picture: Tensor) -> dict[str, Any]:
        pixels = self.segmenter.pixels(picture[None], next(self.parameters()).dtype)
        features: dict[str, Any] = self.segmenter.sam2.forward_image(pixels)
        return features

    def _input(self, masks: Tensor) -> Tensor:
        """bool [E, H, W] -> float [E, 1, S, S] of 0 and 1, as add_new_mask resizes it."""
        side = self.config.segmenter.image_size
        resized = F.interpolate(
            masks[:, None].float(), size=(side, side), mode="bilinear", align_corners=False, antialias=True
        )
        return (resized >= 0.5).float()


class _Track:
    """SAM 2's memory of some expressions. Outputs that no later frame looks at are dropped."""

    def __init__(self, sam2: Any, frames: int):
        self._sam2, self._frames = sam2, frames
        self._outputs: dict[str, dict[int, dict[str, Any]]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        self._kept = max(sam2.num_maskmem, sam2.max_obj_ptrs_in_encoder)

    def condition(self, index: int, features: dict[str, Any], masks: Tensor) -> None:
        """Take masks, float [E, 1, S, S], as those of frame `index`."""
        self._outputs["cond_frame_outputs"][index] = self._track(index, features, len(masks), masks, False)

    def step(self, index: int, features: dict[str, Any], rows: int, reverse: bool) -> Tensor:
        """Low-resolution logits float [E, 1, S/4, S/4] of the next frame."""
        out = self._track(index, features, rows, None, reverse)
        tracked = self._outputs["non_cond_frame_outputs"]
        tracked[index] = {name: out[name] for name in ("maskmem_features", "maskmem_pos_enc", "obj_ptr")}
        # The way back looks at the first frames of the way forward too.
        start = min(self._outputs["cond_frame_outputs"])
        unseen = [each for each in tracked if abs(each - index) > self._kept and (reverse or each - start > self._kept)]
        for each in unseen:
            del tracked[each]
        logits: Tensor = out["pred_masks"]
        return logits

    def _track(
        self, index: int, features: dict[str, Any], rows: int, masks: Tensor | None, reverse: bool
    ) -> dict[str, Any]:
        repeated = {
            "backbone_fpn": [level.expand(rows, -1, -1, -1) for level in features["backbone_fpn"]],
            "vision_pos_enc": [level.expand(rows, -1, -1, -1) for level in features["vision_pos_enc"]],
        }
        _, given, positions, sizes = self._sam2._prepare_backbone_features(repeated)
        out: dict[str, Any] = self._sam2.track_step(
            frame_idx=index,
            is_init_cond_frame=masks is not None,
            current_vision_feats=given,
            current_vision_pos_embeds=positions,
            feat_sizes=sizes,
            point_inputs=None,
            mask_inputs=masks,
            output_dict=self._outputs,
            num_frames=self._frames,
            track_in_reverse=reverse,
        )
        return out
