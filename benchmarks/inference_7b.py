"""Inference at the sizes of GLUS-7B with random weights on a video of noise: seconds and memory, by precision.

    python benchmarks/inference_7b.py                  7B, 1024 px on a GPU; very small sizes on a CPU
    python benchmarks/inference_7b.py --precisions bf16 fp32 --expressions 1 4

Prints one JSON object. No data, no tokenizer and no released weights are needed.
"""

import argparse
import json
import statistics
import time
from typing import Any

import torch
from torch import Tensor
from training_step import IMAGE, SEG, SMALL, drawn

from glus.data_pipeline.sampling.sample_plan import middle_context
from glus.launch.config.configuration import load_config
from glus.launch.quiet import quiet_libraries
from glus.model.compiling import compile_parts
from glus.model.glus import Glus
from glus.training.run_config import RunConfig

CONTEXT, WINDOW = 4, 4


def config_of(small: bool, precision: str) -> RunConfig:
    """The reference's sizes, or the tests' smallest model."""
    changes = [f"engine.precision={precision}", "engine.gradient_checkpointing=false"]
    return load_config(RunConfig, SMALL if small else None, changes)


def prompts(expressions: int, words: int, device: torch.device) -> Any:
    """The prompts of `expressions` random texts of `words` tokens: query frames -> ids and attention."""
    random = torch.Generator().manual_seed(3)
    texts = torch.randint(3, 300, (expressions, words), generator=random)

    def asked(queries: int) -> tuple[Tensor, Tensor]:
        parts = [torch.full((expressions, CONTEXT), IMAGE)]
        for number in range(queries):
            parts += [torch.full((expressions, 1), IMAGE), texts]
            if number + 1 < queries:
                parts.append(torch.full((expressions, 1), SEG))
        ids = torch.cat(parts, 1).to(device)
        return ids, torch.ones_like(ids, dtype=torch.bool)

    return asked


def frame_seconds(model: Glus, arguments: argparse.Namespace, expressions: int, device: torch.device) -> list[float]:
    """Seconds that each frame took, the masks at the frame's own size."""
    size, random = (3, arguments.height, arguments.width), torch.Generator().manual_seed(1)
    shown = [torch.randint(0, 256, size, dtype=torch.uint8, generator=random).to(device) for _ in range(8)]
    found, began = [], time.perf_counter()
    for seen in model.segment_video(
        lambda index: shown[index % len(shown)],
        arguments.frames,
        middle_context(arguments.frames, CONTEXT),
        prompts(expressions, arguments.text_tokens, device),
        window=WINDOW,
    ):
        (seen.logits > 0).sum().item()  # waits for the device
        found.append(time.perf_counter() - began)
        began = time.perf_counter()
    return found


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    device = torch.device("cuda" if torch.cuda.is_available() and not arguments.small else "cpu")
    rows = []
    for precision in arguments.precisions:
        model = drawn(config_of(arguments.small, precision), device).to(device).eval()
        compile_parts(model, arguments.compile, "--compile")
        for expressions in arguments.expressions:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            first, *others = frame_seconds(model, arguments, expressions, device)
            peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
            taken = statistics.median(others[WINDOW:])
            rows.append(
                {
                    "precision": precision,
                    "expressions": expressions,
                    "first_frame_seconds": first,
                    "frame_seconds": taken,
                    "frames_and_expressions_per_second": expressions / taken,
                    "peak_memory_gib": peak / 2**30,
                }
            )
        del model
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": name, "frames": arguments.frames, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument("--small", action="store_true", default=not gpu, help="the tests' model; the default on a CPU")
    parser.add_argument("--precisions", nargs="+", default=["bf16"] if gpu else ["fp32"], choices=["bf16", "fp32"])
    parser.add_argument("--expressions", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--compile", default="none", choices=["none", "llama", "segmenter", "all"])
    parser.add_argument("--text-tokens", type=int, default=40)
    parser.add_argument("--height", type=int, default=720 if gpu else 48)
    parser.add_argument("--width", type=int, default=1280 if gpu else 64)
    quiet_libraries()
    print(json.dumps(measure(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
