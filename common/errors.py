"""The base of every exception that the user can fix."""


class UserError(Exception):
    """What the user can fix. The message says what is wrong, where (file, video, frame) and what to do.

    `file`, `video` and `frame` repeat the place for lists of bad items; None where they do not apply.
    `glus` prints it without a traceback and exits with 2. Code that passes over one bad item catches this class.
    """

    def __init__(
        self, message: str, *, file: str | None = None, video: str | None = None, frame: str | None = None
    ) -> None:
        super().__init__(message)
        self.file = file
        self.video = video
        self.frame = frame


def first_line(error: BaseException) -> str:
    """The first line of an exception's message that says something; the exception's name where none does."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


class InputError(UserError):
    """A file, name or setting that cannot be used, found by one of the functions in `glus.common`."""
