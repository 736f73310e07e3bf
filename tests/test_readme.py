"""README's own text: masks by a release, from the shell and Python, and from nothing but Python in three commands."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from glus.predictor import GlusPredictor
from tests.hub import Repository, hub_on_loopback
from tests.model.releases import write_clip, write_glus
from tests.videos import write_video

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RELEASE, TOWER = "Swindl/GLUS-S", "openai/clip-vit-large-patch14"


def write_clip_mp4(folder: Path) -> Path:
    """The video that README names, of two frames."""
    random = np.random.Generator(np.random.Philox(7))
    write_video(folder / "clip.mp4", list(random.integers(0, 256, (2, 48, 64, 3), np.uint8)), "mp4v")
    return folder / "clip.mp4"


def masks_in(out: Path, expressions: int) -> NDArray[np.bool_]:
    """Bool [E, T, H, W] of `glus segment clip.mp4`."""
    written = [sorted((out / "masks/clip" / str(number)).iterdir()) for number in range(expressions)]
    return np.array([[np.asarray(Image.open(file)) > 0 for file in files] for files in written])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with what README names: clip.mp4, and a release with its vision tower where its id would be a path."""
    write_clip(write_glus(tmp_path / RELEASE) / "clip_vision_tower")
    write_clip_mp4(tmp_path)
    return tmp_path


def test_readmes_command_and_python_give_the_same_masks(unpacked: Path, place: Path) -> None:
    text = README.read_text(encoding="utf-8")
    [command] = re.findall(r"^glus segment .*$", text, re.MULTILINE)
    [code] = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    words = shlex.split(command)
    expressions = words[3 : words.index("--weights")]
    assert len(expressions) == 2
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    start = [sys.executable, "-c", "import sys, glus.launch.cli as cli; print(cli.__file__); sys.exit(cli.main())"]
    done = subprocess.run([*start, *words[1:]], cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(unpacked))
    masks = masks_in(place / "OUT", 2)
    assert masks.shape == (2, 2, 48, 64) and 0 < masks.mean() < 1

    given = f"weights, video, expressions = {RELEASE!r}, 'clip.mp4', {expressions!r}\n"
    kept = "import numpy\nnumpy.save('masks.npy', result.masks)\n"
    done = subprocess.run(
        [sys.executable, "-c", given + code + kept],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4 and "00001  " in done.stdout
    np.testing.assert_array_equal(np.load(place / "masks.npy"), masks)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(
    os.environ.get("GLUS_TEST_INSTALL", "0") in ("", "0"),
    reason="installs all packages into a new environment, for minutes: GLUS_TEST_INSTALL=1 (.ci/run sets it)",
)
def test_readmes_three_commands_lead_from_a_fresh_environment_to_masks_of_a_video(tmp_path: Path) -> None:
    """The commit that is checked out, a new environment, and a small release on a hub of loopback under README's id."""
    clone, environment = tmp_path / "clone", tmp_path / "environment"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    [block] = re.findall(r"^```\n(pip install.*?)^```$", (clone / "README.md").read_text("utf-8"), re.M | re.S)
    commands = block.splitlines()
    assert len(commands) == 3
    write_clip_mp4(clone)
    release = write_glus(tmp_path / "release", architectures=["GLUSForCausalLM"])
    tower = write_clip(tmp_path / "tower")
    plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_TOKEN")}
    with hub_on_loopback() as hub:
        for name, folder in ((RELEASE, release), (TOWER, tower)):
            files = {file.name: file.read_bytes() for file in folder.iterdir()}
            hub.repositories[name] = Repository(files=files)
        plain |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}
        plain |= {"PATH": f"{environment / 'bin'}:{plain['PATH']}"}
        if plain.get("TORCH_INDEX"):
            plain["PIP_EXTRA_INDEX_URL"] = plain["TORCH_INDEX"]
        for command in commands:
            done = subprocess.run(
                ["bash", "-c", command], cwd=clone, env=plain, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    expressions = shlex.split(commands[2])[3:5]
    due = GlusPredictor.from_pretrained(release, vision=tower).segment(clone / "clip.mp4", expressions).masks
    assert 0 < due.mean() < 1
    np.testing.assert_array_equal(masks_in(clone / "OUT", 2), due)
