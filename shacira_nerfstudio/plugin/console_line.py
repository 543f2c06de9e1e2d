"""One line every few seconds while training, in place of the host's table of times.

The host has a writer for its terminal, whose class stands in the configuration; this one takes that
place, so `--logging.local-writer` and `--vis` mean what they always have. It reads the events that
go to all writers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from nerfstudio.configs.base_config import LocalWriterConfig
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE

from shacira_nerfstudio.progress import duration

_SECONDS_ON_A_TERMINAL, _SECONDS_ELSEWHERE = 5.0, 120.0
_FRACTION_ELSEWHERE = 0.05
"""A file gets a line after so much of training, or when it has been silent for long."""
_FIRST_SECONDS = 2.0
_RECENT_SECONDS = 20.0
"""So far back goes what a step takes."""


class TrainingLines(writer.LocalWriter):
    """Prints step, training PSNR, estimated size of the file, rays per second and time left."""

    def __init__(self, config: LocalWriterConfig, banner_messages: list[str] | None = None) -> None:
        super().__init__(config, banner_messages=banner_messages)
        self._marks: list[tuple[float, int]] = []
        self._psnr: list[float] = []
        self._latest: dict[str, float] = {}
        self._printed: tuple[float, int] | None = None
        for message in banner_messages or []:
            CONSOLE.print(message, markup=False, highlight=False, soft_wrap=True)

    def write_stats_log(self, step: int) -> None:
        """Takes in the events of a step, and prints a line if it is time."""
        now = time.monotonic()
        self._take_in(writer.EVENT_STORAGE)
        num_steps = int(self._latest.get("num_steps") or writer.GLOBAL_BUFFER["max_iter"])
        if step >= num_steps:  # the host's last word, after the last step
            return
        if not self._marks:
            self._marks.append((now, step))
        is_last = step + 1 >= num_steps
        if self._is_due(now, step, num_steps) or (is_last and step > self._marks[0][1]):
            self._marks.append((now, step))
            recent = [mark for mark in self._marks[:-1] if now - mark[0] <= _RECENT_SECONDS]
            begin = recent[0] if recent else self._marks[-2]
            self._marks = self._marks[-64:]
            self._printed = now, step
            line = self._line(step, num_steps, _per_step(begin, (now, step)))
            CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)
            self._psnr.clear()

    def _take_in(self, events: Iterable[dict[str, Any]]) -> None:
        for event in events:
            name, value = event["name"], event["event"]
            if name == "Train Metrics Dict":
                self._psnr.append(float(value["psnr"]))
                for key in ("estimated_bytes", "num_steps"):
                    if key in value:
                        self._latest[key] = float(value[key])
            elif name == "Eval Images Metrics" and "psnr" in value:
                self._latest["eval_psnr"] = float(value["psnr"])
            elif name == writer.EventName.TRAIN_RAYS_PER_SEC.value:
                self._latest["rays"] = float(value)

    def _is_due(self, now: float, step: int, num_steps: int) -> bool:
        if self._printed is None:
            return bool(self._psnr) and now - self._marks[0][0] >= _FIRST_SECONDS
        waited, steps = now - self._printed[0], step - self._printed[1]
        if CONSOLE.is_terminal:
            return waited >= _SECONDS_ON_A_TERMINAL
        return waited >= _SECONDS_ELSEWHERE or steps >= _FRACTION_ELSEWHERE * num_steps

    def _line(self, step: int, num_steps: int, seconds_per_step: float) -> str:
        latest = self._latest
        parts = [f"{step + 1} ({100 * (step + 1) / num_steps:.0f}%) of {num_steps} steps"]
        if self._psnr:
            latest["psnr"] = sum(self._psnr) / len(self._psnr)
        if "psnr" in latest:
            parts.append(f"train {latest['psnr']:.2f} dB")
        if "eval_psnr" in latest:
            parts.append(f"test {latest['eval_psnr']:.2f} dB")
        if "estimated_bytes" in latest:
            parts.append(f"file {latest['estimated_bytes'] / 1000:,.0f} kB")
        if "rays" in latest:
            parts.append(f"{latest['rays'] / 1000:,.1f} k rays/s")
        parts.append(f"{duration(seconds_per_step * (num_steps - step - 1))} left")
        return ", ".join(parts)


def _per_step(begin: tuple[float, int], end: tuple[float, int]) -> float:
    return (end[0] - begin[0]) / max(end[1] - begin[1], 1)
