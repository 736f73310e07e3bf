"""Seconds of a way through the recorded video with the recorded weights, and which part of the model takes them.

    python benchmarks/inference_nano.py                    1 and 4 expressions, 9 frames, 3 passes of each
    python benchmarks/inference_nano.py --expressions 4 --passes 5
    python benchmarks/inference_nano.py --alone            and each of the 4 expressions by itself, by turns
    python benchmarks/inference_nano.py --write FOLDER     weights, frames, expressions and masks, for the reference
    PYTHONPATH=OTHER/src python benchmarks/inference_nano.py     the same of another checkout

Sizes and weights are those of tests/data/parity (SAM 2 of 1024 pixels), so that the reference can be run next to it:
docs/speed.md has the protocol. Times are of the processor, on one thread: medians of passes. Two ways are compared by
turns on one machine. Prints one JSON object, with a digest of the masks.
"""

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from glus.data_pipeline.batches.batch import padded_ids
from glus.data_pipeline.batches.conversations import inference_prompt
from glus.data_pipeline.sampling.sample_plan import middle_context
from glus.model.glus import Glus

sys.path.append(str(Path(__file__).parents[1]))

from tests.model.reference import CARRIED, CONTEXT, Recording
from tests.model.releases import write_clip, write_glus, write_sam2

#: Method -> the part that its time is counted for.
_PARTS = {
    "language.frame_tokens": "CLIP and projector",
    "language.read": "language model",
    "language.prefix": "language model",
    "segmenter.pixels": "pixels for SAM 2",
    "segmenter.encode": "SAM 2 image encoder",
    "segmenter.begin": "SAM 2 memory attention",
    "segmenter._look_back": "SAM 2 memory attention",
    "segmenter._decode": "SAM 2 mask decoder",
    "segmenter._remember": "SAM 2 memory encoder",
    "segmenter.full_size": "masks at full size",
}


@contextmanager
def timed_parts(model: Glus) -> Iterator[dict[str, float]]:
    """Yield the processor seconds of each part, which grow while the model runs in the block."""
    seconds: dict[str, float] = defaultdict(float)
    running: list[str] = []

    def timed(part: str, run: Callable[..., Any], *args: Any, **keys: Any) -> Any:
        if running:  # counted by the part that calls it
            return run(*args, **keys)
        running.append(part)
        began = time.process_time()
        try:
            return run(*args, **keys)
        finally:
            seconds[running.pop()] += time.process_time() - began

    owners: list[tuple[Any, str]] = []
    for name, part in _PARTS.items():
        owner, method = getattr(model, name.split(".")[0]), name.split(".")[1]
        if hasattr(owner, method):  # another checkout may be without
            setattr(owner, method, partial(timed, part, getattr(owner, method)))
            owners.append((owner, method))
    try:
        yield seconds
    finally:
        for owner, method in owners:
            delattr(owner, method)


def go_through(recording: Recording, model: Glus, texts: list[str]) -> tuple[dict[str, float], bytes]:
    """Processor seconds of one pass, in all and by part, and the masks of all frames as bytes."""
    frames = torch.from_numpy(recording.arrays["infer_frames"]).permute(0, 3, 1, 2)

    def prompts(queries: int) -> tuple[Tensor, Tensor]:
        rows = [recording.tokenizer.encode(inference_prompt(text, CONTEXT, queries)) for text in texts]
        return padded_ids(rows, recording.tokenizer.pad_id)

    context = middle_context(len(frames), CONTEXT)
    with timed_parts(model) as parts:
        began = time.process_time()
        seen = list(model.segment_video(lambda index: frames[index], len(frames), context, prompts))
        seconds = time.process_time() - began
    masks = np.packbits(torch.cat([each.logits > 0 for each in seen]).numpy())
    return {"all": seconds, **parts, "the rest": seconds - sum(parts.values())}, masks.tobytes()


def write_inputs(folder: Path, recording: Recording, texts: list[str], masks: bytes) -> None:
    """Write what the reference is run on, each file in the layout that it reads, and our masks of all `texts`.

    masks: bool [T, E, H, W], packed by numpy.packbits.
    """
    frames = recording.arrays["infer_frames"]
    (folder / "frames").mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / "frames" / f"{number:05d}.png")
    write_glus(folder / "GLUS-nano")
    write_clip(folder / "clip-nano")
    write_sam2(folder / "sam2_hiera_nano.pt")
    shape = (len(frames), len(texts), *frames.shape[1:3])
    bits = np.unpackbits(np.frombuffer(masks, np.uint8), count=int(np.prod(shape)))
    np.savez_compressed(folder / "masks.npz", masks=bits.reshape(shape).astype(bool))
    (folder / "expressions.json").write_text(json.dumps(texts, indent=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expressions", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="each expression by itself too")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="what the reference is run on, and our masks")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recording = Recording.open(CARRIED)
    model = recording.model().eval()
    said = [text for video in recording.values["train"] for text in video["expressions"]]
    texts = [recording.values["infer_expression"], *said]
    if arguments.write:
        texts = texts[: max(arguments.expressions)]
        write_inputs(arguments.write, recording, texts, go_through(recording, model, texts)[1])
        return
    found = {}
    for count in arguments.expressions:
        passes, alone = [], []
        for _ in range(arguments.passes):
            passes.append(go_through(recording, model, texts[:count]))
            if arguments.alone and count > 1:
                alone.append(sum(go_through(recording, model, [text])[0]["all"] for text in texts[:count]))
        seconds = {part: statistics.median(each[part] for each, _ in passes) for part in passes[0][0]}
        found[f"{count} expressions"] = {
            "seconds": {part: round(each, 2) for part, each in seconds.items()},
            "masks": hashlib.sha256(passes[0][1]).hexdigest()[:16],
        } | ({"seconds one by one": round(statistics.median(alone), 2)} if alone else {})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
