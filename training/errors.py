"""The one exception of training that the user can fix."""

from glus.common.errors import UserError


class TrainingError(UserError):
    """A run that cannot start or go on. The message says what, where (run, checkpoint, setting) and what to do."""
