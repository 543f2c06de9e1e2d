"""When a client's pictures are drawn: few pixels while its camera moves, more and more at rest."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from shacira_nerfstudio.viewer.live.painter import Picture, Request
from shacira_nerfstudio.viewer.live.resolution import (
    AdaptiveResolution,
    Size,
    refinement_sizes,
)
from shacira_nerfstudio.viewer.live.tones import Scale

SETTLE_SECONDS = 0.06
"""Without a change, after which a camera counts as resting. Browsers report a moving one more
often."""
logger = logging.getLogger(__name__)


class PaintFunction(Protocol):
    """:meth:`Painter.paint`."""

    def __call__(
        self,
        request: Request,
        size: Size,
        *,
        is_wanted: Callable[[], bool],
        scale: Scale | None = None,
        before: np.ndarray | None = None,
        show_part: Callable[[np.ndarray], None] | None = None,
        is_rough: bool = False,
    ) -> Picture | None: ...


class Screen(Protocol):
    """Where pictures go: a client."""

    def show_frame(self, image: np.ndarray) -> None:
        """A picture that another one will soon follow."""
        ...

    def show_picture(self, request: Request, picture: Picture, *, is_last: bool) -> None:
        """A picture of a camera that rests."""
        ...

    def show_problem(self, message: str) -> None:
        """Why there is none."""
        ...


class FrameLoop:
    """A thread that draws what was asked for last, from :meth:`start` to :meth:`stop`.

    Frames of a moving camera are finished once they are begun, or none would ever be; what follows
    them ends as soon as something else is asked for.
    """

    def __init__(
        self, paint: PaintFunction, screen: Screen, resolution: AdaptiveResolution
    ) -> None:
        self._paint, self._screen, self._resolution = paint, screen, resolution
        self._changed = threading.Condition()
        self._request: Request | None = None
        self._version, self._asked, self._is_stopped = 0, 0.0, False
        self._thread = threading.Thread(target=self._run, name="shacira view", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, at the latest after the band that it is drawing."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def join(self, seconds: float) -> bool:
        """Waits for the thread to end and says whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def ask(self, request: Request) -> None:
        """Wants another picture from now on, or the same one anew."""
        with self._changed:
            self._request, self._version = request, self._version + 1
            self._asked = time.monotonic()
            self._changed.notify_all()

    def _is_running(self) -> bool:
        return not self._is_stopped

    def _run(self) -> None:
        drawn = 0
        while (found := self._next(drawn)) is not None:
            drawn, request = found
            try:
                self._draw(drawn, request)
            except ValueError as error:  # such as a camera at infinity
                self._screen.show_problem(str(error))
            except Exception:
                # The thread has to go on: the client can ask for something else.
                logger.exception("drawing failed")
                self._screen.show_problem("drawing failed, see the console")

    def _next(self, drawn: int) -> tuple[int, Request] | None:
        """Waits for what was not drawn yet; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or self._version > drawn)
            return None if self._is_stopped or not self._request else (self._version, self._request)

    def _draw(self, version: int, request: Request) -> None:
        aspect, most = request.pose.aspect, request.max_side
        moving = self._resolution.moving_size(aspect, most)
        sizes = refinement_sizes(moving, aspect, most)
        picture = self._paint(request, moving, is_wanted=self._is_running, is_rough=bool(sizes))
        if picture is None:
            return
        if sizes:
            self._screen.show_frame(picture.image)
        elif self._rests(version):
            self._screen.show_picture(request, picture, is_last=True)
        if self._rests(version):
            self._refine(version, request, picture, sizes)

    def _refine(self, version: int, request: Request, picture: Picture, sizes: list[Size]) -> None:
        start = time.perf_counter()
        for size in sizes:
            finer = self._paint(
                request,
                size,
                is_wanted=lambda: self._version == version and not self._is_stopped,
                scale=picture.scale,
                before=picture.image,
                show_part=self._screen.show_frame,
            )
            if finer is None:
                return
            picture = Picture(finer.image, finer.columns, finer.scale, time.perf_counter() - start)
            self._screen.show_picture(request, picture, is_last=size == sizes[-1])

    def _rests(self, version: int) -> bool:
        """Waits until nothing else was asked for in a while; False if something was."""
        with self._changed:
            left = self._asked + SETTLE_SECONDS - time.monotonic()
            self._changed.wait_for(lambda: self._is_stopped or self._version > version, left)
            return self._version == version and not self._is_stopped
