"""The demo data on disk, read back by hand: plain JSON, PNG and JPEG, without the project's readers."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from glus.common.errors import DataError
from glus.demo.synthetic.demo_data import DemoDataSummary, write_demo_data
from glus.demo.synthetic.demo_datasets import DemoDataConfig
from glus.demo.synthetic.world import DemoWorldConfig

pytestmark = pytest.mark.slow

PROMPTS = ["USER: Can you segment the thing in this frame? ASSISTANT: Sure, it is", "Please respond\nwith a mask."]
TRAIN, VALID, FRAMES, SIZE = 3, 2, 6, (96, 128)
COLOURS = {"red": (255, 0, 0), "green": (0, 160, 0), "blue": (0, 64, 255), "yellow": (255, 255, 0)}
COLOURS |= {"purple": (150, 0, 200), "orange": (255, 140, 0)}
KINDS = {"look", "motion", "relation", "several", "reasoning", ""}


def config(root: Path, **changes: Any) -> DemoDataConfig:
    settings: dict[str, Any] = {"train_videos": TRAIN, "valid_videos": VALID, "world": DemoWorldConfig(frames=FRAMES)}
    return DemoDataConfig(root, **settings | changes)


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> DemoDataSummary:
    return write_demo_data(config(tmp_path_factory.mktemp("demo") / "data"), PROMPTS)


@pytest.fixture(scope="module")
def root(summary: DemoDataSummary) -> Path:
    return summary.root


def test_the_same_config_writes_the_same_bytes(root: Path, tmp_path: Path) -> None:
    write_demo_data(config(tmp_path / "again"), PROMPTS)
    assert _digests(tmp_path / "again") == _digests(root)
    write_demo_data(config(tmp_path / "other", seed=1), PROMPTS)
    pictures, others = (
        {digest for path, digest in _digests(folder).items() if path.endswith(".jpg")}
        for folder in (root, tmp_path / "other")
    )
    assert not pictures & others


def test_two_processes_write_the_same_bytes(summary: DemoDataSummary, root: Path, tmp_path: Path) -> None:
    by_two = write_demo_data(config(tmp_path / "two", workers=2), PROMPTS)
    assert _digests(tmp_path / "two") == _digests(root)
    assert (by_two.videos, by_two.expressions) == (summary.videos, summary.expressions)


def test_datasets_can_be_chosen(summary: DemoDataSummary, root: Path, tmp_path: Path) -> None:
    chosen = write_demo_data(config(tmp_path / "chosen", datasets=("mevis", "revos")), PROMPTS)
    assert set(chosen.videos) == {key for key in summary.videos if key.startswith(("mevis/", "revos/"))}
    digests, complete = _digests(tmp_path / "chosen"), _digests(root)
    same = {path for path in complete if path.startswith(("mevis/", "ReVOS/"))}
    assert {path for path in digests if "/" in path} == same
    assert all(digests[path] == complete[path] for path in same)
    with pytest.raises(DataError, match="holds other demo data.*datasets"):
        write_demo_data(config(tmp_path / "chosen"), PROMPTS)
    with pytest.raises(DataError, match="name each of mevis, .* at most once"):
        config(tmp_path, datasets=("mevis", "davis"))


def test_no_picture_comes_in_two_splits_or_datasets(root: Path) -> None:
    pictures = [digest for path, digest in _digests(root).items() if path.endswith(".jpg")]
    videos = 5 * TRAIN + 6 * VALID
    assert len(pictures) == videos * FRAMES
    assert len(set(pictures)) == len(pictures)


@pytest.mark.parametrize("split", ["train", "valid_u", "valid"])
def test_mevis_is_as_released(root: Path, split: str) -> None:
    folder = root / "mevis" / split
    videos = _videos(folder / "meta_expressions.json")
    assert len(videos) == (TRAIN if split == "train" else VALID)
    assert (folder / "mask_dict.json").exists() == (split != "valid")
    masks = {} if split == "valid" else json.loads((folder / "mask_dict.json").read_text())
    used = set()
    for name, video in videos.items():
        _check_frames(folder / "JPEGImages" / name, video["frames"])
        assert video["frames"] == [f"{number:05d}" for number in range(FRAMES)]
        for entry in video["expressions"].values():
            if split == "valid":
                assert set(entry) == {"exp", "kind"}
                continue
            assert entry["kind"] in {"look", "motion", "several"}
            assert (len(entry["obj_id"]) > 1) == (entry["kind"] == "several")
            assert len(entry["anno_id"]) == len(entry["obj_id"])
            used |= set(entry["anno_id"])
            for anno_id in entry["anno_id"]:
                _check_masks(masks[str(anno_id)])
    assert {str(anno_id) for anno_id in used} == set(masks)


@pytest.mark.parametrize(
    ("folder", "split"), [("Refer-YouTube-VOS", "train"), ("DAVIS17", "train"), ("DAVIS17", "valid")]
)
def test_indexed_masks_hold_the_objects_of_the_expressions(root: Path, folder: str, split: str) -> None:
    videos = _videos(root / folder / "meta_expressions" / split / "meta_expressions.json")
    assert len(videos) == (TRAIN if split == "train" else VALID)
    for name, video in videos.items():
        _check_frames(root / folder / split / "JPEGImages" / name, video["frames"])
        values = set()
        for frame in video["frames"]:
            with Image.open(root / folder / split / "Annotations" / name / f"{frame}.png") as picture:
                assert picture.mode == "P" and picture.size == SIZE[::-1]
                assert (picture.getpalette() or [])[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
                values |= set(np.unique(np.asarray(picture)).tolist())
        entries = list(video["expressions"].values())
        assert all(set(entry) == {"exp", "kind", "obj_id"} for entry in entries)
        ids = [entry["obj_id"] for entry in entries]
        assert {int(object_id) for object_id in ids} == values - {0}
        assert all(isinstance(object_id, str) and ids.count(object_id) >= 2 for object_id in ids)


def test_refer_youtube_vos_valid_hides_its_targets(root: Path) -> None:
    folder = root / "Refer-YouTube-VOS"
    videos = _videos(folder / "meta_expressions/valid/meta_expressions.json")
    assert not (folder / "valid/Annotations").exists()
    for name, video in videos.items():
        _check_frames(folder / "valid/JPEGImages" / name, video["frames"])
        numbers = [int(frame) for frame in video["frames"]]
        assert set(np.diff(numbers)) == {5} and all(len(frame) == 5 for frame in video["frames"])
        assert all(set(entry) == {"exp", "kind"} for entry in video["expressions"].values())


def test_lvvis_names_categories_for_all_their_objects(root: Path) -> None:
    folder = root / "LVVIS"
    videos, masks = _videos(folder / "meta_expressions.json"), json.loads((folder / "mask_dict.json").read_text())
    used: list[int] = []
    for name, video in videos.items():
        _check_frames(folder / "train/JPEGImages" / name, video["frames"])
        texts = [entry["exp"] for entry in video["expressions"].values()]
        assert len(set(texts)) == len(texts) and set(texts) <= {"circle", "ring", "bar", "pillar", "cross"}
        used += [anno_id for entry in video["expressions"].values() for anno_id in entry["anno_id"]]
    assert sorted(used) == sorted(int(key) for key in masks)


def test_revos_has_three_types_of_expressions_and_foreground(root: Path) -> None:
    folder = root / "ReVOS"
    masks = json.loads((folder / "mask_dict.json").read_text())
    foreground = json.loads((folder / "mask_dict_foreground.json").read_text())
    names = []
    for split, count in (("train", TRAIN), ("valid", VALID)):
        videos = _videos(folder / f"meta_expressions_{split}_.json")
        assert len(videos) == count
        names += list(videos)
        types = set()
        for name, video in videos.items():
            _check_frames(folder / "JPEGImages" / name, video["frames"])
            union = np.zeros((FRAMES, *SIZE), dtype=bool)
            for entry in video["expressions"].values():
                types.add(entry["type_id"])
                assert (entry["type_id"] == 2) == (not entry["obj_id"]) == (entry["kind"] == "")
                assert (entry["type_id"] == 1) == (entry["kind"] == "reasoning")
                for anno_id in entry["anno_id"]:
                    union |= _check_masks(masks[str(anno_id)])
            decoded = [coco.decode(entry) for entry in foreground[name]["masks_rle"]]
            planes = [plane.any(axis=2) if plane.ndim == 3 else plane > 0 for plane in decoded]
            assert (np.stack(planes) == union).all()
        assert types == {0, 1, 2}
    assert set(names) == set(foreground) and len(set(names)) == len(names)


def test_reasonvos_lists_its_expressions_and_keeps_masks_in_folders(root: Path) -> None:
    folder = root / "ReasonVOS"
    videos = _videos(folder / "meta_expressions.json")
    for name, video in videos.items():
        _check_frames(folder / "JPEGImages" / name, video["frames"])
        assert [entry["exp_id"] for entry in video["expressions"]] == list(range(len(video["expressions"])))
        for entry in video["expressions"]:
            assert set(entry) == {"obj_id", "exp_id", "exp_text", "is_sent", "kind"}
            below = folder / "Annotations" / f"{video['source']}_{name}_{entry['obj_id']}"
            for frame in video["frames"]:
                with Image.open(below / f"{frame}.png") as picture:
                    assert picture.size == SIZE[::-1]
                    assert set(np.unique(np.asarray(picture)).tolist()) <= {0, 255}


def test_jpegs_keep_the_colours_at_full_resolution(root: Path) -> None:
    checked = 0
    for name, video in _videos(root / "DAVIS17/meta_expressions/train/meta_expressions.json").items():
        for entry in video["expressions"].values():
            words = [colour for colour in COLOURS if f"{colour} " in entry["exp"]]
            if len(words) != 1 or entry["kind"] != "look":
                continue
            for frame in video["frames"]:
                with Image.open(root / "DAVIS17/train/JPEGImages" / name / f"{frame}.jpg") as picture:
                    assert {layer[1:3] for layer in picture.layer} == {(1, 1)}  # type: ignore[attr-defined]
                    pixels = np.asarray(picture.convert("RGB"), dtype=float)
                with Image.open(root / "DAVIS17/train/Annotations" / name / f"{frame}.png") as picture:
                    mask = np.asarray(picture) == int(entry["obj_id"])
                if mask.sum() > 40:
                    seen = np.median(pixels[mask], axis=0)
                    nearest = min(COLOURS, key=lambda word: float(np.linalg.norm(seen - COLOURS[word])))
                    assert nearest == words[0]
                    checked += 1
    assert checked > 10


def test_the_summary_counts_what_lies_there(summary: DemoDataSummary) -> None:
    assert summary.written and "wrote 27 videos" in summary.message
    assert summary.videos["mevis/train"] == TRAIN and summary.videos["reason_vos/valid"] == VALID
    videos = _videos(summary.root / "ReVOS/meta_expressions_train_.json")
    kinds = [entry["kind"] for video in videos.values() for entry in video["expressions"].values()]
    assert summary.expressions["revos/train"] == {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    assert set().union(*summary.expressions.values()) == KINDS


def test_the_tokenizer_has_llamas_form_and_whole_words(root: Path) -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(root / "tokenizer.model"))
    assert [pieces.id_to_piece(number) for number in range(4)] == ["<unk>", "<s>", "</s>", "<0x00>"]
    assert (pieces.unk_id(), pieces.bos_id(), pieces.eos_id(), pieces.pad_id()) == (0, 1, 2, -1)
    assert pieces.vocab_size() <= 800
    assert pieces.encode("the  Segment", out_type=str)[:2] == ["▁the", "▁"]
    assert pieces.decode(pieces.encode("né\n1234 é")) == "né\n1234 é"
    texts = [
        entry["exp"].lower().rstrip("?")
        for video in _videos(root / "mevis/train/meta_expressions.json").values()
        for entry in video["expressions"].values()
    ]
    for word in {word for text in texts for word in text.split()} | {"Can", "you", "segment", "respond", "with"}:
        assert len(pieces.encode(word)) == 1, word


def test_data_that_is_there_is_left_as_it_is(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    again = write_demo_data(config(root), PROMPTS)
    assert not again.written and "left as it is" in again.message and again.videos["mevis/train"] == TRAIN
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_data_of_another_config_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match="holds other demo data .*train_videos 3 instead of 4.*choose another root"):
        write_demo_data(config(root, train_videos=4), PROMPTS)
    with pytest.raises(DataError, match="prompt_sentences"):
        write_demo_data(config(root), ["other words"])


def test_a_root_with_other_content_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="is no demo data"):
        write_demo_data(config(tmp_path), PROMPTS)
    (tmp_path / "demo_data.json").write_text("{")
    with pytest.raises(DataError, match="demo_data.json: broken JSON"):
        write_demo_data(config(tmp_path), PROMPTS)
    (tmp_path / "demo_data.json").write_text("[]")
    with pytest.raises(DataError, match="demo_data.json: .*"):
        write_demo_data(config(tmp_path), PROMPTS)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert write_demo_data(config(tmp_path / "data", train_videos=1, valid_videos=1), PROMPTS).written
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    crowded = DemoWorldConfig(frames=4, min_objects=20, max_objects=20)
    with pytest.raises(DataError, match="no room for 20"):
        write_demo_data(config(tmp_path / "data", world=crowded), PROMPTS)
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write below .*file/data"):
        write_demo_data(config(tmp_path / "file" / "data"), PROMPTS)


def test_numbers_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train_videos 0"):
        config(tmp_path, train_videos=0)


def _digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _videos(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert list(content) == ["videos"]
    for entry in _entries(content["videos"]):
        assert entry["kind"] in KINDS
    videos: dict[str, Any] = content["videos"]
    return videos


def _entries(videos: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for video in videos.values():
        entries = video["expressions"]
        yield from entries if isinstance(entries, list) else entries.values()


def _check_frames(folder: Path, names: list[str]) -> None:
    assert len(names) == FRAMES
    assert {path.name for path in folder.iterdir()} == {f"{name}.jpg" for name in names}
    for name in names:
        with Image.open(folder / f"{name}.jpg") as picture:
            assert picture.format == "JPEG" and picture.mode == "RGB" and picture.size == SIZE[::-1]


def _check_masks(codes: list[dict[str, Any] | None]) -> NDArray[np.bool_]:
    """bool [T, H, W] of one annotation."""
    assert len(codes) == FRAMES and any(codes)
    planes = [np.zeros(SIZE, dtype=bool) if code is None else coco.decode(code) > 0 for code in codes]
    assert all(code is None or (tuple(code["size"]) == SIZE and isinstance(code["counts"], str)) for code in codes)
    assert all(code is None or plane.any() for code, plane in zip(codes, planes, strict=True))
    return np.stack(planes)
