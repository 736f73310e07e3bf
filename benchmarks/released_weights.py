"""How much memory loading a release takes in addition to the model: `python benchmarks/released_weights.py`.

Writes a Llama of 0.2 billion parameters as float16 shards, loads it into our model (float32) and prints the largest
private memory on the way against the size of the model. Mapped files are not private: the kernel drops their pages.
"""

import dataclasses
import tempfile
import threading
import time
from pathlib import Path

import torch
from small_segmenter import SMALL_SEGMENTER

from glus.model.glus import Glus
from glus.model.model_config import LanguageConfig, ModelConfig, VisionConfig
from glus.model.released.load_release import load_complete
from glus.model.released.write_release import released_tensors, write_shards

LANGUAGE = LanguageConfig(hidden_size=1024, intermediate_size=2816, layers=12, heads=16, key_value_heads=16)
VISION = VisionConfig(image_size=32, patch_size=8, hidden_size=16, intermediate_size=32, layers=2, heads=2)


def private_bytes() -> int:
    """Anonymous resident memory of this process."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


class Peak:
    """Largest private memory while the block runs, seen every 2 ms."""

    def __enter__(self) -> "Peak":
        self.bytes, self._on = private_bytes(), True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while self._on:
            self.bytes = max(self.bytes, private_bytes())
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self._on = False
        self._thread.join()


def main() -> None:
    """Write, load, print."""
    config = dataclasses.replace(ModelConfig(), language=LANGUAGE, vision=VISION, segmenter=SMALL_SEGMENTER)
    model = Glus(config, 32003, 32000)
    size = sum(each.numel() * each.itemsize for each in model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        for form in ("bin", "safetensors"):
            place = Path(folder) / form
            place.mkdir()
            write_shards(released_tensors(model), place, torch.float16, form, 150_000_000)  # type: ignore[arg-type]
            before, begun = private_bytes(), time.perf_counter()
            with Peak() as peak:
                load_complete(model, place)
            more, seconds = peak.bytes - before, time.perf_counter() - begun
            print(
                f"{form}: model {size / 1e6:.0f} MB in float32; loading {size / 2e6:.0f} MB of float16 took "
                f"{more / 1e6:.0f} MB in addition ({more / size:.1%} of the model) and {seconds:.1f} s"
            )
        before = private_bytes()
        with Peak() as peak:
            held = [torch.load(file, weights_only=True) for file in sorted(Path(folder).glob("bin/*.bin"))]
        print(f"for comparison, {len(held)} shards read at once take {(peak.bytes - before) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
