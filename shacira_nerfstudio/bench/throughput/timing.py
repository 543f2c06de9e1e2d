"""Timing of two sides in turns, and the row of JSON that comes of it.

A shared machine drifts: whatever slows one repeat down slows that of the other side with it, so
the ratio of medians is worth more than either of them.
"""

from __future__ import annotations

import gc
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shacira_nerfstudio.bench import environment

MIN_REPEATS = 5
"""Fewer give no median worth the name."""


class WrongResultError(RuntimeError):
    """What was to be timed does not compute what `reference` computes."""


@dataclass(frozen=True)
class Side:
    """One of the two things that are compared."""

    run: Callable[[], Any]
    what: str
    """In words, for the row."""
    torch_threads: int
    """Threads that torch itself may use meanwhile."""
    threads: int
    """Threads that compute, torch's or others."""
    work: float | None
    """Units of work of one call; None where ``run`` returns them."""


@dataclass(frozen=True)
class Timed:
    """What the repeats of one side took."""

    seconds: tuple[float, ...]
    """Wall seconds."""
    rates: tuple[float, ...] = ()
    """Units of work per second."""

    @property
    def median(self) -> float:
        """Of the seconds."""
        return statistics.median(self.seconds)

    def as_dict(self) -> dict[str, Any]:
        return {"median": self.median, "min": min(self.seconds), "all": list(self.seconds)}


def interleave(sides: Mapping[str, Side], repeats: int) -> dict[str, Timed]:
    """Times each side ``repeats`` times in turns, after one call of each that does not count."""
    if repeats < 1:
        raise ValueError(f"expected at least 1 repeat, got {repeats}")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    gc.collect()
    gc.freeze()  # so that the collections between calls look at new objects only
    try:
        for repeat in range(repeats + 1):
            for name, side in sides.items():
                took, result = _timed_call(side)
                if repeat:
                    seconds[name].append(took)
                    rates[name].append((result if side.work is None else side.work) / took)
    finally:
        gc.unfreeze()
    return {n: Timed(tuple(seconds[n]), tuple(rates[n])) for n in sides}


def _timed_call(side: Side) -> tuple[float, Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(side.torch_threads)
    gc.collect()
    gc.disable()
    try:
        synchronize()
        begin = time.perf_counter()
        result = side.run()
        synchronize()
        return time.perf_counter() - begin, result
    finally:
        gc.enable()
        torch.set_num_threads(before)


def synchronize() -> None:
    """Waits until a GPU has done all that it was asked for, if any was asked for anything."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Row:
    """One line of the output. ``ratio`` above 1 always means that ours is better."""

    name: str
    unit: str
    """Of ``ours`` and ``rival``."""
    ours: float
    """Median; see ``ours_times_s`` for the minimum."""
    rival: float | None
    """The same for what it is compared with; None if there is nothing, then ``rival_what`` says
    why."""
    ratio: float | None
    ours_what: str
    rival_what: str
    check: dict[str, Any]
    """What was held against `reference`, the largest error, and what was allowed."""
    sizes: dict[str, Any]
    threads: dict[str, int]
    backend: str
    ours_times_s: dict[str, Any] = field(default_factory=dict)
    rival_times_s: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    """Further figures, named with their unit."""

    def as_dict(self) -> dict[str, Any]:
        """With what is the same in all rows of a run."""
        return {**asdict(self), "peak_rss_bytes": peak_rss_bytes(), **_provenance()}


def rate_row(
    name: str,
    unit: str,
    ours: Side,
    rival: Side | None,
    *,
    repeats: int,
    check: dict[str, Any],
    sizes: dict[str, Any],
    backend: str,
    no_rival: str = "",
    more: Callable[[dict[str, Timed]], dict[str, Any]] | None = None,
) -> Row:
    """Times both sides and makes the row of their rates (``unit``, more is better).

    Args:
        no_rival: Why there is no rival, if there is none.
        more: Further figures from the timed sides, ``ours`` and ``rival``.
    """
    sides = {"ours": ours} | ({} if rival is None else {"rival": rival})
    timed = interleave(sides, repeats)
    medians = {name: statistics.median(value.rates) for name, value in timed.items()}
    has_rival = rival is not None
    return Row(
        name=name,
        unit=unit,
        ours=medians["ours"],
        rival=medians.get("rival"),
        ratio=medians["ours"] / medians["rival"] if has_rival else None,
        ours_what=ours.what,
        rival_what=no_rival if rival is None else rival.what,
        check=check,
        sizes=sizes,
        threads={side: value.threads for side, value in sides.items()},
        backend=backend,
        ours_times_s=timed["ours"].as_dict(),
        rival_times_s=timed["rival"].as_dict() if has_rival else {},
        more=more(timed) if more else {},
    )


def check_close(
    what: str, found: Tensor, expected: Tensor, *, atol: float, rtol: float = 0.0, because: str
) -> dict[str, Any]:
    """Holds a result against `reference`, element by element.

    Args:
        atol: Largest error allowed, plus ``rtol`` times the expected magnitude.
        because: Where an error of that size comes from.

    Raises:
        WrongResultError: shapes differ, a value is not finite, or an error is larger.
    """
    found, expected = _as_doubles(what, found, expected)
    error = (found - expected).abs()
    bad = ~(error <= atol + rtol * expected.abs())  # a nan is bad as well
    largest = error.max().item() if error.numel() else 0.0
    if bool(bad.any()):
        raise WrongResultError(
            f"{what}: {int(bad.sum())} of {bad.numel()} values are off `reference`, the largest "
            f"by {largest:.3g}; at most {atol:g} + {rtol:g} of the value is allowed"
        )
    allowed = {"max_error": largest, "atol": atol, "rtol": rtol, "because": because}
    return {what: {"values": error.numel(), **allowed}}


def check_relative(
    what: str, found: Tensor, expected: Tensor, *, limit: float, because: str
) -> dict[str, Any]:
    """Holds a gradient against `reference` as a whole: ``|found - expected| / |expected|``.

    Raises:
        WrongResultError: see :func:`check_close`.
    """
    found, expected = _as_doubles(what, found, expected)
    size = expected.norm().item()
    error = (found - expected).norm().item() / size if size else found.norm().item()
    if not error <= limit:
        raise WrongResultError(
            f"{what}: is off `reference` by {error:.3g} of its length, {limit:g} is allowed"
        )
    allowed = {"relative_error": error, "limit": limit, "because": because}
    return {what: {"values": expected.numel(), **allowed}}


def _as_doubles(what: str, found: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    if found.shape != expected.shape:
        raise WrongResultError(
            f"{what}: expected shape {tuple(expected.shape)}, got {tuple(found.shape)}"
        )
    return found.detach().double().cpu(), expected.detach().double().cpu()


def peak_rss_bytes() -> int:
    """Most memory that this process ever held."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not rusage: on Linux a new process begins with the peak of the one that started it.
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


@lru_cache(maxsize=1)
def _provenance() -> dict[str, Any]:
    """Where and with what a run was made."""
    return {
        "date": environment.date(),
        "commit": environment.commit(),
        "machine": environment.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_initialized() else None,
        "versions": environment.versions(),
    }
