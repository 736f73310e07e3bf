"""The key frame selector's model: scores of states, losses, what is trained, and what it takes of a GLUS."""

from dataclasses import replace

import pytest
import torch

from glus.common.errors import ModelError
from glus.data_pipeline.batches.batch import Batch
from glus.model.model_config import LossConfig, ModelConfig
from glus.model.selector.selector import Selector

from .tiny import HIGH, IMAGE, PAD, SEG, VOCABULARY, WIDE, TinyClip, tiny_batch, tiny_config

REFERENCES = [0, 2, 4]


def selector_config(**loss: float) -> ModelConfig:
    return replace(tiny_config(), method="selector", loss=LossConfig(contrastive=0.0, **loss))


def small_selector(**loss: float) -> Selector:
    torch.manual_seed(0)
    return Selector(selector_config(**loss), VOCABULARY, SEG)


def scored_batch(*clips: TinyClip, padding: int = 0) -> Batch:
    """Three references, the second of which is the target; labels rise from expression to expression."""
    rows = []
    for clip in clips:
        random = clip.random()
        for words in clip.words:
            text = torch.randint(4, SEG, (words,), generator=random).tolist()
            rows.append([1, *[IMAGE] * (len(REFERENCES) + 1), *text, SEG, 2])
    length = max(len(row) for row in rows) + padding
    ids = torch.tensor([row + [PAD] * (length - len(row)) for row in rows])
    attention = torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in rows])
    return replace(
        tiny_batch(*clips),
        context=torch.tensor([REFERENCES]).repeat(len(clips), 1),
        query=torch.tensor([REFERENCES[1:2]]).repeat(len(clips), 1),
        query_numbers=torch.tensor([REFERENCES[1:2]]).repeat(len(clips), 1),
        ids=ids,
        attention=attention,
        answer=ids == SEG,
        score=torch.linspace(0, 1, len(rows)).unsqueeze(1),
    )


@torch.no_grad()
def test_losses_are_cross_entropy_at_score_and_l1_of_the_label() -> None:
    model, batch = small_selector().eval(), scored_batch(WIDE, HIGH)
    output = model(batch)
    assert output.losses.keys() == {"cross_entropy", "score_l1"}
    assert output.seg_states.shape == (4, 1, model.config.prompt_width)
    # By hand: each prompt alone, every frame encoded as often as it is shown.
    scores, entropies = [], []
    for row, (ids, real) in enumerate(zip(batch.ids, batch.attention, strict=True)):
        frames = batch.frames[int(batch.video_of[row])][[*REFERENCES, REFERENCES[1]]]
        reading = model.language.read(ids[real][None], real[real][None], model.language.frame_tokens([frames])[None])
        hidden = reading.before(SEG)[:, 0]
        first, _, last = model.language.text_hidden_fcs[0]
        found = model.score_head[1](last(first(hidden).relu()).relu())
        assert torch.allclose(found[:, 0], model.scores(hidden))
        scores.append(found[0, 0])
        entropies.append(-model.language.logits(hidden)[0].log_softmax(-1)[SEG])
    assert batch.score is not None
    l1 = (torch.stack(scores) - batch.score[:, 0]).abs().mean()
    assert float(output.losses["score_l1"]) == pytest.approx(float(l1), rel=1e-5)
    assert float(output.losses["cross_entropy"]) == pytest.approx(float(torch.stack(entropies).mean()), rel=1e-5)


@torch.no_grad()
def test_weights_of_the_losses_and_padding() -> None:
    batch = scored_batch(WIDE, HIGH)
    plain, weighted = small_selector()(batch).losses, small_selector(score=3.0, cross_entropy=0.5)(batch).losses
    assert float(weighted["score_l1"]) == pytest.approx(3 * float(plain["score_l1"]))
    assert float(weighted["cross_entropy"]) == pytest.approx(0.5 * float(plain["cross_entropy"]))
    padded = small_selector()(scored_batch(WIDE, HIGH, padding=7)).losses
    assert {name: float(each) for name, each in padded.items()} == pytest.approx(
        {name: float(each) for name, each in plain.items()}, rel=1e-5
    )


def test_scores_have_no_bound_and_keep_the_shape_of_the_states() -> None:
    model = small_selector()
    with torch.no_grad():
        model.score_head[1].bias.fill_(5.0)
    hidden = torch.randn(2, 3, model.config.language.hidden_size)
    assert model.scores(hidden).shape == (2, 3) and model.scores(hidden).min() > 1


def test_nothing_of_the_segmenter_is_built() -> None:
    assert {name.partition(".")[0] for name in small_selector().state_dict()} == {"language", "score_head"}


def test_a_batch_without_labels_is_refused() -> None:
    with pytest.raises(ModelError, match=r"no scores to learn from: set sampling.frame_scores"):
        small_selector()(replace(scored_batch(WIDE), score=None))
