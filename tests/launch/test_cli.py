"""`glus`: quick help, one message for what a person can mend, a traceback for a bug."""

import importlib
import os
import re
import shlex
import socket
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

from glus.common.errors import DataError, EvaluationError, LaunchError, ModelError, TrainingError
from glus.common.locks import exclusive, exclusive_file
from glus.launch import cli, quiet
from glus.launch.config.help_text import EXAMPLES
from glus.launch.config.schema import known_keys, section_of
from glus.training.tracking.tracking import Tracker
from glus.training.tracking.tracking_place import TrackingConfig


@dataclass(frozen=True)
class Wish:
    """A config for these tests."""

    number: int = 1
    """What comes back as the exit code."""
    names: tuple[str, ...] = ()
    fails: str = ""


def grant(config: Wish) -> int:
    errors = (
        *(DataError, ModelError, TrainingError, EvaluationError, LaunchError),
        *(KeyboardInterrupt, ZeroDivisionError, MemoryError),
    )
    for error in errors:
        if config.fails == error.__name__:
            raise error("frame 3 of video a is no JPEG")
    print(f"{config.number} {config.names}")
    return config.number


@pytest.fixture
def wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table with one more command, as a later one is added."""
    monkeypatch.setitem(sys.modules, "wishes", sys.modules[__name__])
    monkeypatch.setitem(cli.COMMANDS, "wish", cli.Command("wishes:grant", "wishes:Wish", "grants", words="names"))


@pytest.mark.usefixtures("wish")
def test_a_command_gets_its_config_and_its_number_is_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["wish", "number=7", "one", "two"]) == 7
    assert capsys.readouterr().out == "7 ('one', 'two')\n"


@pytest.mark.usefixtures("wish")
def test_a_config_file_stands_beside_words_and_overrides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "wish.yaml"
    file.write_text("number: 3\n", encoding="utf-8")
    assert cli.main(["wish", str(file), "a", "--number", "0"]) == 0
    assert capsys.readouterr().out == "0 ('a',)\n"


@pytest.mark.usefixtures("wish")
def test_print_config_prints_what_would_be_used_and_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["wish", "number=7", "fails=DataError", "--print-config"]) == 0
    assert capsys.readouterr().out == "number: 7\nnames: []\nfails: DataError\n"


@pytest.mark.usefixtures("wish")
@pytest.mark.parametrize("name", ["DataError", "ModelError", "TrainingError", "EvaluationError", "LaunchError"])
def test_what_a_person_can_mend_is_one_message_and_exit_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["wish", f"fails={name}"]) == 2
    assert capsys.readouterr().err == "glus wish: frame 3 of video a is no JPEG\n"


@pytest.mark.usefixtures("wish")
def test_an_interrupt_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["wish", "fails=KeyboardInterrupt"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.usefixtures("wish")
def test_lack_of_memory_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["wish", "fails=MemoryError"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("glus wish: out of memory: ") and shown.count("\n") == 1


@pytest.mark.usefixtures("wish")
def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        cli.main(["wish", "fails=ZeroDivisionError"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "no command 'trian'; did you mean train?"),
        (["zzz"], "no command 'zzz'; there are: demo-data, prepare, "),
        (["compare", "a.yaml", "b.yaml"], "one config file at a time; got a.yaml, b.yaml"),
        (["compare", "none.yaml"], "none.yaml: no such config file"),
        (["compare", "trackng.uri=x"], "did you mean tracking.uri (a text)?"),
    ],
)
def test_a_wrong_command_line_is_told(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["demo", "--print-config"]])
def test_output_that_nobody_reads_any_more_ends_a_command_without_a_message(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "glus.launch.cli", *words],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (cli.UNREAD, "")


def test_a_broken_pipe_elsewhere_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(words: list[str]) -> int:
        raise BrokenPipeError(32, "the connection to a server")

    monkeypatch.setattr(cli, "_main", broken)
    with open(os.devnull, "w") as nowhere:
        monkeypatch.setattr(sys, "stdout", nowhere)
        with pytest.raises(BrokenPipeError):
            cli.main(["plan"])


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"glus {metadata.version('glus')}\n"


def test_help_of_a_command_lists_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: glus compare [CONFIG.yaml] [RUN ...] [key=value ...]")
    assert "--tracking.experiment" in shown


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_help_has_a_line_for_every_key(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    keys = re.findall(r"^  --(\S+)(.*?)(?=^  --|^\S|\Z)", shown, re.MULTILINE | re.DOTALL)
    # After the key and what stands for its value comes the text, and last, in brackets, its type.
    bare = [
        key
        for key, rest in keys
        if re.fullmatch(r"[^a-z]*(\{\S+\}[^a-z]*)?(--\S+ [^a-z]*)?\((required|type).*", " ".join(rest.split()))
    ]
    assert keys and bare == []


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_help_names_every_key_optional_sections_too_and_ends_with_examples(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert cli.main([name, "--help"]) == 0
    shown, _, examples = capsys.readouterr().out.partition("\nExamples:\n")
    keys = known_keys(cli.load_config_class(cli.COMMANDS[name]))
    options = set(re.findall(r"^  --(\S+)", shown, re.MULTILINE))
    assert [key for key, hint in keys.items() if section_of(hint) is None and key not in options] == []
    assert "<class" not in shown and "Show the help for" not in shown
    lines = [line.strip() for line in examples.splitlines()]
    assert lines == list(EXAMPLES[name]) and all(line.startswith(f"glus {name}") for line in lines)
    for line in lines:
        words = shlex.split(line.partition(" >")[0])[1:]
        assert cli.main([*words, "--print-config"]) == 0, capsys.readouterr().err


@pytest.mark.slow
def test_bash_completes_commands_keys_and_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    script = tmp_path / "glus.bash"
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    for words, wanted in (
        (["comp"], {"compare", "completion"}),
        (["compare", "--pub"], {"--published"}),
        (["train", "--optimizer.lea"], {"--optimizer.learning_rate"}),
        (["evaluate", "--device", ""], {"auto", "cuda", "cpu"}),
    ):
        ask = (
            f"source {script}; COMP_WORDS=(glus {' '.join(repr(word) for word in words)}); COMP_CWORD={len(words)}; "
            '_shtab_glus; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
        assert set(done.stdout.split()) == wanted, done.stderr


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys; from glus.launch.cli import main; main(['--help']);"
        "heavy = {'torch', 'ray', 'mlflow', 'deepspeed', 'transformers', 'numpy', 'jsonargparse'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in cli.COMMANDS)


def test_commands_without_a_model_start_without_torch() -> None:
    """It takes seconds. `train` holds its folder first, so that a second run is refused at once."""
    names = ("demo-data", "prepare", "score", "report", "compare", "study", "jobs", "demo", "train")
    modules = [cli.COMMANDS[name].function.partition(":")[0] for name in names]
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    words = [sys.executable, "-P", "-c", code, *modules, "glus.launch.ranks.attempts"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_of_the_table_is_there(name: str) -> None:
    for place in (cli.COMMANDS[name].config, cli.COMMANDS[name].function):
        module, _, attribute = place.partition(":")
        assert callable(getattr(importlib.import_module(module), attribute))


@pytest.mark.slow
def test_libraries_are_quiet_only_once_a_command_starts() -> None:
    code = (
        "import logging, os, warnings, glus.launch.cli, glus.launch.quiet\n"
        "assert logging.getLogger('ray').level == 0 and 'TRANSFORMERS_VERBOSITY' not in os.environ\n"
        "glus.launch.quiet.quiet_libraries()\n"
        "import deepspeed\n"
        "warnings.warn('old', FutureWarning); logging.getLogger('DeepSpeed').warning('pages')\n"
        "logging.getLogger('DeepSpeed').error('kept')\n"
    )
    # Commands that ran in this process have set its environment.
    fresh = {name: value for name, value in os.environ.items() if name not in quiet.ENVIRONMENT}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=fresh)
    assert done.returncode == 0, done.stderr
    [only] = (done.stdout + done.stderr).splitlines()
    assert only.endswith("kept")


@pytest.mark.slow
def test_recorded_runs_are_compared_on_the_terminal_and_as_pages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for name, rate in (("plain", 0.1), ("contrastive", 0.2)):
        with Tracker.start(TrackingConfig(uri=uri), name, {"rate": rate, "seed": 1}) as tracker:
            for step in range(3):
                tracker.log_metrics({"loss": rate + step}, step)
    assert cli.main(["compare", "plain", "contrastive", f"tracking.uri={uri}", f"out={tmp_path}/pages"]) == 0
    shown = capsys.readouterr().out
    assert "rate" in shown and "plain" in shown and "seed" not in shown
    assert "contrastive" in (tmp_path / "pages" / "comparison.html").read_text(encoding="utf-8")
    assert (tmp_path / "pages" / "comparison.md").is_file()
    published = ["compare", "plain", "--published", f"tracking.uri={uri}", f"out={tmp_path}/others"]
    assert cli.main(published) == 0
    assert "GLUS-A" in capsys.readouterr().out
    assert "arXiv 2504.07962" in (tmp_path / "others" / "comparison.md").read_text(encoding="utf-8")
    assert cli.main(["compare", "plian", f"tracking.uri={uri}"]) == 2
    assert "the runs are: contrastive, plain" in capsys.readouterr().err


def test_an_error_is_one_line_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "no\x1b[31mne\n\nglus compare: all is well.yaml"]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and "\x1b" not in shown and "no\\x1b[31mne glus" in shown


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["score", "predictions=p", "shards=s", "out=OUT"], "OUT"),
        (["report", "a", "b", "out=OUT"], "OUT"),
        (["compare", "a", "b", "out=OUT"], "OUT"),
        (["demo", "out=OUT"], "OUT"),
        (["demo-davis", "data=d", "start=s", "out=OUT"], "OUT"),
        (["data", "stats", "shards=s", "out=OUT"], "FILE"),
        (["demo-videolisa", "out=OUT"], "OUT"),
        (["pointing", "c", "shards=s", "out=OUT"], "OUT"),
        (
            ["study", "shards=s", "out=OUT", "arms={a: {}}", "trainings={t: {config: c.yaml}}"]
            + ["evaluations={e: {splits: [d/s]}}", "measures={m: {metric: JF}}"],
            "OUT",
        ),
        (["demo-data", "root=OUT"], "FILE"),
        (["pretrain-encoder", "run=r.yaml", "out=OUT"], "FILE"),
        (["export", "c", "out=OUT"], "FILE"),
        (["segment", "v", "a dog", "weights=w", "out=OUT"], "FILE"),
        (["package", "predictions=p", "shards=s", "split=mevis/valid", "out=OUT"], "FILE"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_a_command_whose_out_another_one_writes_is_refused_with_its_host_and_process(
    words: list[str], out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "out"
    with exclusive(place, "glus train") if out == "OUT" else exclusive_file(place, "glus train"):
        assert cli.main([word.replace("OUT", str(place)) for word in words]) == 2
    told = capsys.readouterr().err
    assert f"is in use by glus train on {socket.gethostname()}, process {os.getpid()}: wait for it" in told
    assert told.count("\n") == 1 and list(tmp_path.iterdir()) == []
