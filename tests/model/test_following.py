"""A video's expressions together, frame by frame: what is computed how often, and that it changes no mask."""

import gc
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from glus.common.errors import ModelError
from glus.data_pipeline.batches.batch import padded_ids
from glus.data_pipeline.batches.conversations import inference_prompt
from glus.data_pipeline.sampling.sample_plan import middle_context
from glus.model.glus import Glus
from glus.model.inference.video_prompts import Prompts
from glus.model.model_config import VisionConfig
from glus.model.precision import set_precision

from .asked import CONTEXT, FRAMES, WORDS, always_answers, counted, prompts_of, segmented, table, video
from .reference import Recording
from .tiny import PAD, tiny_config, tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def model() -> Glus:
    return always_answers(tiny_model()).eval()


@pytest.fixture(scope="module")
def alone(model: Glus) -> Tensor:
    """float [E, T, H, W]: each expression by itself, every prompt read from its first token."""
    plain = prompts_of()
    each = []
    for row in range(len(WORDS)):

        def one(queries: int, row: int = row) -> tuple[Tensor, Tensor]:
            ids, attention = plain(queries)
            return ids[row : row + 1, attention[row]], attention[row : row + 1, attention[row]]

        each.append(table(segmented(model, video(), one, reuse_prefix=False), 1))
    return torch.cat(each)


@pytest.mark.parametrize("words", [(3,), WORDS, WORDS * 3], ids=["1 expression", "3 expressions", "9 expressions"])
@pytest.mark.parametrize("key_frame", [0, 5, FRAMES - 1])
def test_each_frame_is_encoded_once_whatever_the_key_frame_and_the_number_of_expressions(model, words, key_frame):
    with counted(model) as cost:
        seen = segmented(model, video(), prompts_of(words), key_frame=key_frame, expressions_together=4)
    assert [masks.index for masks in seen] == [*range(key_frame, FRAMES), *range(key_frame - 1, -1, -1)]
    assert all(masks.expressions.tolist() == list(range(len(words))) for masks in seen)
    assert cost.sam2 == [1] * FRAMES and cost.clip == [1] * FRAMES


@pytest.mark.parametrize("key_frame", [0, 5])
def test_without_context_frames_each_frame_is_still_encoded_once_and_has_masks(model, key_frame):
    with counted(model) as cost:
        seen = segmented(model, video(), prompts_of(context=0), context=(), key_frame=key_frame)
    assert sorted(masks.index for masks in seen) == list(range(FRAMES)) and cost.clip == [1] * FRAMES
    plain = segmented(model, video(), prompts_of(context=0), context=(), key_frame=key_frame, reuse_prefix=False)
    torch.testing.assert_close(table(seen, len(WORDS)), table(plain, len(WORDS)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("together", [1, 2, 16])
def test_expressions_together_have_the_masks_that_each_has_alone(model, alone, together):
    seen = segmented(model, video(), prompts_of(), expressions_together=together)
    torch.testing.assert_close(table(seen, len(WORDS)), alone, atol=1e-4, rtol=0)
    # They differ, so that one expression's mask is none of another's.
    assert (alone[0] - alone[1]).abs().max() > 1e-2 and (alone[0] - alone[2]).abs().max() > 1e-2


def test_expressions_with_other_key_frames_have_the_masks_that_they_have_alone(model):
    keys = [6, 0, 3]
    with counted(model) as cost:
        seen = segmented(model, video(), prompts_of(), key_frame=keys)
    mixed = table(seen, len(WORDS))
    for row, key in enumerate(keys):
        same = table(segmented(model, video(), prompts_of(), key_frame=key), len(WORDS))
        torch.testing.assert_close(mixed[row], same[row], atol=1e-4, rtol=0)
        assert torch.equal(mixed[row] > 0, same[row] > 0)
    # Forward from frame 0 to the end, then back from frame 5: those below frame 6 twice. Of the vision tower's tokens
    # those of the context frames are kept.
    assert cost.sam2 == [1] * (FRAMES + 6)
    assert len(cost.clip) == FRAMES + 6 - sum(index < 6 for index in CONTEXT)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("precision", "close"), [("fp32", 1e-4), ("bf16", 0.25)])
@pytest.mark.parametrize("heads", [2, 1], ids=["all heads", "grouped heads"])
def test_a_reused_prefix_changes_no_mask(attention, precision, close, heads):
    config = tiny_config()
    language = replace(config.language, attention=attention, key_value_heads=heads)
    model = always_answers(tiny_model(replace(config, language=language))).eval()
    set_precision(model, precision)
    frames, prompts = video(6), prompts_of()
    reused, anew = (
        table(segmented(model, frames, prompts, context=(0, 2, 4), reuse_prefix=reuse), len(WORDS), 6)
        for reuse in (True, False)
    )
    assert reused.isfinite().all() and (reused - anew).abs().max() < close
    assert ((reused > 0) != (anew > 0)).float().mean() <= (1e-4 if precision == "fp32" else 2e-2)


def test_the_prefix_is_read_once_a_video_and_the_rest_of_it_once_a_frame(model):
    with counted(model) as cost:
        segmented(model, video(), prompts_of())
    tokens = model.config.vision.tokens_per_frame
    # bos, two words, three context frames and the word before the first query frame; then that frame and a word more.
    assert cost.llama[0] == (1, 3 + 3 * tokens + 1)
    steps = cost.llama[1:]
    assert steps[0::2] == [(1, tokens + 1)] * FRAMES
    assert [rows for rows, _ in steps[1::2]] == [len(WORDS)] * FRAMES


@pytest.fixture(scope="module")
def released_form(recording: Recording) -> Prompts:
    """Eight expressions in the reference's words, and its 4 context frames."""
    kinds = ("bird", "second dog", "little car", "elephant that turns", "cat", "striped fish", "person in red", "ball")
    texts = [f"the {kind} moving {way}" for kind, way in zip(kinds, ("left", "away from the others") * 4, strict=True)]

    def prompts(queries: int) -> tuple[Tensor, Tensor]:
        rows = [recording.tokenizer.encode(inference_prompt(text, 4, queries)) for text in texts]
        return padded_ids(rows, PAD)

    return prompts


def test_sixty_frames_and_eight_expressions_take_six_tenths_of_the_tokens_or_less(recording, released_form):
    sizes = replace(tiny_config().language, layers=1, max_positions=2048)
    vision = VisionConfig(hidden_size=8, intermediate_size=8, layers=2, heads=1)
    assert vision.tokens_per_frame == 64  # as in the release
    torch.manual_seed(0)
    config = replace(tiny_config(), language=sizes, vision=vision)
    model = always_answers(Glus(config, recording.tokenizer.vocab_size, recording.tokenizer.seg_id)).eval()
    frames, masks, tokens = video(60, 16, 16), [], []
    for reuse in (True, False):
        with counted(model) as cost:
            seen = segmented(model, frames, released_form, context=middle_context(60, 4), window=4, reuse_prefix=reuse)
        masks.append(table(seen, 8, 60))
        tokens.append(cost.tokens)
    print(f"LLM tokens, prefix reused / read anew: {tokens[0]:,} / {tokens[1]:,} = {tokens[0] / tokens[1]:.3f}")
    assert tokens[0] <= 0.6 * tokens[1]
    assert torch.equal(masks[0] > 0, masks[1] > 0) and 0 < (masks[0] > 0).float().mean() < 1


def test_a_frame_without_an_answer_is_told_and_remembered_as_empty(model):
    """The second expression is never answered; the others' masks stay what they were."""
    usual = segmented(model, video(), prompts_of())
    silenced, answer = always_answers(tiny_model()).eval(), model.language.logits

    def logits(hidden: Tensor) -> Tensor:
        given = answer(hidden)
        given[1] = -given[1]  # [SEG] is now the least likely token
        return given

    silenced.language.logits = logits
    seen = segmented(silenced, video(), prompts_of())
    assert all(masks.answered.tolist() == [True, False, True] for masks in seen)
    before, after = (table(each, len(WORDS)) for each in (usual, seen))
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]], atol=1e-5, rtol=0)
    # The first frame has no memory yet; afterwards the second expression remembers that it saw nothing.
    torch.testing.assert_close(after[1, 0], before[1, 0], atol=1e-5, rtol=0)
    assert (after[1, 1:] - before[1, 1:]).abs().amax((1, 2)).min() > 1e-3


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_video_shorter_than_its_context_is_segmented_too(model, frames):
    context = middle_context(frames, 4)
    with counted(model) as cost:
        seen = segmented(model, video(frames), prompts_of(context=4), context=context, window=4)
    assert [masks.index for masks in seen] == list(range(frames))
    assert cost.clip == cost.sam2 == [1] * frames
    assert table(seen, len(WORDS), frames).isfinite().all()


