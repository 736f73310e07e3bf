"""The one exception of the data pipeline that a person can mend."""


class DataError(Exception):
    """Bad input data. The message says what is wrong, where (file, video, frame) and what to do."""
