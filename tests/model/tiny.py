"""A model of a few thousand parameters and batches for it. A video's content depends on its seed alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.mask_runs import MaskRuns
from glus.model.glus import Glus
from glus.model.model_config import LanguageConfig, LossConfig, ModelConfig, SegmenterConfig, VisionConfig

CONTEXT, QUERY, FRAMES = 2, 2, 5
VOCABULARY, SEG, PAD, IMAGE = 40, 37, 0, -200

#: A SAM 2 with one block a stage and no global attention.
SMALL_SAM2 = SegmenterConfig(
    image_size=64,
    embed_dim=8,
    heads=1,
    stages=(1, 1, 1, 1),
    global_attention_blocks=(),
    hidden_dim=32,
    window_spec=(8, 4, 4, 2),
    memory_dim=16,
    memory_layers=1,
    memory_fuser_layers=1,
    dropout=0.0,
)


def tiny_config(contrastive: float = 0.1, **segmenter: object) -> ModelConfig:
    return ModelConfig(
        language=LanguageConfig(
            hidden_size=32, intermediate_size=64, layers=2, heads=2, key_value_heads=2, max_positions=256
        ),
        vision=VisionConfig(image_size=32, patch_size=8, hidden_size=16, intermediate_size=32, layers=2, heads=2),
        segmenter=SegmenterConfig(
            image_size=64,
            embed_dim=8,
            heads=1,
            stages=(1, 1, 2, 1),
            global_attention_blocks=(3,),
            window_pos_embed_size=(4, 4),
            window_spec=(8, 4, 4, 2),
            hidden_dim=32,
            memory_dim=16,
            memory_layers=1,
            memory_feedforward=32,
            memory_fuser_layers=1,
            dropout=0.0,
            **segmenter,
        ),
        loss=LossConfig(contrastive=contrastive),
    )


def tiny_model(config: ModelConfig | None = None) -> Glus:
    """The same weights every time. Llama's are drawn wide, so that different prompts end in different states."""
    torch.manual_seed(0)
    model = Glus(config or tiny_config(), VOCABULARY, SEG)
    for parameter in model.language.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@dataclass(frozen=True)
class TinyClip:
    """A video of FRAMES frames, its size, and the length and target object of each of its expressions."""

    seed: int
    height: int
    width: int
    words: tuple[int, ...]
    objects: tuple[int, ...]

    def random(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def frames(self) -> Tensor:
        shape = (FRAMES, 3, self.height, self.width)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=self.random())

    def masks(self) -> Tensor:
        shape = (len(self.words), QUERY, self.height, self.width)
        return torch.rand(shape, generator=self.random()) > 0.5

    def prompts(self) -> list[list[int]]:
        random, rows = self.random(), []
        for words in self.words:
            text = torch.randint(4, SEG, (words,), generator=random).tolist()
            rows.append([1] + [IMAGE] * CONTEXT + [IMAGE, *text, SEG, 2] * QUERY)
        return rows


#: Two videos of different sizes and with different numbers of expressions.
WIDE = TinyClip(seed=1, height=24, width=40, words=(3, 5, 4), objects=(0, 0, 1))
HIGH = TinyClip(seed=2, height=36, width=20, words=(8,), objects=(0,))


def tiny_batch(*clips: TinyClip, padding: int = 0) -> Batch:
    """A batch of `clips`, its rows padded by `padding` more than the longest needs."""
    rows = [row for clip in clips for row in clip.prompts()]
    length = max(len(row) for row in rows) + padding
    video_of = torch.tensor([number for number, clip in enumerate(clips) for _ in clip.words])
    ids = torch.tensor([row + [PAD] * (length - len(row)) for row in rows])
    return Batch(
        frames=[clip.frames() for clip in clips],
        context=torch.tensor([[0, 4]]).repeat(len(clips), 1),
        query=torch.tensor([[2, 3]]).repeat(len(clips), 1),
        query_numbers=torch.tensor([[2, 3]]).repeat(len(clips), 1),
        video_of=video_of,
        ids=ids,
        answer=ids == SEG,
        attention=torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in rows]),
        masks=[MaskRuns.of(clip.masks()) for clip in clips],
        split=torch.zeros_like(video_of),
        video_key=video_of,
        expression=torch.arange(len(rows)),
        objects=torch.tensor([[target == column for column in range(2)] for clip in clips for target in clip.objects]),
        names=[f"tiny/{number}" for number in range(len(rows))],
    )
