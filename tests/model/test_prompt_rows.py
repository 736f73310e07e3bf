"""What the prompts of a video begin with is read once: where tokens stand, what they see, what comes out."""

import json
from dataclasses import replace

import pytest
import torch

from glus.model.language.prompt_rows import PromptRows, Reading, packed_mask, tokens_read
from glus.model.model_config import LoraConfig, ModelConfig
from glus.model.precision import set_precision
from glus.model.trainable import add_lora, set_trainable

from .tiny import HIGH, IMAGE, PAD, SEG, WIDE, TinyClip, tiny_batch, tiny_config, tiny_model

#: GLUS's training prompt under LLaMA's tokenizer: 55 tokens of text and 5 frames of 64 tokens before the question.
BEGINNING, LONGEST = 375, 719


def rows_of(prompts: list[list[int]], videos: list[int], images: int, tokens: int, share: bool = True) -> PromptRows:
    longest = max(map(len, prompts))
    ids = torch.tensor([each + [PAD] * (longest - len(each)) for each in prompts])
    return PromptRows.of(ids, ids != PAD, images, tokens, torch.tensor(videos), share)


def test_a_packed_row_holds_the_beginning_once_and_then_the_rest_of_each_prompt():
    """Frames of two tokens; the first video's prompts part after a frame and two words, the second's has no other."""
    prompts = [[1, IMAGE, 5, 5, 6, IMAGE, 7], [1, IMAGE, 5, 5, 8, 9, IMAGE], [1, 4, IMAGE, IMAGE]]
    rows = rows_of(prompts, [0, 0, 1], images=2, tokens=2)
    assert rows.packed
    assert rows.ids.tolist() == [[1, 0, 0, 5, 5, 6, 0, 0, 7, 8, 9, 0, 0], [1, 4, *[0] * 11]]
    assert rows.part.tolist() == [[0] * 5 + [1] * 4 + [2] * 4, [0] * 6 + [-1] * 7]
    assert rows.position.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 7, 8], [0, 1, 2, 3, 4, 5, *[0] * 7]]
    # The second frame of the first video is read by each prompt; the fifth to eighth token are the second video's.
    assert rows.at.tolist() == [1, 2, 6, 7, 11, 12, 15, 16, 17, 18]
    assert rows.image.tolist() == [0, 1, 2, 3, 2, 3, 4, 5, 6, 7]
    assert rows.place.tolist() == [[0, 2, 3, 4, 5, 7, 8], [0, 2, 3, 4, 9, 10, 12], [13, 14, 16, 18, 0, 0, 0]]


def test_prompts_are_packed_where_that_leaves_fewer_positions_to_read():
    same, short = [1, *[5] * 10], [1, 6]
    assert not rows_of([[*same, 7], [*same, 8]], [0, 1], 0, 1).packed
    assert not rows_of([[*same, 7], [*same, 8]], [0, 0], 0, 1, share=False).packed
    assert rows_of([[*same, 7], [*same, 8]], [0, 0], 0, 1).packed
    # Rows are as long as the longest: three videos of one prompt would each get the length of four.
    four = [[1, number, *[5] * 10] for number in range(7, 11)]
    assert not rows_of([*four, short, short, short], [0, 0, 0, 0, 1, 2, 3], 0, 1).packed


def test_prompts_of_a_packed_row_see_the_beginning_and_themselves():
    """Two tokens that all share, then prompts of two and of one token, then padding."""
    position, part = torch.tensor([[0, 1, 2, 3, 2, 0]]), torch.tensor([[0, 0, 1, 1, 2, -1]])
    assert packed_mask(position, part, window=0)[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 0, 0, 0, 0, 1],
    ]
    windowed = packed_mask(position, part, window=1)[0, 0].int().tolist()
    assert windowed[2:5] == [[0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 1, 0, 0, 1, 0]]


def test_states_are_read_one_position_before_the_token_and_at_the_end_of_each_prompt():
    ids = torch.tensor([[1, 7, SEG, 7, SEG, 2], [1, SEG, 7, 7, SEG, PAD]])
    place = torch.arange(12).view(2, 6)
    reading = Reading(torch.arange(12.0).view(2, 6, 1), ids, ids != PAD, place)
    assert reading.before(SEG)[..., 0].tolist() == [[1.0, 3.0], [6.0, 9.0]]
    assert reading.last()[:, 0].tolist() == [5.0, 10.0]
    first, found = reading.before_first(2)
    assert first[:, 0].tolist() == [4.0, 10.0] and found.tolist() == [True, False]
    states, labels = reading.labelled(ids == SEG)
    assert states[:, 0].tolist() == [1.0, 3.0, 6.0, 9.0] and labels.tolist() == [SEG] * 4


