"""The six datasets in the layouts in which they are released."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from glus.common.errors import DataError, InputError, UserError
from glus.data_pipeline.datasets.table import read_dataset, splits_there
from glus.data_pipeline.raw.masks import decode
from tests.videos import write_video

SPLITS_WITH_MASKS = [
    ("mevis", "train"),
    ("mevis", "valid_u"),
    ("refer_youtube_vos", "train"),
    ("ref_davis17", "train"),
    ("ref_davis17", "valid"),
    ("revos", "train"),
    ("revos", "valid"),
    ("reason_vos", "valid"),
    ("lv_vis", "train"),
]


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(("name", "split"), SPLITS_WITH_MASKS)
def test_every_frame_and_mask_of_every_dataset_is_as_drawn(raw, name, split):
    source = read_dataset(name, raw.root, split)
    assert source.videos() == [video.name for video in raw.videos]
    for drawn in raw.videos:
        record = source.record(drawn.name)
        assert (record.dataset, record.split, record.video) == (name, split, drawn.name)
        assert (record.height, record.width) == (32, 48)
        assert record.frames.names == drawn.frame_names
        assert tuple(record.frames.read_bytes(index) for index in range(5)) == drawn.jpegs
        assert len(record.objects) == 2
        for codes, masks in zip(record.objects.values(), drawn.masks.values(), strict=True):
            expected = masks.copy()
            if name in ("refer_youtube_vos", "ref_davis17"):
                expected[:, -1] = False  # the void row
            assert np.array_equal(np.stack([decode(code, 32, 48) for code in codes]), expected)
        for expression in record.expressions:
            assert set(expression.object_ids) <= set(record.objects)


def test_ids_are_strings_and_several_objects_stay_together(raw):
    record = read_dataset("mevis", raw.root, "train").record("two")
    assert [(e.id, e.object_ids) for e in record.expressions] == [("0", ("10",)), ("1", ("13",)), ("2", ("10", "13"))]
    assert record.expressions[0].text == " the 'red' one; #1 "
    assert record.objects["13"][0] is None


@pytest.mark.parametrize("name", ["mevis", "refer_youtube_vos"])
def test_valid_splits_hide_their_targets(raw, name):
    record = read_dataset(name, raw.root, "valid").record("two")
    assert record.objects == {}
    assert [expression.object_ids for expression in record.expressions] == [(), (), ()]


def test_revos_keeps_the_type_and_expressions_without_target(raw):
    record = read_dataset("revos", raw.root, "valid").record("two")
    assert [expression.type_id for expression in record.expressions] == [0, 1, 1, 2]
    assert record.expressions[3].object_ids == ()


def test_a_kind_is_taken_from_the_annotation_where_it_says_one(raw):
    record = read_dataset("reason_vos", raw.root, "valid").record("two")
    assert [(e.id, e.kind, e.object_ids) for e in record.expressions] == [
        ("0", "reasoning", ("1",)),
        ("1", "sentence", ("4",)),
    ]


def test_official_lv_vis_names_a_category_for_all_its_instances(raw):
    source = read_dataset("lv_vis", raw.root, "train")
    first, second = (source.record(video.name) for video in raw.videos)
    assert [(e.text, e.object_ids) for e in first.expressions] == [("alpaca", ("1", "2"))]
    assert [(e.text, e.object_ids) for e in second.expressions] == [("alpaca", ("3",)), ("zebra", ("4",))]


@pytest.mark.parametrize("folder", ["LVVIS", "LVVIS/train"])
def test_converted_lv_vis_is_read_from_either_place(raw, folder):
    for name in ("meta_expressions.json", "mask_dict.json"):
        shutil.copy(raw.root / "mevis" / "train" / name, raw.root / folder / name)
    record = read_dataset("lv_vis", raw.root, "train").record("two")
    assert [expression.object_ids for expression in record.expressions] == [("10",), ("13",), ("10", "13")]


def test_a_video_file_takes_the_place_of_a_folder_of_frames(raw):
    images = raw.root / "mevis" / "train" / "JPEGImages"
    drawn = [cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_COLOR) for each in raw.videos[1].jpegs]
    write_video(images / "two.mp4", drawn, "mp4v")
    shutil.rmtree(images / "two")
    record = read_dataset("mevis", raw.root, "train").record("two")
    assert record.frames.names == raw.videos[1].frame_names
    frame = cv2.imdecode(np.frombuffer(record.frames.read_bytes(2), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(frame.astype(int) - drawn[2]).mean() < 20


def test_the_valid_file_that_lists_test_videos_too_gives_valid_videos_only(raw, caplog):
    annotation = raw.root / "Refer-YouTube-VOS" / "meta_expressions" / "valid" / "meta_expressions.json"
    edit(annotation, lambda content: content["videos"].update({"of-test": content["videos"]["two"]}))
    assert read_dataset("refer_youtube_vos", raw.root, "valid").videos() == ["one.video", "two"]
    assert "1 of 3 listed videos have no frames there" in caplog.text
    test = raw.root / "Refer-YouTube-VOS" / "meta_expressions" / "test" / "meta_expressions.json"
    test.parent.mkdir()
    test.write_text(json.dumps({"videos": {"two": {}}}))
    assert read_dataset("refer_youtube_vos", raw.root, "valid").videos() == ["one.video", "of-test"]


def test_a_stamp_changes_with_annotation_frames_or_masks_of_its_video_only(raw):
    def stamps():
        source = read_dataset("ref_davis17", raw.root, "train")
        return [source.stamp(video.name) for video in raw.videos]

    before = stamps()
    assert stamps() == before
    frame = raw.root / "DAVIS17" / "train" / "JPEGImages" / "two" / "00003.jpg"
    frame.write_bytes(raw.videos[0].jpegs[1] + b"\0")
    changed = stamps()
    assert changed[0] == before[0] and changed[1] != before[1]
    mask = raw.root / "DAVIS17" / "train" / "Annotations" / "one.video" / "00005.png"
    Image.fromarray(np.ones((32, 48), np.uint8)).save(mask)
    assert stamps()[0] != before[0] and stamps()[1] == changed[1]


def test_unknown_names_get_the_nearest_known(raw):
    with pytest.raises(DataError, match="no dataset 'mevsi'; did you mean 'mevis'"):
        read_dataset("mevsi", raw.root, "train")
    with pytest.raises(DataError, match="mevis has no split 'val'; did you mean 'valid'"):
        read_dataset("mevis", raw.root, "val")
    assert splits_there("mevis", raw.root) == ["train", "valid_u", "valid"]
    with pytest.raises(DataError, match="mevis: none of its splits is below"):
        splits_there("mevis", raw.root / "nowhere")


def test_broken_json_is_named_by_line_and_column(raw):
    path = raw.root / "mevis" / "train" / "meta_expressions.json"
    path.write_text('{"videos":\n {"a": }}')
    with pytest.raises(DataError, match=r"meta_expressions.json: broken JSON at line 2, column 8"):
        read_dataset("mevis", raw.root, "train")


@pytest.mark.parametrize("content", ["[]", "{}", '{"videos": []}', "\x00", "[" * 100_000])
def test_a_file_that_is_no_annotation_is_refused(raw, content):
    path = raw.root / "mevis" / "train" / "meta_expressions.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"meta_expressions\.json"):
        read_dataset("mevis", raw.root, "train")


def test_an_empty_split_is_refused(raw):
    (raw.root / "ReVOS" / "meta_expressions_train_.json").write_text('{"videos": {}}')
    with pytest.raises(DataError, match="lists no video, an empty split"):
        read_dataset("revos", raw.root, "train")


def test_missing_folders_and_files_are_named(raw):
    shutil.rmtree(raw.root / "mevis" / "train" / "JPEGImages" / "two")
    with pytest.raises(DataError, match="two: this folder of frames is missing"):
        read_dataset("mevis", raw.root, "train").record("two")
    (raw.root / "mevis" / "train" / "mask_dict.json").unlink()
    with pytest.raises(DataError, match=r"mask_dict\.json: this annotation file is missing"):
        read_dataset("mevis", raw.root, "train").record("one.video")
    shutil.rmtree(raw.root / "DAVIS17" / "train" / "JPEGImages")
    with pytest.raises(DataError, match="JPEGImages: this folder of frames is missing"):
        read_dataset("ref_davis17", raw.root, "train")
    shutil.rmtree(raw.root / "DAVIS17" / "valid" / "Annotations")
    with pytest.raises(DataError, match="Annotations: this folder of masks is missing"):
        read_dataset("ref_davis17", raw.root, "valid").open_masks()
    (raw.root / "ReasonVOS" / "meta_expressions.json").unlink()
    with pytest.raises(DataError, match="this annotation file is missing"):
        read_dataset("reason_vos", raw.root, "valid")


def test_an_object_without_masks_is_named(raw):
    edit(raw.root / "mevis" / "train" / "mask_dict.json", lambda masks: masks.pop("13"))
    with pytest.raises(DataError, match=r"mask_dict\.json: object 13 of video two has no masks"):
        read_dataset("mevis", raw.root, "train").record("two")
    annotation = raw.root / "DAVIS17" / "meta_expressions" / "train" / "meta_expressions.json"
    edit(annotation, lambda content: content["videos"]["two"]["expressions"]["0"].update(obj_id="9"))
    with pytest.raises(
        DataError, match=r"video two expression 0 names object 9, which has no mask in .*Annotations/two"
    ):
        read_dataset("ref_davis17", raw.root, "train").record("two")
    shutil.rmtree(raw.root / "ReasonVOS" / "Annotations" / "TinySet_two_4")
    with pytest.raises(DataError, match="TinySet_two_4: this folder of masks of object 4 is missing"):
        read_dataset("reason_vos", raw.root, "valid").record("two")


def test_masks_that_do_not_fit_their_frames_are_refused(raw):
    path = raw.root / "mevis" / "train" / "mask_dict.json"
    edit(path, lambda masks: masks["13"].pop())
    with pytest.raises(DataError, match="object 13 of video two has 4 masks for 5 frames"):
        read_dataset("mevis", raw.root, "train").record("two")
    edit(path, lambda masks: masks["0"][2].update(size=[100, 100]))
    with pytest.raises(DataError, match=r"object 0 of video one.video, frame 00010: the mask is 100x100"):
        read_dataset("mevis", raw.root, "train").record("one.video")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entry: entry.pop("exp"), "expression 0: has no text"),
        (lambda entry: entry.update(anno_id=[]), r'expression 0: names no object \("anno_id" is empty\)'),
        (lambda entry: entry.update(anno_id=[1.5]), "wanted an object id or a list of them"),
        (lambda entry: entry.pop("anno_id"), "wanted an object id or a list of them"),
        (lambda entry: entry.update(kind=3), '"kind" must be a text'),
    ],
)
def test_a_broken_expression_is_named(raw, change, message):
    path = raw.root / "mevis" / "train" / "meta_expressions.json"
    edit(path, lambda content: change(content["videos"]["two"]["expressions"]["0"]))
    source = read_dataset("mevis", raw.root, "train")
    with pytest.raises(DataError, match=message):
        source.record("two")
    assert source.record("one.video").video == "one.video"


@pytest.mark.parametrize("frames", [[], ["00000", "00000"], ["../../secret"], [None], "00000"])
def test_broken_lists_of_frames_are_refused(raw, frames):
    path = raw.root / "mevis" / "train" / "meta_expressions.json"
    edit(path, lambda content: content["videos"]["two"].update(frames=frames))
    with pytest.raises(UserError, match="video two"):
        read_dataset("mevis", raw.root, "train").record("two")


@pytest.mark.parametrize("name", ["../two", "two/", "a//b", "a/./b", "..\\two", "x" * 300, "two\x1b[2J", ".two"])
def test_a_video_name_that_is_no_path_below_the_folder_is_refused(raw, name):
    path = raw.root / "mevis" / "train" / "meta_expressions.json"
    edit(path, lambda content: content["videos"].update({name: content["videos"]["two"]}))
    split = read_dataset("mevis", raw.root, "train")
    with pytest.raises(InputError, match=r"meta_expressions\.json: the video name "):
        split.record(name)
    assert len(split.stamp(name)) == 64


@pytest.mark.parametrize(
    ("place", "new"), [("expressions", "0/"), ("expressions", "a\\..\\evil"), ("frames", "a/00000")]
)
def test_an_expression_or_frame_with_a_separator_in_its_name_is_refused(raw, place, new):
    path = raw.root / "mevis" / "train" / "meta_expressions.json"

    def rename(content):
        video = content["videos"]["two"]
        if place == "frames":
            video["frames"][0] = new
        else:
            video["expressions"][new] = next(iter(video["expressions"].values()))

    edit(path, rename)
    with pytest.raises(InputError, match="meta_expressions.json: video two: the .* holds a separator of paths"):
        read_dataset("mevis", raw.root, "train").record("two")


def test_two_videos_that_would_share_a_folder_are_refused_and_folders_of_videos_are_not(raw):
    path = raw.root / "mevis" / "train" / "meta_expressions.json"
    names = ["w", "w/1", "TAO/train/v", "TAO/train/u", "caf\u00e9", "cafe\u0301"]
    edit(path, lambda content: content["videos"].update(dict.fromkeys(names, content["videos"]["two"])))
    frames = path.with_name("JPEGImages")
    for name in names:
        shutil.copytree(frames / "two", frames / name)
    split = read_dataset("mevis", raw.root, "train")
    for name in names:
        if name in ("w/1", "cafe\u0301"):
            with pytest.raises(InputError, match="would share a folder"):
                split.record(name)
        else:
            assert split.record(name).video == name


def test_reason_vos_reads_no_masks_outside_its_folder_and_none_that_two_objects_share(raw):
    path = raw.root / "ReasonVOS" / "meta_expressions.json"
    edit(path, lambda content: content["videos"]["two"].update(source="../../outside"))
    with pytest.raises(InputError, match=r"video two: the source name '\.\./\.\./outside' holds a separator"):
        read_dataset("reason_vos", raw.root, "valid").record("two")

    def shared(content):
        # source `x`, video `two_1`, object 1 and source `x`, video `two`, object `1_1`: one folder x_two_1_1.
        two = content["videos"]["two"]
        two.update(source="x")
        two["expressions"] = [{"exp_id": "0", "exp_text": "it", "obj_id": "1_1"}]
        content["videos"]["two_1"] = {**two, "expressions": [{"exp_id": "0", "exp_text": "it", "obj_id": "1"}]}

    edit(path, shared)
    for video in ("two", "two_1"):
        (path.parent / "JPEGImages" / video).mkdir(exist_ok=True)
        with pytest.raises(DataError, match="x_two_1_1: this folder would belong to several"):
            read_dataset("reason_vos", raw.root, "valid").masks.paths(video, ["1_1" if video == "two" else "1"])


def test_a_repeated_expression_id_in_a_list_is_refused(raw):
    path = raw.root / "ReasonVOS" / "meta_expressions.json"
    edit(path, lambda content: content["videos"]["two"]["expressions"][1].update(exp_id="0"))
    with pytest.raises(InputError, match="the expressions '0' and '0' would share a folder"):
        read_dataset("reason_vos", raw.root, "valid").record("two")


def test_instances_in_another_form_are_refused(raw):
    path = raw.root / "LVVIS" / "train_instances.json"
    edit(path, lambda content: content.pop("categories"))
    with pytest.raises(DataError, match="not in the form of YouTube-VIS 2019"):
        read_dataset("lv_vis", raw.root, "train")


def test_real_ref_davis17_equals_an_independent_reading(real_data):
    for split in ("train", "valid"):
        source = read_dataset("ref_davis17", real_data, split)
        folder = real_data / "DAVIS17" / split
        for video in source.videos():
            record = source.record(video)
            for index in (0, len(record.frames.names) // 2):
                name = record.frames.names[index]
                labels = np.array(Image.open(folder / "Annotations" / video / f"{name}.png"))
                assert labels.shape == (record.height, record.width)
                for object_id, codes in record.objects.items():
                    assert np.array_equal(decode(codes[index], *labels.shape), labels == int(object_id))
                frame = (folder / "JPEGImages" / video / f"{name}.jpg").read_bytes()
                assert record.frames.read_bytes(index) == frame


def test_real_expressions_of_refer_youtube_vos_are_all_parsed(real_data):
    from glus.data_pipeline.raw.annotated_split import parse_video, read_entries

    folder = real_data / "Refer-YouTube-VOS" / "meta_expressions"
    for split, ids_key, videos, count in (("train", "obj_id", 3471, 12913), ("valid", None, 507, 2096)):
        path = folder / split / "meta_expressions.json"
        parsed = [parse_video(path, video, entry, ids_key) for video, entry in read_entries(path).items()]
        assert len(parsed) == videos
        assert sum(len(annotation.expressions) for annotation in parsed) == count
        if ids_key is not None:
            objects = {(a.video, i) for a in parsed for e in a.expressions for i in e.object_ids}
            assert len(objects) == 6459
