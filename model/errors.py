"""The one exception of the model that the user can fix."""

from glus.common.errors import UserError


class ModelError(UserError):
    """Bad weights, sizes or inputs of the model. The message says what, where (file, parameter) and what to do."""
