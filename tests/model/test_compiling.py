"""torch.compile changes how a model is computed: same losses, gradients and masks; other sizes take no new graph."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from glus.common.errors import ModelError
from glus.model.compiling import check_compiler, compile_parts
from glus.model.glus import Glus
from glus.model.gradient_checkpointing import recompute_activations
from glus.model.trainable import add_lora, set_trainable

from .asked import always_answers, prompts_of, segmented, table, video
from .tiny import HIGH, WIDE, TinyClip, tiny_batch, tiny_config, tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

KEY = "engine.compile"
#: Trace as inductor does, without a C++ compiler: what is traced, and how often, is the same. The first traces the
#: backward pass too.
BOTH_PASSES, FORWARD = "aot_eager", "eager"


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    torch.set_num_threads(threads)


def trainable_model(parts: str, recompute: bool = False, backend: str = FORWARD) -> Glus:
    config = tiny_config()
    model = tiny_model(config).train()
    torch.manual_seed(1)
    add_lora(model, replace(config.lora, dropout=0.0))
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    # Without what no loss reaches: compiled, its gradient is 0 instead of none.
    set_trainable(model, ("*",))
    compile_parts(model, parts, KEY, backend)
    if recompute:
        recompute_activations(model)
    return model


def step(model: Glus, *clips: TinyClip) -> dict[str, Tensor]:
    """Losses and gradients of a batch."""
    model.zero_grad(set_to_none=True)
    out = model(tiny_batch(*clips))
    out.loss.backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {**{name: each.detach() for name, each in out.losses.items()}, **gradients}


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor], factor: float = 1) -> None:
    assert found.keys() == wanted.keys()
    near = {"atol": 2e-6 * factor, "rtol": 2e-5 * factor}
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, **near, msg=lambda text, name=name: name + text)


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def test_losses_and_gradients_are_those_of_an_uncompiled_model_that_recomputes() -> None:
    # The image encoder's backward pass alone would take minutes to trace: tests/training/test_engine_ranks.py has it.
    wanted = step(trainable_model("none", True), WIDE)
    assert graphs() == 0
    found = step(trainable_model("all", True, BOTH_PASSES), WIDE)
    assert graphs() > 0 and not counters["graph_break"]
    assert_close(found, wanted)


def test_batches_of_other_sizes_take_the_graphs_that_are_there() -> None:
    plain, model = trainable_model("none"), trainable_model("all")
    for clips in ((WIDE, HIGH), (WIDE,)):
        assert_close(step(model, *clips), step(plain, *clips))
    made = graphs()
    assert made and not counters["graph_break"]
    others = (
        (replace(WIDE, words=(7, 2, 9, 4, 4), objects=(0, 0, 1, 1, 0)), HIGH),
        (replace(HIGH, words=(6, 11), objects=(0, 1)), replace(WIDE, words=(1, 2), objects=(0, 1))),
        (replace(WIDE, words=(12, 3), objects=(0, 1)),),
    )
    with torch._dynamo.config.patch(error_on_recompile=True):
        for clips in others:
            assert_close(step(model, *clips), step(plain, *clips))
    assert graphs() == made


def test_masks_are_those_of_an_uncompiled_model_and_a_second_video_takes_no_new_graph() -> None:
    plain, model = (always_answers(tiny_model()).eval() for _ in range(2))
    compile_parts(model, "all", KEY, FORWARD)
    for words, frames in (((3, 6, 4), 9), ((5,), 9)):
        _assert_same_masks(model, plain, words, frames)
    made = graphs()
    assert made and not counters["graph_break"]
    with torch._dynamo.config.patch(error_on_recompile=True):
        for words, frames in (((8, 2, 5, 7), 11), ((9,), 8)):
            _assert_same_masks(model, plain, words, frames)
    assert graphs() == made


def _assert_same_masks(model: Glus, plain: Glus, words: tuple[int, ...], frames: int) -> None:
    found, wanted = (
        table(segmented(each, video(frames), prompts_of(words)), len(words), frames) for each in (model, plain)
    )
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(found > 0, wanted > 0)


def test_every_layer_shares_its_graphs() -> None:
    """Attention reads its own number where there is a cache: left alone, each layer would be traced again."""
    config = tiny_config()
    layers = 8
    model = tiny_model(replace(config, language=replace(config.language, layers=layers))).eval()
    compile_parts(model, "llama", KEY, FORWARD)
    segmented(model, video(), prompts_of())
    assert 0 < graphs() < layers


def test_the_parts_that_are_named_are_compiled() -> None:
    for parts in ("llama", "segmenter", "all"):
        model = tiny_model()
        compile_parts(model, parts, KEY, FORWARD)
        compiled = {name for name, module in model.named_modules() if "forward" in vars(module)}
        assert {name.split(".")[0] for name in compiled} == {
            "llama": {"language"},
            "segmenter": {"segmenter"},
            "all": {"language", "segmenter"},
        }[parts]
        assert all(name.startswith(("language.llama.model.layers.", "segmenter.sam2.")) for name in compiled)


def test_inductor_computes_the_same() -> None:
    """Decoder layers alone: C++ for the segmenter's graphs takes minutes to compile."""
    wanted = step(trainable_model("none"), WIDE)
    found = step(trainable_model("llama", backend="inductor"), WIDE)
    # Its kernels add in another order.
    assert_close(found, wanted, 10)


def test_without_a_compiler_one_line_says_so() -> None:
    from torch._inductor import config

    check_compiler("none", "cpu", KEY)
    check_compiler("all", "cpu", KEY)
    with config.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(ModelError, match="no C") as refused:
        check_compiler("all", "cpu", KEY)
    assert "engine.compile=none" in str(refused.value)
    if find_spec("triton") is None:
        with pytest.raises(ModelError, match="triton is not installed"):
            check_compiler("all", "cuda", KEY)


def test_what_cannot_be_compiled_ends_in_one_line() -> None:
    def refuses(graph: object, inputs: object) -> None:
        raise RuntimeError("this backend takes nothing\nand more lines")

    model = trainable_model("llama", backend=refuses)
    with pytest.raises(ModelError, match="torch.compile ends with .*: set engine.compile=none") as refused:
        model(tiny_batch(WIDE))
    assert "\n" not in str(refused.value)
