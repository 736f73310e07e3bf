"""Typed configs from defaults, a YAML file and overrides; every misspelling is told with what was meant."""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glus.common.errors import LaunchError
from glus.common.paths import PathText
from glus.launch.cli import COMMANDS
from glus.launch.config.configuration import load_config, to_yaml
from glus.launch.config.help_text import config_help
from glus.launch.config.schema import is_list, known_keys


@dataclass(frozen=True)
class Optimizer:
    """How weights are changed."""

    learning_rate: float = 3e-4
    """Peak of the schedule."""
    betas: tuple[float, float] = (0.9, 0.95)

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"optimizer.learning_rate is {self.learning_rate}; it must be above 0")


@dataclass(frozen=True)
class Split:
    name: str = "train"
    weight: float = 1.0


@dataclass(frozen=True)
class Run:
    """A run for these tests."""

    out: Path
    optimizer: Optimizer = field(default_factory=Optimizer)
    bank: Optimizer | None = None
    steps: int = 10
    kind: Literal["lora", "full"] = "lora"
    datasets: tuple[str, ...] = ()
    splits: tuple[Split, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    note: str = ""
    seed: int | None = None
    dry_run: bool = False


def write(folder: Path, text: str) -> Path:
    file = folder / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_an_override_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    file = write(tmp_path, "out: a\nsteps: 20\noptimizer:\n  learning_rate: 1e-3\n  betas: [0.5, 0.6]\n")
    run = load_config(Run, file, ["optimizer.learning_rate=2e-3", "--seed", "7"])
    assert run == Run(Path("a"), Optimizer(2e-3, (0.5, 0.6)), steps=20, seed=7)


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer.learning_rate=1e-2"],
        ["--optimizer.learning_rate", "1e-2"],
        ["--optimizer.learning_rate=1e-2"],
        ["--optimizer.learning-rate", "1e-2"],
        ["optimizer={learning_rate: 1e-2}"],
    ],
)
def test_every_way_to_write_an_override_means_the_same(words: list[str]) -> None:
    assert load_config(Run, None, ["out=x", *words]).optimizer == Optimizer(0.01)


def test_lists_tables_flags_and_optional_sections_can_be_overridden() -> None:
    words = ["out=x", "datasets=[mevis, revos]", "weights.Ref-DAVIS17=4", "--weights.mevis", "40", "--dry-run"]
    run = load_config(Run, None, [*words, "bank.learning_rate=1", "note=123", "splits=[{name: valid}]"])
    assert run.datasets == ("mevis", "revos")
    assert run.weights == {"Ref-DAVIS17": 4.0, "mevis": 40.0}
    assert run.dry_run is True
    assert run.bank == Optimizer(1.0)
    assert run.note == "123"
    assert run.splits == (Split("valid"),)


def test_a_later_override_wins_and_a_section_of_the_file_is_not_lost(tmp_path: Path) -> None:
    file = write(tmp_path, "out: a\nweights: {mevis: 1}\n")
    run = load_config(Run, file, ["steps=1", "steps=2", "weights.revos=3"])
    assert run.steps == 2
    assert run.weights == {"mevis": 1.0, "revos": 3.0}


def test_what_one_config_was_given_does_not_reach_the_next() -> None:
    """All configs of a class are read by one parser."""
    untouched = load_config(Run, None, ["out=x"])
    given = ["bank.betas=[0.1, 0.2]", "datasets=[a, b]", "weights={a: 1}", "splits=[{name: valid}]", "kind=full"]
    changed = load_config(Run, None, ["out=y", *given])
    with pytest.raises(LaunchError, match="no key 'stpes'"):
        load_config(Run, None, ["out=y", "stpes=5"])
    with pytest.raises(LaunchError, match="does not fit"):
        load_config(Run, None, ["out=y", "datasets=[c]", "seed=late"])
    with pytest.raises(LaunchError, match="must be above 0"):
        load_config(Run, None, ["out=y", "steps=3", "optimizer.learning_rate=0"])
    changed.weights["b"] = 2.0
    assert load_config(Run, None, ["out=x"]) == untouched == Run(Path("x"))


