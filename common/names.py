"""One rule for the names of videos, frames, expressions, objects, sources and shards.

Names from annotations become names of files and folders: of frames that are read, of masks that are written, of members
of archives. A name that passes here is one component of a path, so it stays in its folder, and two names never share
a folder. Released datasets name some videos FOLDER/VIDEO: `check_path` takes each component by itself.
"""

import re
import unicodedata
from collections.abc import Iterable

from glus.common.errors import InputError

#: Bytes of UTF-8. File systems take 255 for a component; the rest is for endings and for names of unfinished files.
LONGEST_NAME = 200
#: Bytes of a name of several components.
LONGEST_PATH = 800
#: Most names are of this form, which is checked faster than letter by letter.
_PLAIN = re.compile(rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}")
#: Categories of characters that no name may hold: control, lone surrogates, separators of lines and paragraphs.
_REFUSED = ("Cc", "Cs", "Zl", "Zp")


def check_name(name: str, kind: str, where: str = "") -> str:
    """Return `name` where it can be one component of a path.

    `kind` says what it names ("video", "frame", "expression", "object", "source", "shard"), `where` the file and place
    that it comes from. Raises InputError for a name that is empty, longer than LONGEST_NAME bytes, begins with a dot
    (`.`, `..` and hidden files), or holds a separator (/ or \\), a control character, NUL or a lone surrogate.
    """
    fault = _fault(name)
    if fault:
        raise _refused(name, kind, where, fault)
    return name


def check_path(name: str, kind: str, where: str = "") -> str:
    """Return `name`, one component or several with a slash between (FOLDER/VIDEO), each as `check_name` wants it.

    So it is canonical: no slash at either end, none doubled, no `.` and no `..`. Raises InputError.
    """
    parts = name.split("/")
    fault = next(filter(None, map(_fault, parts)), None)
    if fault is None and len(name.encode("utf-8")) > LONGEST_PATH:
        fault = f"is longer than {LONGEST_PATH} bytes"
    if fault:
        raise _refused(name, kind, where, fault if len(parts) == 1 else f"has a component that {fault}")
    return name


def check_unique(names: Iterable[str], kind: str, where: str = "") -> None:
    """Raise InputError where two names would share a folder (`meeting`)."""
    for name, other in meeting(names).items():
        raise one_folder(name, other, kind, where)


def meeting(names: Iterable[str]) -> dict[str, str]:
    """Each name that would share a folder with another one, and that one.

    That is where it is the same, where it differs only in how Unicode composes a letter (one name on macOS and on some
    file servers), or where the other is a folder on the way to it (`w` and `w/1`).
    """
    seen: dict[str, str] = {}
    found = {}
    for name in names:
        path = unicodedata.normalize("NFC", name)
        if path in seen:
            found[name] = seen[path]
        seen.setdefault(path, name)
    for path, name in seen.items():
        parts = path.split("/")
        for above in ("/".join(parts[:length]) for length in range(1, len(parts))):
            if above in seen:
                found[name] = seen[above]
    return found


def one_folder(name: str, other: str, kind: str, where: str = "", file: str | None = None) -> InputError:
    """The error that says that two names would share a folder; `kind` and `where` as of `check_name`."""
    place = f"{where}: " if where else ""
    return InputError(
        f"{place}the {kind}s {shown(other)} and {shown(name)} would share a folder; rename one in the source",
        file=file,
        video=name if kind in ("video", "image") else None,
    )


def case_twins(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ only in case: one name on file systems that are blind to it."""
    seen: dict[str, str] = {}
    pairs = []
    for name in names:
        first = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if first != name:
            pairs.append((first, name))
    return pairs


def shown(name: object) -> str:
    """A name for a message: quoted, escaped, and cut where it is long."""
    text = repr(name) if isinstance(name, str) and name.isprintable() else ascii(name)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"


def _fault(name: str) -> str | None:
    """What is wrong with a component of a path, None where nothing is."""
    if _PLAIN.fullmatch(name):
        return None
    if not name:
        return "is empty"
    if any(unicodedata.category(letter) in _REFUSED for letter in name):
        return "holds a control character or half a character (a lone surrogate)"
    if "/" in name or "\\" in name:
        return "holds a separator of paths (/ or \\)"
    if name.startswith("."):
        return "begins with a dot (hidden, or the way to another folder)"
    size = len(name.encode("utf-8"))
    return f"has {size} bytes, more than {LONGEST_NAME}" if size > LONGEST_NAME else None


def _refused(name: str, kind: str, where: str, fault: str) -> InputError:
    place = f"{where}: " if where else ""
    return InputError(
        f"{place}the {kind} name {shown(name)} {fault}; rename it in the source",
        video=shown(name) if kind == "video" else None,
        frame=shown(name) if kind == "frame" else None,
    )
