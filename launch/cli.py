"""`glus COMMAND [CONFIG.yaml] [key=value ...]`: a table of commands; what one needs is imported when it runs."""

import importlib
import os
import select
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from glus.common.atomic import disk_fault
from glus.common.errors import LaunchError, UserError
from glus.common.imports import quick_imports
from glus.common.terminal import one_line

#: Set for a command that is to end with the process that started it: the id of that process.
PARENT = "GLUS_PARENT"
INTERRUPTED = 130
#: As a shell names a program that SIGPIPE ended.
UNREAD = 141
CANNOT_WORK = 2


@dataclass(frozen=True)
class Command:
    """A line of the table. `function` and `config` are "module:name"; the function takes a config of that class.

    `words` names the config's list that bare words fill: `glus compare RUN RUN`.
    `first` names the key that takes the first of them: `glus segment VIDEO EXPRESSION EXPRESSION`.
    `fills` names the key of the folder that it writes into, `makes` that of the file or folder that it makes: one
    command at a time does. prepare, train, evaluate, select-frames and submit take their own locks: they have several
    of each.
    `file` names the key that takes the .yaml file, the config of another command: `glus submit train CONFIG.yaml`.
    """

    function: str
    config: str
    help: str
    words: str = ""
    first: str = ""
    file: str = ""
    fills: str = ""
    makes: str = ""


