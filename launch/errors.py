"""The one exception of the command line that the user can fix."""

from glus.common.errors import UserError


class LaunchError(UserError):
    """A command, config or environment that cannot work.

    The message says what is wrong, where (option, key, file) and what to do.
    """
