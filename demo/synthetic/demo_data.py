"""`glus demo-data`: the demo world in the released layouts of all six datasets, with a tokenizer of its own.

Small and synthetic, but complete: every reader, every kind of expression and every benchmark has something to read.
"""

import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sentencepiece

from glus.common.cores import usable_cores
from glus.common.errors import DataError
from glus.common.files import is_there, make_folder_aside
from glus.common.json_file import parsed_as, read_object
from glus.common.processes import process_pool
from glus.common.progress import Progress
from glus.data_pipeline.batches.conversations import template_sentences
from glus.demo.synthetic.demo_datasets import DemoDataConfig, counts_of, write_dataset

#: Of what is drawn and how it is laid out; goes up when either changes.
VERSION = 2
RECORD = "demo_data.json"
#: Of the tokenizer: room for 256 bytes, the letters, and every word of the demo's language and prompts with the pieces
#: it is merged from.
VOCABULARY = 800
#: Fewer videos than this a process are drawn sooner than a process starts.
_WORTH_A_PROCESS = 200


@dataclass(frozen=True)
class DemoDataSummary:
    """What lies below `root`. `written` is False where it lay there before.

    `videos["mevis/train"]` counts videos (or images); `expressions["mevis/train"]["motion"]` counts expressions of a
    kind, of which "" has no target.
    """

    root: Path
    written: bool
    videos: dict[str, int]
    expressions: dict[str, dict[str, int]]

    @property
    def message(self) -> str:
        """One line for the terminal."""
        total = sum(sum(kinds.values()) for kinds in self.expressions.values())
        what = f"{sum(self.videos.values())} videos with {total} expressions"
        if self.written:
            return f"demo data: wrote {what} to {self.root}"
        return f"demo data: {self.root} already holds these {what}; left as it is"


def write_demo_data(config: DemoDataConfig, prompt_sentences: Sequence[str] | None = None) -> DemoDataSummary:
    """Write the demo datasets and tokenizer.model below `config.root`, all or nothing.

    The words of `prompt_sentences` (by default those of conversations.py) become pieces of the tokenizer. Data of the
    same config is kept.
    Raises DataError where the root holds anything else, or where it cannot be written.
    """
    if prompt_sentences is None:
        prompt_sentences = template_sentences()
    wanted = _record(config, prompt_sentences)
    root = config.root
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        return _found(root, wanted)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        aside = make_folder_aside(root.parent, f".{root.name}-", ".part")
        try:
            complete = aside / "root"
            complete.mkdir()
            videos, expressions = _write_all(complete, config, prompt_sentences)
            record = wanted | {"videos": videos, "expressions": expressions}
            (complete / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            complete.rename(root)
        finally:
            shutil.rmtree(aside)
    except OSError as error:
        raise DataError(
            f"demo data: cannot write below {root} ({error.strerror or error}). Make room or choose another root; "
            "nothing half-written was left"
        ) from error
    return DemoDataSummary(root, True, videos, expressions)


def _record(config: DemoDataConfig, prompt_sentences: Sequence[str]) -> dict[str, Any]:
    """What decides the data: two roots of equal records hold equal files."""
    return {
        "version": VERSION,
        "seed": config.seed,
        "train_videos": config.train_videos,
        "valid_videos": config.valid_videos,
        "world": {**asdict(config.world), "speed": list(config.world.speed)},
        "prompt_sentences": hashlib.sha256(json.dumps(list(prompt_sentences)).encode()).hexdigest(),
        # Records of data without images or twins know nothing of them.
        **({"images": [config.train_images, config.valid_images]} if config.train_images else {}),
        **({"twins": config.twin_videos} if config.twin_videos else {}),
        **({"datasets": list(config.datasets)} if config.datasets else {}),
    }


def _found(root: Path, wanted: dict[str, Any]) -> DemoDataSummary:
    """The summary of data that is already there. Raises DataError where it is not what is wanted."""
    remedy = "choose another root, or remove this one"
    if not is_there(root / RECORD):
        raise DataError(f"demo data: {root} is there already and is no demo data (no {RECORD}); {remedy}")
    record = read_object(root / RECORD, "record of demo data", raises=DataError, remedy=remedy)
    wanted = {"images": None, "twins": None, "datasets": None, **wanted}
    held = {key: record.get(key) for key in wanted}
    fields = {"root": str(root), "written": False, **{key: record.get(key) for key in ("videos", "expressions")}}
    summary = parsed_as(fields, DemoDataSummary, str(root / RECORD), raises=DataError, remedy=remedy)
    different = [f"{key} {held[key]!r} instead of {wanted[key]!r}" for key in wanted if held[key] != wanted[key]]
    if different:
        raise DataError(f"demo data: {root} holds other demo data ({'; '.join(different)}); {remedy}")
    return summary


def _write_all(
    root: Path, config: DemoDataConfig, prompt_sentences: Sequence[str]
) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """All datasets and the tokenizer. Returns the counts of DemoDataSummary."""
    counts = counts_of(config)
    drawn = dict.fromkeys(key.split("/")[0] for key in counts)
    cores = usable_cores() if config.workers is None else config.workers
    processes = min(cores, len(drawn))
    if config.workers is None:
        processes = min(processes, sum(counts.values()) // _WORTH_A_PROCESS)
    kinds: dict[str, Counter[str]] = {key: Counter() for key in counts}
    texts: list[str] = []
    with Progress(total=sum(counts.values()), desc="demo data", unit="video") as progress, ExitStack() as stack:
        if processes > 1:
            pool = stack.enter_context(process_pool(processes))
            # A video is a function of seed, dataset, split and index: who draws it changes nothing.
            results = pool.map(partial(write_dataset, root, config), drawn)
        else:
            results = (write_dataset(root, config, dataset, progress.update) for dataset in drawn)
        for found, said in results:
            kinds |= found
            texts.extend(said)
            if processes > 1:
                progress.update(sum(counts[key] for key in found))
    (root / "tokenizer.model").write_bytes(train_tokenizer(texts, prompt_sentences))
    return counts, {key: dict(sorted(counter.items())) for key, counter in kinds.items()}


def train_tokenizer(expressions: Iterable[str], prompt_sentences: Iterable[str]) -> bytes:
    """A SentencePiece BPE model (the bytes of tokenizer.model), a pure function of the texts.

    Settings as in LLaMA's own model: byte fallback, no normalization, split digits, <unk> 0, <s> 1, </s> 2. Each word
    counts once, however often it is used: the vocabulary then has room for words, not for parts of frequent ones.
    Expressions are lower-cased, as prompts have them.
    """
    prompts = [line for sentence in prompt_sentences for line in sentence.splitlines() if line.strip()]
    words = {word for text in expressions for word in text.lower().split()}
    words |= {word for line in prompts for word in line.split()}
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*sorted(words), *prompts]),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY,
        hard_vocab_limit=False,
        character_coverage=1.0,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()
