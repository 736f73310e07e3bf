"""`glus segment VIDEO "expression" ["expression" ...] --weights DIR --out DIR`: masks, an overlay, a contact sheet."""

import shutil
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from glus.common.errors import LaunchError
from glus.common.progress import Progress, progress
from glus.common.terminal import one_line, plain
from glus.data_pipeline.batches.prompt_style import clean_expression
from glus.evaluation.predict.inference_config import InferenceConfig
from glus.evaluation.predict.key_frames import KeyFrames
from glus.evaluation.segment.clip import Clip, open_clip
from glus.evaluation.segment.segment_folder import (
    DOCUMENT,
    MASKS,
    OVERLAY,
    SHEET,
    MaskFiles,
    Outcome,
    check_free,
    renamed_when_complete,
)
from glus.model.released.hub import hub_id
from glus.model.released.release_sam2 import Hiera

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from glus.evaluation.predict.model_source import ModelSource
    from glus.training.devices import Kind


@dataclass(frozen=True)
class SegmentConfig:
    """What to find in which video, by which model, and where the masks go."""

    video: Path
    """A video file, or a folder of JPEG or PNG frames of one size."""
    expressions: tuple[str, ...]
    """What is to be segmented, in words; each gets masks of its own, in folders 0, 1, ... in this order."""
    weights: Path
    """A run folder (its latest checkpoint), one checkpoint folder, or a GLUS or VideoLISA in the released layout: its
    folder, or its id on the Hugging Face hub (org/name, org/name@revision)."""
    out: Path
    """A new folder for masks/VIDEO/EXP_ID/FRAME.png, overlay.mp4, contact_sheet.png and meta_expressions.json."""
    vision: Path | None = None
    """Folder or hub id of the CLIP vision tower, where a release comes without: openai/clip-vit-large-patch14
    (VideoLISA: -336). For weights of the hub it is found by itself."""
    hiera: Hiera | None = None
    """Of a released GLUS whose SAM 2 has none of the released sizes: what its weights do not show."""
    key_frame: int | Literal["auto"] | Path = 0
    """The frame to begin at, counted from 0; the video is followed from there to its end and back to its start. Or a
    JSON file of key frames in the reference's form: {"VIDEO_EXPID": FRAME}, FRAME being the number in the file name.
    Or auto: `selector` chooses one for each expression. VideoLISA has none: it segments each frame alone."""
    selector: Path | None = None
    """A key frame selector for key_frame=auto: a run folder (its latest checkpoint) or one checkpoint folder."""
    overlay_rate: float = 0.0
    """Frames a second of the overlay; 0 shows each frame when the video file does, and 10 a second for a folder."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """What is computed on; auto refuses the CPU where there should be GPUs and torch sees none (docs/gpu.md)."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    """How the video is gone through."""


def segment(config: SegmentConfig) -> None:
    """Write `out`, complete or not at all, and print what was found.

    Raises DataError, ModelError, TrainingError, EvaluationError or LaunchError, each with one clear message.
    """
    from glus.common.out_of_memory import memory_explained
    from glus.evaluation.predict.asking import ASKING, check_segments, refuse_memory_switches
    from glus.evaluation.predict.model_source import ModelSource
    from glus.training.devices import choose_device

    _check(config)
    kind = choose_device(config.device, "device")
    config = replace(config, inference=config.inference.on(kind))
    if kind == "cuda":
        print(f"precision: {config.inference.precision}")
    source = ModelSource.find(config.weights, config.vision, config.hiera)
    if source.notes:
        print(plain("\n".join(source.notes)))
    check_segments(source.method)
    has_memory = ASKING[source.method].has_memory
    if config.key_frame != 0 and not has_memory:
        raise LaunchError(f"key_frame={config.key_frame}: {source.method} has no key frame; leave it out")
    if config.inference.post_optimise is not None and has_memory:
        raise LaunchError(
            f"inference.post_optimise: {source.method} follows masks by a memory of its own; leave it out"
        )
    refuse_memory_switches(config.inference, source.method)
    source.check_weights()
    selector = _selector(config)
    with renamed_when_complete(config.out) as folder:
        scratch = folder / ".frames"
        clip = open_clip(config.video, scratch)
        for note in clip.notes:
            print(plain(note))
        keys = _chosen(config, selector, clip, kind) if selector else _key_frames(config, clip)
        outcomes = [Outcome(text, key) for text, key in zip(config.expressions, keys, strict=True)]
        files = MaskFiles(folder, clip, outcomes)
        advice = config.inference.less_memory("device=cpu")
        with memory_explained(f"segmenting {config.video} on {kind}", advice, LaunchError):
            _write_masks(config, source, files, kind)
        _write_pictures(config, files)
        files.write_document()
        shutil.rmtree(scratch, ignore_errors=True)
    _print_outcomes(config.out, files)


def _check(config: SegmentConfig) -> None:
    """Refuse what needs neither the video nor the model, before either is read."""
    if not config.expressions:
        raise LaunchError('no expression: say what to segment, such as glus segment VIDEO "the dog on the left"')
    for number, text in enumerate(config.expressions):
        if not clean_expression(text).strip():
            raise LaunchError(f"expression {number} is empty ({text!r}): say in words what is to be segmented")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise LaunchError(f"expression {number} is no UTF-8 text ({text!r}): write it again as UTF-8")
    if config.overlay_rate and not 0.001 <= config.overlay_rate <= 1000:
        raise LaunchError(f"overlay_rate={config.overlay_rate}: give frames a second, or 0 for the video's own")
    if config.inference.key_frames is not None:
        raise LaunchError(
            "inference.key_frames is for `glus evaluate`: here say --key-frame N or --key-frame FILE.json"
        )
    if config.key_frame == "auto" and config.selector is None:
        raise LaunchError("key_frame=auto: name the key frame selector that chooses it, --selector DIR")
    if config.key_frame != "auto" and config.selector is not None:
        raise LaunchError(f"selector={config.selector}: it chooses key frames with --key-frame auto; add that")
    check_free(config.out)
    if hub_id(config.weights) is None and not config.weights.is_dir():
        raise LaunchError(
            f"{config.weights}: no such folder of weights; name a run, a checkpoint, a release, or its id on the hub"
        )


def _selector(config: SegmentConfig) -> "ModelSource | None":
    """The key frame selector, its files checked; None where the key frames are given."""
    from glus.evaluation.predict.model_source import ModelSource
    from glus.evaluation.select.video_scores import check_selector

    if config.selector is None:
        return None
    found = ModelSource.find(config.selector)
    check_selector(found, "selector")
    if found.notes:
        print(plain("\n".join(found.notes)))
    found.check_weights()
    return found


def _chosen(config: SegmentConfig, selector: "ModelSource", clip: Clip, kind: "Kind") -> list[int]:
    """The index of the key frame that the selector chooses for each expression; prints them."""
    import torch

    from glus.common.out_of_memory import memory_explained
    from glus.evaluation.select.selection_rules import best_frame
    from glus.evaluation.select.video_scores import scores_of_video

    texts, device, together = config.expressions, torch.device(kind), config.inference.expressions_together
    with (
        memory_explained(f"scoring {config.video} on {kind}", config.inference.less_memory("device=cpu"), LaunchError),
        Progress(total=len(clip), desc=f"score {clip.name}", unit="frame") as bar,
    ):

        def read(index: int) -> "NDArray[np.uint8]":
            bar.update(1)
            return clip.read(index)

        loaded = selector.load(device, config.inference.chosen_precision())
        scores = scores_of_video(loaded, read, len(clip), texts, clip.name, together, device)
    keys = [best_frame(of_expression.tolist()) for of_expression in scores]
    for number, (text, key) in enumerate(zip(texts, keys, strict=True)):
        found = f"key frame {clip.frame_names[key]}, score {scores[number, key]:.3f}"
        print(one_line(f"{number}  {_shown(text)}: {found}"))
    return keys


def _key_frames(config: SegmentConfig, clip: Clip) -> list[int]:
    """The index of each expression's key frame that the user gives."""
    assert config.key_frame != "auto"
    if isinstance(config.key_frame, int):
        return [clip.index_of_key_frame(config.key_frame)] * len(config.expressions)
    given = KeyFrames.read(config.key_frame)
    found = [given.position(clip.name, str(number), clip.frame_names) for number in range(len(config.expressions))]
    if all(index is None for index in found):
        raise LaunchError(
            f"{config.key_frame} names no expression of this video: its keys would be {clip.name}_0, {clip.name}_1, ..."
        )
    absent = [number for number, index in enumerate(found) if index is None]
    for number in absent:
        print(one_line(f"{config.key_frame} has no {clip.name}_{number}: that expression begins at the first frame"))
    return [index or 0 for index in found]


