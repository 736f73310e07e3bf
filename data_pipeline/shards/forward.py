"""A file that is read once from front to back in large pieces, and hashed on the way."""

import hashlib
from collections.abc import Iterator

from glus.common.errors import DataError
from glus.data_pipeline.shards.index import Span


class Forward:
    """Pieces of the file `where`, which comes as `blocks`."""

    def __init__(self, blocks: Iterator[bytes], where: str) -> None:
        self._blocks, self._where = blocks, where
        self._held, self._start = b"", 0
        self._sha256 = hashlib.sha256()

    def take(self, span: Span) -> bytes:
        """The piece at `span`, which lies behind all taken before. Raises DataError where the file ends early."""
        offset, size = span
        pieces: list[bytes] = []
        wanted = size
        while wanted or not pieces:
            if offset >= self._start + len(self._held):
                self._start += len(self._held)
                self._held = self._next(offset + wanted)
                continue
            place = offset - self._start
            pieces.append(self._held[place : place + wanted])
            offset, wanted = offset + len(pieces[-1]), wanted - len(pieces[-1])
        return b"".join(pieces)

    def digest(self) -> str:
        """SHA-256 of the whole file; what is left of it is read for that."""
        for block in self._blocks:
            self._sha256.update(block)
        return self._sha256.hexdigest()

    def _next(self, wanted: int) -> bytes:
        try:
            block = next(self._blocks, b"")
        except FileNotFoundError:
            raise DataError(f"{self._where}: this shard is missing; run `glus prepare` again") from None
        if not block:
            raise DataError(f"{self._where}: ends before byte {wanted}; run `glus prepare` again", file=self._where)
        self._sha256.update(block)
        return block
