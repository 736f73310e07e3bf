"""The help of a command: every key with its type and default, grouped by section, and examples at the end."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_type_hints

from glus.launch.config.configuration import add_arguments, new_parser
from glus.launch.config.schema import section_of

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

#: Examples at the end of each command's help; tests parse every one of them.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo-data": ("glus demo-data configs/looks_data.yaml root=build/raw",),
    "prepare": (
        "glus prepare datasets=[mevis,revos] root=/data/raw out=/data/shards",
        "glus prepare datasets=[refcoco] root=/data/raw out=s3://bucket/shards",
    ),
    "data": (
        "glus data stats shards=/data/shards",
        "glus data show shards=/data/shards out=build/samples.png",
    ),
    "pretrain-encoder": ("glus pretrain-encoder configs/demo_encoder.yaml run=configs/demo.yaml out=build/sam2.pt",),
    "train": (
        "glus train configs/glus_a.yaml shards=/data/shards out=build/glus_a",
        "glus train configs/glus_a.yaml optimizer.learning_rate=1e-4 --engine.micro-batch-size 2",
        "glus train configs/glus_a.yaml --print-config",
    ),
    "evaluate": (
        "glus evaluate checkpoint=build/glus_a shards=/data/shards out=build/glus_a/eval",
        "glus evaluate checkpoint=build/glus_a shards=/data/shards out=build/eval splits=[mevis/valid_u]",
    ),
    "select-frames": ("glus select-frames checkpoint=build/selector shards=/data/shards out=build/key_frames.json",),
    "export": ("glus export build/glus_a out=build/release",),
    "download": (
        "glus download configs/glus_a.yaml",
        "glus download datasets=[mevis] root=/data/raw",
    ),
    "segment": (
        'glus segment clip.mp4 "the dog on the left" "the ball" --weights build/glus_a --out build/masks',
        'glus segment frames/ "the dog" --weights build/glus_a --out build/masks --key-frame 12',
    ),
    "page": (
        "glus page --weights build/glus_a",
        "glus page --weights Swindl/GLUS-S --videos /data/videos --port 8000",
    ),
    "score": ("glus score predictions=build/eval shards=/data/shards out=build/scores",),
    "package": ("glus package predictions=build/eval shards=/data/shards split=mevis/valid out=mevis_valid.zip",),
    "report": ("glus report build/glus_a/eval build/glus_s/eval out=build/report",),
    "compare": (
        "glus compare glus_a glus_s --published",
        "glus compare build/glus_a/eval build/glus_s/eval out=build/compare",
    ),
    "pointing": ("glus pointing build/demo/places_in_clips shards=build/demo/shards out=build/pointing",),
    "study": (
        "glus study configs/study.yaml",
        "glus study configs/study.yaml seeds=[0] out=build/study_of_one_seed",
        "glus study configs/study.yaml report_only=true",
    ),
    "completion": (
        "glus completion bash >~/.local/share/bash-completion/completions/glus",
        "glus completion zsh >~/.zfunc/_glus",
    ),
    "plan": (
        "glus plan configs/glus_a.yaml --nodes 1 --gpus-per-node 8",
        "glus plan --trace configs/glus_a.yaml",
    ),
    "doctor": ("glus doctor configs/glus_a.yaml",),
    "submit": (
        "glus submit train configs/glus_a.yaml nodes=2",
        "glus submit reproduce configs/glus_a.yaml nodes=2 --dry-run",
    ),
    "jobs": ("glus jobs build",),
    "demo": ("glus demo", "glus demo configs/demo_looks.yaml"),
    "demo-davis": ("glus demo-davis data=/data/raw start=build/looks/clips",),
    "demo-videolisa": ("glus demo-videolisa",),
}


def config_help(cls: type, usage: str, description: str, examples: Sequence[str] = ()) -> str:
    """Every key with its type, default and docs (the docstrings of the dataclasses and of their attributes)."""
    parser = _parser(cls)
    parser.usage = usage
    parser.description = description
    # jsonargparse would take the path of a file for a section; load_config does not (one file, one place to look).
    text = re.sub(r"^ +--\S+ CONFIG\s+Path to a configuration file\.\n", "", parser.format_help(), flags=re.MULTILINE)
    # Nor is there an option for the fields of a table's sections: the table's own text says where they are described.
    text = re.sub(r"^ +--\S+\.help\s+Show the help for \S+\s+and\s+exit\.\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"Annotated\[str,\s+path\]|<class\s+'Path'>|\bPath\b(?=[ |\],)])", "path", text)
    if examples:
        text = f"{text.rstrip()}\n\nExamples:\n" + "".join(f"  {line}\n" for line in examples)
    return text


def _parser(cls: type) -> "ArgumentParser":
    """A parser with the keys of optional sections (`Part | None`) too, which a value for the section would hide."""
    hints = get_type_hints(cls)
    optional = {name: found for name, hint in hints.items() if (found := section_of(hint)) and hint is not found}
    parser = new_parser()
    add_arguments(parser, cls, skip=set(optional))
    for name, section in optional.items():
        add_arguments(parser, section, name)
    return parser
