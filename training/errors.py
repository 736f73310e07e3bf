"""The one exception of training that a person can mend."""


class TrainingError(Exception):
    """A run that cannot start or go on. The message says what, where (run, checkpoint, setting) and what to do."""