def _write_masks(config: SegmentConfig, source: "ModelSource", files: MaskFiles, kind: "Kind") -> None:
    import torch

    from glus.evaluation.predict.background import WriteBehind
    from glus.evaluation.predict.video_masks import Asked, masks_of_video

    device = torch.device(kind)
    inference = config.inference
    loaded = source.load(device, inference.chosen_precision(), inference.post_optimise, inference.reference_gamma)
    loaded.compile(inference.compile, device)
    if loaded.notes:
        print(plain("\n".join(loaded.notes)))
    clip, keys = files.clip, [outcome.key_frame for outcome in files.outcomes]
    names = [f"expression {number}" for number in range(len(keys))]
    asked = Asked(config.expressions, names, keys)
    followed = masks_of_video(loaded, config.inference, clip.read, len(clip), asked, device)
    # Frames between the first key frame and the last are passed in both directions.
    passes = len(clip) - min(keys) + max(keys)
    with WriteBehind() as behind, closing(followed):
        for seen in progress(followed, desc=f"segment {clip.name}", unit="frame", total=passes):
            files.write(seen.index, seen.expressions, seen.masks, seen.answered, behind)


def _write_pictures(config: SegmentConfig, files: MaskFiles) -> None:
    from glus.evaluation.segment.segment_pictures import write_contact_sheet, write_overlay_video

    clip, texts = files.clip, config.expressions
    drawn = write_overlay_video(files.folder / OVERLAY, clip, files.read, texts, config.overlay_rate)
    for _ in progress(drawn, desc=f"draw {OVERLAY}", unit="frame", total=len(clip)):
        pass
    write_contact_sheet(files.folder / SHEET, clip, files.read, texts)


def _print_outcomes(out: Path, files: MaskFiles) -> None:
    frames, outcomes = len(files.clip), files.outcomes
    for number, outcome in enumerate(outcomes):
        found = f"a mask in {outcome.frames_with_mask} of {frames} frames"
        if not outcome.frames_with_mask:
            found = f"EMPTY: no mask in any of {frames} frames"
        print(one_line(f"{number}  {_shown(outcome.text)}: {found}; no [SEG] in {outcome.frames_without_seg}"))
    silent = sum(outcome.frames_without_seg for outcome in outcomes)
    print(f"frames without [SEG]: {silent} of {frames * len(outcomes)}")
    for place in (MASKS, OVERLAY, SHEET, DOCUMENT):
        print(plain(f"written: {out / place}"))


def _shown(text: str) -> str:
    return f"{text[:80]}..." if len(text) > 83 else text
