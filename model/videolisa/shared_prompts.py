"""Prompts of a batch of videos read by the language model: each alone, or those of a video in one packed row.

The prompts of a video begin with the same text and the same video tokens, 2,336 of them in VideoLISA. A packed row
holds that beginning once, then the rest of each prompt. A token sees the beginning and what comes before it in its own
prompt, at the positions that it has there, so the states are those of separate prompts. Every layer runs once whatever
the batch holds, and returns all that it computes: ZeRO-3 needs both.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from glus.model.language import IMAGE_TOKEN_ID, Language, Reading


@dataclass(frozen=True)
class PromptReading:
    """States of E prompts, with a label of the cross-entropy where `answer` (bool [E, L']) is True."""

    reading: Reading
    answer: Tensor

    def seg_hidden(self, seg_id: int) -> tuple[Tensor, Tensor]:
        """States that predict [SEG], float [E, hidden], and which prompts have one, bool [E].

        A prompt without [SEG] gives the state of its last token, so that every row has one.
        """
        at = self.reading.ids[:, 1:] == seg_id
        found = at.any(1)
        place = torch.where(found, at.long().argmax(1), self.reading.mask.sum(1) - 1)
        return self.reading.hidden[torch.arange(len(place), device=place.device), place], found

    def answers(self) -> tuple[Tensor, Tensor]:
        """States that predict a label, float [N, hidden], and the labels, int64 [N]; prompt after prompt."""
        labelled = self.answer[:, 1:]
        return self.reading.hidden[:, :-1][labelled], self.reading.ids[:, 1:][labelled]


def read_prompts(
    language: Language, ids: Tensor, attention: Tensor, answer: Tensor, tokens: Tensor, video_of: Tensor, share: bool
) -> PromptReading:
    """Read E prompts about V videos.

    ids: int64 [E, L] with one IMAGE_TOKEN_ID each; attention, answer: bool [E, L]; tokens: float [V, N, hidden], those
    of each video; video_of: int64 [E]. With `share` the prompts of a video are packed, where one has several and all
    begin alike. flash-attn takes no mask, so there each prompt is read alone.
    """
    videos, length = tokens.shape[:2]
    counts = torch.bincount(video_of, minlength=videos)
    image = int((ids[0] == IMAGE_TOKEN_ID).long().argmax())
    packed = (
        share
        and language.config.language.attention == "sdpa"
        and int(counts.max()) > 1
        and bool((ids[:, : image + 1] == ids[0, : image + 1]).all())
    )
    if not packed:
        repeats = torch.where(ids == IMAGE_TOKEN_ID, length, 1).flatten()
        labelled = torch.repeat_interleave(answer.flatten(), repeats).view(len(ids), -1)
        return PromptReading(language.read(ids, attention, tokens[video_of].unsqueeze(1)), labelled)
    rest = slice(image + 1, None)
    # The last video token comes with the rest of a prompt: it predicts the first token of it.
    hidden = _read_packed(language, ids[0, :image], ids[:, rest], attention[:, rest], tokens, video_of, counts)
    own = slice(image, None)
    return PromptReading(Reading(hidden, ids[:, own], attention[:, own]), answer[:, own])


def _read_packed(
    language: Language,
    begin: Tensor,
    rest: Tensor,
    attention: Tensor,
    tokens: Tensor,
    video_of: Tensor,
    counts: Tensor,
) -> Tensor:
    """States float [E, 1 + R, hidden] of the last video token and of the rest of each prompt.

    begin: int64 [B], the text before the video tokens; rest: int64 [E, R]; attention: bool [E, R].
    """
    videos, length = tokens.shape[:2]
    most, size = int(counts.max()), rest.shape[1]
    slot_of = torch.arange(len(video_of), device=rest.device) - (counts.cumsum(0) - counts)[video_of]
    # One call for all texts, whatever the batch holds.
    words = language.llama.get_input_embeddings()(torch.cat([begin, rest.flatten()]).clamp(min=0))
    first = words[: len(begin)].expand(videos, -1, -1)
    texts = words.new_zeros(videos, most, size, words.shape[-1])
    texts = texts.index_put((video_of, slot_of), words[len(begin) :].unflatten(0, rest.shape))
    embedded = torch.cat([first, tokens.to(words.dtype), texts.flatten(1, 2)], dim=1)
    if torch.is_grad_enabled() and not embedded.requires_grad:
        embedded.requires_grad_()  # as in Language.read
    real = torch.zeros(videos, most, size, dtype=torch.bool, device=rest.device)
    real[video_of, slot_of] = attention
    shared = len(begin) + length
    positions = torch.cat(
        [torch.arange(shared, device=rest.device), (shared + torch.arange(size, device=rest.device)).repeat(most)]
    )
    part = torch.cat(
        [positions.new_zeros(shared), torch.arange(1, most + 1, device=rest.device).repeat_interleave(size)]
    )
    mask = packed_mask(positions, part, real.flatten(1), language.config.language.sliding_window)
    hidden = language.llama.model(
        inputs_embeds=embedded, attention_mask=mask, position_ids=positions.unsqueeze(0), use_cache=False
    ).last_hidden_state
    of_rest = hidden[:, shared:].unflatten(1, (most, size))[video_of, slot_of]
    return torch.cat([hidden[video_of, shared - 1].unsqueeze(1), of_rest], dim=1)


def packed_mask(positions: Tensor, part: Tensor, real: Tensor, window: int) -> Tensor:
    """Which keys each query of a packed row sees: bool [V, 1, L, L].

    positions: int64 [L], those of each token in its own prompt; part: int64 [L], 0 for the shared beginning, else the
    number of the prompt; real: bool [V, R], False where the tokens after the beginning are padding; window: how far
    back a query sees (0: all).
    """
    back = positions[:, None] - positions[None, :]
    seen = (back >= 0) & ((part[None, :] == 0) | (part[None, :] == part[:, None]))
    if window:
        seen &= back <= window
    keys = torch.cat([real.new_ones(len(real), len(positions) - real.shape[1]), real], dim=1)
    # Padding sees itself: a query without any key would become NaN.
    alone = torch.eye(len(positions), dtype=torch.bool, device=positions.device)
    return ((seen & keys[:, None, :]) | alone).unsqueeze(1)
