"""Exceptions that the user can fix: one base, one class a folder."""


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


class DataError(UserError):
    """Bad input data. The message says what is wrong, where (file, video, frame) and what to do."""


class ModelError(UserError):
    """Bad weights, sizes or inputs of the model. The message says what, where (file, parameter) and what to do."""


class TrainingError(UserError):
    """A run that cannot start or go on. The message says what, where (run, checkpoint, setting) and what to do."""


class EvaluationError(UserError):
    """Predictions, splits or runs that cannot be scored or compared.

    The message says what is wrong, where (file, video, expression) and what to do.
    """


class LaunchError(UserError):
    """A command, config or environment that cannot work.

    The message says what is wrong, where (option, key, file) and what to do.
    """
