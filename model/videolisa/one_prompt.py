"""One pass of the language model for all expressions of a video: their [SEG] states."""

import torch
from torch import Tensor

from glus.common.errors import ModelError
from glus.model.language import Language
from glus.model.prompt_rows import IMAGE_TOKEN_ID, common_length


def check_prompts(ids: Tensor, attention: Tensor, seg_id: int, tokens: int, max_positions: int) -> None:
    """Refuse prompts that VideoLISA cannot be asked with, naming the expression by its place.

    ids: int64 [E, L]; attention: bool [E, L]; tokens: how many stand for the video.
    Raises ModelError for no prompt, other than one <image>, other than one [SEG] after it, too many positions.
    """
    if not len(ids):
        raise ModelError("no expression was given: name at least one")
    images, answers = (ids == IMAGE_TOKEN_ID) & attention, (ids == seg_id) & attention
    lengths = attention.sum(1) + tokens - 1
    for row, (image, answer, length) in enumerate(zip(images, answers, lengths.tolist(), strict=True)):
        where = f"expression {row + 1} of {len(ids)}"
        if int(image.sum()) != 1:
            raise ModelError(
                f"{where}: its prompt holds {int(image.sum())} <image> where one stands for the video; an expression "
                "may not contain <image>"
            )
        if int(answer.sum()) != 1 or int(answer.long().argmax()) < int(image.long().argmax()):
            raise ModelError(
                f"{where}: its prompt holds {int(answer.sum())} [SEG] where the answer after the video has one; an "
                "expression may not contain [SEG]"
            )
        if length > max_positions:
            raise ModelError(
                f"{where} is too long: its prompt takes {length} positions, the language model has {max_positions} "
                "(model.language.max_positions); shorten the expression"
            )


def seg_states(
    language: Language, video: Tensor, ids: Tensor, attention: Tensor, together: int, reuse_prefix: bool
) -> Tensor:
    """[SEG] states float [E, C] of E prompts about one video; `together` prompts are read at a time.

    video: float [N, hidden], its tokens; ids: int64 [E, L] and attention: bool [E, L], as `check_prompts` wants them.
    With `reuse_prefix` the beginning that all prompts share, video tokens included, is read once.
    """
    answer = (ids == language.seg_id) & attention
    # The state is read one position before [SEG]; what comes after it changes nothing.
    ends = answer.long().argmax(1)
    tokens = video.unsqueeze(0)
    begun, prefix = 0, None
    if reuse_prefix and len(ids) > 1:
        begun = min(common_length(ids, attention), int(ends.min()) - 1)
        shared = ids[0, :begun]
        if IMAGE_TOKEN_ID in shared:
            prefix = language.prefix(shared, tokens)
            tokens = tokens[:0]
        else:
            begun = 0
    states = []
    for rows in torch.arange(len(ids), device=ids.device).split(together):
        stop = int(ends[rows].max()) + 1
        given = ids[rows, begun:stop], attention[rows, begun:stop], tokens.unsqueeze(0)
        reading = language.read(*given, prefix=prefix)
        states.append(language.seg_states(reading.before(language.seg_id)[:, 0]))
    return torch.cat(states)