@pytest.mark.parametrize(("expressions", "most"), [(3, 0.66), (4, 0.62)])
def test_a_video_takes_this_part_of_the_positions(expressions, most):
    """Prompts as long as GLUS's."""
    begin = [1, *[5] * 53, *[IMAGE] * 5, 6]
    own = LONGEST - BEGINNING - 3 * 64
    prompts = [[*begin, 7 + number, *[8] * (own - 1), *[IMAGE] * 3] for number in range(expressions)]
    alone = rows_of(prompts, [0] * expressions, 8, 64, share=False).ids
    together = rows_of(prompts, [0] * expressions, 8, 64).ids
    assert alone.shape == (expressions, LONGEST)
    assert together.shape == (1, BEGINNING + expressions * (LONGEST - BEGINNING))
    print(f"{expressions} expressions: {together.numel()} of {alone.numel()} positions")
    assert together.numel() <= most * alone.numel()


def test_recorded_prompts_of_the_reference_take_two_thirds_of_the_positions(shared_parity):
    """38 prompts under LLaMA's own tokenizer, of unlike lengths."""
    prompts = [each["input_ids"] for each in json.loads((shared_parity / "llama_prompts.json").read_text("utf-8"))]
    for expressions, most in ((3, 0.66), (4, 0.62)):
        videos = [prompts[at : at + expressions] for at in range(0, 36, expressions)]
        alone = sum(rows_of(each, [0] * expressions, 8, 64, share=False).ids.numel() for each in videos)
        together = sum(rows_of(each, [0] * expressions, 8, 64).ids.numel() for each in videos)
        print(f"{expressions} expressions: {together / alone:.3f}")
        assert together <= most * alone


def test_tokens_that_are_read_are_counted_without_padding():
    ids = torch.tensor([[1, IMAGE, 5, 6], [1, IMAGE, 7, PAD], [1, IMAGE, PAD, PAD]])
    video_of = torch.tensor([0, 0, 1])
    counts = [tokens_read(ids, ids != PAD, 3, video_of, share) for share in (True, False)]
    assert counts == [4 + 2 + 1 + 4, 6 + 5 + 4]


def step(config: ModelConfig, share: bool, patterns: tuple[str, ...], *clips: TinyClip) -> tuple[dict, dict, list[int]]:
    """Losses, gradients, and positions of each pass of the language model, of one step."""
    model = tiny_model(replace(config, share_video_tokens=share)).train()
    add_lora(model, config.lora)
    set_trainable(model, patterns)
    read: list[int] = []
    model.language.llama.model.register_forward_pre_hook(
        lambda _, args, keys: read.append(keys["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    out = model(tiny_batch(*clips, padding=3))
    out.loss.backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {name: loss.item() for name, loss in out.losses.items()}, gradients, read


@pytest.mark.parametrize("patterns", [("*",), ("*lora_*",)])
@pytest.mark.parametrize("tied", [False, True])
def test_a_packed_row_gives_glus_the_losses_and_gradients_of_separate_prompts(patterns, tied):
    config = tiny_config()
    language = replace(config.language, tie_embeddings=tied)
    config = replace(config, language=language, lora=LoraConfig(rank=4, dropout=0.0))
    losses, gradients, read = step(config, True, patterns, WIDE, HIGH)
    alone, of_alone, read_alone = step(config, False, patterns, WIDE, HIGH)
    assert losses == pytest.approx(alone, rel=1e-5)
    assert gradients.keys() == of_alone.keys()
    for name, gradient in of_alone.items():
        torch.testing.assert_close(gradients[name], gradient, atol=2e-5, rtol=1e-4)
    # A frame has 4 tokens. Expressions of 3, 5, 4 and 8 words; each prompt holds them twice, with [SEG] and the end.
    beginning = 1 + 3 * 4
    assert read == [2 * (beginning + sum(2 * (words + 2) + 4 for words in (3, 5, 4)))]
    assert read_alone == [4 * (beginning + 2 * (8 + 2) + 4)]


def test_bf16_packed_trains_near_float32() -> None:
    found = []
    for precision in ("fp32", "bf16"):
        model = tiny_model().train()
        set_precision(model, precision)
        found.append({name: loss.item() for name, loss in model(tiny_batch(WIDE, HIGH)).losses.items()})
    assert found[1] == pytest.approx(found[0], rel=0.1)


def test_flash_attention_reads_each_prompt_alone() -> None:
    config = tiny_config()
    assert config.shares_beginnings
    flash = replace(config, language=replace(config.language, attention="flash_attention_2"))
    assert not flash.shares_beginnings
