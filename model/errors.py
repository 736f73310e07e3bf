"""The one exception of the model that a person can mend."""


class ModelError(Exception):
    """Bad weights, sizes or inputs of the model. The message says what, where (file, parameter) and what to do."""
