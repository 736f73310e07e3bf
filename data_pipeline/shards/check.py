"""`glus prepare check=true`: are sources and shards still what was published and what was written?"""

from collections.abc import Sequence
from pathlib import Path

from glus.common.errors import DataError, UserError
from glus.common.files import sha256_of
from glus.data_pipeline.datasets.released_digests import FOLDERS, PUBLISHED
from glus.data_pipeline.shards.index import Manifest
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.data_pipeline.shards.storage import Storage


def check_splits(names: Sequence[tuple[str, str]], root: Path, out: Storage) -> list[Manifest]:
    """Compare digests of (dataset, split) pairs, print a line for each file, and return the manifests.

    Three comparisons: released files whose digest was published, annotation files with what the manifest says the
    shards were made of, shards with their manifest. Raises DataError with all that differs.
    """
    manifests, wrong = [], []
    digests: dict[Path, str] = {}
    for dataset in dict.fromkeys(dataset for dataset, _ in names):
        wrong += _check_published(dataset, root, digests)
    for dataset, split in names:
        try:
            shards = ShardedSplit.open(out.below(dataset, split))
            for name, digest in shards.manifest.source.items():
                if (root / name).is_file() and _digest(root / name, digests) != digest:
                    wrong.append(
                        f"{root / name}: changed since {dataset}/{split} was prepared; run `glus prepare` again"
                    )
            shards.verify()
        except UserError as error:
            wrong.append(str(error))
            continue
        count = len(shards.manifest.shards)
        print(f"  {dataset}/{split}: {count} shards as the manifest says, {shards.manifest.counts.videos} videos")
        manifests.append(shards.manifest)
    if wrong:
        raise DataError(
            "\n".join([f"{len(wrong)} things are not as they should be:", *(f"  {each}" for each in wrong)])
        )
    return manifests


def _check_published(dataset: str, root: Path, digests: dict[Path, str]) -> list[str]:
    """What is wrong with a dataset's released files whose digests are known; those that are not there are no error."""
    wrong = []
    for name, digest in PUBLISHED.items():
        path = root / name
        if name.split("/")[0] != FOLDERS.get(dataset) or not path.is_file():
            continue
        if _digest(path, digests) == digest:
            print(f"  {name}: as published")
        else:
            wrong.append(
                f"{path}: SHA-256 {_digest(path, digests)[:12]}..., published {digest[:12]}...; download it again"
            )
    return wrong


def _digest(path: Path, digests: dict[Path, str]) -> str:
    if path not in digests:
        digests[path] = sha256_of(path)
    return digests[path]
