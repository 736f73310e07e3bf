"""Run-length codes, boolean arrays and label maps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools import mask as coco

from glus.common.errors import DataError
from glus.common.pictures import Picture
from glus.data_pipeline.batches.mask_runs import MaskRuns
from glus.data_pipeline.raw.masks import (
    CodedPlanes,
    area,
    checked,
    checked_all,
    decode,
    edges,
    encode,
    encode_labels,
    read_labels,
    union,
    unions_into,
)

small_masks = arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


def run_lengths(mask: np.ndarray) -> list[int]:
    """Runs of 0 and 1 down the columns, counted one pixel after the other."""
    runs, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


@given(small_masks)
def test_packed_bytes_and_listed_codes_all_give_the_mask_back(mask):
    height, width = mask.shape
    code = encode(mask)
    assert np.array_equal(decode(checked(code, height, width, ""), height, width), mask)
    assert checked({"size": [height, width], "counts": run_lengths(mask)}, height, width, "") == code
    as_bytes = {"size": [height, width], "counts": code["counts"].encode()}
    assert checked(as_bytes, height, width, "") == code
    listed = {"size": [height, width], "counts": run_lengths(mask)}
    assert checked_all([None, as_bytes, code], height, width, "abc") == [None, code, code]
    assert checked_all([as_bytes, None, listed], height, width, "abc") == [code, None, code]
    with pytest.raises(ValueError):
        checked_all([as_bytes, None], height, width, "abc")
    assert area(code) == mask.sum()


@given(st.lists(small_masks, max_size=3), arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))
def test_a_union_is_that_of_the_pixels_whatever_the_codes(masks, shape):
    sized = [np.resize(mask, shape) for mask in masks]
    planes = np.ones((3, *shape), bool)
    unions_into(planes, [[None, *(encode(mask) for mask in sized)], [], [encode(mask) for mask in sized[:1]]])
    assert np.array_equal(planes[0], np.any([np.zeros(shape, bool), *sized], axis=0)) and not planes[1].any()
    assert np.array_equal(planes[2], sized[0] if sized else np.zeros(shape, bool))


def painted(planes: list[list], shape: tuple[int, int]) -> np.ndarray:
    """bool [P, H, W] of the planes' codes, by way of runs."""
    videos = [CodedPlanes(planes, *shape), CodedPlanes([], 3, 4), CodedPlanes([[encode(np.ones((2, 3), bool))]], 2, 3)]
    mine, none, other = edges([*videos, *videos])[3:]
    assert not none[0].size and np.array_equal(other, [[0], [6]])
    begins, ends = map(torch.from_numpy, mine)
    return MaskRuns.between(begins, ends, torch.tensor([0]), (1, len(planes), *shape)).painted()[0].numpy()


@pytest.mark.slow
@given(
    st.lists(small_masks, min_size=4, max_size=4), arrays.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=40)
)
def test_masks_painted_from_runs_are_the_unions_of_the_pixels(masks, shape):
    sized = [np.resize(mask, shape) for mask in masks]
    smaller = np.resize(masks[0], (shape[0] - 1, shape[1]))  # as some releases have it: a pixel is lacking
    codes = [encode(mask) for mask in sized]
    planes = [[None, *codes], [], codes[:1], [None], [codes[1], encode(smaller), codes[1]]]
    expected = np.stack([union(plane, *shape) for plane in planes])
    assert np.array_equal(painted(planes, shape), expected)
    assert np.array_equal(expected[0], np.any(sized, axis=0)) and np.array_equal(expected[2], sized[0])


@given(small_masks, st.lists(st.integers(0, 2), min_size=1, max_size=4))
def test_runs_of_pixels_give_them_back_for_every_expression_of_an_object(mask, set_of):
    masks = torch.from_numpy(np.stack([[mask, ~mask], [mask, mask], [np.zeros_like(mask), mask]]))
    runs = MaskRuns.of(masks)
    assert torch.equal(runs.painted(), masks) and runs.shape == masks.shape
    said = replace(runs, set_of=torch.tensor(set_of))
    assert torch.equal(said.painted(), masks[set_of]) and said.painted().is_contiguous()


@pytest.mark.parametrize(
    "counts", [[12], [0, 12], [12, 0], [0, 0, 12], [5, 0, 7], [0, 0, 5, 7], [3, 2, 0, 7], [3, 2, 7]]
)
def test_codes_with_empty_runs_are_set_as_pycocotools_does(counts):
    code = checked({"size": [3, 4], "counts": counts}, 3, 4, "")
    planes = np.ones((1, 3, 4), bool)
    unions_into(planes, [[code]])
    assert np.array_equal(planes[0], coco.decode(code).astype(bool))
    assert np.array_equal(painted([[code]], (3, 4)), planes)


