"""What a way through a video costs: tokens and time with and without a reused prefix, and memory over its length.

    python benchmarks/inference.py            both, under a minute on a free core
    python benchmarks/inference.py tokens     tokens read by the language model, and the time of each way
    python benchmarks/inference.py memory     peak memory of a process that goes through 200 and 2,000 frames

The model is small, but its prompts have the release's form: 4 context frames, a window of 4, 64 tokens a frame.
Times are of the processor, on one thread, so that other work on the machine does not count; they mean something as a
ratio within one run alone.
"""

import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from small_segmenter import SMALL_SEGMENTER
from torch import Tensor

from glus.data_pipeline.batches.batch import padded_ids
from glus.data_pipeline.batches.conversations import inference_prompt
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.data_pipeline.sampling.sample_plan import middle_context
from glus.model.glus import Glus
from glus.model.model_config import LanguageConfig, ModelConfig, VisionConfig

TOKENIZER = Path(__file__).parents[1] / "tests" / "data" / "parity"
TEXTS = tuple(
    f"the {what} moving {way}"
    for what in ("bird", "second dog", "little red car", "elephant")
    for way in ("left", "away from the others")
)


@dataclass(frozen=True)
class Pass:
    """One way through a video. tokens: rows x positions that the language model read; masks: bool [T, E, H, W]."""

    seconds: float
    language_seconds: float
    tokens: int
    masks: Tensor


def small_model(tokenizer: Tokenizer, language: LanguageConfig, frame_tokens: int) -> Glus:
    """Freshly drawn; a frame takes `frame_tokens` tokens."""
    patches = {64: (224, 14), 4: (56, 14)}[frame_tokens]
    vision = VisionConfig(*patches, hidden_size=16, intermediate_size=32, layers=2, heads=2)
    torch.manual_seed(0)
    config = ModelConfig(language=language, vision=vision, segmenter=SMALL_SEGMENTER)
    return Glus(config, tokenizer.vocab_size, tokenizer.seg_id).eval()


def go_through(
    model: Glus,
    tokenizer: Tokenizer,
    frames: int,
    texts: tuple[str, ...],
    reuse: bool,
    height: int = 48,
    keep: bool = True,
) -> Pass:
    """Segment `frames` frames of noise, `height` high; `keep` False drops the masks, as a writer to disk would."""
    tokens, spent, started, masks = 0, 0.0, 0.0, []

    def before(_: object, args: object, keys: dict[str, Tensor]) -> None:
        nonlocal tokens, started
        rows, positions = keys["inputs_embeds"].shape[:2]
        tokens += rows * positions
        started = time.process_time()

    def after(*_: object) -> None:
        nonlocal spent
        spent += time.process_time() - started

    def frame(index: int) -> Tensor:
        random = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, height, height * 4 // 3), dtype=torch.uint8, generator=random)

    def prompts(queries: int) -> tuple[Tensor, Tensor]:
        return padded_ids([tokenizer.encode(inference_prompt(text, 4, queries)) for text in texts], tokenizer.pad_id)

    llama = model.language.llama.model
    hooks = [llama.register_forward_pre_hook(before, with_kwargs=True), llama.register_forward_hook(after)]
    begun = time.process_time()
    for seen in model.segment_video(frame, frames, middle_context(frames, 4), prompts, reuse_prefix=reuse):
        if keep:
            masks.append(seen.logits > 0)
    seconds = time.process_time() - begun
    for hook in hooks:
        hook.remove()
    return Pass(seconds, spent, tokens, torch.stack(masks) if keep else torch.zeros(0))


def compare_tokens() -> None:
    """Print both ways for 60 frames and 8 expressions."""
    tokenizer = Tokenizer(TOKENIZER)
    sizes = LanguageConfig(hidden_size=128, intermediate_size=256, layers=4, heads=4, key_value_heads=4)
    model = small_model(tokenizer, sizes, 64)
    go_through(model, tokenizer, 4, TEXTS, True)  # the first calls are slow
    reused, again = (go_through(model, tokenizer, 60, TEXTS, reuse) for reuse in (True, False))
    print("60 frames, 8 expressions          prefix reused    read again    ratio")
    print(
        f"tokens of the language model      {reused.tokens:13,} {again.tokens:12,}"
        f"    {reused.tokens / again.tokens:.3f}"
    )
    for name, ours, theirs in (
        ("seconds of the language model", reused.language_seconds, again.language_seconds),
        ("seconds in all", reused.seconds, again.seconds),
    ):
        digits = 0 if isinstance(ours, int) else 2
        print(f"{name:33s} {ours:13,.{digits}f} {theirs:12,.{digits}f}    {ours / theirs:.3f}")
    differ = int((reused.masks != again.masks).sum())
    print(f"pixels that differ                {differ} of {reused.masks.numel():,}")


def peak_memory(frames: int) -> None:
    """Print the peak memory of this process, in MiB, after `frames` frames and two expressions."""
    tokenizer = Tokenizer(TOKENIZER)
    sizes = LanguageConfig(hidden_size=32, intermediate_size=64, layers=2, heads=2, key_value_heads=2)
    # Frames so large that 2,000 of them, or their masks, would be seen.
    go_through(small_model(tokenizer, sizes, 4), tokenizer, frames, TEXTS[:2], True, height=240, keep=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def compare_memory() -> None:
    """Print the peak memory of two processes, one for a video of 200 frames and one for 2,000."""
    peaks = {}
    for frames in (200, 2000):
        command = [sys.executable, __file__, "peak", str(frames)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks[frames] = float(done.stdout)
    print("peak memory of the process, MiB   200 frames   2,000 frames    ratio")
    print(f"                                  {peaks[200]:10.1f} {peaks[2000]:14.1f}    {peaks[2000] / peaks[200]:.3f}")


def main() -> None:
    """See the module's first lines."""
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case ["peak", frames]:
            peak_memory(int(frames))
        case ["tokens"]:
            compare_tokens()
        case ["memory"]:
            compare_memory()
        case []:
            compare_tokens()
            compare_memory()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
