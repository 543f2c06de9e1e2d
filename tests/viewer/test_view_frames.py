"""The drawing loop: few pixels while something changes, all of them once it rests."""

import threading
import time

import numpy as np
import pytest

from shacira_nerfstudio.viewer.live.camera_space import ViewPose
from shacira_nerfstudio.viewer.live.frame_loop import FrameLoop
from shacira_nerfstudio.viewer.live.painter import Picture, Request
from shacira_nerfstudio.viewer.live.resolution import AdaptiveResolution
from shacira_nerfstudio.viewer.live.tones import Scale

SCALE = Scale(0.0, 1.0)


def request_at(x, **changes):
    return Request(ViewPose((1, 0, 0, 0), (float(x), 0.0, 0.0), 1.0, 1.0), max_side=512, **changes)


class Stage:
    """A painter whose pictures take as long as a test wants, and the screen that they go to."""

    def __init__(self, *, band_seconds=0.0, num_bands=4):
        self.band_seconds, self.num_bands = band_seconds, num_bands
        self.frames, self.pictures, self.problems, self.painted = [], [], [], []
        self.cancelled, self.last = 0, threading.Event()
        self.fails = None
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
            time.sleep(self.band_seconds)
        self.painted.append((request.pose.position[0], size))
        return Picture(np.zeros((*size[::-1], 3), np.uint8), [], scale or SCALE, 0.0)

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
        assert one.loop.join(5)


def test_a_camera_that_rests_gets_all_pixels(stage):
    one = stage()
    one.loop.ask(request_at(1))
    assert one.last.wait(5)
    assert one.frames[0] < 128  # first something, at once
    assert one.pictures[-1] == (1, 512)
    sides = [size[0] for _, size in one.painted]
    assert sides == sorted(sides)


def test_a_moving_camera_gets_whole_frames_and_no_refinement(stage):
    one = stage(band_seconds=0.01)
    for x in range(20):
        one.loop.ask(request_at(x))
        time.sleep(0.02)
    moving = list(one.painted)
    assert len(moving) >= 4  # each of them was finished although the camera had moved on
    assert all(size[0] < 128 for _, size in moving)
    assert one.pictures == []
    assert one.last.wait(5)
    assert one.pictures[-1] == (19, 512)  # of where it came to rest


def test_a_refinement_ends_when_the_camera_moves(stage):
    one = stage(band_seconds=0.02, num_bands=20)
    one.loop.ask(request_at(1))
    while not one.frames:
        time.sleep(0.005)
    time.sleep(0.15)  # refining by now
    before = time.perf_counter()
    one.loop.ask(request_at(2))
    while one.cancelled == 0:
        time.sleep(0.002)
    assert time.perf_counter() - before < 0.2  # a band, not the 0.4 s of a picture
    assert one.last.wait(10)
    assert one.pictures[-1] == (2, 512) and (1, 512) not in one.pictures


def test_stopping_ends_the_work(stage):
    one = stage(band_seconds=0.02, num_bands=10_000)
    one.loop.ask(request_at(1))
    time.sleep(0.1)
    one.loop.stop()
    assert one.loop.join(2)


@pytest.mark.parametrize("error", [ValueError("a camera at infinity"), KeyError("a mistake")])
def test_a_picture_that_fails_is_said_and_the_next_one_is_drawn(stage, error, caplog):
    one = stage()
    one.fails = error
    one.loop.ask(request_at(1))
    assert one.last.wait(5)
    expected = "a camera at infinity" if isinstance(error, ValueError) else "see the console"
    assert expected in one.problems[0]
    one.fails = None
    one.last.clear()
    one.loop.ask(request_at(2))
    assert one.last.wait(5) and one.pictures[-1] == (2, 512)


def test_what_fits_a_moving_frame_is_a_picture_at_once(stage):
    one = stage()
    one.loop.ask(Request(ViewPose((1, 0, 0, 0), (3.0, 0, 0), 1.0, 1.0), max_side=32))
    assert one.last.wait(5)
    assert one.pictures == [(3.0, 32)]
