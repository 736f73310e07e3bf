"""The demo in a form that a cluster of two nodes reproduces in about a minute: raw data, three configs, and a site."""

import json
from dataclasses import dataclass
from pathlib import Path

from glus.demo.synthetic.demo_data import write_demo_data
from glus.demo.synthetic.demo_datasets import DemoDataConfig
from glus.demo.synthetic.world import DemoWorldConfig
from glus.launch.config.configuration import load_config, to_yaml
from glus.launch.config.yaml_text import format_yaml
from glus.training.run_config import RunConfig

TINY_RUN = Path(__file__).parents[1] / "tiny_run.yaml"
CONFIGS = Path(__file__).parents[2] / "configs"
#: The demo's training in seconds: its model and losses, on two of its datasets.
SHORT = (
    *("ranks=1", "global_batch_size=4", "engine.micro_batch_size=2", "log_every=1", "checkpoint_every=2"),
    *("sampling.mixture={mevis/train: 1, ref_davis17/train: 1}", "model.lora.dropout=0.1"),
)
#: As names of runs and folders: nothing of it may be run, all of it must arrive.
HOSTILE = """tiny $(touch pwned) `touch pwned` 'one' "two" & %j"""
#: As an expression: it may hold any character.
HOSTILE_EXPRESSION = f"{HOSTILE}; \\ #SBATCH --wrap=pwned\ntouch pwned\n the 犬, $HOME"
STEPS = 12


@dataclass(frozen=True)
class World:
    """Where everything lies."""

    folder: Path

    @property
    def site(self) -> Path:
        return self.folder / "site.yaml"

    @property
    def warm_site(self) -> Path:
        """The same site, whose Python is another one (tests/warm)."""
        return self.folder / "warm_site.yaml"

    @property
    def prepare(self) -> Path:
        return self.folder / "prepare.yaml"

    @property
    def selector_changes(self) -> tuple[str, ...]:
        """Overrides of configs/demo_selector.yaml: the same selector in seconds, on the shortened data."""
        return (
            "name=tiny selector",
            f"steps={STEPS}",
            f"model.tokenizer={self.folder}/raw/tokenizer.model",
            f"tracking.uri=sqlite:///{self.folder}/mlflow.db",
            "sampling.context_frames=3",
            "sampling.least_context_frames=2",
            *(change for change in SHORT if not change.startswith("model.")),
        )

    def run(self, out: str, *changes: str) -> tuple[Path, RunConfig]:
        """Config file and config of a training of the demo, shortened, into a folder `out`, which is its name too."""
        config = load_config(
            RunConfig,
            CONFIGS / "looks.yaml",
            [
                f"out={self.folder}/{out}",
                f"name={out}",
                f"shards={self.folder}/shards",
                f"model.tokenizer={self.folder}/raw/tokenizer.model",
                f"tracking.uri=sqlite:///{self.folder}/mlflow.db",
                f"steps={STEPS}",
                *SHORT,
                *changes,
            ],
        )
        file = self.folder / f"{out.split()[0]}.yaml"
        file.write_text(to_yaml(config), encoding="utf-8")
        return file, config


def make_world(folder: Path, python: Path | None = None) -> World:
    """Draw the raw data and write the configs; `python` is that of the warm site."""
    small = DemoWorldConfig(frames=4, width=64, height=48)
    write_demo_data(DemoDataConfig(folder / "raw", train_videos=2, valid_videos=1, world=small))
    for split in ("train", "valid_u"):
        file = folder / "raw" / "mevis" / split / "meta_expressions.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        for video in content["videos"].values():
            next(iter(video["expressions"].values()))["exp"] = HOSTILE_EXPRESSION
        file.write_text(json.dumps(content), encoding="utf-8")
    prepare = {"datasets": ["mevis", "ref_davis17"], "root": f"{folder}/raw", "out": "unused", "workers": 1}
    (folder / "prepare.yaml").write_text(format_yaml(prepare), encoding="utf-8")
    site = {
        "time": "2:00:00",
        "warn_seconds": 60,
        "environment": {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        "forward": ["HOME", "PATH"],
    }
    (folder / "site.yaml").write_text(format_yaml(site), encoding="utf-8")
    (folder / "warm_site.yaml").write_text(format_yaml({**site, "python": str(python or "")}), encoding="utf-8")
    return World(folder)
