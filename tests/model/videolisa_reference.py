"""What the public VideoLISA code computed, and our model with the weights and sizes of the recording."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.mask_runs import MaskRuns
from glus.model.model_config import (
    LanguageConfig,
    LoraConfig,
    LossConfig,
    ModelConfig,
    Sam1Config,
    SegmenterConfig,
    VisionConfig,
)
from glus.model.released.release_names import videolisa_names
from glus.model.trainable import add_lora, set_trainable
from glus.model.videolisa.video_lisa import VideoLisa

from .reference import rule_weight

CARRIED = Path(__file__).parents[1] / "data" / "parity_videolisa"
TOWER = "model.vision_tower.vision_tower.vision_model."
#: What the reference trains (train_joint.py), by our names.
TRAINED = (
    "*lora_*",
    "language.llama.model.embed_tokens.*",
    "language.llama.lm_head.*",
    "language.text_hidden_fcs.*",
    "segmenter.sam1.mask_decoder.*",
)


@dataclass(frozen=True)
class VideoLisaRecording:
    """`values` of expected.json, `arrays` of expected.npz, `shapes` of the parameters by their reference names."""

    values: dict[str, Any]
    arrays: dict[str, np.ndarray]
    shapes: dict[str, tuple[int, ...]]
    config: ModelConfig

    @classmethod
    def open(cls, folder: Path) -> "VideoLisaRecording":
        """Read a recording; files that it has not are those of tests/data/parity_videolisa."""

        def read(name: str) -> Any:
            return json.loads(next(p / name for p in (folder, CARRIED) if (p / name).is_file()).read_text("utf-8"))

        with np.load(folder / "expected.npz", allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored}
        shapes = {name: tuple(shape) for name, shape in read("parameters.json").items()}
        sizes, sam, lora = read("config.json"), read("sam.json"), read("lora.json")
        vision = read(f"{sizes['mm_vision_tower']}/config.json")
        return cls(
            read("expected.json"), arrays, shapes, _config(sizes, vision.get("vision_config", vision), sam, lora)
        )

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    def frames(self, name: str) -> Tensor:
        """uint8 [T, 3, H, W] of an array [T, H, W, 3]."""
        return self.tensor(name).permute(0, 3, 1, 2)

    def masks(self, name: str, shape: list[int]) -> Tensor:
        """bool `shape`: an array stored with numpy.packbits."""
        bits = np.unpackbits(self.arrays[name], count=int(np.prod(shape)))
        return torch.from_numpy(bits.reshape(shape).astype(bool))

    @property
    def video_of(self) -> Tensor:
        """int64 [E]: the video of each expression of the training batch."""
        counts = [len(video["expressions"]) for video in self.values["train"]]
        return torch.repeat_interleave(torch.tensor(counts))

    def of_all_videos(self, name: str) -> Tensor:
        """NAME_0, NAME_1, ... one after the other."""
        return torch.cat([self.tensor(f"{name}_{video}") for video in range(len(self.values["train"]))])

    def train_batch(self) -> Batch:
        """The recorded batch of videos."""
        videos = self.values["train"]
        sparse = [torch.tensor(video["sparse_index"]) for video in videos]
        dense = [index[video["dense_index"]] for index, video in zip(sparse, videos, strict=True)]
        masks = [
            self.masks(f"train_masks_{number}", self.values[f"train_masks_{number}_shape"])
            for number in range(len(videos))
        ]
        frames = [self.frames(f"train_frames_{number}") for number in range(len(videos))]
        return self._batch("train", frames, sparse, dense, masks, self.video_of)

    def image_batch(self) -> Batch:
        """The recorded batch of pictures, of which one is answered without [SEG] and has no masks."""
        numbers = range(len(self.values["image"]))
        frames = [self.frames(f"train_frames_{number}")[:1] for number in numbers]
        masks = [self._picture_masks(number, frames[number]) for number in numbers]
        shown = [torch.zeros(32, dtype=torch.int64) for _ in numbers]
        return self._batch("image", frames, shown, [each[:4] for each in shown], masks, torch.arange(len(numbers)))

    def _picture_masks(self, number: int, frame: Tensor) -> Tensor:
        """bool [1, 4, H, W]: one mask for the four dense frames; empty where none is recorded."""
        if f"image_masks_{number}" not in self.arrays:
            return torch.zeros(1, 4, *frame.shape[-2:], dtype=torch.bool)
        recorded = self.masks(f"image_masks_{number}", self.values[f"image_masks_{number}_shape"])
        return recorded[:, None].expand(-1, 4, -1, -1)

    def _batch(
        self,
        kind: str,
        frames: list[Tensor],
        sparse: list[Tensor],
        dense: list[Tensor],
        masks: list[Tensor],
        video_of: Tensor,
    ) -> Batch:
        # Each distinct frame once, as the loader gives them.
        distinct = [torch.unique(index) for index in sparse]
        expressions = len(video_of)
        return Batch(
            frames=[each[kept] for each, kept in zip(frames, distinct, strict=True)],
            context=torch.stack([torch.searchsorted(kept, i) for kept, i in zip(distinct, sparse, strict=True)]),
            query=torch.stack([torch.searchsorted(kept, i) for kept, i in zip(distinct, dense, strict=True)]),
            query_numbers=torch.stack(dense),
            video_of=video_of,
            ids=self.tensor(f"{kind}_input_ids").long(),
            attention=self.tensor(f"{kind}_attention_mask").bool(),
            answer=self.tensor(f"{kind}_labels") != -100,
            masks=[MaskRuns.of(each) for each in masks],
            split=torch.zeros_like(video_of),
            video_key=video_of,
            expression=torch.arange(expressions),
            objects=torch.eye(expressions, dtype=torch.bool),
            names=[f"recorded/{number}" for number in range(expressions)],
        )

    def model(self, merged: bool = False, **language: Any) -> VideoLisa:
        """The recorded model with every parameter by the rule, trained parts set; `language` changes sizes.

        `merged`: LoRA added to the weights (W + alpha / rank B A), as for inference.
        """
        config = replace(self.config, language=replace(self.config.language, **language))
        seg_id = self.values["seg_token_id"]
        if merged:
            config = replace(config, lora=replace(config.lora, rank=0))
        model = VideoLisa(config, self.values["vocab"], seg_id)
        add_lora(model, config.lora)
        weights = {name: torch.from_numpy(videolisa_rule(name, shape)) for name, shape in self.shapes.items()}
        if merged:
            weights = _merged(weights, self.config.lora)
        own = {self.our_name(name, merged): tensor for name, tensor in weights.items()}
        model.load_state_dict({name: tensor for name, tensor in own.items() if name is not None})
        if not merged:
            set_trainable(model, TRAINED)
        return model

    def our_name(self, reference_name: str, merged: bool = False) -> str | None:
        """The name in `VideoLisa` of a parameter of the reference; None for layers of the tower that are not run."""
        if reference_name.startswith(TOWER):
            own = reference_name.removeprefix(TOWER)
            run = self.config.vision.layers_run
            beyond = own.startswith("encoder.layers.") and int(own.split(".")[2]) >= run
            return None if beyond else f"language.vision_tower.{own}"
        name = videolisa_names(self.config).ours(reference_name)
        assert name is not None, reference_name
        adapted = not merged and f"{reference_name.removesuffix('.weight')}.lora_A.default.weight" in self.shapes
        return name.replace("proj.weight", "proj.base_layer.weight") if adapted else name


def videolisa_rule(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32 values of a parameter of the recorded model: the rule of GLUS, without its change for [SEG]."""
    return rule_weight(name, shape, seg_id=None)


