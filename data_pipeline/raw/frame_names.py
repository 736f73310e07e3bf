"""Names of frames, masks and videos: one rule for file endings, and the order in time that numbers in names give."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from natsort import natsorted, ns

from glus.common.errors import DataError

JPEG_ENDINGS = (".jpg", ".jpeg")
PNG_ENDINGS = (".png",)
VIDEO_ENDINGS = (
    *(".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".gif", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".3gp", ".ogv"),
)

_NUMBER = re.compile(r"\d+")
#: A date that ends with its year: 31-12-2023, 12.31.2023.
_DAY_FIRST = re.compile(r"(?<!\d)(\d\d)(\D)(\d\d)\2((?:19|20)\d\d)(?!\d)")
#: What stands before a number that may be negative: a dash that joins it to no word.
_SIGN = re.compile(r"(?:^|[^\w)\]])[-\u2212]$")


def split_ending(name: str, endings: Sequence[str]) -> tuple[str, str] | None:
    """(stem, ending as written) of a file name with one of the endings (lower case), blind to case; None for others.

    Names that begin with a dot are none: they are what systems leave next to files (._00000.jpg of macOS).
    """
    for ending in endings:
        if name.lower().endswith(ending) and len(name) > len(ending) and not name.startswith("."):
            return name[: -len(ending)], name[-len(ending) :]
    return None


def without_ending(name: str, endings: Sequence[str]) -> str:
    """A name without the ending, where it has one of them."""
    found = split_ending(name, endings)
    return name if found is None else found[0]


def files_by_stem(folder: Path, endings: Sequence[str]) -> dict[str, list[Path]]:
    """Files of a folder by their names without ending; other files are passed over.

    Empty where there is no such folder. Raises DataError where it cannot be read.
    """
    found: dict[str, list[Path]] = {}
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return found
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{folder}: this folder cannot be read ({reason})", file=str(folder)) from error
    for name in names:
        parts = split_ending(name, endings)
        if parts is not None:
            found.setdefault(parts[0], []).append(folder / name)
    return found


def only_file(files: Sequence[Path], stem: str) -> Path:
    """The one file of a stem. Raises DataError, naming them, where there are several."""
    if len(files) > 1:
        names = " and ".join(path.name for path in files)
        raise DataError(f"{files[0].parent}: several files are called {stem} ({names}); keep one", file=str(files[0]))
    return files[0]


class NamedFiles:
    """Files of one folder, found by name whatever their ending's case; the folder is listed once, when first asked."""

    def __init__(self, folder: Path, endings: Sequence[str]) -> None:
        self.folder = folder
        self._endings = endings
        self._files: Mapping[str, list[Path]] | None = None

    @property
    def files(self) -> Mapping[str, list[Path]]:
        if self._files is None:
            self._files = files_by_stem(self.folder, self._endings)
        return self._files

    def path(self, stem: str) -> Path:
        """The file of this name, or where it should be. Raises DataError where there are several."""
        files = self.files.get(stem)
        if files is not None:
            return only_file(files, stem)
        if "/" in stem:  # a name that leads into a folder below
            return NamedFiles((self.folder / stem).parent, self._endings).path(stem.rpartition("/")[2])
        return self.folder / f"{stem}{self._endings[0]}"


def has_name(path: Path) -> bool:
    """Whether something has this name, even what cannot be opened (a dangling link): reading it reports why."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True


class VideoPlaces:
    """Where videos are below one folder: VIDEO/ with frames, or VIDEO with one of the video endings.

    Each folder is listed once.
    """

    def __init__(self, images: Path) -> None:
        self.images = images
        self._listed: dict[Path, NamedFiles] = {}

    def of(self, video: str) -> list[Path]:
        """What has the video's own name where there is such, else the files that have it before an ending."""
        place = self.images / video
        if has_name(place):
            return [place]
        files = self._listed.setdefault(place.parent, NamedFiles(place.parent, VIDEO_ENDINGS)).files
        return list(files.get(place.name, ()))

    def one(self, video: str) -> Path | None:
        """The folder or file of a video; None where there is none. Raises DataError where there are several files."""
        places = self.of(video)
        return only_file(places, video) if places else None


