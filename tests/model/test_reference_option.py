"""`--reference-fixture FOLDER`: another recording of the same form takes the place of the carried one."""

import json
from pathlib import Path

import numpy as np
import pytest

from glus.data_pipeline.batches.batch import padded_ids
from glus.data_pipeline.batches.conversations import conversation, inference_prompt
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.data_pipeline.sampling.sample_plan import middle_context

from .reference import CARRIED, CONTEXT, QUERY

pytestmark = pytest.mark.slow

PARITY = Path(__file__).parent / "test_parity.py"
#: Those that need no model: forward and backward at 1024 pixels would be computed again for each recording.
QUICK = "conversations or labels or every_step or context_frames"
TEXTS, FRAMES, KEY = ("a small cat behind the car.", "The LAST one to leave", "tall person"), 6, 5


class Outcomes(dict[str, str]):
    """Test name -> "passed" or "failed"."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.failed:
            self[report.nodeid.partition("::")[2]] = report.outcome


def write_recording(folder: Path) -> Path:
    """The prompts of three expressions and of an inference from the last frame; no weight or mask."""
    tokenizer, templates = Tokenizer(CARRIED), [[0, 4], [3, 1], [1, 1], [2, 0]]
    told = [conversation(text, CONTEXT, templates) for text in TEXTS]
    ids, attention = padded_ids([tokenizer.encode(text) for text in told], tokenizer.pad_id)
    values = {
        "seg_token_id": tokenizer.seg_id,
        "vocab": tokenizer.vocab_size,
        "train": [{"expressions": TEXTS, "qa_template_index": [templates] * len(TEXTS), "size": [60, 70]}],
        "train_conversations": told,
        "infer_expression": "the second one",
    }
    ways = {"infer_kf0_forward": range(FRAMES), "infer_kf_forward": [KEY], "infer_kf_backward": range(KEY, -1, -1)}
    for name, order in ways.items():
        windows = [list(range(max(0, step - QUERY + 1), step + 1)) for step in range(len(order))]
        prompts = [inference_prompt("the second one", CONTEXT, len(window)) for window in windows]
        values[name] = {
            "key_frame": order[0],
            "context_index": middle_context(FRAMES, CONTEXT),
            "query_order": list(order),
            "input_ids": [tokenizer.encode(prompt) for prompt in prompts],
            "rel_pos": windows,
        }
    folder.mkdir()
    (folder / "expected.json").write_text(json.dumps(values), encoding="utf-8")
    arrays = {
        "train_input_ids": ids.numpy(),
        "train_attention_mask": attention.numpy(),
        "train_labels": np.where(ids == tokenizer.seg_id, ids, -100),
        "infer_frames": np.zeros((FRAMES, 50, 40, 3), np.uint8),
    }
    np.savez(folder / "expected.npz", **arrays)
    return folder


def parity(folder: Path, which: str = QUICK) -> Outcomes:
    outcomes = Outcomes()
    words = [str(PARITY), "-k", which, "--reference-fixture", str(folder), "-q", "-p", "no:cacheprovider"]
    pytest.main(words, plugins=[outcomes])
    return outcomes


def test_a_right_recording_of_other_clips_and_expressions_is_accepted(tmp_path):
    outcomes = parity(write_recording(tmp_path / "other"))
    assert len(outcomes) == 9 and set(outcomes.values()) == {"passed"}


def test_a_recording_that_is_wrong_anywhere_fails_the_test_of_that_part(tmp_path):
    folder = write_recording(tmp_path / "wrong")
    values = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    values["train_conversations"][2] += " "
    values["infer_kf_backward"]["input_ids"][-1][-3] += 1
    values["infer_kf0_forward"]["context_index"][0] += 1
    (folder / "expected.json").write_text(json.dumps(values), encoding="utf-8")
    with np.load(folder / "expected.npz") as stored:
        arrays = dict(stored)
    arrays["train_labels"][0, np.argmax(arrays["train_labels"][0])] = -100
    np.savez(folder / "expected.npz", **arrays)
    failed = sorted(name for name, outcome in parity(folder).items() if outcome == "failed")
    assert failed == [
        "test_every_step_of_inference_has_the_ids_of_the_reference[infer_kf_backward]",
        "test_inference_takes_the_context_frames_of_the_reference[infer_kf0_forward]",
        "test_labels_are_those_of_the_reference_at_seg_and_absent_elsewhere",
        "test_training_conversations_read_as_in_the_reference",
    ]


def test_a_folder_without_a_recording_is_told(tmp_path, capsys):
    (tmp_path / "expected.json").write_text("{}", encoding="utf-8")
    assert set(parity(tmp_path, "conversations").values()) == {"failed"}
    assert f"--reference-fixture {tmp_path}: no expected.npz there" in capsys.readouterr().out
