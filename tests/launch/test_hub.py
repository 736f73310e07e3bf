"""Weights by their id: pushed to a hub on loopback, fetched through interruptions, and all that may go wrong."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from numpy.typing import NDArray
from PIL import Image

from glus.common.errors import ModelError
from glus.launch import cli
from glus.model.released.hub import hub_id, local_weights
from glus.model.released.load_release import own_tensors
from glus.model.released.release_sums import write_sums
from glus.predictor import GlusPredictor
from glus.training.build import build_for_training
from glus.training.run_config import RunConfig, WeightsConfig
from tests.hub import Hub, Repository, etag, hub_on_loopback
from tests.model.reference import NANO
from tests.model.releases import write_clip, write_glus, write_lisa, write_sam2

BIN = Path(sys.executable).parent


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process and those it starts take for the Hugging Face hub, with a cache and no token."""
    cache = tmp_path / "cache"
    with hub_on_loopback() as running:
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        monkeypatch.setenv("HF_HUB_CACHE", str(cache))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        # Read from the environment when huggingface_hub was imported.
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        template = running.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        yield running


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def masks_of(video: Path, weights: str, out: Path) -> NDArray[np.bool_]:
    """Bool [T, H, W] of `glus segment`."""
    assert cli.main(["segment", str(video), "the red circle", "--weights", weights, "--out", str(out)]) == 0
    return np.array([np.asarray(Image.open(file)) > 0 for file in sorted((out / "masks" / video.name / "0").iterdir())])


@pytest.mark.slow
def test_a_release_that_was_pushed_and_fetched_in_three_attempts_has_the_same_masks(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    release = write_glus(tmp_path / "release", "safetensors")
    write_clip(release / "clip_vision_tower")
    write_sums(release)
    video = tmp_path / "video"
    video.mkdir()
    random = np.random.Generator(np.random.Philox(7))
    for index in range(2):
        Image.fromarray(random.integers(0, 256, (48, 64, 3), np.uint8)).save(video / f"{index}.png")
    due = masks_of(video, str(release), tmp_path / "due")
    assert 0 < due.mean() < 1

    token = {"HF_TOKEN": hub.token}
    push = [BIN / "hf", "upload", "lab/small", release, "."]
    done = subprocess.run(push, env=os.environ | token, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pushed = hub.repositories["lab/small"].files
    assert {name: pushed[name] for name in files_of(release)} == files_of(release)
    weights = [name for name in pushed if name.endswith((".safetensors", ".bin"))]
    assert len(weights) == 3

    # Killed half-way: what is complete stays.
    hub.budget = sum(map(len, pushed.values())) // 2
    first = subprocess.Popen([BIN / "glus", "download", "lab/small"], stdout=subprocess.PIPE)
    assert hub.exhausted.wait(120)
    first.send_signal(signal.SIGKILL)
    first.wait()
    blobs = {file.name for file in (tmp_path / "cache" / "models--lab--small" / "blobs").iterdir()}
    complete = {name for name in pushed if etag(pushed[name]) in blobs}
    hub.budget = None
    missing = [name for name in weights if name not in complete]
    assert missing and blobs
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ModelError, match="lab/small: no such folder here, not all of it is in the cache"):
            local_weights("lab/small")

    # The connection breaks within a file: it goes on there, and no complete file is fetched again.
    capfd.readouterr()
    hub.served.clear()
    largest = max(missing, key=lambda name: len(pushed[name]))
    hub.broken.add(largest)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 14)
    assert cli.main(["download", "lab/small"]) == 0
    assert not complete.intersection(name for name, _, _ in hub.served)
    [begun, resumed] = [(start, sent) for name, start, sent in hub.served if name == largest]
    assert begun[0] == 0 and 0 < resumed[0] <= begun[1] and resumed[0] + resumed[1] == len(pushed[largest])
    assert Counter(name for name, _, _ in hub.served)[largest] == 2
    shown = capfd.readouterr().out
    assert len(re.findall(r"^  [0-9a-f]{64}  \S+$", shown, re.MULTILINE)) == sum(
        len(content) >= 100_000 for content in pushed.values()
    )
    assert f"lab/small@{hub.repositories['lab/small'].commit[:12]}: {tmp_path}/cache" in shown

    np.testing.assert_array_equal(masks_of(video, "lab/small", tmp_path / "found"), due)
    # Without the hub, from the cache.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    predictor = GlusPredictor.from_pretrained("lab/small", revision="main")
    assert predictor.title == f"lab/small@{hub.repositories['lab/small'].commit[:12]}"
    np.testing.assert_array_equal(predictor.segment(video, "the red circle").masks[0], due)


