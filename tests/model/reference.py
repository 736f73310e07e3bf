"""What the public GLUS code computed, its parameters' names and the rule that gave them their values."""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.mask_runs import MaskRuns
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.model.glus import Glus
from glus.model.model_config import LanguageConfig, LossConfig, ModelConfig, SegmenterConfig, VisionConfig

CARRIED = Path(__file__).parents[1] / "data" / "parity"
CONTEXT, QUERY = 4, 4

#: The sizes of the recorded model. Dropout is 0, as it was for the recording.
NANO = ModelConfig(
    language=LanguageConfig(
        hidden_size=64,
        intermediate_size=128,
        layers=2,
        heads=4,
        key_value_heads=4,
        max_positions=2048,
        rms_norm_eps=1e-6,
    ),
    vision=VisionConfig(hidden_size=32, intermediate_size=64, layers=3, heads=4),
    segmenter=SegmenterConfig(
        embed_dim=16,
        heads=1,
        stages=(1, 1, 2, 1),
        global_attention_blocks=(3,),
        window_spec=(8, 4, 14, 7),
        memory_layers=1,
        memory_feedforward=256,
        memory_fuser_layers=1,
        dropout=0.0,
    ),
    loss=LossConfig(contrastive=0.0),
)

#: Beginning of a reference name -> beginning of ours; the first that fits.
_NAMES = (
    ("model.vision_tower.vision_tower.vision_model.", "language.vision_tower."),
    ("model.visual_model.", "segmenter.sam2."),
    ("model.mm_projector.", "language.mm_projector."),
    ("model.text_hidden_fcs.", "language.text_hidden_fcs."),
    ("model.", "language.llama.model."),
    ("lm_head.", "language.llama.lm_head."),
)
#: Layers of the vision tower above the hidden state that is taken; we leave them out.
_NOT_RUN = tuple(
    f"model.vision_tower.vision_tower.vision_model.encoder.layers.{layer}."
    for layer in range(NANO.vision.layers_run, NANO.vision.layers)
)


def our_name(reference_name: str) -> str:
    """The name in `Glus` of a parameter of the reference."""
    for theirs, ours in _NAMES:
        if reference_name.startswith(theirs):
            return ours + reference_name.removeprefix(theirs)
    raise KeyError(reference_name)


def rule_weight(reference_name: str, shape: tuple[int, ...], seg_id: int | None) -> np.ndarray:
    """float32 values of a parameter of the recorded model, as drawn by its name. They are exact in float16.

    Without `seg_id` nothing makes the model answer with [SEG].
    """
    key = reference_name.removeprefix("model.vision_tower.vision_tower.")
    draw = np.random.Generator(np.random.Philox(key=zlib.crc32(key.encode())))
    value = draw.standard_normal(shape, dtype=np.float32)
    if key.endswith("positional_encoding_gaussian_matrix"):
        pass
    elif len(shape) <= 1:
        value = 0.1 * value + (1 if key.endswith("weight") else 0)
    else:
        value = value * np.float32(1 / np.sqrt(np.prod(shape[1:])))
    if seg_id is not None:
        _always_answer_seg(reference_name, value, seg_id)
    return value.astype(np.float16).astype(np.float32)


def _always_answer_seg(reference_name: str, value: np.ndarray, seg_id: int) -> None:
    """Hidden unit 0 is kept at a positive value throughout and read by the row of [SEG] alone."""
    if reference_name == "model.embed_tokens.weight":
        value[:, 0] = 4
    elif reference_name == "model.mm_projector.bias":
        value[0] = 4
    elif reference_name == "model.norm.weight":
        value[0] = abs(value[0]) + 0.5
    elif reference_name == "lm_head.weight":
        value[:, 0] = 0
        value[seg_id, 0] = 1.5
    elif (
        reference_name.endswith(("o_proj.weight", "down_proj.weight")) or reference_name == "model.mm_projector.weight"
    ):
        value[0] = 0


@dataclass(frozen=True)
class Recording:
    """`values` of expected.json, `arrays` of expected.npz, and the recorded model's tokenizer and shapes."""

    values: dict[str, Any]
    arrays: dict[str, np.ndarray]
    tokenizer: Tokenizer
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def open(cls, folder: Path) -> "Recording":
        """Read expected.json and expected.npz of `folder`; what it lacks beside these is that of tests/data/parity."""
        shapes = json.loads(_nearest(folder, "parameters.json").read_text("utf-8"))
        with np.load(folder / "expected.npz", allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored}
        return cls(
            values=json.loads((folder / "expected.json").read_text("utf-8")),
            arrays=arrays,
            tokenizer=Tokenizer(_nearest(folder, "tokenizer.model").parent),
            # transform.* are the mean and deviation of its pixels, in our config.
            shapes={name: tuple(shape) for name, shape in shapes.items() if not name.startswith("transform.")},
        )

    @property
    def videos(self) -> int:
        """Videos of the recorded training batch."""
        return len(self.values["train"])

    @property
    def video_of(self) -> Tensor:
        """int64 [E]: the video of each expression of the training batch."""
        counts = [len(video["expressions"]) for video in self.values["train"]]
        return torch.repeat_interleave(torch.tensor(counts))

    def masks(self, name: str, shape: list[int]) -> np.ndarray:
        """bool `shape`: an array stored with numpy.packbits."""
        return np.unpackbits(self.arrays[name], count=int(np.prod(shape))).reshape(shape).astype(bool)

    def of_all_videos(self, name: str) -> Tensor:
        """NAME_0, NAME_1, ... one after the other along the expressions."""
        return torch.from_numpy(np.concatenate([self.arrays[f"{name}_{video}"] for video in range(self.videos)]))

    def batch(self) -> Batch:
        """The recorded training batch in our form."""
        numbers = range(self.videos)
        frames = [torch.from_numpy(self.arrays[f"train_frames_{i}"]).permute(0, 3, 1, 2) for i in numbers]
        shapes = [self.values[f"train_masks_{i}_shape"] for i in numbers]
        expressions = len(self.video_of)
        ids = torch.from_numpy(self.arrays["train_input_ids"]).long()
        return Batch(
            frames=frames,
            context=torch.arange(CONTEXT).repeat(self.videos, 1),
            query=torch.arange(CONTEXT, CONTEXT + QUERY).repeat(self.videos, 1),
            query_numbers=torch.arange(QUERY).repeat(self.videos, 1),
            video_of=self.video_of,
            ids=ids,
            answer=ids == self.values["seg_token_id"],
            attention=torch.from_numpy(self.arrays["train_attention_mask"]).bool(),
            masks=[MaskRuns.of(torch.from_numpy(self.masks(f"train_masks_{i}", shapes[i]))) for i in numbers],
            split=torch.zeros_like(self.video_of),
            video_key=self.video_of,
            expression=torch.arange(expressions),
            objects=torch.eye(expressions, dtype=torch.bool),
            names=[f"recorded/{i}" for i in range(expressions)],
        )

    def model(self) -> Glus:
        """The recorded model: our Glus with every parameter by the rule."""
        seg_id = self.values["seg_token_id"]
        model = Glus(NANO, self.values["vocab"], seg_id)
        weights = {
            our_name(name): torch.from_numpy(rule_weight(name, shape, seg_id))
            for name, shape in self.shapes.items()
            if not name.startswith(_NOT_RUN)
        }
        model.load_state_dict(weights)
        return model


def _nearest(folder: Path, name: str) -> Path:
    places = [folder, folder / "GLUS-nano", CARRIED]
    return next(place / name for place in places if (place / name).is_file())
