"""Weights by their id on the Hugging Face hub, `org/name` or `org/name@revision`, fetched into huggingface_hub's cache.

Cache, endpoint, token and offline mode are huggingface_hub's own: HF_HOME, HF_ENDPOINT, HF_TOKEN or `hf auth login`,
HF_HUB_OFFLINE.
"""

import glob
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from glus.common.atomic import disk_fault
from glus.common.errors import ModelError, first_line
from glus.common.files import sha256_of
from glus.common.progress import Progress
from glus.common.urls import hide_secrets

if TYPE_CHECKING:
    from huggingface_hub import ResolvedRevision

#: What huggingface.co allows, and a revision: a branch, a tag or a commit.
_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[^@\s\\]{1,200}))?")
#: Read from the repository's own folder and from a vision tower's: settings, tokenizers and digests.
_SMALL = (".json", ".model")
_DIGESTS = "SHA256SUMS"
_TOWERS = "clip_vision_tower"
#: Weights of a folder, in the order in which they are looked for (release_files.py), without the number of a shard.
_FORMS = (("model", ".safetensors"), ("pytorch_model", ".bin"))
_SEGMENTERS = (".pt", ".pth")
#: What is named so and is not there is a missing file, no repository.
_FILES = (*_SEGMENTERS, ".bin", ".safetensors", ".yaml")


@dataclass(frozen=True)
class HubId:
    """A repository of the hub and a revision of it (a branch, a tag or a commit; "" is its main branch)."""

    repo: str
    revision: str = ""

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


@dataclass(frozen=True)
class Wanted:
    """What is read of a repository at one commit: bytes of each file by its name, and the names of those in the cache.

    `given` is the id as the user wrote it.
    """

    given: HubId
    revision: "ResolvedRevision"
    files: Mapping[str, int]
    cached: frozenset[str]

    @property
    def commit(self) -> str:
        """The commit's 40 digits."""
        return self.revision.resolved

    @property
    def title(self) -> str:
        """`org/name@commit`, 12 digits of it."""
        return f"{self.given.repo}@{self.commit[:12]}"

    @property
    def left(self) -> int:
        """Bytes that are not in the cache yet."""
        return sum(size for name, size in self.files.items() if name not in self.cached)


def hub_id(place: str | Path) -> HubId | None:
    """`place` as an id of the hub; None where it is a path: one that exists, or one that no id looks like."""
    matched = _ID.fullmatch(str(place))
    if matched is None or matched["repo"].endswith(_FILES) or os.path.lexists(place):
        return None
    return HubId(matched["repo"], matched["revision"] or "")


def local_weights(place: str | Path) -> Path:
    """A folder of weights: `place` itself where it is a path, else its repository's folder in the cache, fetched.

    Raises ModelError: no such repository, private without a token, no network and no copy in the cache, no room.
    """
    given = hub_id(place)
    return Path(place) if given is None else fetch(look_up(given))


def local_segmenter(place: str | Path) -> Path:
    """A file of SAM's weights: `place` itself, or the one *.pt or *.pth of its repository. Raises ModelError."""
    given = hub_id(place)
    if given is None:
        return Path(place)
    wanted = look_up(given, segmenter=True)
    return fetch(wanted) / next(iter(wanted.files))


def look_up(given: HubId, *, segmenter: bool = False) -> Wanted:
    """Find a repository's commit and what is read of it; the cache answers where the hub cannot be reached.

    Raises ModelError.
    """
    from huggingface_hub import HfApi, get_cached_repo_tree, try_to_load_from_cache
    from huggingface_hub.errors import CachedRepoTreeNotFoundError
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(library_name="glus")
    with _explained(given):
        revision = api.resolve_revision(given.repo, revision=given.revision or None)
        try:
            tree = get_cached_repo_tree(given.repo, revision=revision)
        except CachedRepoTreeNotFoundError:
            entries = api.list_repo_tree(given.repo, recursive=True, revision=revision.resolved)
            tree = [each for each in entries if isinstance(each, RepoFile)]
    sizes = {each.path: each.size for each in tree}
    names = _segmenters(given, sizes) if segmenter else _read_of(given, sizes)
    cached = {name for name in names if isinstance(try_to_load_from_cache(given.repo, name, revision=revision), str)}
    return Wanted(given, revision, {name: sizes[name] for name in names}, frozenset(cached))


def fetch(wanted: Wanted) -> Path:
    """The folder in the cache that holds what is wanted, downloaded where it is not there. Raises ModelError.

    Files that are complete are kept when the command is stopped; a broken connection goes on within a file.
    """
    from huggingface_hub import snapshot_download

    check_room([wanted])
    with _explained(wanted.given):
        folder = snapshot_download(
            wanted.given.repo,
            revision=wanted.revision,
            allow_patterns=[glob.escape(name) for name in wanted.files],
            tqdm_class=_bar(wanted.title, wanted.left > 0),
            library_name="glus",
        )
    return Path(folder)


