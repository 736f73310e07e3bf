"""All files of one video and its expressions, by a GlusPredictor: what `glus page` shows and gives to take away."""

import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from glus.evaluation.predict.background import WriteBehind
from glus.evaluation.segment.clip import open_clip
from glus.evaluation.segment.predictor import GlusPredictor
from glus.evaluation.segment.segment_folder import DOCUMENT, MASKS, OVERLAY, SHEET, MaskFiles, Outcome
from glus.evaluation.segment.segment_pictures import write_contact_sheet, write_overlay_video

ARCHIVE = "masks.zip"

Report = Callable[[str, int, int], None]
"""Called with what is done now, how many frames are done and how many there are; what it raises ends the work."""


@dataclass(frozen=True)
class SegmentResults:
    """Files below `folder`, and what was counted: `outcomes` has one entry an expression, in order.

    `notes`: which frames of the video are lost or may be damaged.
    """

    folder: Path
    frames: int
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...]

    @property
    def overlay(self) -> Path:
        """The video with every expression tinted, MP4."""
        return self.folder / OVERLAY

    @property
    def sheet(self) -> Path:
        """The contact sheet, PNG."""
        return self.folder / SHEET

    @property
    def archive(self) -> Path:
        """A zip of masks/ and meta_expressions.json, as `glus segment` writes them."""
        return self.folder / ARCHIVE


def write_results(
    predictor: GlusPredictor, video: Path, texts: Sequence[str], key_frame: int, folder: Path, report: Report
) -> SegmentResults:
    """Segment a video file or folder of frames into the new `folder`, which is removed where the work does not end.

    One frame is in memory at a time. Raises what `GlusPredictor.stream` raises, EvaluationError or OSError where a file
    cannot be written, and what `report` raises.
    """
    try:
        folder.mkdir(parents=True)
        return _write(predictor, video, texts, key_frame, folder, report)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write(
    predictor: GlusPredictor, video: Path, texts: Sequence[str], key_frame: int, folder: Path, report: Report
) -> SegmentResults:
    scratch = folder / ".frames"
    report("reading the video", 0, 1)
    clip = open_clip(video, scratch)
    outcomes = [Outcome(text, clip.index_of_key_frame(key_frame)) for text in texts]
    files = MaskFiles(folder, clip, outcomes)
    report("segmenting", 0, len(clip))
    with WriteBehind() as behind:
        for done, frame in enumerate(predictor.stream(clip, texts, key_frame), 1):
            files.write(frame.index, range(len(texts)), frame.masks, frame.answered.tolist(), behind)
            report("segmenting", done, len(clip))
    for index in write_overlay_video(folder / OVERLAY, clip, files.read, texts, 0):
        report("drawing", index + 1, len(clip))
    write_contact_sheet(folder / SHEET, clip, files.read, texts)
    files.write_document()
    _pack(folder)
    for place in (scratch, folder / MASKS):
        shutil.rmtree(place, ignore_errors=True)
    return SegmentResults(folder, len(clip), tuple(outcomes), clip.notes)


def _pack(folder: Path) -> None:
    """Write the archive. Masks are compressed already."""
    with zipfile.ZipFile(folder / ARCHIVE, "w", zipfile.ZIP_STORED) as archive:
        for file in (folder / DOCUMENT, *sorted((folder / MASKS).rglob("*.png"))):
            archive.write(file, file.relative_to(folder))
