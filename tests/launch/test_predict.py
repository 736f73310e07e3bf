"""Processes that predict: they end with the command that started them, and may take their time to end."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.inference_config import InferenceConfig
from glus.evaluation.predict.model_source import ModelSource
from glus.evaluation.predict.worklist import work_list
from glus.launch.commands import predict as prediction
from glus.launch.commands.predict import Prediction, predict

#: Starts a process that would sleep for minutes, and says its number when it watches its parent.
PARENT = """
import multiprocessing, os, time
from glus.launch.ranks.parent import end_with_parent

def child():
    end_with_parent()
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=child, daemon=True)
    process.start()
    process.join()
"""


def test_a_process_ends_when_the_one_that_started_it_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT, encoding="utf-8")
    with subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        _, left = psutil.wait_procs([child], timeout=60)
        for each in left:
            each.kill()
    assert left == []


def test_a_process_with_nothing_left_to_do_may_take_its_time_to_end(
    tiny_demo: Path, answering_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that does much else, ending Python and torch takes longer than any limit."""
    monkeypatch.setattr(prediction, "GRACE", 0)
    split = ShardedSplit.open(tiny_demo / "shards" / "mevis" / "train")
    items = work_list([split])
    work = Prediction(ModelSource.find(answering_run), (split,), tmp_path / "masks", InferenceConfig(), items)
    assert sorted(done.item.name for done in predict(work, 2)) == sorted(item.name for item in items)