def held_bytes() -> int:
    """Bytes of all tensors that are alive, each storage once."""
    gc.collect()
    storages = {}
    for each in gc.get_objects():
        if type(each) in (Tensor, torch.nn.Parameter):
            storage = each.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def test_what_is_held_does_not_grow_with_the_video(model):
    """Peak memory of whole processes over 2,000 frames: benchmarks/inference.py."""
    picture, held = video(1)[0], {}
    followed = model.segment_video(lambda index: picture, 90, CONTEXT, prompts_of(), window=3, key_frame=30)
    for count, _ in enumerate(followed):
        if count in (30, 59, 85):  # forward when the memory is full and at the end, and on the way back
            held[count] = held_bytes()
    assert max(held.values()) < 1.01 * held[30]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"key_frame": 9}, "expression 1 of 3: key frame 9 is not in the video; its 9 frames are 0 to 8"),
        ({"key_frame": [0, 1, -1]}, "expression 3 of 3: key frame -1 is not in the video"),
        ({"key_frame": [0, 1]}, "2 key frames for 3 expressions: give one for all, or one for each"),
    ],
)
def test_a_key_frame_that_is_not_there_is_refused(model, how, message):
    with pytest.raises(ModelError, match=message):
        segmented(model, video(), prompts_of(), **how)


def test_a_video_without_frames_is_refused(model):
    with pytest.raises(ModelError, match="the video has no frames"):
        segmented(model, video()[:0], prompts_of())


def test_an_expression_that_does_not_fit_is_refused_with_its_place_and_both_lengths(model):
    # 3 words, 6 frames of 4 tokens, then 3 rounds of a word, 250 words and two more; 2 answers of two tokens.
    with pytest.raises(
        ModelError, match=r"expression 2 of 2 is too long: with 1 query frames its prompt takes 272 posi"
    ):
        segmented(model, video(), prompts_of((3, 250)))
    with pytest.raises(ModelError, match=r"the language model has 256 \(model.language.max_positions\); shorten"):
        segmented(model, video(), prompts_of((3, 80)))


def test_an_expression_with_a_frame_of_its_own_is_refused(model):
    def prompts(queries: int) -> tuple[Tensor, Tensor]:
        ids, attention = prompts_of()(queries)
        return torch.where(ids == 8, -200, ids), attention

    with pytest.raises(ModelError, match="its prompt holds 6 frames where 4 are shown; an expression may not contain"):
        segmented(model, video(), prompts)
