"""What a full or forbidden disk looks like: each library has its own exception for it, and none of them is a bug."""

import errno
import os

#: Faults of the disk or its permissions, which a user can fix and no code can cause.
_FAULTS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE),
        *(errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE),
    }
)
#: What torch, safetensors and SQLite say then, in their own exceptions.
_SAID = ("PytorchStreamWriter", "inline_container.cc", "No space left on device", "File too large", "disk is full")
_REMEDY = "make room, or choose another place, then run again"


def disk_fault(error: BaseException) -> str:
    """Return one line for an exception that comes from a full, read-only, forbidden or broken disk; "" for any other.

    The exceptions that it was raised from are looked at too.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FAULTS:
            place = f"{os.fsdecode(seen.filename)}: " if isinstance(seen.filename, (str, bytes)) else ""
            return f"{place}{seen.strerror or seen}: {_REMEDY}"
        if not isinstance(seen, OSError) and any(words in str(seen) for words in _SAID):
            return f"a file cannot be written, most likely because the disk is full: {_REMEDY}"
        seen = seen.__cause__ or seen.__context__
    return ""