def check_digests(wanted: Wanted, folder: Path) -> dict[str, str]:
    """SHA-256 of each file of weights in `folder`, by name, compared with the hub's; empty where it cannot be reached.

    Raises ModelError where a file holds other bytes, InputError where one cannot be read.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(library_name="glus")
    try:
        with _explained(wanted.given):
            stored = api.get_paths_info(wanted.given.repo, list(wanted.files), revision=wanted.commit)
    except ModelError:
        return {}
    found = {}
    for file in stored:
        if not isinstance(file, RepoFile) or file.lfs is None:
            continue
        found[file.path] = sha256_of(folder / file.path, "weights")
        if found[file.path] != file.lfs.sha256:
            raise ModelError(
                f"{folder / file.path} does not hold what {_endpoint()} has (its SHA-256 differs): remove "
                f"{(folder / file.path).resolve()} and run the command again"
            )
    return found


def title_of(folder: Path) -> str:
    """`org/name@commit` for a folder that was fetched, as the cache names it; else the folder's own name."""
    *_, repository, snapshots, commit = ("", "", "", *folder.absolute().parts)
    if snapshots == "snapshots" and repository.startswith("models--"):
        return f"{repository.removeprefix('models--').replace('--', '/')}@{commit[:12]}"
    return folder.resolve().name


def cache_folder() -> Path:
    """The cache of huggingface_hub: HF_HUB_CACHE, or hub/ below HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _read_of(given: HubId, sizes: Mapping[str, int]) -> list[str]:
    """Files of a release: settings, tokenizer, digests, and weights in one form, its own and its vision tower's."""
    found: list[str] = []
    for folder in ("", f"{_TOWERS}/"):
        here = [name for name in sizes if name.startswith(folder) and "/" not in name[len(folder) :]]
        found += [name for name in here if name.endswith(_SMALL) or name == _DIGESTS]
        for stem, ending in _FORMS:
            shard = re.compile(rf"{re.escape(folder + stem)}(-.*)?{re.escape(ending)}")
            if weights := [name for name in here if shard.fullmatch(name)]:
                found += weights
                break
        else:
            if not folder:
                raise ModelError(
                    f"{given} on {_endpoint()} holds no weights that can be read: there is neither model*.safetensors "
                    "nor pytorch_model*.bin; name another repository"
                )
    return sorted(set(found))


def _segmenters(given: HubId, sizes: Mapping[str, int]) -> list[str]:
    found = [name for name in sizes if "/" not in name and PurePosixPath(name).suffix in _SEGMENTERS]
    if len(found) != 1:
        held = ", ".join(found) or "none"
        raise ModelError(
            f"{given} on {_endpoint()} must hold one *.pt or *.pth, SAM's weights; it holds {held}: name another "
            "repository, or a file that you downloaded"
        )
    return found


def check_room(wanted: Sequence[Wanted]) -> None:
    """Raise ModelError where the cache's disk has less room than the files that are not there yet."""
    cache, left = cache_folder(), sum(each.left for each in wanted)
    there = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free < left:
        raise ModelError(
            f"{', '.join(str(each.given) for each in wanted)}: {shown_size(left)} to download, and {cache} has "
            f"{shown_size(free)} free: make room, or set HF_HOME to a larger disk"
        )


def shown_size(size: int) -> str:
    """Bytes for people: 14.2 GB, 3.4 MB, 12 kB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1e3:.0f} kB" if size >= 1e3 else f"{size} bytes"


def _bar(title: str, shown: bool) -> Any:
    """A class of bars for snapshot_download, of which one is shown at most: bytes from the network."""

    class Bytes(Progress):
        def __init__(self, iterable: Any = None, **options: Any) -> None:
            transfer = str(options.get("desc", "")).startswith("Downloading bytes")
            options |= {"desc": f"download {title}", "disable": not (transfer and shown), "bar_format": None}
            super().__init__(iterable, **options)

        def set_description_str(self, desc: str | None = None, refresh: bool | None = True) -> None:
            """Keep the title."""

    return Bytes


def _endpoint() -> str:
    from huggingface_hub import constants

    return hide_secrets(constants.ENDPOINT.removeprefix("https://"))


@contextmanager
def _explained(given: HubId) -> Iterator[None]:
    """Raise ModelError, one line, for what huggingface_hub raises in the block."""
    from huggingface_hub import errors, get_token
    from huggingface_hub.constants import is_offline_mode

    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{given} on {_endpoint()} asks for its conditions to be accepted: open its page while you are logged in, "
            "then run `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        remedy = (
            "correct the name, or take the token of an account that may read it"
            if get_token()
            else "correct the name, or run `hf auth login` (or set HF_TOKEN) where it is private"
        )
        raise ModelError(
            f"{given}: no such folder here, and no repository on {_endpoint()} that you may read: {remedy}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"{given}: {given.repo} on {_endpoint()} has no revision {given.revision!r}: name a branch, a tag or a "
            "commit after the @"
        ) from error
    except errors.HFValidationError as error:
        raise ModelError(f"{given}: no such folder here, and no id of a repository: correct the path") from error
    except Exception as error:
        if fault := disk_fault(error):
            raise ModelError(f"{given} cannot be downloaded into {cache_folder()} ({fault})") from error
        unreachable = isinstance(error, (errors.RevisionResolutionError, errors.LocalEntryNotFoundError))
        if not (unreachable or isinstance(error, OSError) or type(error).__module__.startswith("httpx")):
            raise
        if unreachable:
            why = "offline mode is set (HF_HUB_OFFLINE)" if is_offline_mode() else f"{_endpoint()} cannot be reached"
            raise ModelError(
                f"{given}: no such folder here, not all of it is in the cache {cache_folder()}, and {why}: run `glus "
                f"download {given}` where there is network"
            ) from error
        raise ModelError(
            f"{given}: the download from {_endpoint()} broke off ({hide_secrets(first_line(error))}): run the command "
            "again, complete files are kept"
        ) from error