def test_a_training_and_a_prediction_take_ids_where_they_take_folders(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "sam2").mkdir()
    local = {
        "language": write_lisa(tmp_path / "lisa"),
        "vision": write_clip(tmp_path / "clip"),
        "segmenter": write_sam2(tmp_path / "sam2" / "sam2_hiera_tiny.pt"),
    }
    hub.repositories = {
        "lab/lisa": Repository(files=files_of(tmp_path / "lisa") | {"tf_model.h5": b"1" * 10}),
        "lab/clip": Repository(files=files_of(tmp_path / "clip")),
        "lab/sam2": Repository(files=files_of(tmp_path / "sam2") | {"config.json": b"{}", "model.safetensors": b"2"}),
    }
    ids = {key: f"lab/{'sam2' if key == 'segmenter' else place.name}" for key, place in local.items()}
    config = RunConfig(model=NANO, weights=WeightsConfig(**ids))
    of_hub = build_for_training(config)
    commit = hub.repositories["lab/lisa"].commit[:12]
    assert any(note.startswith(f"weights.language: lab/lisa@{commit}, in {tmp_path}/cache/") for note in of_hub.notes)
    weights = WeightsConfig(**{key: str(place) for key, place in local.items()})
    of_folders = build_for_training(dataclasses.replace(config, weights=weights))
    one, other = own_tensors(of_hub.model), own_tensors(of_folders.model)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    # What nobody reads is not fetched.
    fetched = {name for name, _, _ in hub.served}
    assert not fetched & {"tf_model.h5", "model.safetensors"} and "sam2_hiera_tiny.pt" in fetched


@pytest.mark.slow
def test_a_release_of_the_hub_without_its_vision_tower_gets_it_from_there(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repositories["lab/glus"] = Repository(
        files=files_of(write_glus(tmp_path / "glus", architectures=["GLUSForCausalLM"]))
    )
    (tmp_path / "video").mkdir()
    Image.new("RGB", (64, 48), "gray").save(tmp_path / "video" / "0.png")
    command = ["segment", str(tmp_path / "video"), "a dog", "--weights", "lab/glus", "--out", str(tmp_path / "out")]
    assert cli.main(command) == 2
    assert "openai/clip-vit-large-patch14: no such folder here, and no repository on" in capsys.readouterr().err
    hub.repositories["openai/clip-vit-large-patch14"] = Repository(files=files_of(write_clip(tmp_path / "clip")))
    assert cli.main(command) == 0
    assert "no [SEG] in 0" in capsys.readouterr().out
    assert cli.main(["download", "lab/glus"]) == 0
    assert "openai/clip-vit-large-patch14@" in capsys.readouterr().out


def small(**files: bytes) -> dict[str, bytes]:
    return {"config.json": b"{}", "model.safetensors": b"1" * 200_000} | files


def private(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["lab/small"].private = True


def wrong_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    private(hub, monkeypatch)
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else_entirely")


def gone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def full_disk(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 1500})())


