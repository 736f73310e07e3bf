"""The one exception of the data pipeline that the user can fix."""

from glus.common.errors import UserError


class DataError(UserError):
    """Bad input data. The message says what is wrong, where (file, video, frame) and what to do."""