def test_texts_that_look_like_other_things_stay_texts(tmp_path: Path) -> None:
    assert load_config(Run, write(tmp_path, "out: a\nnote: no\n"), []).note == "no"
    assert load_config(Run, None, ["out=x", "note=a: b # $(touch x) {y}"]).note == "a: b # $(touch x) {y}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer.lerning_rate=1"], r"did you mean optimizer\.learning_rate \(a number\)\?"),
        (
            ["--optimizer.lerning-rate", "1"],
            r"--optimizer.lerning-rate 1: no key .* did you mean optimizer\.learning_rate",
        ),
        (["learning_rate=1"], r"no key 'learning_rate' in Run; did you mean optimizer\.learning_rate"),
        (["optimizer.zzz=1"], r"there are: optimizer\.learning_rate, optimizer\.betas"),
        (["zzz=1"], r"there are: out, optimizer, bank, steps"),
        (["steps=1.5"], r'steps=1\.5: steps = "1\.5" does not fit; wanted: an integer'),
        (["optimizer.learning_rate=fast"], r"optimizer\.learning_rate=fast: .* wanted: a number"),
        (["kind=both"], r"kind = \"both\" does not fit; wanted: one of: lora, full"),
        (["datasets=mevis"], r"wanted: tuple\[str, \.\.\.\], such as datasets=\[mevis\]"),
        (["optimizer=3"], r"optimizer is a section with the keys learning_rate, betas; not 3"),
        (["weights.mevis=much"], r"weights\.mevis = \"much\" does not fit; wanted: dict\[str, float\]"),
        (["optimizer.learning_rate=0"], r"optimizer\.learning_rate is 0\.0; it must be above 0"),
        (["optimizer.betas=[1,"], r"optimizer\.betas = .* does not fit"),
        (["--steps"], r"--steps needs a value"),
        (["steps"], r"'steps' is no override; write key=value, such as out="),
    ],
)
def test_a_wrong_override_is_told_with_what_would_be_right(words: list[str], message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        load_config(Run, None, ["out=x", *words])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "out: a\noptimizer:\n  lerning_rate: 1\n",
            r"run\.yaml: no key 'optimizer\.lerning_rate' in Run; did you mean",
        ),
        ("out: a\nsteps: many\n", r'run\.yaml: steps = "many" does not fit; wanted: an integer'),
        ("out: a\nnote: 5\n", r"run\.yaml: note = 5 does not fit; wanted: a text"),
        ("steps: 3\n", r"Run needs out=\.\.\. \(a path\)"),
        ("out: a\nsteps: [1\n", r"run\.yaml, line 3, column 1: not readable as YAML"),
        ("out: a\nsteps: 1\nsteps: 2\n", r"run\.yaml, line 3, column 1: .*'steps' stands twice, in lines 2 and 3"),
        ("out: !!python/object/apply:os.getcwd []\n", r"could not determine a constructor"),
        ("- a\n- b\n", r"a config is a list of `key: value` lines, not list"),
        ("out: a\noptimizer: other.yaml\n", r"optimizer is a section with the keys"),
        ("out: a\noptimizer:\n", r"optimizer is a section with the keys learning_rate, betas; not None"),
        ("out: a\n1: b\n", r"key 1 is not a text"),
    ],
)
def test_a_wrong_file_is_told_with_its_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        load_config(Run, write(tmp_path, text), [])


def test_all_unknown_keys_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(LaunchError) as told:
        load_config(Run, write(tmp_path, "out: a\nstep: 1\nsed: 2\n"), ["kid=lora"])
    text = str(told.value)
    assert "\n" not in text
    assert [part.split(" ")[0] for part in text.split("did you mean ")[1:]] == ["steps", "seed", "kind"]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="absent.yaml: no such config file"):
        load_config(Run, tmp_path / "absent.yaml", [])


texts = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
numbers = st.floats(allow_nan=False)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    out=st.sampled_from(["a", "b c", "/x/ü"]),
    rate=st.floats(min_value=1e-300, allow_nan=False),
    note=st.one_of(
        texts, st.sampled_from(["1e-3", "null", "true", "no", "0x1f", ".inf", "~", "12:30", "2024-01-01", ""])
    ),
    weights=st.dictionaries(st.from_regex(r"[A-Za-z][\w\-]*", fullmatch=True), numbers, max_size=3),
    names=st.lists(texts, max_size=3),
    seed=st.none() | st.integers(),
    bank=st.none() | st.just(Optimizer(1.0)),
)
def test_a_config_written_as_yaml_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    out: str,
    rate: float,
    note: str,
    weights: dict[str, float],
    names: list[str],
    seed: int | None,
    bank: Optimizer | None,
) -> None:
    splits = tuple(Split(name) for name in names)
    run = Run(
        Path(out), Optimizer(rate), bank, note=note, weights=weights, datasets=tuple(names), seed=seed, splits=splits
    )
    file = tmp_path_factory.getbasetemp() / "round.yaml"
    file.write_text(to_yaml(run), encoding="utf-8", newline="")
    assert load_config(Run, file, []) == run


@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\u2029"])
def test_rare_line_breaks_survive(tmp_path: Path, mark: str) -> None:
    run = Run(Path("a"), note=f"before{mark}after, long{mark}")
    assert load_config(Run, write(tmp_path, to_yaml(run)), []) == run


def test_numbers_without_value_survive(tmp_path: Path) -> None:
    file = write(tmp_path, to_yaml(Run(Path("a"), weights={"x": math.inf})))
    assert load_config(Run, file, []).weights == {"x": math.inf}


def test_help_lists_every_key_with_type_default_and_docs() -> None:
    shown = " ".join(config_help(Run, usage="glus run", description="runs").split())
    for piece in (
        "--optimizer.learning_rate",
        "Peak of the schedule. (type: float, default: 0.0003)",
        "--kind {lora,full}",
    ):
        assert piece in shown
    assert "How weights are changed" in shown
    assert "Path to a configuration file" not in shown


