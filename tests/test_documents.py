"""The documents name what is there: files, commands, settings; the commands that they show parse."""

import dataclasses
import re
import shlex
import subprocess
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from glus.launch.cli import COMMANDS, main
from glus.launch.commands.evaluate import EvaluateConfig
from glus.training.run_config import RunConfig

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS += [ROOT / "slurm/README.md", ROOT / "tests/README.md"]
FOLDERS = ("common", "data_pipeline", "model", "training", "evaluation", "launch", "demo")
README_LINES = 150
#: Files that a reader is to make.
EXAMPLES = {"configs/my_run.yaml", "configs/run.yaml", "configs/prepare.yaml", "configs/cluster/mine.yaml"}
#: Files of other repositories that lie in a folder of our names.
ELSEWHERE = {"evaluation/reason_vos/eval_reason_vos.py"}


@pytest.fixture(params=DOCUMENTS, ids=[place.relative_to(ROOT).as_posix() for place in DOCUMENTS])
def place(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture
def text(place: Path) -> str:
    return place.read_text(encoding="utf-8")


def test_every_link_leads_somewhere(place, text):
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    local = [each for each in targets if "://" not in each]
    assert [each for each in local if not (place.parent / each).exists()] == []


def test_every_file_that_is_named_is_there(text):
    named = set(re.findall(r"[\w./-]*\w/[\w-]+\.(?:py|yaml|md|json|sbatch|jinja|txt|in)\b", text))
    own = {
        each
        for each in named
        if re.match(rf"({'|'.join(FOLDERS)}|tests|configs|benchmarks|docs|slurm|examples|containers)/", each)
    }
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


def blocks_of(text: str, *languages: str) -> list[str]:
    """The contents of a document's fenced blocks of these languages ("" for none named)."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [content for language, content in found if language in languages]


def shell_lines(text: str) -> list[str]:
    lines = [line for block in blocks_of(text, "", "sh") for line in block.splitlines()]
    return [re.split(r"\s{2,}#|\s{4,}", line.strip().removeprefix(".venv/bin/"))[0] for line in lines]


def test_every_command_line_parses(text, monkeypatch, capsys):
    """Each `glus COMMAND ...` line of a block gives a config of that command's class."""
    monkeypatch.chdir(ROOT)
    wrong = {}
    for line in shell_lines(text):
        words = shlex.split(line) if line.startswith("glus ") else []
        if not words or "..." in words or "|" in line:
            continue
        words = [str(ROOT / "tests/tiny_run.yaml") if word in EXAMPLES else word for word in words[1:]]
        if main([*words, "--print-config"]):
            wrong[line] = capsys.readouterr().err
    assert wrong == {}


def test_every_make_target_exists(text):
    targets = {target for line in shell_lines(text) for target in re.findall(r"^make ([a-z-]+)", line)}
    targets |= set(re.findall(r"`make ([a-z-]+)[ `]", text))
    known = set(re.findall(r"^([a-z-]+(?: [a-z-]+)*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert sorted(targets - {name for line in known for name in line.split()}) == []


def test_a_paragraph_is_one_line(text):
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    plain = [bool(re.match(r"[^\s|#>!-]", line)) and not re.match(r"\d+\. ", line) for line in prose.splitlines()]
    wrapped = [
        line for line, this, before in zip(prose.splitlines()[1:], plain[1:], plain, strict=False) if this and before
    ]
    indented = [line for line in prose.splitlines() if re.match(r" +[^\s-]", line)]
    assert wrapped + indented == []


def test_the_readme_is_short_and_shows_the_example():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= README_LINES
    example = (ROOT / "examples/segment_video.py").read_text(encoding="utf-8")
    [shown] = blocks_of(text, "python")
    absent = [line for line in shown.splitlines() if line.strip() not in example]
    assert absent == []


def test_containers_copy_what_is_there():
    recipes = [ROOT / "containers/Dockerfile", ROOT / "containers/glus.def"]
    docker, apptainer = (recipe.read_text(encoding="utf-8") for recipe in recipes)
    copied = [word for line in re.findall(r"^COPY (.+)$", docker, re.MULTILINE) for word in line.split()[:-1]]
    files = apptainer.partition("%files")[2].partition("%post")[0]
    copied += [line.split()[0] for line in files.splitlines() if line.strip()]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    first = {name.partition("/")[0] for name in tracked.splitlines()} | {"containers"}
    assert copied and sorted({word.rstrip("/") for word in copied} - first) == []
    bases = re.findall(r"^(?:FROM|From:) (\S+)", docker + apptainer, re.MULTILINE)
    assert len(bases) == 2 and len(set(bases)) == 1 and ":" in bases[0] and not bases[0].endswith(":latest")


def test_the_workflow_calls_what_ci_runs_with_pinned_actions():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["ci"]["steps"]
    assert steps[-1] == {"run": ".ci/run"}
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", step["uses"]) for step in steps[:-1])


def test_the_citation_names_the_software_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["type"] == "software" and citation["license"] == "Apache-2.0"
    [paper] = citation["references"]
    assert paper["title"] in (ROOT / "README.md").read_text(encoding="utf-8")
