"""The one exception of evaluation that a person can mend."""


class EvaluationError(Exception):
    """Predictions, splits or runs that cannot be scored or compared.

    The message says what is wrong, where (file, video, expression) and what to do.
    """