COMMANDS = {
    "demo-data": Command(
        "glus.demo.synthetic.demo_data:write_demo_data",
        "glus.demo.synthetic.demo_datasets:DemoDataConfig",
        "draw synthetic videos in the released layout of the six datasets",
        makes="root",
    ),
    "prepare": Command(
        "glus.data_pipeline.shards.prepare:prepare",
        "glus.data_pipeline.shards.prepare:PrepareConfig",
        "write raw datasets into shards, with Ray",
    ),
    "data": Command(
        "glus.data_pipeline.inspect.inspect_data:data",
        "glus.data_pipeline.inspect.inspect_data:DataConfig",
        "data stats: what shards hold; data show: a picture of what the trainer will see",
        words="action",
        makes="out",
    ),
    "pretrain-encoder": Command(
        "glus.demo.pretrain_encoder:pretrain_encoder",
        "glus.demo.pretrain_encoder:PretrainEncoderConfig",
        "pretrain SAM 2's image encoder on its own, for a run without released weights",
        makes="out",
    ),
    "train": Command(
        "glus.launch.ranks.ranks:train",
        "glus.training.run_config:RunConfig",
        "train on one machine or as a rank of a job",
    ),
    "evaluate": Command(
        "glus.launch.commands.evaluate:evaluate",
        "glus.launch.commands.evaluate:EvaluateConfig",
        "predict masks and score them: J, F, J&F for each benchmark",
    ),
    "select-frames": Command(
        "glus.launch.commands.select_frames:select_frames",
        "glus.launch.commands.select_frames:SelectFramesConfig",
        "choose each expression's key frame by a selector's scores of all frames",
    ),
    "export": Command(
        "glus.launch.commands.export:export",
        "glus.launch.commands.export:ExportConfig",
        "write a checkpoint in the released layout of its method, LoRA merged",
        first="checkpoint",
        makes="out",
    ),
    "download": Command(
        "glus.launch.commands.download:download",
        "glus.launch.commands.download:DownloadConfig",
        "fetch weights of the Hugging Face hub, with sizes and digests; pages and checks of datasets",
        words="weights",
        file="config",
    ),
    "segment": Command(
        "glus.launch.commands.segment:segment",
        "glus.launch.commands.segment:SegmentConfig",
        "masks of a video file or folder of frames for expressions of your own",
        words="expressions",
        first="video",
        makes="out",
    ),
    "page": Command(
        "glus.launch.commands.page:page",
        "glus.launch.commands.page:PageConfig",
        "a page in the browser that segments uploaded videos",
    ),
    "score": Command(
        "glus.launch.commands.score:score",
        "glus.launch.commands.score:ScoreConfig",
        "score folders of masks: J, F, J&F for each benchmark, without a model",
        fills="out",
    ),
    "package": Command(
        "glus.launch.commands.package:package",
        "glus.launch.commands.package:PackageConfig",
        "pack masks for the server of MeViS valid or Refer-YouTube-VOS valid, checked first",
        makes="out",
    ),
    "report": Command(
        "glus.launch.commands.report:report",
        "glus.launch.commands.report:ReportConfig",
        "compare evaluations: metrics, differences, masks under one slider",
        words="evaluations",
        fills="out",
    ),
    "compare": Command(
        "glus.launch.commands.compare:compare",
        "glus.launch.commands.compare:CompareConfig",
        "compare runs or evaluations: J&F with intervals, differences, cost, parameters",
        words="runs",
        fills="out",
    ),
    "pointing": Command(
        "glus.launch.study.pointing:pointing",
        "glus.launch.study.pointing:PointingConfig",
        "what a pretraining checkpoint sees in held-out clips: words of patches, places of [SEG]",
        first="checkpoint",
        fills="out",
    ),
    "study": Command(
        "glus.launch.study.study:study",
        "glus.launch.study.study_config:StudyConfig",
        "what each part brings: arms that differ in one part, seeds, measures with intervals, report",
        fills="out",
    ),
    "completion": Command(
        "glus.launch.commands.completion:completion",
        "glus.launch.commands.completion:CompletionConfig",
        "print a script that completes commands and keys in a shell",
        first="shell",
    ),
    "plan": Command(
        "glus.launch.planning.plan:plan",
        "glus.launch.planning.plan:PlanConfig",
        "estimate what a training takes: memory by part, bytes on the wire, FLOP, hours",
        file="config",
    ),
    "doctor": Command(
        "glus.launch.slurm.doctor:doctor",
        "glus.launch.slurm.doctor:DoctorConfig",
        "check whether a training can run here: versions, GPUs, disk, shards, weights, network, MLflow",
        file="config",
    ),
    "submit": Command(
        "glus.launch.slurm.submit:submit",
        "glus.launch.slurm.submit:SubmitConfig",
        "submit prepare, train, evaluate, or all of them in turn (reproduce) to SLURM",
        first="what",
        file="config",
    ),
    "jobs": Command(
        "glus.launch.slurm.jobs:jobs",
        "glus.launch.slurm.jobs:JobsConfig",
        "submitted jobs with their states, steps and MLflow runs",
        words="folders",
    ),
    "demo": Command(
        "glus.demo.demo:demo",
        "glus.demo.demo:DemoConfig",
        "the complete pipeline on this machine: data, shards, a small GLUS that sees motion, evaluation, report",
        fills="out",
    ),
    "demo-davis": Command(
        "glus.demo.demo_davis:demo_davis",
        "glus.demo.demo_davis:DemoDavisConfig",
        "the model of the recipe looks on real video: prepare Ref-DAVIS17, fine-tune, evaluate",
        fills="out",
    ),
    "demo-videolisa": Command(
        "glus.demo.demo_videolisa:demo_videolisa",
        "glus.demo.demo_videolisa:DemoVideoLisaConfig",
        "a small VideoLISA on drawn videos and images, next to the GLUS of the recipe looks",
        fills="out",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0, 2 for what the user can fix (one line), 130 when interrupted.

    141, without a message, where nobody reads the output any more (`| head`). Anything else is a bug and keeps its
    traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _main(words)
        sys.stdout.flush()
    except BrokenPipeError:
        unread = [stream for stream in (sys.stdout, sys.stderr) if _is_unread(stream)]
        if not unread:
            raise
        for stream in unread:  # else Python reports at its end what it could not write
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return UNREAD
    return code


def _is_unread(stream: TextIO) -> bool:
    """Whether the other end of a pipe is closed."""
    poll = select.poll()
    poll.register(stream, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"glus {version('glus')}")
        return 0
    try:
        return _run(words[0], words[1:])
    except UserError as error:
        print(one_line(f"glus {words[0]}: {error}"), file=sys.stderr)
        return CANNOT_WORK
    except KeyboardInterrupt:
        print(f"\nglus {words[0]}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        fault = disk_fault(error) or _memory_fault(error)
        if not fault:
            raise
        print(one_line(f"glus {words[0]}: {fault}"), file=sys.stderr)
        return CANNOT_WORK


def _memory_fault(error: Exception) -> str:
    """Return one line where memory ran out, "" for anything else."""
    from glus.common.out_of_memory import out_of_memory

    asked = out_of_memory(error) if isinstance(error, (RuntimeError, MemoryError)) else ""
    return f"{asked}: use smaller sizes or a device with more memory" if asked else ""


def _run(name: str, words: list[str]) -> int:
    from glus.launch.config.configuration import to_yaml
    from glus.launch.quiet import quiet_libraries

    command = COMMANDS.get(name)
    if command is None:
        raise LaunchError(_unknown_command(name))
    quiet_libraries()
    if any(word in ("-h", "--help") for word in words):
        from glus.launch.config.help_text import EXAMPLES, config_help

        print(config_help(_load(command.config), _usage(name, command), command.help, EXAMPLES.get(name, ())), end="")
        return 0
    with quick_imports():
        config = _config(name, command, [word for word in words if word != "--print-config"])
    if "--print-config" in words:
        print(to_yaml(config), end="")
        return 0
    _end_with_parent()
    with quick_imports():
        function: Callable[[Any], Any] = _load(command.function)
    with _held(name, command, config):
        result = function(config)
    return result if isinstance(result, int) else 0


def _end_with_parent() -> None:
    """End with the command that started this one, where that asks for it (launch/stages.py)."""
    parent = os.environ.pop(PARENT, "")
    if parent.isdigit():
        from glus.common.processes import end_with_parent

        end_with_parent(int(parent))


def _held(name: str, command: Command, config: Any) -> AbstractContextManager[None]:
    """Hold what a command writes, so that two cannot write there at once. Raises InputError where another one does."""
    from glus.common.locks import exclusive, exclusive_file

    place = getattr(config, command.fills or command.makes, None) if command.fills or command.makes else None
    if place is None:
        return nullcontext()
    hold = exclusive if command.fills else exclusive_file
    return hold(Path(place), f"glus {name}")


def _config(name: str, command: Command, words: list[str]) -> Any:
    from glus.launch.config.configuration import Override, build_config, parse_words

    cls = _load(command.config)
    overrides, bare = parse_words(cls, words)
    files = [word for word in bare if word.endswith((".yaml", ".yml"))]
    others = [word for word in bare if word not in files]
    if len(files) > 1:
        raise LaunchError(f"one config file at a time; got {', '.join(files)}")
    if others and command.first:
        first, *others = others
        overrides.append(Override(command.first, first, first))
    if others and not command.words:
        raise LaunchError(f"{others[0]!r} is neither a .yaml file nor key=value; usage: {_usage(name, command)}")
    if others:
        overrides.append(Override(command.words, others, " ".join(others)))
    if files and command.file:
        file = files.pop()
        overrides.append(Override(command.file, file, file))
    return build_config(cls, Path(files[0]) if files else None, overrides)


def load_config_class(command: Command) -> type:
    """Import the class of a command's config."""
    found: type = _load(command.config)
    return found


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _unknown_command(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    meant = f"did you mean {near[0]}?" if near else f"there are: {', '.join(COMMANDS)}"
    return f"no command {name!r}; {meant}"


def _usage(name: str, command: Command) -> str:
    words = f" [{command.words.upper().removesuffix('S')} ...]" if command.words else ""
    first = f" [{command.first.upper()}]" if command.first else ""
    return f"glus {name} [CONFIG.yaml]{first}{words} [key=value ...] [--print-config]"


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: glus COMMAND [CONFIG.yaml] [key=value ...]",
            "",
            *lines,
            "",
            "glus COMMAND --help lists its keys; --print-config prints the config that would be used; glus --version.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
