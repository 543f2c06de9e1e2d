"""Training for so many minutes: the number of steps is planned anew from what steps take.

Schedules are functions of the step and of the number of steps, so they follow the clock if that
number does. Time is that of the steps themselves, from the beginning of each to its end: what a
viewer or the reading of files takes in between does not count. What has passed goes into each
checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_SLACK = 0.01
"""Of the number of steps: within that, a plan stays, and steering measures at even distances."""
_FIRST_STEPS = 5
"""The first step also compiles: until then there is nothing to plan with."""
_RECENT = 4
"""The last so-many-th part of the steps says what a step takes."""
_CLOSE = 0.1
"""Likewise when a run is resumed."""


class TimeBudget:
    """What is left of the time of one run.

    Args:
        max_seconds: 0 means that steps are counted, not seconds.
        clock: Seconds since any moment.
    """

    def __init__(
        self, max_seconds: float, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.max_seconds, self._clock = max_seconds, clock
        self.seconds = 0.0
        """That finished steps took, those before a resumption included."""
        self.reserved_seconds = 0.0
        """For what comes after the last step."""
        self._marks = [0.0]
        self._begin: float | None = None

    def resume(self, seconds: float) -> None:
        """Begins where a run was interrupted that had taken so long."""
        self.seconds, self._marks = seconds, [seconds]

    def plan_again(self, step: int, num_steps: int) -> int:
        """The number of steps of a run that is resumed before a step.

        Args:
            num_steps: As it was planned. It stays, unless it has been given other minutes since.
        """
        wanted = step + max(1, round((self.max_seconds - self.seconds) * step / self.seconds))
        is_close = abs(wanted - num_steps) <= _CLOSE * num_steps and step < num_steps
        return num_steps if is_close else wanted

    @property
    def is_limited(self) -> bool:
        """Whether the clock ends training."""
        return self.max_seconds > 0

    def begin_step(self) -> None:
        """Right before all that a step does."""
        self._begin = self._clock()

    def end_step(self) -> None:
        """Right after it."""
        self.seconds += self._running
        self._begin = None
        self._marks.append(self.seconds)

    @property
    def _running(self) -> float:
        return 0.0 if self._begin is None else self._clock() - self._begin

    @property
    def is_over(self) -> bool:
        """Whether another step would take too long; may be asked for during a step."""
        next_step = 0.5 * self._seconds_per_step() if len(self._marks) > _FIRST_STEPS else 0.0
        left = self.max_seconds - self.reserved_seconds - self.seconds - self._running
        return self.is_limited and left <= next_step

    def _seconds_per_step(self) -> float:
        count = max(_FIRST_STEPS - 1, (len(self._marks) - 1) // _RECENT)
        return (self._marks[-1] - self._marks[-1 - count]) / count

    def plan(self, step: int, num_steps: int) -> int:
        """The number of steps of the whole run, planned before a step.

        Training never goes back: the fraction that is done does not fall, whatever steps take.

        Args:
            num_steps: As it was planned before the last step.
        """
        if not self.is_limited or len(self._marks) <= _FIRST_STEPS:
            return num_steps
        left = self.max_seconds - self.reserved_seconds - self.seconds
        wanted = step + max(1, round(left / max(self._seconds_per_step(), 1e-9)))
        if abs(wanted - num_steps) <= _SLACK * num_steps:
            return num_steps
        return min(wanted, num_steps * step // (step - 1)) if step > 1 else num_steps
