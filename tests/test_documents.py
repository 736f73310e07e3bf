"""What the documents name is there: files, commands, settings."""

import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from glus.launch.cli import COMMANDS
from glus.launch.commands.evaluate import EvaluateConfig
from glus.training.run_config import RunConfig

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("common", "data_pipeline", "model", "training", "evaluation", "launch", "demo")
#: Files that a reader is to make.
EXAMPLES = {"configs/my_run.yaml", "configs/run.yaml", "configs/prepare.yaml", "configs/cluster/mine.yaml"}
#: Files of other repositories that lie in a folder of our names.
ELSEWHERE = {"evaluation/reason_vos/eval_reason_vos.py"}


@pytest.fixture(params=DOCUMENTS, ids=[place.name for place in DOCUMENTS])
def text(request: pytest.FixtureRequest) -> str:
    return str(request.param.read_text(encoding="utf-8"))


def test_every_link_leads_somewhere(text):
    place = next(each for each in DOCUMENTS if each.read_text(encoding="utf-8") == text)
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    local = [each for each in targets if "://" not in each]
    assert [each for each in local if not (place.parent / each).exists()] == []


def test_every_file_that_is_named_is_there(text):
    named = set(re.findall(r"[\w./-]*\w/[\w-]+\.(?:py|yaml|md|json|sbatch|jinja|txt|in)\b", text))
    own = {each for each in named if re.match(rf"({'|'.join(FOLDERS)}|tests|configs|benchmarks|docs|slurm)/", each)}
    known = EXAMPLES | ELSEWHERE | {"data_pipeline/datasets/NAME.py"}
    absent = {each for each in own - known if not (ROOT / each).exists()}
    assert sorted(absent) == []


def test_every_command_exists(text):
    named = set(re.findall(r"(?:^|[`/ ])glus ([a-z][a-z-]+)\b", text, flags=re.MULTILINE))
    assert sorted(named - COMMANDS.keys()) == []


def settings_of(text: str) -> Iterator[str]:
    for inline in re.findall(r"`([^`\n]+)`", text):
        for word in re.split(r"[\s,|]+", inline):
            yield re.split(r"[:=]", word)[0]


def has(config: type, path: list[str]) -> bool:
    """Whether a config has a setting of that dotted name."""
    if not path:
        return True
    kinds = typing.get_type_hints(config)
    if path[0] not in kinds:
        return False
    kind = kinds[path[0]]
    inner = [each for each in (kind, *typing.get_args(kind)) if dataclasses.is_dataclass(each)]
    return len(path) == 1 or (bool(inner) and has(inner[0], path[1:]))


def test_every_setting_that_is_named_is_one(text):
    first = {"model", "sampling", "engine", "inference", "optimizer", "tracking", "weights"}
    named = {
        word for word in settings_of(text) if re.fullmatch(r"\w+(\.\w+)+", word) and word.partition(".")[0] in first
    }
    files = {word for word in named if word.endswith((".py", ".safetensors"))}
    unknown = [
        word for word in named - files if not any(has(each, word.split(".")) for each in (RunConfig, EvaluateConfig))
    ]
    assert sorted(unknown) == []


def test_a_setting_that_does_not_exist_would_be_found():
    assert has(RunConfig, ["model", "language", "attention"]) and not has(RunConfig, ["model", "language", "nothing"])
    assert not has(RunConfig, ["steps", "more"]) and has(EvaluateConfig, ["inference", "memory_stride"])
