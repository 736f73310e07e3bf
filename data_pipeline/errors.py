"""The one exception of the data pipeline that a person can mend."""


class DataError(Exception):
    """Bad input data. The message says what is wrong, where (file, video, frame) and what to do.

    `file`, `video` and `frame` repeat the place for lists of bad items; None where they do not apply.
    """

    def __init__(
        self, message: str, *, file: str | None = None, video: str | None = None, frame: str | None = None
    ) -> None:
        super().__init__(message)
        self.file = file
        self.video = video
        self.frame = frame
