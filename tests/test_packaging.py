"""A wheel holds everything, imports as glus.*, and does not shadow sam2's own top-level `training`."""

import importlib.util
import multiprocessing
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
FOLDERS = ("common", "data_pipeline", "model", "training", "evaluation", "launch", "demo")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
PIN = re.compile(r"([A-Za-z0-9._\-]+)==(\S+)")


def test_the_wheel_holds_every_module_and_data_file(unpacked: Path) -> None:
    wanted = {
        path.relative_to(ROOT)
        for folder in FOLDERS
        for pattern in ("*.py", "*.jinja", "py.typed")
        for path in (ROOT / folder).rglob(pattern)
    }
    wanted |= {path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml")}
    wanted |= {path.relative_to(ROOT) for path in (ROOT / "slurm").glob("*.s*")} | {Path("predictor.py")}
    missing = sorted(str(path) for path in wanted if not (unpacked / "glus" / path).is_file())
    assert missing == []
    assert {path.name for path in unpacked.iterdir()} == {"glus", f"glus-{VERSION}.dist-info"}


def test_the_wheel_names_its_command_its_extra_and_its_licence(unpacked: Path) -> None:
    info = unpacked / f"glus-{VERSION}.dist-info"
    asked = [Requirement(line) for line in metadata.PathDistribution(info).requires or []]
    extra = [each for each in asked if each.marker and each.marker.evaluate({"extra": "page"})]
    assert [each.name for each in extra] == ["gradio"]
    assert "glus = glus.launch.cli:main" in (info / "entry_points.txt").read_text(encoding="utf-8")
    assert "Apache" in (info / "METADATA").read_text(encoding="utf-8")
    assert list(info.rglob("LICENSE"))


def test_one_version_everywhere() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[([^\]]+)\]", changelog, re.MULTILINE)[:2] == ["Unreleased", VERSION]
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_an_installed_glus_is_distinct_from_the_training_of_sam2(unpacked: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        # the editable install of this repository must not answer for the wheel
        "sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in str(finder).lower()]\n"
        "import glus.training.tracking.tracking, glus.data_pipeline.raw.records, glus.launch.cli, glus.common.errors\n"
        "import training\n"
        "print(glus.training.tracking.tracking.__file__)\n"
        "print(training.__path__[0] if hasattr(training, '__path__') else training.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = done.stdout.splitlines()
    assert Path(ours) == unpacked / "glus" / "training" / "tracking" / "tracking.py"
    assert Path(theirs).is_relative_to(str(metadata.distribution("sam2").locate_file(""))) and "glus" not in theirs


@pytest.mark.slow
def test_a_spawned_worker_imports_glus_too() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        ours, theirs = pool.submit(_found_in_worker).result()
    assert Path(ours).resolve() == ROOT / "training" / "tracking" / "tracking.py"
    # The environment itself may lie in the repository (.venv).
    assert not Path(theirs).resolve().is_relative_to(ROOT / "training")


def _found_in_worker() -> tuple[str, str]:
    """The file of our training.tracking and the folder of sam2's bare `training`."""
    import glus.training.tracking.tracking

    theirs = importlib.util.find_spec("training")
    assert theirs is not None and theirs.submodule_search_locations
    return str(glus.training.tracking.tracking.__file__), next(iter(theirs.submodule_search_locations))


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    found = [PIN.fullmatch(line.strip()) for line in lines if line.strip() and not line.startswith("#")]
    assert all(found), f"requirements/{name}: every line is NAME==VERSION"
    return {canonicalize_name(pin[1]): Version(pin[2]) for pin in found if pin}


#: What the page's pins ask for in vain (requirements/lock_page.txt says why).
PAGE_ASKS = {"pillow"}


def wanted_lines(names: Sequence[str] = ("run.in", "dev.in", "no_deps.in")) -> list[str]:
    """The requirements of these files, extras and all."""
    lines = [
        line.split("#")[0].strip()
        for name in names
        for line in (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    ]
    return [line for line in lines if line]


def test_every_requirement_is_pinned_within_its_range() -> None:
    pinned = pins("lock.txt") | pins("lock_no_isolation.txt")
    for line in wanted_lines():
        requirement = Requirement(line)
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{line}, but {version} is pinned"


def test_the_pins_of_the_page_are_complete_too() -> None:
    page = pins("lock_page.txt")
    [line] = wanted_lines(["page.in"])
    assert Requirement(line).specifier.contains(page["gradio"])
    known = pins("lock.txt") | pins("lock_build.txt")
    assert not page.keys() & known.keys()
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed: make env-page (.ci/run does)")
    missing = set()
    for need in (Requirement(each) for name in page for each in metadata.requires(name) or []):
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(need.name)
        version = page.get(name) or known.get(name)
        if version is None or not need.specifier.contains(version, prereleases=True):
            missing.add(name)
    assert missing == PAGE_ASKS


def test_what_only_gpu_machines_build_is_pinned_and_needs_nothing_more() -> None:
    lines = (ROOT / "requirements" / "gpu.in").read_text(encoding="utf-8").splitlines()
    pinned = [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
    assert pinned and all(PIN.fullmatch(line) for line in pinned)
    assert not {canonicalize_name(line.split("==")[0]) for line in pinned} & pins("lock.txt").keys()
    assert {"einops", "torch"} <= pins("lock.txt").keys()  # flash-attn's own requirements


def test_wheels_for_a_gpu_machine_have_the_pinned_versions() -> None:
    pinned = pins("lock.txt") | pins("lock_no_isolation.txt")
    wheels = pins("gpu_wheels.txt")
    assert wheels == {name: pinned[name] for name in wheels}


def test_the_pins_are_complete() -> None:
    """They are installed with --no-deps: whatever a pinned package needs must be pinned as well."""
    pinned = pins("lock.txt") | pins("lock_no_isolation.txt") | pins("lock_build.txt")
    extras: dict[str, set[str]] = {}
    for requirement in map(Requirement, wanted_lines()):
        extras.setdefault(canonicalize_name(requirement.name), {""}).update(requirement.extras)
    missing = []
    for name in pinned:
        for line in metadata.requires(name) or []:
            need = Requirement(line)
            asked = extras.get(name, {""})
            wanted = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in asked)
            # torch brings CUDA's libraries itself where its build needs them; torchvision is left out on purpose.
            left_to_torch = name == "torch" and need.name.startswith(("nvidia", "cuda", "triton"))
            if wanted and not left_to_torch and need.name != "torchvision":
                version = pinned.get(canonicalize_name(need.name))
                if version is None or not need.specifier.contains(version, prereleases=True):
                    missing.append(f"{name} needs {line}; pinned: {version}")
    assert missing == []
    assert "torchvision" not in pinned


#: What deepspeed's setup.py does first, on a machine with a GPU, a torch with CUDA and no nvcc.
SETUP_OF_DEEPSPEED = """
import os, torch
torch.cuda.is_available = lambda: os.environ.get("CUDA_VISIBLE_DEVICES") != ""
torch.cuda.device_count = lambda: int(torch.cuda.is_available())
torch.cuda.get_device_capability = lambda device=None: (9, 0)
torch.version.cuda = "13.0"
import torch.utils.cpp_extension
torch.utils.cpp_extension.CUDA_HOME = None
from deepspeed.ops.op_builder.all_ops import ALL_OPS
print(len([builder.is_compatible() for builder in ALL_OPS.values()]), "operations asked")
"""


@pytest.mark.slow
def test_make_env_needs_no_nvcc_where_there_is_a_gpu(tmp_path: Path) -> None:
    """The settings that the recipe gives deepspeed's setup; without them it ends with MissingCUDAException."""
    recipe = subprocess.run(
        ["make", "--dry-run", "--always-make", "env", f"VENV={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    [line] = [line for line in recipe.splitlines() if "requirements/lock_no_isolation.txt" in line]
    given = dict(re.findall(r"^(\w+)=(\S*)", line.replace(" ", "\n"), re.MULTILINE))
    assert given["CUDA_VISIBLE_DEVICES"] == "" and given["DS_BUILD_OPS"] == "0"
    plain = {name: value for name, value in os.environ.items() if name not in ("CUDA_VISIBLE_DEVICES", *given)}
    for settings, code in ((plain, 1), (plain | given, 0)):
        done = subprocess.run(
            [sys.executable, "-c", SETUP_OF_DEEPSPEED], env=settings, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert ("MissingCUDAException" in done.stderr) == bool(code)