@given(small_masks, st.data())
def test_a_mutated_code_is_refused_or_still_a_whole_mask(mask, data):
    height, width = mask.shape
    counts = list(encode(mask)["counts"])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(counts) - 1)) if counts else 0
        counts[place : place + data.draw(st.integers(0, 2))] = data.draw(st.text(max_size=3))
    code = {"size": [height, width], "counts": "".join(counts)}
    try:
        kept = checked(code, height, width, "frame 7")
    except DataError as error:
        assert str(error).startswith("frame 7: broken run-length code")
    else:
        # What passes means the same to pycocotools: runs that fill the mask exactly.
        assert encode(decode(kept, height, width)) == {
            "size": [height, width],
            "counts": coco.encode(np.asfortranarray(coco.decode(kept)))["counts"].decode(),
        }
        assert area(kept) == decode(kept, height, width).sum()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (7, "not a run-length code"),
        ({"counts": "0"}, "not a run-length code"),
        ({"size": [4], "counts": "0"}, r"its size is \[4\]"),
        ({"size": [4, -4], "counts": "0"}, r"its size is \[4, -4\]"),
        ({"size": ["4", 4], "counts": "0"}, "its size is"),
        ({"size": [2**20, 2**20], "counts": "0"}, "its size is"),
        ({"size": [4, 4], "counts": None}, "its counts are of type NoneType"),
        ({"size": [4, 4], "counts": [17]}, "its counts overrun the mask"),
        ({"size": [4, 4], "counts": [3, 4]}, "its counts do not fill the mask"),
        ({"size": [4, 4], "counts": [20, -4]}, "not all integers"),
        ({"size": [4, 4], "counts": [8.0, 8.0]}, "not all integers"),
        ({"size": [4, 4], "counts": ""}, "do not fill"),
        ({"size": [4, 4], "counts": "é"}, "cut or holds foreign characters"),
        ({"size": [4, 4], "counts": "P"}, "cut or holds foreign characters"),
        ({"size": [4, 4], "counts": "PPPPPPPPPPPP0"}, "longer than any mask"),
    ],
)
def test_broken_codes_are_refused_with_their_place(code, message):
    with pytest.raises(DataError, match=f"^video two frame 3: .*{message}"):
        checked(code, 4, 4, "video two frame 3")
    intact = encode(np.eye(4, dtype=bool))
    with pytest.raises(DataError, match=f"^video two frame 3: .*{message}"):
        checked_all([intact, None, code, intact], 4, 4, ["frame 1", "frame 2", "video two frame 3", "frame 4"])


def test_codes_that_fill_their_masks_only_together_are_refused():
    short, long = ({"size": [4, 4], "counts": encode(np.zeros((1, pixels), bool))["counts"]} for pixels in (15, 17))
    with pytest.raises(DataError, match="^frame 2: .*do not fill"):
        checked_all([encode(np.eye(4, dtype=bool)), short, long], 4, 4, ["frame 1", "frame 2", "frame 3"])


def test_masks_one_pixel_off_are_cropped_or_padded_and_others_refused():
    mask = np.ones((5, 7), bool)
    code = checked(encode(mask), 6, 6, "")
    assert code["size"] == [5, 7] and checked_all([code, None], 6, 6, "ab") == [code, None]
    fitted = decode(code, 6, 6)
    assert fitted.shape == (6, 6) and fitted[:5].all() and not fitted[5].any()
    with pytest.raises(DataError, match="the mask is 5x7"):
        checked(encode(mask), 7, 7, "")


def test_a_union_covers_its_masks_and_skips_absent_ones():
    first, second = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    first[0], second[:, 0] = True, True
    assert np.array_equal(union([encode(first), None, encode(second)], 4, 6), first | second)
    assert not union([], 4, 6).any()


@pytest.mark.parametrize("mode", ["P", "L"])
def test_label_maps_keep_gaps_in_ids_and_leave_out_void(tmp_path, mode):
    labels = np.zeros((6, 8), np.uint8)
    labels[1:3, 1:4], labels[4], labels[5] = 2, 7, 255
    picture = Image.fromarray(labels)
    if mode == "P":
        picture.putpalette(bytes(range(256)) * 3)
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_labels(tmp_path / "a.png", 6, 8), labels)
    codes = encode_labels([read_labels(tmp_path / "a.png", 6, 8), np.zeros((6, 8), np.uint8)])
    assert list(codes) == [2, 7]
    assert np.array_equal(decode(codes[7][0], 6, 8), labels == 7) and codes[7][1] is None


def test_unreadable_label_maps_are_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.png: no such mask"):
        read_labels(tmp_path / "a.png", 4, 4)
    Image.new("RGB", (4, 4)).save(tmp_path / "rgb.png")
    with pytest.raises(DataError, match=r"rgb\.png: this mask is a PNG of mode RGB"):
        read_labels(tmp_path / "rgb.png", 4, 4)
    noise = np.random.Generator(np.random.Philox(key=1)).integers(0, 9, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:600])
    with pytest.raises(DataError, match=r"cut\.png: cannot be read as PNG \(it ends too early"):
        read_labels(tmp_path / "cut.png", 64, 64)


def test_a_label_map_of_another_size_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("L", (49, 64)).save(tmp_path / "a.png")
    assert read_labels(tmp_path / "a.png", 64, 48).shape == (64, 49)
    monkeypatch.setattr(Picture, "values", lambda _: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"a\.png: this mask is 64x49 \(height x width\), its frame is 62x49"):
        read_labels(tmp_path / "a.png", 62, 49)
