"""What is wrong with an image dataset is named once, and nothing of it is run."""

import io
import json
import pickle
import struct
from pathlib import Path

import pytest

from glus.common.errors import DataError, UserError
from glus.data_pipeline.datasets.table import read_dataset, splits_there
from glus.data_pipeline.images.plain_pickle import read_plain_pickle
from glus.data_pipeline.shards.prepare import plan_jobs
from glus.data_pipeline.shards.shard_job import ShardMaker, finished_part
from tests.data_pipeline.image_layouts import jpeg, refs, write, write_all, write_json


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_all(tmp_path / "raw")


class Opens:
    """What a pickle runs when Python's own reader loads it: it writes a marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def quarantined(root: Path, name: str, split: str, out: Path) -> dict[str, str]:
    """Prepare a split: name of each image that was left out -> why."""
    source = read_dataset(name, root, split)
    [job] = plan_jobs(source, root, out, 100)
    ShardMaker().make(job)
    part = finished_part(job)
    return {item.video: item.reason for item in part.quarantine}


def change(path: Path, edit) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_names_a_class_is_refused_and_nothing_runs(root, tmp_path, protocol):
    marker = tmp_path / "marker"
    path = root / "refer_seg" / "refcoco" / "refs(unc).p"
    path.write_bytes(pickle.dumps([*refs(("train",)), Opens(marker)], protocol=protocol))
    with pytest.raises(
        DataError, match=r"refs\(unc\)\.p: not plain data, so nothing of it was run \(it names the class"
    ):
        read_dataset("refcoco", root, "train")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02]q\x00(K\x01K\x02", "damaged pickle"),
        (b"", "damaged pickle"),
        (b"\x80\x02cposix\nsystem\n(S'true'\ntR.", "it names the class posix.system"),
        (b"\x80\x02\x82\x01.", "it wants to build or call something"),
        (b"\x80\x02(i__main__\nX\n.", "it wants to build or call something"),
        (b"\x80\x02K\x01Q.", "it wants to build or call something"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".", "it wants to build or call something"),
        (b"\x80\x02}))\x85\x85K\x01s.", "a key that is neither a text nor an integer"),
    ],
)
def test_a_damaged_or_hostile_pickle_has_one_message(tmp_path, content, message):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_plain_pickle(path)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_reads_as_python_reads_it(tmp_path, protocol):
    said = {"a": [1, -7, 2**40, 1.5, True, None, "caf\xe9"], "b": ({"c": []}, ()), 3: "x" * 300}
    path = tmp_path / "plain.p"
    path.write_bytes(pickle.dumps([said, said], protocol=protocol))
    assert read_plain_pickle(path) == [said, said]


def test_texts_of_python_2_are_latin1(tmp_path):
    path = tmp_path / "plain.p"
    path.write_bytes(b"\x80\x02]q\x01U\x04caf\xe9q\x02a.")
    assert read_plain_pickle(path) == ["caf\xe9"]
    assert pickle._Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load() == ["caf\xe9"]


@pytest.mark.parametrize(
    ("polygon", "message"),
    [
        ([5, 5, 20, 20], "a polygon of 2 points has no area, three are needed"),
        ([5, 5, 20, 20, 9], "a list of pairs of numbers"),
        ([5, 5, 20, 20, 9, "a"], "a list of pairs of numbers"),
        ([5, 5, 20, 20, 9, 1e9], "far outside of the 40x56 picture"),
    ],
)
def test_a_polygon_that_is_none_puts_its_image_aside(root, tmp_path, polygon, message):
    place = root / "refer_seg" / "refcoco" / "instances.json"
    change(place, lambda content: content["annotations"][0].update(segmentation=[polygon]))
    found = quarantined(root, "refcoco", "train", tmp_path / "out")
    assert list(found) == ["COCO_train2014_000000000010"]
    assert message in found["COCO_train2014_000000000010"] and "annotation 100" in found["COCO_train2014_000000000010"]


def test_a_polygon_of_two_points_puts_a_reason_seg_image_aside(root, tmp_path):
    path = root / "reason_seg/ReasonSeg/val/0_o.json"
    change(path, lambda content: content["shapes"][0].update(points=[[1, 1], [9, 9]]))
    found = quarantined(root, "reason_seg", "val", tmp_path / "out")
    assert "a polygon of 2 points has no area" in found["0_o"] and list(found) == ["0_o"]


def test_an_image_without_its_file_is_put_aside(root, tmp_path):
    (root / "refer_seg/images/mscoco/images/train2014/COCO_train2014_000000000010.jpg").unlink()
    found = quarantined(root, "refcocog", "train", tmp_path / "out")
    assert "000000000010.jpg: this image is missing" in found["COCO_train2014_000000000010"]
    (root / "reason_seg/ReasonSeg/train/1_o.jpg").unlink()
    found = quarantined(root, "reason_seg", "train", tmp_path / "out2")
    assert "1_o.jpg: this image is missing" in found["1_o"] and list(found) == ["1_o"]


def test_a_reason_seg_image_without_its_json_is_put_aside(root, tmp_path):
    (root / "reason_seg/ReasonSeg/train/1_o.json").unlink()
    assert "1_o.json" in quarantined(root, "reason_seg", "train", tmp_path / "out")["1_o"]


def test_an_image_of_ade20k_without_its_label_map_is_put_aside(root, tmp_path):
    (root / "ade20k/annotations/training/ADE_train_1.png").unlink()
    assert "ADE_train_1" in quarantined(root, "ade20k", "train", tmp_path / "out")["ADE_train_1"]


def test_reason_seg_json_in_cp1252_is_read(root):
    record = read_dataset("reason_seg", root, "train").record("1_o")
    assert [each.text for each in record.expressions] == ["the caf\xe9\u2019s sign", "the animal"]
    assert {each.kind for each in record.expressions} == {"phrase"}


def test_reason_seg_json_in_neither_encoding_is_put_aside(root, tmp_path):
    path = root / "reason_seg/ReasonSeg/train/1_o.json"
    path.write_bytes(path.read_bytes().replace("\xe9".encode("cp1252"), b"\x81"))
    assert "neither UTF-8 nor cp1252" in quarantined(root, "reason_seg", "train", tmp_path / "out")["1_o"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda each: each.pop("sentences"), "not a file of refs"),
        (lambda each: each.update(ann_id="100"), "must be integers"),
        (lambda each: each.update(image_id=99), "names image 99, which"),
    ],
)
def test_refs_of_another_form_are_refused(root, edit, message):
    content = refs(("train", "val", "testA"))
    edit(content[0])
    write(root / "refer_seg/refcoco/refs(unc).p", pickle.dumps(content, protocol=2))
    with pytest.raises(DataError, match=message):
        read_dataset("refcoco", root, "train")


def test_a_ref_to_an_annotation_of_another_image_puts_its_image_aside(root, tmp_path):
    content = refs(("train", "val", "testA"))
    content[0]["ann_id"] = 105
    write(root / "refer_seg/refcoco/refs(unc).p", pickle.dumps(content, protocol=2))
    found = quarantined(root, "refcoco", "train", tmp_path / "out")
    assert "has no annotation 105" in found["COCO_train2014_000000000010"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content["images"].append(content["images"][0]), "lists an id twice"),
        (lambda content: content["annotations"][0].update(image_id=7), "belongs to no listed image"),
        (lambda content: content["images"][0].update(file_name="../../x.jpg"), "image 10: the frame name"),
        (lambda content: content.pop("annotations"), "not in COCO's form"),
    ],
)
def test_instances_of_another_form_are_refused(root, edit, message):
    path = root / "vlpart/pascal_part/train.json"
    change(path, edit)
    with pytest.raises(UserError, match=message):
        read_dataset("pascal_part", root, "train")


def test_a_label_that_names_no_class_puts_its_image_aside(root, tmp_path):
    import numpy as np
    from PIL import Image

    Image.fromarray(np.full((40, 56), 151, np.uint8)).save(root / "ade20k/annotations/training/ADE_train_1.png")
    assert "label 151 names no class" in quarantined(root, "ade20k", "train", tmp_path / "out")["ADE_train_1"]


def test_a_dataset_that_is_not_there_says_what_should_be(tmp_path):
    for name, missing in (("refcoco", "refs(unc).p"), ("ade20k", "annotations/training"), ("reason_seg", "train")):
        with pytest.raises(DataError) as raised:
            splits_there(name, tmp_path)
        assert missing in str(raised.value)


def test_a_part_of_a_category_that_is_not_listed_puts_its_image_aside(root, tmp_path):
    path = root / "vlpart/pascal_part/train.json"
    change(path, lambda content: content["annotations"][5].update(category_id=9))
    found = quarantined(root, "pascal_part", "train", tmp_path / "out")
    assert "category 9" in found["000000000012"] and list(found) == ["000000000012"]


def test_an_expression_of_grefcoco_may_name_several_objects_or_none(root):
    content = [each | {"ann_id": [each["ann_id"]]} for each in refs(("train",))]
    content[0]["ann_id"], content[1]["ann_id"] = [100, 101], [-1]
    write_json(root / "refer_seg/grefcoco/grefs(unc).json", content)
    write(root / "refer_seg/grefcoco/instances.json", (root / "refer_seg/refcoco/instances.json").read_bytes())
    record = read_dataset("grefcoco", root, "train").record("COCO_train2014_000000000010")
    assert [(each.object_ids, each.type_id) for each in record.expressions] == [(("100", "101"), None)] * 2 + [
        ((), 2)
    ] * 2


def test_a_changed_picture_or_text_is_written_again(root):
    split = read_dataset("refcoco", root, "train")
    [name] = split.videos()
    before = split.stamp(name)
    assert read_dataset("refcoco", root, "train").stamp(name) == before
    write(root / f"refer_seg/images/mscoco/images/train2014/{name}.jpg", jpeg(99))
    changed = read_dataset("refcoco", root, "train").stamp(name)
    assert changed != before
    content = refs(("train", "val", "testA"))
    content[0]["sentences"][0]["sent"] = "another"
    write(root / "refer_seg/refcoco/refs(unc).p", pickle.dumps(content, protocol=2))
    assert read_dataset("refcoco", root, "train").stamp(name) != changed
