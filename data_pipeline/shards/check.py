"""`glus prepare check=true`: are sources and shards still what was published and what was written?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from glus.common.errors import DataError, UserError
from glus.common.files import sha256_of
from glus.data_pipeline.shards.index import Manifest
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.data_pipeline.shards.storage import Storage

#: SHA-256 of released files, where their authors published one; paths below the folder of all datasets.
#: MeViS: github.com/henghuiding/MeViS, issue 4. ReVOS: the table in the dataset's own README.
PUBLISHED: Mapping[str, str] = MappingProxyType(
    {
        "mevis/train/mask_dict.json": "f9d9b01a2a6d7a004e2e7a664ce2b9b1576218e975030f8e4df4f66111fb253f",
        "mevis/valid_u/mask_dict.json": "6e711a3f713cd95a825f536323e434b4d80f85a8e4e66d0cd662408e8779db50",
        "ReVOS/JPEGImages.zip": "1844db76c3075deb95034935a8208ba459272784242ec39de9287c66a4c22f07",
        "ReVOS/mask_dict.json": "e9b4310661495ddd47dedcac1e289621cf8f5dff89c0bb8b65f7699f748d5cff",
        "ReVOS/mask_dict_foreground.json": "05d9be5d7bbed03b216a457274022ad1c9e683b4ffdc32b19c60c5e797fd8f01",
        "ReVOS/meta_expressions_train_.json": "3917dfba8725d080c8658dc43ad4a84cf41ce51438acfaee70bef5aa0310417a",
        "ReVOS/meta_expressions_valid_.json": "127b975e78effef6033846e68989dcf79c692d644dd07c835b723cea700d4c2d",
    }
)

#: Folder of each dataset whose files are listed above.
FOLDERS: Mapping[str, str] = MappingProxyType({"mevis": "mevis", "revos": "ReVOS"})


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
