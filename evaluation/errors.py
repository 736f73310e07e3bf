"""The one exception of evaluation that the user can fix."""

from glus.common.errors import UserError


class EvaluationError(UserError):
    """Predictions, splits or runs that cannot be scored or compared.

    The message says what is wrong, where (file, video, expression) and what to do.
    """
