"""Where a number that somebody typed may lie: each group of options says it once, in words that the
error repeats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

Auto = Literal["auto"]
"""Value of an option that is chosen by whoever knows more, before anything is made of it."""
T = TypeVar("T", int, float, tuple)


def settled(value: T | Auto) -> T:
    """The value of an option whose default is ``auto``, once it has been chosen.

    Raises:
        ValueError: it has not.
    """
    if isinstance(value, str):
        raise ValueError(f"expected an option to be chosen by now, got {value!r}")
    return value


def out_of_range(options: Any, ranges: Mapping[str, str], *, prefix: str = "") -> list[str]:
    """What is wrong with the numbers of a group of options, a phrase each; empty if nothing is.

    Args:
        ranges: An interval for each name: ``[0, 1)`` or ``(0, inf)``, where a round bracket
            excludes the end. Finite numbers only, whatever the interval; ``auto`` where that is the
            default.
        prefix: Of the names, as they are typed.
    """
    found = []
    for name, interval in ranges.items():
        if _is_open(options, name):
            continue
        value = getattr(options, name)
        low, high = (float(end) for end in interval[1:-1].split(","))
        is_above = value > low if interval[0] == "(" else value >= low
        is_below = value < high if interval[-1] == ")" else value <= high
        if not (is_above and is_below and math.isfinite(value)):
            found.append(f"{prefix}{name} in {interval}, got {value}")
    return found


def _is_open(options: Any, name: str) -> bool:
    return getattr(options, name) == "auto" and getattr(type(options), name, None) == "auto"


def refuse(problems: Iterable[str]) -> None:
    """Raises one ValueError for all of them."""
    problems = list(problems)
    if problems:
        raise ValueError("expected " + "; ".join(problems))