def frame_order(names: Iterable[str], place: str) -> tuple[str, ...]:
    """Names in time's order: by the number in them (frame2 before frame10), in the digits of any script.

    Names without a number may differ in one letter (a, b, c). Raises DataError, naming two frames, where names allow
    two orders that differ: a number written twice (1, 01), names that differ in more than numbers (a1, b2), several
    counters (cam1_frame2), fractions (0.5, 0.25), a sign (-1, -2), day before year (31-12-2023), words (before, after).
    """
    names = tuple(names)
    if not any(_NUMBER.search(name) for name in names):
        return _by_letter(names, place)
    shapes: dict[str, str] = {}
    for name in names:
        shapes.setdefault(_NUMBER.sub("0", name).casefold(), name)
    if len(shapes) > 1:
        first, second, *_ = shapes.values()
        raise _no_order(place, first, second, "differ in more than their numbers")
    numbers = {name: [int(number) for number in _NUMBER.findall(name)] for name in names}
    changing = [column for column in range(len(numbers[names[0]])) if len({n[column] for n in numbers.values()}) > 1]
    ordered = tuple(natsorted(names, alg=ns.INT | ns.IGNORECASE))
    for before, after in zip(ordered, ordered[1:], strict=False):
        if numbers[before] == numbers[after]:
            raise _no_order(place, before, after, "have the same number")
    gaps = _NUMBER.split(names[0])
    if len(changing) > 1 and not _fixed_width(names, changing):
        for column in changing:
            _refuse(place, ordered, sorted(ordered, key=lambda name: numbers[name][column]), "have several counters")
    if changing and any(map(_DAY_FIRST.search, names)):
        _refuse(place, ordered, sorted(names, key=_year_first), "are dates that do not begin with the year")
    last = changing[-1] if changing else 0
    if changing and last and gaps[last] in (".", ","):
        decimals = {name: _NUMBER.findall(name)[last] for name in names}
        by_fraction = sorted(names, key=lambda name: (numbers[name][:last], float(f"0.{decimals[name]}")))
        _refuse(place, ordered, by_fraction, "are fractions of different length")
    if any(_SIGN.search(f"{'0' if column else ''}{gaps[column]}") for column in changing):
        raise _no_order(place, ordered[0], ordered[1], "have a sign or a dash before the number")
    return ordered


def _fixed_width(names: Sequence[str], changing: Sequence[int]) -> bool:
    """Whether several numbers are parts of one, as in dates and times: of two digits at least, no words between."""
    widths = {tuple(len(_NUMBER.findall(name)[column]) for column in changing) for name in names}
    between = _NUMBER.split(names[0])[changing[0] + 1 : changing[-1] + 1]
    apart = all(text in ("T", "t") or not any(map(str.isalpha, text)) for text in between)
    return len(widths) == 1 and apart and min(*widths.pop()) > 1


def _year_first(name: str) -> list[int]:
    """The numbers of a name, those of a date from the year down to the day (or, of 12-31-2023, the month)."""
    return [int(number) for number in _NUMBER.findall(_DAY_FIRST.sub(r"\4-\3-\1", name))]


def _by_letter(names: tuple[str, ...], place: str) -> tuple[str, ...]:
    ordered = tuple(sorted(names))
    _refuse(place, ordered, sorted(names, key=str.casefold), "differ in upper and lower case")
    for first, second in zip(ordered, ordered[1:], strict=False):
        other = [letters for letters in zip(first, second, strict=False) if letters[0] != letters[1]]
        if len(first) != len(second) or len(other) != 1 or not "".join(other[0]).isascii():
            raise _no_order(place, first, second, "have no number")
    return ordered


def _refuse(place: str, one: Sequence[str], other: Sequence[str], reason: str) -> None:
    for first, second in zip(one, other, strict=True):
        if first != second:
            raise _no_order(place, first, second, reason)


def _no_order(place: str, first: str, second: str, reason: str) -> DataError:
    return DataError(
        f"{place}: the order of its frames is not clear: {first} and {second} {reason}; rename them 00000, 00001, ... "
        "or keep the frames of one video only",
        file=place,
        frame=first,
    )
