"""Frames become tokens, prompts take them up in order, states are read where they should be."""

import pytest
import torch

from glus.model.language.language import Language

from .tiny import IMAGE, PAD, SEG, VOCABULARY, tiny_config, tiny_model


@pytest.fixture(scope="module")
def language() -> Language:
    return tiny_model().language.eval()


@torch.no_grad()
def test_a_frames_tokens_are_projected_means_of_runs_of_patches(language):
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = language.encode_frames(pixels)
    assert tokens.shape == (2, tiny_config().vision.tokens_per_frame, 32) == (2, 4, 32)
    patches = language.vision_tower(pixels).last_hidden_state[:, 1:]
    expected = language.mm_projector(patches[:, 4:8].mean(1))
    torch.testing.assert_close(tokens[:, 1], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_frames_take_the_places_of_their_tokens_in_order(language):
    ids = torch.tensor([[1, IMAGE, 5, IMAGE, SEG], [1, IMAGE, IMAGE, SEG, PAD]])
    attention = torch.tensor([[True] * 5, [True] * 4 + [False]])
    tokens = torch.randn(2, 2, 3, 32, generator=torch.Generator().manual_seed(1))
    given = []
    hook = language.llama.model.register_forward_pre_hook(
        lambda _, args, keys: given.append(keys["inputs_embeds"]), with_kwargs=True
    )
    reading = language.read(ids, attention, tokens)
    hook.remove()
    assert reading.place.tolist() == [[0, 3, 4, 7, 8], [9, 12, 15, 16, 0]] and reading.hidden.shape == (2, 9, 32)
    embed = language.llama.get_input_embeddings().weight
    assert torch.equal(given[0][0], torch.cat([embed[[1]], tokens[0, 0], embed[[5]], tokens[0, 1], embed[[SEG]]]))
    assert torch.equal(given[0][1, 1:7], tokens[1].flatten(0, 1))


@torch.no_grad()
def test_a_state_depends_on_every_frame_before_it_and_on_none_after(language):
    ids = torch.tensor([[1, IMAGE, SEG, IMAGE, SEG]])
    tokens = torch.randn(1, 2, 3, 32, generator=torch.Generator().manual_seed(2))
    other = torch.cat([tokens[:, :1], -tokens[:, 1:]], dim=1)
    first, second = (language.read(ids, ids != PAD, each).before(SEG)[0] for each in (tokens, other))
    torch.testing.assert_close(first[0], second[0], atol=1e-5, rtol=1e-5)
    assert (first[1] - second[1]).abs().max() > 1e-2


@torch.no_grad()
def test_prompts_read_after_a_prefix_end_in_the_states_that_they_have_when_read_whole(language):
    beginning, tails = [1, IMAGE, 5, 6], [[IMAGE, 7, 8, 9], [IMAGE, 11, PAD, PAD], [IMAGE, 12, 13, PAD]]
    tokens = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(6))
    whole = torch.tensor([beginning + tail for tail in tails])
    rest = torch.tensor(tails)
    expected = language.read(whole, whole != PAD, tokens.expand(3, 2, 3, 32)).last()
    first = language.prefix(torch.tensor(beginning[:2]), tokens[:1])
    prefix = language.prefix(torch.tensor(beginning[2:]), tokens[:0], first)
    assert (first.length, prefix.length) == (4, 6)
    before = [pair[0].clone() for pair in prefix.layers]
    for _ in range(2):  # reading adds nothing to it
        reading = language.read(rest, rest != PAD, tokens[1:].expand(3, 1, 3, 32), prefix=prefix)
        torch.testing.assert_close(reading.last(), expected, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(pair[0], kept) for pair, kept in zip(prefix.layers, before, strict=True))
    assert first.length == 4
    # The prefix matters: another one ends elsewhere.
    other = language.prefix(torch.tensor(beginning), -tokens[:1])
    changed = language.read(rest, rest != PAD, tokens[1:].expand(3, 1, 3, 32), prefix=other).last()
    assert (changed - expected).abs().amax(1).min() > 1e-2


def test_logits_span_the_vocabulary_and_states_the_decoders_width(language):
    hidden = torch.zeros(2, 3, 32)
    assert language.logits(hidden).shape == (2, 3, VOCABULARY)
    assert language.seg_states(hidden).shape == (2, 3, 32)