@dataclass(frozen=True)
class Places:
    """Every form in which a config holds paths, and texts that are none."""

    out: Path = Path("out")
    shards: PathText = ""
    vision: Path | None = None
    start: PathText | None = None
    key_frame: int | Path = 0
    runs: tuple[PathText, ...] = ()
    folders: tuple[Path, ...] = ()
    by_name: dict[str, PathText] = field(default_factory=dict)
    expressions: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Placed:
    """A section with paths."""

    places: Places = field(default_factory=Places)


PATHS = [
    ("out", "{}", Path),
    ("shards", "{}", str),
    ("vision", "{}", Path),
    ("start", "{}", str),
    ("key_frame", "{}", Path),
    ("runs", "[a, '{}']", lambda path: ("a", path)),
    ("folders", "['{}']", lambda path: (Path(path),)),
    ("by_name", "{{a: '{}'}}", lambda path: {"a": path}),
    ("by_name.b", "{}", lambda path: {"b": path}),
]


@pytest.mark.parametrize("from_file", [False, True], ids=["override", "file"])
@pytest.mark.parametrize(("key", "form", "kind"), PATHS, ids=[key for key, _, _ in PATHS])
def test_a_home_folder_is_expanded_in_every_path_and_a_variable_refused(
    key: str, form: str, kind: Callable[[str], object], from_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")

    def loaded(value: str) -> Placed:
        text = form.format(value)
        if from_file:
            quoted = f"'{text}'" if form == "{}" else text
            section, _, name = key.partition(".")
            line = f"{section}: {{{name}: {quoted}}}" if name else f"{section}: {quoted}"
            return load_config(Placed, write(tmp_path, f"places: {{{line}}}\n"), [])
        return load_config(Placed, None, [f"places.{key}={text}"])

    assert getattr(loaded("~/x").places, key.partition(".")[0]) == kind("/home/me/x")
    for wrong in ("a/~/x", "$SCRATCH/x"):
        with pytest.raises(
            LaunchError, match=rf"^{'.*run.yaml: ' if from_file else ''}places\.{key.partition('.')[0]}: "
        ):
            loaded(wrong)


def test_texts_that_are_no_paths_keep_what_a_shell_would_expand() -> None:
    words = ["places.note=~/x costs $HOME", 'places.expressions=["the $5 note", "~ the $NAME tag"]']
    places = load_config(Placed, None, words).places
    assert (places.note, places.expressions) == ("~/x costs $HOME", ("the $5 note", "~ the $NAME tag"))


@pytest.mark.parametrize(
    ("command", "needed", "keys"),
    [
        ("train", "", "out shards init_from weights.glus weights.language weights.vision weights.segmenter"),
        ("train", "", "model.tokenizer tracking.uri"),
        ("prepare", "datasets=[mevis] root=a out=a", "root out ray_address"),
        ("evaluate", "checkpoint=a shards=a out=a", "checkpoint shards out vision inference.key_frames tracking.uri"),
        ("segment", "video=a weights=a out=a expressions=[x]", "video weights out vision key_frame selector"),
        ("select-frames", "checkpoint=a shards=a out=a", "checkpoint shards out"),
        ("segment", "video=a weights=a out=a expressions=[x]", "inference.key_frames"),
        ("data", "action=[stats] shards=a", "shards out"),
        ("score", "predictions=a shards=a out=a", "predictions shards out"),
        ("package", "predictions=a shards=a out=a split=mevis/valid", "predictions shards out"),
        ("report", "", "evaluations out shards"),
        ("compare", "", "runs out tracking.uri"),
        ("jobs", "", "folders"),
        ("submit", "what=train config=a", "config cluster prepare evaluate selector"),
        ("pretrain-encoder", "out=a run=a", "out run"),
        ("export", "checkpoint=a out=a", "checkpoint out"),
    ],
)
def test_every_key_of_a_command_that_holds_a_path_refuses_a_variable(command: str, needed: str, keys: str) -> None:
    place, _, name = COMMANDS[command].config.partition(":")
    cls = getattr(importlib.import_module(place), name)
    for key in keys.split():
        value = "[$SCRATCH/x]" if is_list(known_keys(cls)[key]) else "$SCRATCH/x"
        with pytest.raises(LaunchError, match=rf"^{key}: \$SCRATCH is not expanded"):
            load_config(cls, None, [*needed.split(), f"{key}={value}"])


def test_a_config_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(b"\xef\xbb\xbfout: a\r\nsteps: 3\r\n")
    assert load_config(Run, file, []) == Run(Path("a"), steps=3)


@dataclass(frozen=True)
class Sizes:
    """A section without defaults."""

    heads: int
    stages: int


@dataclass(frozen=True)
class Asking:
    """A run whose section may be left out."""

    sizes: Sizes | None = None


def test_what_an_optional_section_is_missing_is_named_in_full() -> None:
    with pytest.raises(LaunchError, match=r"Asking needs sizes\.stages=\.\.\. \(an integer\)"):
        load_config(Asking, None, ["sizes.heads=1"])
    with pytest.raises(LaunchError, match=r"sizes\.heads"):
        load_config(Asking, None, ["sizes.heads=many", "sizes.stages=2"])
