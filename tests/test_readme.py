"""README's own text, run by a glus that is installed from its wheel: masks by a release, from the shell and Python."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.model.releases import write_clip, write_glus
from tests.videos import write_video

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with what README names: clip.mp4 and DIR, a release with its vision tower."""
    write_clip(write_glus(tmp_path / "DIR") / "clip_vision_tower")
    random = np.random.Generator(np.random.Philox(7))
    write_video(tmp_path / "clip.mp4", list(random.integers(0, 256, (2, 48, 64, 3), np.uint8)), "mp4v")
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
    written = [sorted((place / "OUT/masks/clip" / str(number)).iterdir()) for number in range(2)]
    masks = np.array([[np.asarray(Image.open(file)) > 0 for file in files] for files in written])
    assert masks.shape == (2, 2, 48, 64) and 0 < masks.mean() < 1

    given = f"weights, video, expressions = 'DIR', 'clip.mp4', {expressions!r}\n"
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
