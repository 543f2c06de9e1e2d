"""Where the time of a training step goes, by a clock around each part's own calls.

Every operation of the backend, every autograd function of this package (forward and backward),
each optimiser, the data manager and the callbacks get a clock; a part's time is what was spent in
it and in nothing inside it that has a clock of its own. So the parts sum to the step, and an
operation that is added to a backend shows up under its own name.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from shacira_nerfstudio.bench.throughput.timing import Row, Times
from shacira_nerfstudio.bench.throughput.training import (
    BLOCK,
    OURS_TORCH_THREADS,
    SceneRuns,
    model_sizes,
)

OTHER = "other"
"""The host's own code between the parts."""
_PARTS = (
    # First match wins; names are those of backend operations and autograd functions.
    ("visible samples", r"march_visible"),
    ("march", r"march"),
    ("interpolate", r"interpolat"),
    ("composite", r"composit"),
    ("visible", r"visib"),
    ("rate", r"logistic|rate|bits"),
    ("quantise", r"noise|quantiz|round|sga"),
    ("raw_density", r"raw_density"),
    ("networks", r"shade|network|mlp|density"),
)
_NO_GRADIENT = ("march", "march_visible", "visible")
"""Operations that have one direction."""
_WHOLE = ("occupancy",)
"""Keep what is inside them: networks and look-ups that serve no ray."""


@dataclass
class Clock:
    """Exclusive seconds by part, of one thread: the one that trains."""

    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    _stack: list[str] = field(default_factory=list)
    _since: float = 0.0
    _thread: int = field(default_factory=threading.get_ident)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time from here on belongs to ``name``, until something inside takes over."""
        self._charge()
        if self._stack[-1:] != [name]:  # an operation and its autograd function are one call
            self.calls[name] = self.calls.get(name, 0) + 1
        self._stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._stack:
            name = self._stack[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function with a clock, on the training thread only."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            is_whole = self._stack[-1:] and self._stack[-1] in _WHOLE
            if is_whole or threading.get_ident() != self._thread:
                return function(*args, **kwargs)
            with self.part(part_of(name)):
                return function(*args, **kwargs)

        return timed


def part_of(name: str) -> str:
    """The part that an operation or autograd function, ``Name forward`` or ``backward``, is of."""
    what, _, direction = name.partition(" ")
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", what.strip("_")).lower()
    part = next((part for part, pattern in _PARTS if re.search(pattern, plain)), plain)
    return f"{part} {direction}".strip()


def _replace(undo: list[Callable[[], None]], owner: Any, name: str, value: Any) -> None:
    """Sets an attribute and notes how to take that back."""
    had, old = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)
    undo.append(lambda: setattr(owner, name, old) if had else delattr(owner, name))


def _functions() -> list[type]:
    """Autograd functions of this package, those that are loaded."""
    found, queue = [], [torch.autograd.Function]
    while queue:
        children = queue.pop().__subclasses__()
        queue += children
        found += [c for c in children if c.__module__.startswith("shacira_nerfstudio.")]
    return found


@contextlib.contextmanager
def clocks_around(trainer: Any, clock: Clock) -> Iterator[None]:
    """Puts clocks around the parts of a run of ours, and takes them away again."""
    undo: list[Callable[[], None]] = []
    backend, model = trainer.pipeline.model.backend, trainer.pipeline.model
    try:
        for name in dir(backend):
            if not name.startswith("_") and callable(getattr(backend, name)):
                suffix = "" if name in _NO_GRADIENT else " forward"
                wrapped = clock.wrap(name + suffix, getattr(backend, name))
                _replace(undo, backend, name, wrapped)
        for cls in _functions():
            for direction in ("forward", "backward"):
                inner = getattr(cls, direction)
                wrapped = clock.wrap(f"{cls.__name__} {direction}", inner)
                _replace(undo, cls, direction, staticmethod(wrapped))
        for group, optimizer in trainer.optimizers.optimizers.items():
            wrapped = _constant(clock, f"optimiser {group}", optimizer.step)
            _replace(undo, optimizer, "step", wrapped)
        places = [
            (trainer.optimizers, "zero_grad_some", "optimiser zero_grad"),
            (trainer.pipeline.datamanager, "next_train", "data and rays"),
            (model.occupancy, "update", "occupancy"),
            (model, "get_outputs", "glue forward"),
            (model, "get_loss_dict", "loss"),
            (model, "get_metrics_dict", "metrics"),
            (torch.Tensor, "backward", "glue backward"),
        ]
        for owner, name, part in places:
            _replace(undo, owner, name, _constant(clock, part, getattr(owner, name)))
        for callback in trainer.callbacks:
            label = f"callback {callback.func.__name__}"
            _replace(undo, callback, "func", _constant(clock, label, callback.func))
        yield
    finally:
        for take_back in reversed(undo):
            take_back()


def _constant(clock: Clock, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """As :meth:`Clock.wrap`, with the part's name as it stands."""

    def timed(*args: Any, **kwargs: Any) -> Any:
        with clock.part(part):
            return function(*args, **kwargs)

    return timed


def profile(runs: SceneRuns, repeats: int) -> Row:
    """Mean seconds per step of each part, over ``repeats`` blocks of steps."""
    check = runs.check_step()
    steps, clock = runs.our_steps, Clock()
    steps.records.clear()
    before = torch.get_num_threads()
    torch.set_num_threads(OURS_TORCH_THREADS)
    try:
        with clocks_around(runs.ours, clock):
            for _ in range(repeats):
                with clock.part(OTHER):
                    steps.run()
    finally:
        torch.set_num_threads(before)
    count = BLOCK * repeats
    blocks = [sum(record.seconds for record in block) for block in steps.records]
    total = sum(clock.seconds.values())
    parts = {
        name: {
            "ms_per_step": 1e3 * seconds / count,
            "share": seconds / total,
            "calls_per_step": clock.calls[name] / count,
        }
        for name, seconds in sorted(clock.seconds.items(), key=lambda item: -item[1])
    }
    return Row(
        name="profile",
        unit="ms/step",
        ours=1e3 * total / count,
        rival=None,
        ratio=None,
        ours_what="shacira, by part",
        rival_what="a breakdown of our own step",
        check=check,
        sizes=model_sizes(runs.model),
        threads={"ours": runs.num_threads},
        backend=runs.model.backend.name,
        ours_times_s=Times(tuple(blocks)).as_dict(),
        more={
            "parts": parts,
            "samples_per_step": sum(r.num_samples for b in steps.records for r in b) / count,
            "marched_per_step": sum(r.num_marched for b in steps.records for r in b) / count,
            "rays_per_step": sum(r.num_rays for b in steps.records for r in b) / count,
        },
    )
