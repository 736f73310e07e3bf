"""Where the tokens of prompts stand in the rows that a language model reads, and the states that it leaves there.

The prompts of a video begin alike: GLUS's with the system text, the context frames and the first query frame (375 of
about 720 positions), VideoLISA's with 2,336 video tokens. A packed row holds that beginning once, then the rest of each
prompt. A token sees the beginning and what comes before it in its own prompt, at the positions that it has there. So
the states are those of separate prompts. Every layer runs once whatever the batch holds, and returns all that it
computes: ZeRO-3 needs both.

Rows are laid out on the CPU, where ids are known: a GPU need not be waited for.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

#: Stands for a frame in the token ids (LLaVA's IMAGE_TOKEN_INDEX).
IMAGE_TOKEN_ID = -200
#: Elements to a multiple of which torch's memory-efficient attention pads the rows of a mask.
_ALIGNED = 8
#: Number of padding among the prompts of a packed row.
_PADDING = -1


def common_length(ids: Tensor, attention: Tensor) -> int:
    """Columns in which all rows begin alike, padding not counted. ids: int64 [E, L]; attention: bool [E, L]."""
    alike = (ids == ids[:1]).all(0) & attention.all(0)
    return int(alike.long().cumprod(0).sum())


@dataclass(frozen=True)
class PromptRows:
    """The places of E prompts in R rows of W positions, frames expanded; all tensors are on the CPU.

    ids: int64 [R, W], 0 at tokens of images and at padding, which stands at the end;
    image: int64 [N], the tokens of images that are read, numbered over all images; at: int64 [N], where they stand in
    the R * W positions;
    position: int64 [R, W], of each token in its own prompt; part: int64 [R, W], 0 for what the prompts of a row share,
    then 1, 2, ... for each prompt, -1 for padding; packed: whether any row holds several prompts;
    place: int64 [E, L], where in the R * W positions a column of `ids` ends; 0 for padding.
    """

    ids: Tensor
    image: Tensor
    at: Tensor
    position: Tensor
    part: Tensor
    packed: bool
    place: Tensor

    @classmethod
    def of(
        cls, ids: Tensor, attention: Tensor, images: int, tokens: int, video_of: Tensor, share: bool
    ) -> "PromptRows":
        """Lay out E prompts.

        ids: int64 [E, L], IMAGE_TOKEN_ID for each of a prompt's `images` images of `tokens` tokens; attention: bool
        [E, L], False for padding, which stands at the end; video_of: int64 [E], ascending, whose images they are.
        With `share` the prompts of a video take one row, where that leaves fewer positions to read.
        """
        return _Layout.best(ids, attention, tokens, video_of, share).filled(ids, images, tokens, video_of.tolist())

    def mask(self, embedded: Tensor, window: int) -> dict[str, Tensor]:
        """The arguments of a language model that reads packed rows, of the device and dtype of `embedded`."""
        device, width = embedded.device, self.ids.shape[1]
        position, part = (each.to(device, non_blocking=True) for each in (self.position, self.part))
        # Made once, as attention adds it, in rows that its kernels need not copy: else each layer makes its own.
        bias = embedded.new_full((len(part), 1, width, -(-width // _ALIGNED) * _ALIGNED), float("-inf"))[..., :width]
        return {"attention_mask": bias.masked_fill_(packed_mask(position, part, window), 0), "position_ids": position}


def tokens_read(ids: Tensor, attention: Tensor, tokens: int, video_of: Tensor, share: bool) -> int:
    """Tokens that the language model reads, padding left out. The arguments are those of `PromptRows.of`."""
    rows = _Layout.best(ids, attention, tokens, video_of, share).rows
    return sum(each.positions for row in rows for each in row)


@dataclass(frozen=True)
class _Span:
    """Columns `begin` to `end` of a prompt, `positions` of them with frames expanded; `part` as in PromptRows."""

    prompt: int
    begin: int
    end: int
    part: int
    positions: int


@dataclass(frozen=True)
class _Layout:
    """Rows as spans, one after the other in each row; the first is the beginning of all prompts of its row."""

    rows: list[list[_Span]]
    width: int

    @classmethod
    def best(cls, ids: Tensor, attention: Tensor, tokens: int, video_of: Tensor, share: bool) -> "_Layout":
        """Prompts alone or, with `share`, those of a video together, where that leaves fewer positions."""
        videos = video_of.tolist()
        layouts = [cls.of(ids, attention, tokens, [[prompt] for prompt in range(len(ids))])]
        if share and len(set(videos)) < len(videos):
            together = [[p for p, of in enumerate(videos) if of == video] for video in dict.fromkeys(videos)]
            layouts.append(cls.of(ids, attention, tokens, together))
        return min(layouts, key=lambda layout: layout.positions)

    @classmethod
    def of(cls, ids: Tensor, attention: Tensor, tokens: int, groups: list[list[int]]) -> "_Layout":
        """The prompts of each group in a row of their own."""
        ends, lengths = torch.where(ids == IMAGE_TOKEN_ID, tokens, 1).cumsum(1).tolist(), attention.sum(1).tolist()

        def span(prompt: int, begin: int, end: int, part: int) -> _Span:
            positions = (ends[prompt][end - 1] if end else 0) - (ends[prompt][begin - 1] if begin else 0)
            return _Span(prompt, begin, end, part, positions)

        rows = []
        for group in groups:
            begun = common_length(ids[group], attention[group])
            rest = [span(prompt, begun, lengths[prompt], part) for part, prompt in enumerate(group, start=1)]
            rows.append([span(group[0], 0, begun, 0), *rest])
        return cls(rows, max(sum(each.positions for each in row) for row in rows))

    @property
    def positions(self) -> int:
        """Positions that the language model reads, padding included."""
        return len(self.rows) * self.width

    def filled(self, ids: Tensor, images: int, tokens: int, videos: list[int]) -> PromptRows:
        """The rows with their tokens."""
        count = self.positions
        filled, position = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
        part = torch.full((count,), _PADDING)
        place = torch.zeros(ids.shape, dtype=torch.int64)
        image, at = [], []
        for number, spans in enumerate(self.rows):
            start, shared = number * self.width, spans[0].positions
            for each in spans:
                columns = slice(each.begin, each.end)
                own = ids[each.prompt, columns]
                is_image = own == IMAGE_TOKEN_ID
                widths = torch.where(is_image, tokens, 1)
                ends = widths.cumsum(0)
                here = slice(start, start + each.positions)
                filled[here] = own.clamp(min=0).repeat_interleave(widths)
                position[here] = torch.arange(each.positions) + (shared if each.part else 0)
                part[here] = each.part
                # The beginning is read once for all prompts of the row.
                of = [span.prompt for span in spans[1:]] if each.part == 0 else [each.prompt]
                place[of, columns] = start + ends - 1
                before = int((ids[each.prompt, : each.begin] == IMAGE_TOKEN_ID).sum())
                first = videos[each.prompt] * images + before
                image.append(torch.arange(first * tokens, (first + int(is_image.sum())) * tokens))
                begins = (start + ends - widths)[is_image]
                at.append((begins[:, None] + torch.arange(tokens)).flatten())
                start += each.positions
        shape = (len(self.rows), self.width)
        return PromptRows(
            filled.view(shape),
            torch.cat(image),
            torch.cat(at),
            position.view(shape),
            part.view(shape),
            len(self.rows) < len(ids),
            place,
        )


def packed_mask(position: Tensor, part: Tensor, window: int) -> Tensor:
    """Which keys each query of a packed row sees: bool [R, 1, W, W].

    position, part: int64 [R, W], as in PromptRows; window: how far back a query sees (0: all). Padding sees padding
    and the first token: a query without any key would become NaN.
    """
    back = position[:, :, None] - position[:, None, :]
    seen = (back >= 0) & ((part[:, None, :] == 0) | (part[:, None, :] == part[:, :, None]))
    if window:
        seen &= back <= window
    return seen.unsqueeze(1)


@dataclass(frozen=True)
class Reading:
    """The states of E prompts: hidden float [R, W, hidden], and on the CPU ids int64, attention bool, place [E, L].

    A state predicts what comes after it. Of an image's tokens the last one's is read. inside: states of an earlier
    layer, float [R, W, hidden], where they were asked for.
    """

    hidden: Tensor
    ids: Tensor
    attention: Tensor
    place: Tensor
    inside: Tensor | None = None

    def before(self, token_id: int) -> Tensor:
        """States that predict `token_id`, one position before each of its occurrences: float [E, N, hidden].

        The reference takes the [SEG] state there, not at [SEG] itself. Each prompt must hold the same number N.
        """
        return self._at(self.place[:, :-1][self.ids[:, 1:] == token_id]).unflatten(0, (len(self.ids), -1))

    def last(self) -> Tensor:
        """States of the last token of each prompt: float [E, hidden]."""
        return self._at(self.place[torch.arange(len(self.ids)), self.attention.sum(1) - 1])

    def before_first(self, token_id: int) -> tuple[Tensor, Tensor]:
        """States that predict the first `token_id`, float [E, hidden], and which prompts have one, bool [E].

        A prompt without it gives the state of its last token, so that every row has one.
        """
        at = self.ids[:, 1:] == token_id
        found = at.any(1)
        column = torch.where(found, at.long().argmax(1), self.attention.sum(1) - 1)
        return self._at(self.place[torch.arange(len(self.ids)), column]), found.to(self.hidden.device)

    def labelled(self, answer: Tensor) -> tuple[Tensor, Tensor]:
        """States that predict a label, float [N, hidden], and the labels, int64 [N]; prompt after prompt.

        answer: bool [E, L], where the ids are labels.
        """
        labels = answer.cpu()[:, 1:]
        return self._at(self.place[:, :-1][labels]), self.ids[:, 1:][labels].to(self.hidden.device, non_blocking=True)

    def image_states(self, prompts: Tensor, tokens: int) -> Tensor:
        """States `inside` of the images' tokens in n prompts, int64 [n] on the CPU: float [n, F, tokens, hidden]."""
        assert self.inside is not None
        ids = self.ids[prompts]
        ends = self.place[prompts][ids == IMAGE_TOKEN_ID].view(len(ids), -1, 1)
        places = ends + torch.arange(1 - tokens, 1)
        return self.inside.flatten(0, 1)[places.to(self.inside.device, non_blocking=True)]

    def _at(self, places: Tensor) -> Tensor:
        return self.hidden.flatten(0, 1)[places.to(self.hidden.device, non_blocking=True)]
