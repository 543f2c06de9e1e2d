"""The drawing loop: few pixels while something changes, all of them once it rests."""

import queue
import threading

import numpy as np
import pytest
from view_client import LIMIT_S

from shacira_nerfstudio.viewer.live.camera_space import ViewPose
from shacira_nerfstudio.viewer.live.frame_loop import FrameLoop
from shacira_nerfstudio.viewer.live.painter import Picture, Request
from shacira_nerfstudio.viewer.live.resolution import AdaptiveResolution
from shacira_nerfstudio.viewer.live.tones import Scale

SCALE = Scale(0.0, 1.0)


def request_at(x, **changes):
    return Request(ViewPose((1, 0, 0, 0), (float(x), 0.0, 0.0), 1.0, 1.0), max_side=512, **changes)


class Stage:
    """A painter whose bands a test lets through one by one, and the screen that they go to.

    Args:
        is_held: Whether each band waits for :meth:`let_through`; else nothing waits.
    """

    def __init__(self, *, is_held=False, num_bands=4):
        self.is_held, self.num_bands = is_held, num_bands
        self.frames, self.pictures, self.problems, self.painted = [], [], [], []
        self.cancelled, self.last = 0, threading.Event()
        self.fails = None
        self._waiting, self._permits = queue.Queue(), threading.Semaphore(0)
        self.loop = FrameLoop(self.paint, self, AdaptiveResolution())

    def paint(
        self, request, size, *, is_wanted, scale=None, before=None, show_part=None, is_rough=False
    ):
        if self.fails:
            raise self.fails
        for _ in range(self.num_bands):
            if not is_wanted():
                self.cancelled += 1
                return None
            if self.is_held:
                self._waiting.put((request.pose.position[0], size[0]))
                assert self._permits.acquire(timeout=LIMIT_S)
        self.painted.append((request.pose.position[0], size))
        return Picture(np.zeros((*size[::-1], 3), np.uint8), [], scale or SCALE, 0.0)

    def band(self):
        """Waits until a band is about to be drawn: place of its camera, width of its picture."""
        return self._waiting.get(timeout=LIMIT_S)

    def let_through(self, num_bands=1):
        """Lets the band that waits be drawn, and those after it."""
        self._permits.release(num_bands)

    def release(self):
        """From now on nothing waits."""
        self.is_held = False
        self.let_through()

    def show_frame(self, image):
        self.frames.append(image.shape[1])

    def show_picture(self, request, picture, *, is_last):
        self.pictures.append((request.pose.position[0], picture.image.shape[1]))
        if is_last:
            self.last.set()

    def show_problem(self, message):
        self.problems.append(message)
        self.last.set()


@pytest.fixture
def stage():
    stages = []

    def make(**options):
        stages.append(Stage(**options))
        stages[-1].loop.start()
        return stages[-1]

    yield make
    for one in stages:
        one.loop.stop()
        one.release()
        assert one.loop.join(LIMIT_S)


def test_a_camera_that_rests_gets_all_pixels(stage):
    one = stage()
    one.loop.ask(request_at(1))
    assert one.last.wait(LIMIT_S)
    assert one.frames[0] < 128  # first something, at once
    assert one.pictures[-1] == (1, 512)
    sides = [size[0] for _, size in one.painted]
    assert sides == sorted(sides)


def test_a_moving_camera_gets_whole_frames_and_no_refinement(stage):
    one = stage(is_held=True)
    one.loop.ask(request_at(0))
    for x in range(1, 6):
        assert one.band()[0] == x - 1
        one.loop.ask(request_at(x))  # the camera moves on while a frame is drawn
        one.let_through(one.num_bands)
        for _ in range(one.num_bands - 1):
            assert one.band()[0] == x - 1  # which is finished
    assert one.band()[0] == 5
    moving = list(one.painted)
    assert [x for x, _ in moving] == [0, 1, 2, 3, 4]
    assert all(size[0] < 128 for _, size in moving)
    assert one.pictures == [] and one.cancelled == 0
    one.release()
    assert one.last.wait(LIMIT_S)
    assert one.pictures[-1] == (5, 512)  # of where it came to rest


def test_a_refinement_ends_when_the_camera_moves(stage):
    one = stage(is_held=True, num_bands=20)
    one.loop.ask(request_at(1))
    moving = one.band()[1]
    one.let_through(one.num_bands)
    while one.band()[1] == moving:
        pass
    one.loop.ask(request_at(2))  # at the first of the 20 bands of a refinement
    one.let_through()
    assert one.band() == (2, moving)  # not one more of them
    assert one.cancelled == 1
    one.release()
    assert one.last.wait(LIMIT_S)
    assert one.pictures[-1] == (2, 512) and (1, 512) not in one.pictures


def test_stopping_ends_the_work(stage):
    one = stage(is_held=True)
    one.loop.ask(request_at(1))
    one.band()
    one.loop.stop()
    one.let_through()
    assert one.loop.join(LIMIT_S)
    assert one.cancelled == 1 and one.painted == []


@pytest.mark.parametrize("error", [ValueError("a camera at infinity"), KeyError("a mistake")])
def test_a_picture_that_fails_is_said_and_the_next_one_is_drawn(stage, error, caplog):
    one = stage()
    one.fails = error
    one.loop.ask(request_at(1))
    assert one.last.wait(LIMIT_S)
    expected = "a camera at infinity" if isinstance(error, ValueError) else "see the console"
    assert expected in one.problems[0]
    one.fails = None
    one.last.clear()
    one.loop.ask(request_at(2))
    assert one.last.wait(LIMIT_S) and one.pictures[-1] == (2, 512)


def test_what_fits_a_moving_frame_is_a_picture_at_once(stage):
    one = stage()
    one.loop.ask(Request(ViewPose((1, 0, 0, 0), (3.0, 0, 0), 1.0, 1.0), max_side=32))
    assert one.last.wait(LIMIT_S)
    assert one.pictures == [(3.0, 32)]
