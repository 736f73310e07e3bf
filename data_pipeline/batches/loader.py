"""Micro-batches of one rank, read ahead by worker threads, in the order of the sample plan.

Threads, not processes: decoding JPEGs releases the interpreter, so they run side by side, write frames where the model
takes them from, and need no copy of the index or of a batch (benchmarks/data_loader.py).
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch

from glus.common.errors import DataError, UserError
from glus.data_pipeline.batches.batch import Batch, Described, describe
from glus.data_pipeline.batches.buffers import Buffers
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.data_pipeline.sampling.sample_plan import SamplePlan

#: Micro-batches that are read ahead, for each worker.
AHEAD = 2
#: Micro-batches that are described in a row. Decoding a picture drives all else out of the processor's caches: what
#: Python does between two of them takes two to three times as long as without (benchmarks/data_loader.py).
IN_A_ROW = 8


class Loader(Iterator[Batch]):
    """This rank's micro-batches of `size` slots for steps [start, stop), `plan.slots / (ranks * size)` a step.

    Micro-batch k of a step holds slots [k*size, (k+1)*size) and goes to rank k % ranks, so that more ranks only mean
    fewer micro-batches each, and neither ranks nor `workers` change what a step holds. Batches are in pinned memory
    where there is a GPU. Raises DataError where the global batch does not divide, and as `describe` and `with_frames`
    do (batch.py).
    """

    def __init__(
        self,
        plan: SamplePlan,
        tokenizer: Tokenizer,
        *,
        rank: int,
        ranks: int,
        size: int,
        start: int,
        stop: int,
        workers: int = 0,
    ) -> None:
        if plan.slots % (ranks * size):
            raise DataError(
                f"a global batch of {plan.slots} videos does not divide into micro-batches of {size} on {ranks} ranks: "
                f"set global_batch_size to a multiple of {ranks * size}"
            )
        self.plan, self.tokenizer, self.rank, self.ranks, self.size = plan, tokenizer, rank, ranks, size
        self.per_step = plan.slots // (ranks * size)
        #: The micro-batch that comes next, counted from step 0.
        self.position = start * self.per_step
        self._end = stop * self.per_step
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="glus-loader") if workers else None
        self._ahead: deque[Future[Batch]] = deque()
        #: Micro-batches that follow each other, and their descriptions, or none where one could not be made.
        self._rows: deque[tuple[range, Future[list[Described]]]] = deque()
        # On an object store every piece is waited for: there each worker describes what it reads, in parallel.
        self._in_rows = all(split.storage.local for split in plan.splits)
        self._most = workers * AHEAD
        self._buffers = Buffers()
        self._pinned = torch.cuda.is_available()

    def __next__(self) -> Batch:
        if self.position >= self._end:
            self.close()
            raise StopIteration
        if self._workers is None:
            batch = self._read(self.position)
        else:
            while len(self._ahead) < self._most and self.position + len(self._ahead) < self._end:
                number = self.position + len(self._ahead)
                row = self._row_of(number, self._workers) if self._in_rows else None
                self._ahead.append(self._workers.submit(self._read, number, row))
            batch = self._ahead.popleft().result()
        self.position += 1
        return batch

    def slots_of(self, number: int) -> tuple[int, range]:
        """The step and the slots of this rank's micro-batch `number`, counted from step 0."""
        step, turn = divmod(number, self.per_step)
        first = (turn * self.ranks + self.rank) * self.size
        return step, range(first, first + self.size)

    def _row_of(self, number: int, workers: ThreadPoolExecutor) -> tuple[range, Future[list[Described]]]:
        """The row that micro-batch `number` belongs to; numbers rise. The next row is begun in the middle of one.

        Workers take up their work in the order it is given: who reads a micro-batch never waits for a row that nobody
        has begun.
        """
        while not self._rows or self._rows[-1][0].stop <= min(number + IN_A_ROW // 2, self._end - 1):
            first = self._rows[-1][0].stop if self._rows else number
            row = range(first, min(first + IN_A_ROW, self._end))
            self._rows.append((row, workers.submit(self._describe_row, row)))
        while number not in self._rows[0][0]:
            self._rows.popleft()
        return self._rows[0]

    def _describe_row(self, row: range) -> list[Described]:
        try:
            return self._describe(row)
        except UserError:
            return []  # raised when its turn has come: `_read` then describes each by itself

    def _describe(self, row: Sequence[int]) -> list[Described]:
        drawn = []
        for number in row:
            step, numbers = self.slots_of(number)
            drawn.append([self.plan.slot(step, slot) for slot in numbers])
        return describe(self.plan, drawn, self.tokenizer)

    def _read(self, number: int, row: tuple[range, Future[list[Described]]] | None = None) -> Batch:
        described = row[1].result() if row else []
        mine = described[number - row[0].start] if row and described else self._describe([number])[0]
        batch = mine.with_frames(self._buffers)
        return batch.pin_memory() if self._pinned else batch

    def state_dict(self) -> dict[str, Any]:
        """Where reading goes on: the step, and the slots of it that all ranks have had; and which data and seed."""
        step, turn = divmod(self.position, self.per_step)
        taken = turn * self.ranks * self.size
        return {"step": step, "slots": taken, "seed": self.plan.seed, "fingerprint": self.plan.fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another loader was, on any number of ranks. Raises DataError: other data, seed or state."""
        try:
            step, slots, seed, fingerprint = (state[name] for name in ("step", "slots", "seed", "fingerprint"))
        except (KeyError, TypeError) as error:
            raise DataError(f"this is not the state of a loader: it has no {error}") from error
        if fingerprint != self.plan.fingerprint:
            raise DataError(
                f"the shards are not those that this state was made with (fingerprint {fingerprint}, now "
                f"{self.plan.fingerprint}): the same step would show other samples. Restore the shards, or "
                "begin from scratch"
            )
        if seed != self.plan.seed:
            raise DataError(f"this state was made with seed {seed}, the plan has {self.plan.seed}: use the same")
        if slots % (self.ranks * self.size):
            raise DataError(
                f"this state stands {slots} slots into step {step}, which {self.ranks} ranks with micro-batches of "
                f"{self.size} cannot share: go on with as many as before, or from the beginning of a step"
            )
        self._drop_ahead()
        self.position = step * self.per_step + slots // (self.ranks * self.size)

    def _drop_ahead(self) -> None:
        for batch in self._ahead:
            batch.cancel()
        for _, row in self._rows:
            row.cancel()
        self._ahead.clear()
        self._rows.clear()

    def close(self) -> None:
        """End the workers; what they were reading is dropped."""
        self._drop_ahead()
        if self._workers is not None:
            self._workers.shutdown(cancel_futures=True)

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
