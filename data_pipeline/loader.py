"""Micro-batches of one rank, read ahead in worker processes, in the order of the sample plan."""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from glus.data_pipeline.batch import Batch, collate
from glus.data_pipeline.errors import DataError
from glus.data_pipeline.sampling import SamplePlan
from glus.data_pipeline.tokenizer import Tokenizer


class _MicroBatches(Dataset[Batch | DataError]):
    """Item i is the i-th micro-batch of this rank since step `start`, or what is wrong with its data.

    The error is handed over, not raised: DataLoader would put a worker's traceback into the message.
    """

    def __init__(self, plan: SamplePlan, tokenizer: Tokenizer, rank: int, ranks: int, size: int, start: int, stop: int):
        self.plan, self.tokenizer, self.rank, self.ranks, self.size = plan, tokenizer, rank, ranks, size
        self.start, self.per_step = start, plan.slots // (ranks * size)
        self.steps = stop - start

    def __len__(self) -> int:
        return self.steps * self.per_step

    def __getitem__(self, item: int) -> Batch | DataError:
        step, turn = self.start + item // self.per_step, item % self.per_step
        first = (turn * self.ranks + self.rank) * self.size
        try:
            slots = [self.plan.slot(step, number) for number in range(first, first + self.size)]
            return collate(self.plan, slots, self.tokenizer)
        except DataError as error:
            return error


def micro_batches(
    plan: SamplePlan,
    tokenizer: Tokenizer,
    *,
    rank: int,
    ranks: int,
    size: int,
    start: int,
    stop: int,
    workers: int = 0,
) -> Iterator[Batch]:
    """Yield this rank's micro-batches of `size` slots for steps [start, stop), `plan.slots / (ranks * size)` a step.

    Micro-batch k of a step holds slots [k*size, (k+1)*size) and goes to rank k % ranks, so that more ranks only mean
    fewer micro-batches each. Raises DataError where the global batch does not divide, and from `collate`.
    """
    if plan.slots % (ranks * size):
        raise DataError(
            f"a global batch of {plan.slots} videos does not divide into micro-batches of {size} on {ranks} ranks: "
            f"set global_batch_size to a multiple of {ranks * size}"
        )
    dataset = _MicroBatches(plan, tokenizer, rank, ranks, size, start, stop)
    loader = DataLoader(
        dataset,
        batch_size=None,
        shuffle=False,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="spawn" if workers else None,
        persistent_workers=False,
        prefetch_factor=4 if workers else None,
        # Of its own: torch's draws a seed for the workers from the caller's, which shifts the dropout of a resumed run.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch
