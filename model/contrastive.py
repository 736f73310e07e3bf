"""Object-contrastive loss over a batch whose slots were grouped by object.

The paper's loss pulls together [SEG] states of expressions for one object and pushes others apart. The reference does
so against a bank of past states; here the batch itself holds the partners, because the sample plan groups them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def object_contrastive_loss(states: Tensor, video: Tensor, objects: Tensor, temperature: float = 0.07) -> Tensor:
    """InfoNCE with several positives (SupCon, Khosla et al. 2020, eq. 2), one frame at a time.

    states: float [E, Q, C], [SEG] states of E expressions on Q query frames;
    video: int64 [E], equal for expressions of the same video; objects: bool [E, O], the object set of each.
    For each frame, the positives of an expression are the others with its object set in its video, its negatives all
    whose object set does not overlap its own. Expressions without a positive add nothing. Returns a scalar; 0, attached
    to the graph, where no expression has a positive.
    """
    same_video = video[:, None] == video[None, :]
    same = same_video & (objects[:, None] == objects[None, :]).all(-1)
    overlap = same_video & (objects[:, None] & objects[None, :]).any(-1)
    positive = same & ~torch.eye(len(video), dtype=torch.bool, device=video.device)
    considered = positive | ~(same | overlap)
    unit = F.normalize(states.float(), dim=-1).transpose(0, 1)
    similarity = unit @ unit.transpose(1, 2) / temperature
    log_sum = torch.logsumexp(similarity.masked_fill(~considered, float("-inf")), dim=-1, keepdim=True)
    log_probability = (similarity - log_sum).masked_fill(~positive, 0.0)
    count = positive.sum(-1)
    has_positive = count > 0
    if not bool(has_positive.any()):
        return states.sum() * 0.0
    per_expression = -log_probability.sum(-1)[:, has_positive] / count[has_positive]
    return per_expression.mean()
