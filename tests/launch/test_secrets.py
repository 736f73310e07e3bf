"""No password, key or token of a URL is written or printed: a config that holds one is refused before anything is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from glus.common.errors import LaunchError, TrainingError
from glus.launch import cli
from glus.launch.config.configuration import load_config
from glus.training.checkpoints.checkpoint import CONFIG, read_run_config
from glus.training.run_config import RunConfig
from glus.training.tracking.tracking_place import TrackingConfig

SECRET = "s3cr3tXYZ"


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        (["train", "tracking.uri=http://me:{}@host:5000"], "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (["train", "tracking.uri=postgresql://me:{}@host/db"], "MLFLOW_TRACKING_PASSWORD"),
        (["train", "tracking.uri=https://{}@host"], "MLFLOW_TRACKING_TOKEN"),
        (["train", "shards=s3://AKIAIOSFODNN7EXAMPLE:{}/ab+c@bucket/shards"], "AWS_SECRET_ACCESS_KEY"),
        (["evaluate", "checkpoint=a", "out=b", "shards=https://h/a?X-Amz-Signature={}"], "FSSPEC_HTTPS_PASSWORD"),
        (["prepare", "out=ftp://me:{}@host/a"], "FSSPEC_FTP_USERNAME and FSSPEC_FTP_PASSWORD"),
        (["prepare", "out=abfs://c@a.dfs.core.windows.net/x?sig={}"], "AZURE_STORAGE_ACCOUNT_KEY"),
        (["compare", "a", "tracking.uri=http://me:{}@host"], "MLFLOW_TRACKING_PASSWORD"),
        (["doctor", "run.yaml", "changes=[tracking.uri=http://me:{}@host]"], "MLFLOW_TRACKING_PASSWORD"),
        (["train", "trackng.uri=http://me:{}@host"], ""),
        (["train", "tracking=http://me:{}@host"], ""),
        (["train", "http://me:{}@host"], ""),
    ],
)
def test_a_secret_in_a_config_is_refused_and_not_shown(
    words: list[str], variables: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([word.format(SECRET) for word in words]) == 2
    told = capfd.readouterr()
    assert SECRET not in told.out + told.err and "AKIAIOSFODNN7EXAMPLE" not in told.err
    assert variables in told.err and told.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_secret_in_a_file_is_refused_with_its_key(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"tracking: {{uri: 'http://me:{SECRET}@host'}}\n", encoding="utf-8")
    with pytest.raises(LaunchError, match=r"tracking.uri: http://me:\*\*\*@host holds a secret"):
        load_config(RunConfig, file, [])
    with pytest.raises(
        TrainingError, match=r"tracking.uri=http://me:\*\*\*@host holds a user or a secret.*http://host"
    ):
        TrackingConfig(f"http://me:{SECRET}@host")


def test_an_older_checkpoint_with_a_password_is_read_without_it(tmp_path: Path) -> None:
    content = {"tracking": {"uri": f"http://me:{SECRET}@host:5000/a", "experiment": "e"}}
    (tmp_path / CONFIG).write_text(json.dumps(content), encoding="utf-8")
    assert read_run_config(tmp_path).tracking == TrackingConfig("http://host:5000/a", "e")


def test_a_bugs_traceback_shows_no_password() -> None:
    code = "from glus.launch.quiet import quiet_libraries\nquiet_libraries()\n"
    code += "import sys\nraise ValueError('cannot open ' + sys.argv[1])"
    url = f"http://me:{SECRET}@host"
    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "ValueError: cannot open http://me:***@host" in done.stderr
    assert SECRET not in done.stderr