def recorded_sam1(sam: dict[str, Any], **decoder: int) -> Sam1Config:
    """Sizes of a recorded SAM 1, by the names of the reference; those of its decoder are the released ones or given."""
    return Sam1Config(
        image_size=sam["image_size"],
        patch_size=sam["patch_size"],
        width=sam["encoder_embed_dim"],
        depth=sam["encoder_depth"],
        heads=sam["encoder_num_heads"],
        window=sam["window_size"],
        global_attention_blocks=tuple(sam["encoder_global_attn_indexes"]),
        **decoder,
    )


def _merged(weights: dict[str, Tensor], lora: LoraConfig) -> dict[str, Tensor]:
    merged = {name: tensor for name, tensor in weights.items() if ".lora_" not in name}
    for name in weights:
        if ".lora_A." in name:
            base = name.replace(".lora_A.default", "")
            up = weights[name.replace(".lora_A.", ".lora_B.")]
            merged[base] = merged[base] + lora.alpha / lora.rank * (up @ weights[name])
    return merged


def _config(sizes: dict[str, Any], vision: dict[str, Any], sam: dict[str, Any], lora: dict[str, Any]) -> ModelConfig:
    return ModelConfig(
        method="videolisa",
        language=LanguageConfig(
            family="phi3",
            hidden_size=sizes["hidden_size"],
            intermediate_size=sizes["intermediate_size"],
            layers=sizes["num_hidden_layers"],
            heads=sizes["num_attention_heads"],
            key_value_heads=sizes["num_key_value_heads"],
            max_positions=sizes["max_position_embeddings"],
            rms_norm_eps=sizes["rms_norm_eps"],
            rope_theta=sizes["rope_theta"],
            sliding_window=sizes["sliding_window"] or 0,
        ),
        vision=VisionConfig(
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            hidden_size=vision["hidden_size"],
            intermediate_size=vision["intermediate_size"],
            layers=vision["num_hidden_layers"],
            heads=vision["num_attention_heads"],
            select_layer=sizes["mm_vision_select_layer"],
            pool=1,
            projector=sizes["mm_projector_type"],
        ),
        segmenter=SegmenterConfig(kind="sam1"),
        sam1=recorded_sam1(sam, hidden_dim=sizes["out_dim"], decoder_feedforward=sam["decoder_mlp_dim"]),
        lora=LoraConfig(rank=lora["r"], alpha=lora["lora_alpha"], dropout=lora["lora_dropout"]),
        loss=LossConfig(contrastive=0.0),
    )
