"""Predictions on disk: what is written is read back; what is broken is told by file name."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from glus.common.errors import EvaluationError, InputError, UserError
from glus.evaluation.predict.predictions import (
    check_entries,
    check_folders,
    expression_folder,
    read_masks,
    write_masks,
    writing_masks,
)


@pytest.fixture
def written(mevis, tmp_path):
    entry = mevis.videos[0]
    expression = entry.expressions[0]
    masks = mevis.read_target(0, expression, range(len(entry.frame_names)))
    folder = write_masks(tmp_path, entry, expression, masks)
    return tmp_path, entry, expression, masks, folder


def test_masks_come_back_as_they_were_written(written):
    root, entry, expression, masks, folder = written
    assert folder == root / "mevis/valid_u/demo-0/0"
    assert sorted(place.name for place in folder.iterdir()) == [f"{name}.png" for name in entry.frame_names]
    with Image.open(folder / "00000.png") as image:
        assert (image.mode, image.size) == ("L", (entry.width, entry.height))
    np.testing.assert_array_equal(read_masks(root, entry, expression), masks)


def test_writing_again_replaces_all_of_it_and_leaves_nothing_beside(written):
    root, entry, expression, masks, folder = written
    write_masks(root, entry, expression, ~masks)
    np.testing.assert_array_equal(read_masks(root, entry, expression), ~masks)
    assert [place.name for place in folder.parent.iterdir()] == [folder.name]


def test_a_folder_that_a_killed_process_left_aside_counts_as_absent(written):
    root, entry, expression, _, folder = written
    folder.rename(folder.parent / ".0.abc.part")
    assert read_masks(root, entry, expression) is None
    check_folders(root, "mevis", "valid_u", [entry])


def test_masks_of_another_size_or_number_are_not_written(written):
    root, entry, _, masks, _ = written
    other = entry.expressions[1]
    with pytest.raises(EvaluationError, match=r"demo-0 expression 1 are bool \[5, 64, 96\], due are bool \[6, "):
        write_masks(root, entry, other, masks[:5])
    with pytest.raises(EvaluationError, match="uint8"):
        write_masks(root, entry, other, masks.astype(np.uint8))
    assert not expression_folder(root, entry, other).exists()


def test_masks_written_one_by_one_in_any_order_are_there_when_all_are(written):
    root, entry, _, masks, _ = written
    other = entry.expressions[1]
    with writing_masks(root, entry, other) as writer:
        for index in (3, 4, 5, 2, 1, 0):
            writer.write(index, masks[index])
            assert read_masks(root, entry, other) is None
    np.testing.assert_array_equal(read_masks(root, entry, other), masks)


def test_masks_that_stop_half_way_leave_nothing(written):
    root, entry, _, masks, folder = written
    other = entry.expressions[1]
    with pytest.raises(EvaluationError, match="demo-0 expression 1 got no mask for 5 frames, the first is 00000"):
        with writing_masks(root, entry, other) as writer:
            writer.write(2, masks[2])
    with pytest.raises(KeyError), writing_masks(root, entry, other) as writer:
        writer.write(2, masks[2])
        raise KeyError
    assert [place.name for place in folder.parent.iterdir()] == [folder.name]


def test_a_missing_frame_is_told_by_name(written):
    root, entry, expression, _, folder = written
    (folder / "00010.png").unlink()
    with pytest.raises(EvaluationError, match=r"demo-0/0 is missing 1 of 6 frames, the first is 00010\.png"):
        read_masks(root, entry, expression)


def test_a_file_that_is_no_frame_is_told_by_name(written):
    root, entry, expression, _, folder = written
    (folder / "00011.png").write_bytes((folder / "00010.png").read_bytes())
    with pytest.raises(EvaluationError, match=r"holds 00011\.png, which is no frame"):
        read_masks(root, entry, expression)


BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (128, 0, 0)


def grey(*values: int) -> Image.Image:
    """96x64, with rows of the values in turn."""
    return Image.fromarray(np.resize(np.repeat(np.array(values, np.uint8), 96), (64, 96)))


def indexed(*values: int, colours: tuple[tuple[int, int, int], ...] = (BLACK, RED)) -> Image.Image:
    """The same as indices; colours beyond those given are black."""
    picture = grey(*values)
    picture.putpalette([part for colour in (*colours, *[BLACK] * (256 - len(colours))) for part in colour])
    return picture


@pytest.mark.parametrize(
    "form",
    [
        lambda on: Image.fromarray(on.astype(np.uint8) * 255),
        lambda on: Image.fromarray(on.astype(np.uint8)),
        Image.fromarray,
        lambda on: Image.fromarray(on.astype(np.uint16) * 65535),
        lambda on: Image.fromarray(on.astype(np.uint8) * 255).convert("P"),
        lambda on: indexed_as(on, 1, (BLACK, RED)),
        lambda on: indexed_as(on, 255, (*[BLACK] * 255, WHITE)),
    ],
    ids=["0 and 255", "0 and 1", "one bit", "16 bits", "grey palette", "palette of DAVIS", "indices 0 and 255"],
)
def test_every_form_that_says_the_same_without_doubt_is_read(written, form):
    root, entry, expression, masks, folder = written
    for name, mask in zip(entry.frame_names, masks, strict=True):
        form(mask).save(folder / f"{name}.png")
    np.testing.assert_array_equal(read_masks(root, entry, expression), masks)


def indexed_as(on: np.ndarray, index: int, colours: tuple[tuple[int, int, int], ...]) -> Image.Image:
    picture = Image.fromarray(on.astype(np.uint8) * np.uint8(index))
    picture.putpalette([part for colour in colours for part in colour])
    return picture


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (Image.new("L", (95, 64)), r"00010\.png: this mask is 64x95 \(height x width\), its frame is 64x96"),
        (Image.new("L", (96, 64), 128), r"00010\.png holds the values \[128\]; a mask holds only 0 and 255, or only 0"),
        (grey(0, 1, 255), r"00010\.png holds the values \[0, 1, 255\]"),
        (indexed(0, 2), r"00010\.png holds the values \[0, 2\]"),
        (indexed(0, 1, colours=(WHITE, BLACK)), r"index 0 shows \(255, 255, 255\), index 1 \(0, 0, 0\); 0 must show"),
        (indexed(0, colours=(WHITE, BLACK)), "0 must show black"),
        (indexed(0, 1, colours=(BLACK, BLACK)), "0 must show black and the object a colour"),
        (indexed(0, 255, colours=(BLACK, RED)), "0 must show black and the object a colour"),
        (Image.new("RGB", (96, 64)), r"00010\.png: this mask is a PNG of mode RGB; wanted is a grey or indexed PNG"),
        (Image.new("LA", (96, 64)), r"00010\.png: this mask is a PNG of mode LA"),
    ],
)
def test_a_png_that_is_no_mask_is_told_by_name(written, image, told):
    root, entry, expression, _, folder = written
    image.save(folder / "00010.png")
    with pytest.raises(EvaluationError, match=told):
        read_masks(root, entry, expression)


def test_files_that_a_desktop_leaves_beside_masks_are_passed_over(written):
    root, entry, expression, masks, folder = written
    for name in (".DS_Store", "._00000.png", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"left")
    np.testing.assert_array_equal(read_masks(root, entry, expression), masks)


@pytest.mark.parametrize("keep", [0, 8, 60, -20])
def test_a_png_that_ends_early_is_told_by_name(written, keep):
    root, entry, expression, _, folder = written
    place = folder / "00010.png"
    place.write_bytes(place.read_bytes()[:keep])
    with pytest.raises(EvaluationError, match=r"00010\.png: cannot be read as PNG"):
        read_masks(root, entry, expression)


def test_a_png_with_a_flipped_bit_is_told_by_name(written):
    root, entry, expression, _, folder = written
    place = folder / "00010.png"
    content = bytearray(place.read_bytes())
    content[content.index(b"IDAT") + 12] ^= 4
    place.write_bytes(bytes(content))
    with pytest.raises(EvaluationError, match=r"00010\.png: cannot be read as PNG"):
        read_masks(root, entry, expression)


def test_an_absent_folder_is_none_and_no_error(mevis, tmp_path):
    assert read_masks(tmp_path, mevis.videos[0], mevis.videos[0].expressions[0]) is None


def test_folders_of_another_release_are_refused_by_name(written):
    root, entry, _, _, folder = written
    folder.rename(folder.parent / "77")
    (root / "mevis/valid_u/other-video/0").mkdir(parents=True)
    with pytest.raises(EvaluationError, match=r"holds 2 folders .* of mevis/valid_u: .*demo-0/77"):
        check_folders(root, "mevis", "valid_u", [entry])


def test_no_predictions_at_all_is_told(tmp_path, mevis):
    with pytest.raises(EvaluationError, match="no predictions for mevis/valid_u"):
        check_folders(tmp_path, "mevis", "valid_u", mevis.videos)


def test_a_slash_in_a_video_name_is_a_folder_and_dots_never_lead_out(written):
    root, entry, expression, masks, _ = written
    deeper = replace(entry, video="UVO/clip")
    write_masks(root, deeper, expression, masks)
    assert (root / "mevis/valid_u/UVO/clip/0/00000.png").is_file()
    check_folders(root, "mevis", "valid_u", [entry, deeper])
    for name in ("../clip", "/clip", "", "a/../../b", ".hidden"):
        with pytest.raises(InputError, match="the video name"):
            read_masks(root, replace(entry, video=name), expression)


@pytest.mark.parametrize(
    "change",
    [
        {"video": "w", "ids": ["0", "0/"]},
        {"video": "w", "ids": ["1/2"]},
        {"video": "w", "ids": ["a\\..\\evil"]},
        {"video": "x" * 300, "ids": ["0"]},
        {"video": "w", "ids": ["0", "0"]},
        {"video": "w/1", "ids": ["2"]},
    ],
)
def test_names_that_would_share_a_folder_or_leave_it_are_refused_before_anything_is_predicted(written, change):
    _, entry, expression, _, _ = written
    other = replace(entry, video="w")
    bad = replace(entry, video=change["video"], expressions=tuple(replace(expression, id=i) for i in change["ids"]))
    with pytest.raises(InputError, match="would share a folder|the (video|expression) name"):
        check_entries([other, bad])
    check_entries([other, replace(entry, video="v/1"), replace(entry, video="v/2")])


def test_a_frame_whose_name_leads_out_is_not_written(written):
    root, entry, expression, masks, _ = written
    bad = replace(entry, video="v", frame_names=("../evil", *entry.frame_names[1:]))
    with pytest.raises(InputError, match="the frame name"):
        write_masks(root, bad, expression, masks)
    assert not list(root.rglob("evil*"))


def test_a_file_in_the_place_of_an_expressions_folder_is_no_missing_prediction(written):
    root, entry, expression, _, folder = written
    folder.rename(folder.parent / "moved")
    folder.write_bytes(b"")
    with pytest.raises(EvaluationError, match=f"{folder} is no folder of masks"):
        read_masks(root, entry, expression)
    folder.unlink()
    folder.symlink_to("nowhere")
    with pytest.raises(EvaluationError, match="is no folder of masks"):
        read_masks(root, entry, expression)


def test_masks_are_read_whatever_the_case_of_their_ending(written):
    root, entry, expression, masks, folder = written
    (folder / "00000.png").rename(folder / "00000.PNG")
    np.testing.assert_array_equal(read_masks(root, entry, expression), masks)
    (folder / "00000.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"several files are called 00000 \(00000\.PNG and 00000\.png\)"):
        read_masks(root, entry, expression)
