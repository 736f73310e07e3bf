"""Bounds of numbers in a config: no config may ask for more memory or time than any model needs."""

import math
from collections.abc import Mapping

from glus.common.errors import ModelError


def check_bounds(section: str, settings: object, bounds: Mapping[str, tuple[float, float]]) -> None:
    """Hold attributes of `settings`, or all numbers of those that are tuples, against (least, most), both allowed.

    Raises ModelError for the first that is outside or no number. `section` is its place in the config.
    """
    for name, (least, most) in bounds.items():
        value = getattr(settings, name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float) or not least <= number <= most:
                upwards = f"at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:,.16g}"
                raise ModelError(f"{section}.{name}={value}: it must be {upwards}")
