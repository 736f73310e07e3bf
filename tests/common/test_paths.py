"""`~` is the home folder; a `~` or `$NAME` that no shell expanded never becomes the name of a folder."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glus.common.errors import InputError
from glus.common.paths import expand_path


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(
    ("given_path", "meant"),
    [
        ("~", "/home/me"),
        ("~/runs/one", "/home/me/runs/one"),
        ("~root/x", str(Path("~root").expanduser() / "x")),
        ("sqlite:///~/mlflow.db", "sqlite:////home/me/mlflow.db"),
        ("file://~/shards", "file:///home/me/shards"),
        # No home folder is meant.
        ("", ""),
        ("build/run", "build/run"),
        ("build/run~", "build/run~"),
        ("./~draft", "./~draft"),
        ("a/~b/c", "a/~b/c"),
        ("costs $5", "costs $5"),
        ("a $(touch pwned) b", "a $(touch pwned) b"),
        ("s3://bucket/shards", "s3://bucket/shards"),
        ("sqlite:////abs/mlflow.db", "sqlite:////abs/mlflow.db"),
        ("http://host/~me/mlflow", "http://host/~me/mlflow"),
        ("http://me:pa$word@host:5000", "http://me:pa$word@host:5000"),
    ],
)
def test_a_path_means(given_path: str, meant: str) -> None:
    assert expand_path(given_path) == meant


@pytest.mark.parametrize(
    "refused",
    [
        "/data/~/x",
        "data/~",
        "./~/x",
        "file:///~/x",
        "file:~/x",
        "sqlite:////~/x.db",
        "sqlite://~/x.db",
        "sqlite:///%7E/x.db",
        "s3://bucket/~/x",
        "simplecache::~/x",
        "~nobody-has-this-name/x",
        "~$USER/x",
        "$SCRATCH/run",
        "${SCRATCH}/run",
        "/data/$USER/run",
        "run-${SLURM_JOB_ID}",
        "s3://$BUCKET/x",
        "http://$HOST:5000",
        "http://${WHO}:secret@host:5000",
        "sqlite:///$HOME/mlflow.db",
        "a\0b",
        "\udcff",
    ],
)
def test_a_path_that_cannot_be_meant_is_refused(refused: str) -> None:
    with pytest.raises(InputError) as raised:
        expand_path(refused)
    assert "secret" not in str(raised.value)


def test_a_folder_whose_name_holds_a_dollar_is_taken_where_it_exists(tmp_path: Path) -> None:
    place = f"{tmp_path}/price in $US/run"
    with pytest.raises(InputError, match=r"\$US is not expanded"):
        expand_path(place)
    (tmp_path / "price in $US").mkdir()
    assert expand_path(place) == place


@pytest.mark.slow
@given(st.text())
def test_any_text_is_expanded_or_refused(text: str) -> None:
    try:
        found = expand_path(text)
    except InputError:
        return
    assert "~" not in found.split("/")
