"""A training step of GLUS with the prompts of a video in one packed row, and read one by one: seconds, and their ratio.

    python benchmarks/packed_rows.py                    the recorded nano sizes, 2 videos of 3 expressions
    python benchmarks/packed_rows.py --wide --videos 1  a language model of 16 layers of 1,024, activations recomputed

Forward and backward pass on one thread, times of the processor; the two ways take turns, so their ratio means something
on a busy machine too. Prompts are as long as GLUS's under LLaMA's tokenizer. Prints one JSON object.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from noise_batch import IMAGE, SEG, VOCABULARY, noise_batch
from torch import nn

from glus.data_pipeline.batches.batch import Batch
from glus.model.glus import Glus
from glus.model.gradient_checkpointing import recompute_activations
from glus.model.model_config import LanguageConfig, LoraConfig
from glus.model.trainable import add_lora, set_trainable
from glus.training.method_settings import TRAINABLE

sys.path.append(str(Path(__file__).parents[1]))

from tests.model.reference import NANO

CONTEXT, QUERY = 4, 4
#: Tokens of a prompt before the question, and after it.
SHARED_TEXT, OWN_TEXT = 55, 148
WIDE = LanguageConfig(hidden_size=1024, intermediate_size=2752, layers=16, heads=16, key_value_heads=16)


@dataclass(frozen=True)
class Step:
    """Processor seconds of a step, of them those of the language model's forward pass, its positions and the loss."""

    seconds: float
    reading: float
    positions: int
    loss: float


def noise(videos: int, expressions: int, side: int) -> Batch:
    """Videos of noise, all with `expressions` expressions of unlike words."""
    random = torch.Generator().manual_seed(0)
    begin = [1, *range(3, 1 + SHARED_TEXT), *[IMAGE] * (CONTEXT + 1), 2]
    words = torch.randint(100, 30_000, (videos * expressions, OWN_TEXT - QUERY), generator=random).tolist()
    asked = (OWN_TEXT - QUERY) // QUERY
    prompts = []
    for row in words:
        rounds = [row[asked * number : asked * (number + 1)] + [SEG] for number in range(QUERY)]
        prompts.append(begin + rounds[0] + [each for said in rounds[1:] for each in (IMAGE, *said)])
    return noise_batch(prompts, videos, (CONTEXT, QUERY), (side, side), random)


def take(model: Glus, batch: Batch, share: bool) -> Step:
    """One forward and backward pass."""
    model.config = replace(model.config, share_video_tokens=share)
    model.zero_grad(set_to_none=True)
    reading: list[float] = []
    positions: list[int] = []

    def begins(_: nn.Module, __: object, keys: dict[str, torch.Tensor]) -> None:
        positions.append(keys["inputs_embeds"].shape[:2].numel())
        reading.append(-time.process_time())

    def ends(*_: object) -> None:
        reading.append(time.process_time())

    llama = model.language.llama.model
    hooks = [llama.register_forward_pre_hook(begins, with_kwargs=True), llama.register_forward_hook(ends)]
    began = time.process_time()
    loss = model(batch).loss
    loss.backward()
    seconds = time.process_time() - began
    for hook in hooks:
        hook.remove()
    return Step(seconds, sum(reading), sum(positions), loss.item())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wide", action="store_true", help="16 layers of 1,024, activations recomputed")
    parser.add_argument("--videos", type=int, default=2)
    parser.add_argument("--expressions", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="of each way")
    parser.add_argument("--warmup", type=int, default=1, help="steps of each way before them")
    parser.add_argument("--side", type=int, default=240, help="of frames, in pixels")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = replace(NANO, language=WIDE) if arguments.wide else NANO
    model = Glus(sizes, VOCABULARY, SEG).train()
    add_lora(model, LoraConfig(dropout=0.0))
    set_trainable(model, TRAINABLE["glus"])
    if arguments.wide:
        recompute_activations(model)
    batch = noise(arguments.videos, arguments.expressions, arguments.side)
    taken: dict[bool, list[Step]] = {True: [], False: []}
    for number in range(arguments.warmup + arguments.steps):
        for share, steps in taken.items():
            step = take(model, batch, share)
            if number >= arguments.warmup:
                steps.append(step)
    packed, alone = (
        {name: statistics.median(getattr(step, name) for step in steps) for name in ("seconds", "reading")}
        | {"positions": steps[0].positions, "loss": steps[0].loss}
        for steps in taken.values()
    )
    ratios = {name: packed[name] / alone[name] for name in ("seconds", "reading", "positions")}
    print(json.dumps({"packed": packed, "prompt_by_prompt": alone, "ratio": ratios}, indent=1))


if __name__ == "__main__":
    main()