def no_weights(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["lab/small"].files = {"config.json": b"{}", "flax_model.msgpack": b"1"}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("lab/other", None, r"lab/other: no such folder here, and no repository on .*: correct the name, or run `hf a"),
        (
            "lab/small",
            private,
            r"no repository on .* that you may read: .*`hf auth login` \(or set HF_TOKEN\) where",
        ),
        ("lab/small", wrong_token, r"that you may read: correct the name, or take the token of an account that may"),
        ("lab/small@v9", None, r"lab/small@v9: lab/small on .* has no revision 'v9': name a branch, a tag or a commit"),
        ("lab/small", gone, r"not all of it is in the cache .*, and http://127.0.0.1:9 cannot be reached: run `glus"),
        (
            "lab/small",
            offline,
            r"not all of it is in the cache .*, and offline mode is set \(HF_HUB_OFFLINE\): run `glus d",
        ),
        (
            "lab/small",
            full_disk,
            r"lab/small: 200 kB to download, and .*cache has 2 kB free: make room, or set HF_HO",
        ),
        ("lab/small", no_weights, r"holds no weights that can be read: there is neither model\*.safetensors nor pyto"),
        ("lab/small--x/y", None, r"neither a .yaml file|is a path here, or no id"),
        ("lab/a..b", None, r"lab/a..b: no such folder here, and no id of a repository"),
    ],
)
def test_a_repository_that_cannot_be_fetched_is_one_clear_message(
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    change: Callable[[Hub, pytest.MonkeyPatch], None] | None,
    message: str,
) -> None:
    hub.repositories["lab/small"] = Repository(files=small())
    if change:
        change(hub, monkeypatch)
    assert cli.main(["download", name]) == 2
    shown = capsys.readouterr().err
    assert re.search(message, shown), shown
    assert shown.count("\n") == 1 and "hf_of" not in shown


def test_a_token_opens_a_private_repository(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["lab/small"] = Repository(True, small())
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert files_of(local_weights("lab/small")) == small()


def test_bytes_that_differ_from_the_hubs_are_found(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.repositories["lab/small"] = Repository(files=small())
    file = (local_weights("lab/small") / "model.safetensors").resolve()
    file.write_bytes(b"0" * 200_000)
    assert cli.main(["download", "lab/small"]) == 2
    assert f"(its SHA-256 differs): remove {file} and run the command again" in capsys.readouterr().err


def test_a_folder_that_is_there_is_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(hub_id("lab/small")) == "lab/small" and str(hub_id("lab/small@v1")) == "lab/small@v1"
    (tmp_path / "lab" / "small").mkdir(parents=True)
    for place in ("lab/small", "/lab/other", "./lab/other", "~/other", "lab", "a/b/c", "s3://lab/small", "w/sam.pt"):
        assert hub_id(place) is None and local_weights(place) == Path(place)


def test_download_says_where_a_config_has_its_weights_from(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repositories["lab/small"] = Repository(files=small())
    (tmp_path / "sam2.pt").write_bytes(b"1")
    places = f"{{language: lab/small, vision: {tmp_path}/clip, segmenter: {tmp_path}/sam2.pt}}"
    (tmp_path / "run.yaml").write_text(f"weights: {places}\n")
    assert cli.main(["download", str(tmp_path / "run.yaml")]) == 0
    shown = capsys.readouterr().out
    assert f"weights.vision: {tmp_path}/clip is not there" in shown and f"{tmp_path}/sam2.pt is there" in shown
    assert "lab/small" in shown and "200.0 kB" in shown or "200 kB" in shown


def test_download_says_what_is_there_of_datasets(
    tiny_demo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    root = tiny_demo / "raw"
    assert cli.main(["download", "datasets=[mevis,refcoco]", f"root={root}"]) == 0
    shown = capsys.readouterr().out
    assert "https://github.com/henghuiding/MeViS" in shown and "Datasets are not downloaded" in shown
    assert re.search(r"mevis/train +mevis/train/meta_expressions.json +2 videos, the first one can be read", shown)
    assert re.search(r"refcoco/train +\S+ +not there", shown)
    assert cli.main(["download", "datasets=[mevi]"]) == 2
    assert "did you mean 'mevis'?" in capsys.readouterr().err
    assert cli.main(["download"]) == 2
    assert "nothing to do: name ids" in capsys.readouterr().err
