"""Sizes of pictures follow what rays cost."""

import pytest

from shacira_nerfstudio.viewer.live import resolution
from shacira_nerfstudio.viewer.live.resolution import (
    FRAME_SECONDS,
    AdaptiveResolution,
    refinement_sizes,
    size_of,
)


def settled(rate, frames=12, aspect=1.5, most=1024):
    """After some frames of a scene of so many rays a second, each of which costs its time."""
    adaptive = AdaptiveResolution()
    for _ in range(frames):
        width, height = adaptive.moving_size(aspect, most)
        adaptive.note(width * height, width * height / rate)
    return adaptive


@pytest.mark.parametrize("rate", [20_000, 100_000, 1_000_000])
def test_frames_of_a_moving_camera_take_their_time_and_no_more(rate):
    width, height = settled(rate).moving_size(1.5, 1024)
    assert width / height == pytest.approx(1.5, rel=0.03)
    assert 0.6 * FRAME_SECONDS < width * height / rate < 1.15 * FRAME_SECONDS


def test_bounds_of_sizes():
    assert settled(100).moving_size(1.0, 1024) == (24, 24)
    assert settled(1e9).moving_size(2.0, 512) == (512, 256)
    assert settled(1e9).moving_size(0.5, 512) == (256, 512)


def test_a_scene_that_becomes_slow_is_noticed_in_one_frame():
    adaptive = settled(400_000)
    width, height = adaptive.moving_size(1.5, 1024)
    adaptive.note(width * height, width * height / 40_000)
    slower = adaptive.moving_size(1.5, 1024)
    assert slower[0] * slower[1] / 40_000 < 2 * FRAME_SECONDS


def test_small_changes_of_speed_do_not_change_the_size():
    adaptive = settled(200_000)
    sizes = {adaptive.moving_size(1.5, 1024)}
    for rate in (190_000, 215_000, 205_000, 195_000):
        adaptive.note(10_000, 10_000 / rate)
        sizes.add(adaptive.moving_size(1.5, 1024))
    assert len(sizes) == 1
    for _ in range(8):
        adaptive.note(10_000, 10_000 / 500_000)
    assert adaptive.moving_size(1.5, 1024) not in sizes


def test_a_few_rays_say_nothing_about_speed():
    adaptive = settled(200_000)
    before = adaptive.rate
    adaptive.note(10, 1.0)
    adaptive.note(5000, 0.0)
    assert adaptive.rate == before


def test_bands_take_a_fraction_of_a_frame():
    adaptive = settled(200_000)
    bands = adaptive.bands((512, 512))
    assert 512 * 512 / len(bands) / adaptive.rate == pytest.approx(resolution.TILE_SECONDS, rel=0.1)
    assert settled(10).bands((4096, 3)) == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("rate", [20_000, 100_000, 150_000, 10_000_000])
def test_bands_are_alike_and_all_of_a_picture(rate):
    bands = settled(rate).bands((300, 311))
    assert [row for begin, end in bands for row in range(begin, end)] == list(range(311))
    assert len({end - begin for begin, end in bands}) <= 2
    assert max(end - begin for begin, end in bands) - min(end - begin for begin, end in bands) <= 1


def test_a_frame_of_a_moving_camera_is_two_bands():
    for rate in (50_000, 200_000):
        adaptive = settled(rate)
        assert len(adaptive.bands(adaptive.moving_size(1.5, 1024))) == 2


def test_refinement_ends_with_all_pixels_and_wastes_few():
    sizes = refinement_sizes((90, 60), 1.5, 1024)
    assert sizes[-1] == size_of(1.5, 1024) == (1024, 683)
    assert (512, 341) in sizes  # which is sharp already
    assert refinement_sizes((128, 128), 1.0, 512) == [(512, 512)]  # 171 were hardly more
    areas = [90 * 60, *(w * h for w, h in sizes)]
    assert all(b > 1.4 * a for a, b in zip(areas, areas[1:], strict=False))
    assert sum(areas[:-1]) < 0.4 * areas[-1]
    assert refinement_sizes((512, 341), 1.5, 512) == []
    assert refinement_sizes((500, 333), 1.5, 512) == [(512, 341)]  # at rest all pixels


def test_a_picture_has_a_pixel_at_least():
    assert size_of(900.0, 100) == (100, 1)
    assert size_of(1 / 900.0, 100) == (1, 100)
