"""Settings and counts of inference. No heavy imports."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from glus.common.errors import EvaluationError, InputError
from glus.common.files import sha256_of
from glus.model.model_config import Compiled, PromptedFrames


@dataclass(frozen=True)
class InferenceConfig:
    """Settings of inference on one video."""

    memory_stride: int = 3
    """Every how many frames a memory is kept (the reference: 3 in inference, 1 in training)."""
    trailing_blank: bool = True
    """End the prompt with a blank as the reference does (a token that training never shows; docs/fidelity.md)."""
    expressions_together: int = 16
    """Expressions of one video that the language model and the mask decoder take at a time; its frames are encoded once
    for all of them.
    """
    key_frames: Path | None = None
    """JSON file of key frames in the reference's form, {"VIDEO_EXPID": FRAME}, as `glus select-frames` writes it;
    without a file all expressions begin at their video's first frame.
    """
    missing_key_frames: Literal["refuse", "first"] = "refuse"
    """What to do about expressions that the file does not name: refuse them, or begin at the first frame as the
    reference does.
    """
    post_optimise: Path | None = None
    """VideoLISA alone: a sam2_hiera_*.pt whose memory follows the dense frames' masks through the video
    (docs/fidelity.md); without it, each frame has the mask that is decoded from it alone.
    """
    reference_gamma: bool = False
    """GLUS alone: set the memory encoder's layer scales (gamma) to 1e-6, as the reference's inference does without
    saying so (docs/fidelity.md); false uses those that were trained.
    """
    prompted_frames: PromptedFrames = "all"
    """GLUS alone: first prompts each expression's key frame by [SEG] and no later frame, so that masks there show what
    the memory holds by itself; a measure of the memory, not a way to segment.
    """
    use_memory: bool = True
    """GLUS alone: false decodes every frame without the memory, whatever the model was trained with."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16 takes half the memory and a half to a quarter of the time on a GPU, and changes some pixels (docs/gpu.md);
    auto takes it on GPUs, as the reference does, and float32 on the CPU.
    """
    compile: Compiled = "none"
    """What torch.compile takes: llama, segmenter or all; the first frames compile for minutes. For many frames whose
    time is that of launching kernels; masks differ by rounding (docs/weights.md).
    """

    def recorded(self) -> dict[str, int | bool | str]:
        """Return the settings as predictions.json records them: a file of key frames by its SHA-256.

        Raises EvaluationError where the file cannot be read, ValueError where `precision` is not chosen yet.
        """
        self.chosen_precision()
        # A file of key frames gives one frame for each expression, whether those that it does not name were accepted.
        apart = ("key_frames", "missing_key_frames", "post_optimise")
        settings = {name: value for name, value in asdict(self).items() if name not in apart}
        # Predictions of before these switches are those without them.
        for name in ("reference_gamma", "prompted_frames", "use_memory", "compile"):
            if settings[name] == getattr(InferenceConfig, name):
                del settings[name]
        if self.key_frames is None:
            return settings
        try:
            return settings | {"key_frames": sha256_of(self.key_frames, "file of key frames")}
        except InputError as error:
            raise EvaluationError(str(error), file=str(self.key_frames)) from error

    def on(self, kind: Literal["cuda", "cpu"]) -> "InferenceConfig":
        """The same settings with the precision chosen for a device."""
        from glus.training.devices import choose_precision  # here: it brings torch

        return replace(self, precision=choose_precision(self.precision, kind))

    def chosen_precision(self) -> Literal["bf16", "fp32"]:
        """Return `precision` once the device is known. Raises ValueError for "auto": `on` comes first."""
        if self.precision == "auto":
            raise ValueError("inference.precision is auto: InferenceConfig.on chooses it for a device")
        return self.precision

    def less_memory(self, otherwise: str) -> str:
        """What takes less memory, `otherwise` last: the advice where there was too little."""
        half = "" if self.precision == "bf16" else "inference.precision=bf16, "
        return f"set {half}a smaller inference.expressions_together (now {self.expressions_together}) or {otherwise}"


@dataclass(frozen=True)
class Predicted:
    """Counts of one video: expressions predicted, found on disk, and frames that got no [SEG].

    `tokens` are those that the language model read.
    """

    expressions: int
    found: int
    frames: int
    frames_without_seg: int
    tokens: int = field(default=0, compare=False)
