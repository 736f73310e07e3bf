"""The one exception of the command line that a person can mend."""


class LaunchError(Exception):
    """A command, config or environment that cannot work.

    The message says what is wrong, where (option, key, file) and what to do.
    """
