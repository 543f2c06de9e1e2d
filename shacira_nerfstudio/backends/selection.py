"""Which backends there are, and how one is chosen."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from functools import lru_cache

import torch

from shacira_nerfstudio.backends.base import Backend

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    """A backend that can be asked for by name."""

    module: str
    """Has a function ``create(device)``, which raises RuntimeError where the backend cannot run."""
    package: str = ""
    """What to install for it beside torch."""
    self_check: str = ""
    """Has a function ``check(backend, device)``, which ``auto`` asks before it takes this one and
    which raises RuntimeError where results are not those of `reference`."""


_BACKENDS = {
    "reference": _Entry("shacira_nerfstudio.backends.reference"),
    "cpu_numba": _Entry("shacira_nerfstudio.backends.cpu_numba", package="numba"),
    "triton": _Entry(
        "shacira_nerfstudio.backends.triton",
        package="triton",
        self_check="shacira_nerfstudio.backends.triton.self_check",
    ),
}
_AUTO = {"cpu": ("cpu_numba", "reference"), "cuda": ("triton", "reference")}
"""What ``auto`` tries on a type of device, fastest first; on others it takes `reference`."""
_announced: set[tuple[str, str]] = set()


def _load(name: str, device: torch.device) -> Backend:
    """Imports one backend; raises RuntimeError with the reason if it cannot run on ``device``."""
    entry = _BACKENDS[name]
    try:
        module = importlib.import_module(entry.module)
    except ImportError as error:
        advice = f"; it needs `pip install {entry.package}`" if entry.package else ""
        raise RuntimeError(f"backend {name} cannot be imported: {error}{advice}") from error
    return module.create(device)


@lru_cache(maxsize=16)
def _check(name: str, device: torch.device) -> str:
    """What is wrong with a backend's results on a device; empty if nothing is."""
    module = _BACKENDS[name].self_check
    if not module:
        return ""
    try:
        importlib.import_module(module).check(_load(name, device), device)
    except RuntimeError as error:
        return str(error)
    return ""


def available_backends(device: torch.device | str = "cpu") -> dict[str, str | None]:
    """Names of all backends, each with None if it runs on ``device``, else with the reason why
    not."""
    reasons: dict[str, str | None] = {}
    for name in _BACKENDS:
        try:
            _load(name, torch.device(device))
            reasons[name] = None
        except RuntimeError as error:
            reasons[name] = str(error)
    return reasons


def get_backend(name: str, device: torch.device | str = "cpu") -> Backend:
    """Loads a backend.

    Args:
        name: ``auto`` takes the fastest that loads on ``device`` and logs which; any other name is
            taken at its word.

    Raises:
        ValueError: the name is unknown.
        RuntimeError: the named backend cannot run here; the message says why. Never
            substituted silently.
    """
    device = torch.device(device)
    if name != "auto":
        if name not in _BACKENDS:
            raise ValueError(f"expected a backend of auto, {', '.join(_BACKENDS)}, got {name!r}")
        return _load(name, device)
    reasons = []
    for candidate in _AUTO.get(device.type, ("reference",)):
        try:
            backend = _load(candidate, device)
        except RuntimeError as error:
            reasons.append(str(error))
            continue
        if problem := _check(candidate, device):
            reasons.append(problem)
            continue
        if (candidate, device.type) not in _announced:
            _announced.add((candidate, device.type))
            because = f" ({'; '.join(reasons)})" if reasons else ""
            logger.warning("shacira backend on %s: %s%s", device.type, candidate, because)
        return backend
    raise RuntimeError(f"no backend runs on {device}: {'; '.join(reasons)}")
