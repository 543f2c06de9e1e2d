"""Pictures of the viewer: the library's own, of one file or of two, and never one too many."""

import numpy as np
import pytest
import torch
from synthetic_ball import make_ball

from shacira_nerfstudio.viewer.live.camera_space import CameraSpace
from shacira_nerfstudio.viewer.live.compare import add_labels, divided, mark_divider
from shacira_nerfstudio.viewer.live.painter import Painter, Request
from shacira_nerfstudio.viewer.live.resolution import AdaptiveResolution
from shacira_nerfstudio.viewer.live.shown_scene import ShownScene
from shacira_nerfstudio.viewer.live.tones import OUTPUTS, Scale, pixels


class File:
    def __init__(self, scene):
        self.scene = scene


@pytest.fixture(scope="module")
def scene():
    return ShownScene(make_ball(), lambda: None)


@pytest.fixture(scope="module")
def space(scene) -> CameraSpace:
    return scene.camera_space()


def painter(scenes, space):
    return Painter([File(scene) for scene in scenes], space, AdaptiveResolution())


def always():
    return True


def request_of(space, **changes):
    return Request(space.pose(space.cameras[0]), **changes)


def test_a_picture_is_that_of_the_library(scene, space):
    camera = space.cameras[0].resized(width=60, height=40)
    expected = scene.at_level(3).render_view(camera).numpy()
    found = painter([scene], space).paint(request_of(space), (60, 40), is_wanted=always)
    assert found.image.shape == (40, 60, 3) and expected.std() > 0.05
    assert np.abs(found.image / 255 - expected).max() < 2 / 255
    assert found.columns == [slice(0, 60)]


def test_fewer_levels_are_those_of_a_shorter_file(scene, space):
    camera = space.cameras[0].resized(width=30, height=20)
    expected = scene.at_level(1).render_view(camera).numpy()
    assert np.abs(expected - scene.at_level(3).render_view(camera).numpy()).max() > 0.02
    request = request_of(space, num_levels=1)
    found = painter([scene], space).paint(request, (30, 20), is_wanted=always)
    assert np.abs(found.image / 255 - expected).max() < 2 / 255
    # Others are not disturbed, and no table is held twice.
    assert scene.at_level(3).encoding.max_level == 3
    assert scene.at_level(3).encoding.symbols is scene.at_level(1).encoding.symbols
    assert scene.at_level(99) is scene.at_level(3)


def test_two_files_meet_at_the_divider(scene, space):
    other = ShownScene(make_ball(), lambda: None)
    other.at_level(3).settings = scene.at_level(3).settings
    with torch.no_grad():
        other.at_level(3).field.color_mlp[-1].bias += 4  # brighter
    both = painter([scene, other], space)
    alone = [both.paint(request_of(space, files=(n,)), (60, 40), is_wanted=always) for n in (0, 1)]
    assert np.abs(alone[0].image.astype(int) - alone[1].image).max() > 30
    request = request_of(space, files=(0, 1), divider=0.3)
    found = both.paint(request, (60, 40), is_wanted=always)
    assert found.columns == [slice(0, 18), slice(18, 60)]
    np.testing.assert_array_equal(found.image[:, :17], alone[0].image[:, :17])
    np.testing.assert_array_equal(found.image[:, 20:], alone[1].image[:, 20:])
    assert (found.image[:, 17:19] == (255, 170, 40)).all()


@pytest.mark.parametrize("divider", [0.0, 1.0])
def test_a_divider_at_the_border_leaves_one_file(scene, space, divider):
    request = request_of(space, files=(0, 0), divider=divider)
    found = painter([scene], space).paint(request, (30, 20), is_wanted=always)
    alone = painter([scene], space).paint(request_of(space), (30, 20), is_wanted=always)
    np.testing.assert_array_equal(found.image, alone.image)


def test_a_file_that_is_still_to_come_is_black(scene, space):
    request = request_of(space, files=(0, 1))
    found = painter([scene, None], space).paint(request, (30, 20), is_wanted=always)
    assert not found.image[:, 17:].any() and found.image[:, :13].any()


def test_a_picture_that_nobody_wants_is_not_finished(scene, space):
    answers = iter([True, True, False])
    one = painter([scene], space)
    one._resolution.bands = lambda size: [(0, 4), (4, 8), (8, 20)]
    found = one.paint(request_of(space), (30, 20), is_wanted=lambda: next(answers))
    assert found is None
    assert next(answers, "none left") == "none left"


def test_a_picture_that_takes_long_is_shown_in_parts(scene, space, monkeypatch):
    monkeypatch.setattr("shacira_nerfstudio.viewer.live.painter._PART_SECONDS", -1.0)
    one, parts = painter([scene], space), []
    one._resolution.bands = lambda size: [(0, 8), (8, 16), (16, 20)]
    before = np.full((10, 15, 3), 7, np.uint8)
    whole = one.paint(
        request_of(space),
        (30, 20),
        is_wanted=always,
        scale=Scale(0, 1),
        before=before,
        show_part=parts.append,
    )
    assert len(parts) == 2  # of 8 and 16 rows
    for done, part in zip((8, 16), parts, strict=True):
        np.testing.assert_array_equal(part[:done], whole.image[:done])
        assert (part[done:] == 7).all()


@pytest.mark.parametrize("output", OUTPUTS)
def test_each_output_shows_something(scene, space, output):
    thread_done = []
    shown = ShownScene(make_ball(), lambda: thread_done.append(True))
    if output == "bits":
        shown.entry_bits()
        shown._counting.join(60)
        assert thread_done and shown.has_bits
    found = painter([shown], space).paint(
        request_of(space, output=output), (30, 20), is_wanted=always
    )
    assert found.image.std() > 5
    assert bool(found.scale.words(output)) == (output in ("depth", "bits"))


def test_depth_is_bright_where_it_is_near_and_black_where_nothing_is():
    values = np.array([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0], [9.0, 0.0]], np.float32)
    scale = Scale.of("depth", [values])
    assert scale.low == pytest.approx(1, abs=0.05) and scale.high == pytest.approx(3, abs=0.05)
    brightness = pixels("depth", values, scale).sum(-1)
    assert brightness[0] > brightness[1] > brightness[2] > brightness[3]
    assert brightness[3] == pixels("depth", values, scale)[3].sum() < 20


def test_known_tones():
    assert pixels("colour", np.array([[0.0, 0.5, 1.0]]), Scale(0, 1)).tolist() == [[0, 128, 255]]
    assert pixels("accumulation", np.array([[0.2]]), Scale(0, 1)).tolist() == [[51, 51, 51]]
    bits = pixels("bits", np.array([[0.0], [7.0], [99.0]]), Scale(0, 7))
    assert bits.tolist() == [[0, 0, 8], [255, 250, 200], [255, 250, 200]]
    nothing = np.zeros((2, 2, 2), np.float32)
    assert np.isfinite(pixels("depth", nothing, Scale.of("depth", [nothing]))).all()


def test_columns_of_the_divider():
    assert divided(100, 0.25, 2) == [slice(0, 25), slice(25, 100)]
    assert divided(100, -3.0, 2) == [slice(0, 0), slice(0, 100)]
    assert divided(100, 9.0, 2) == [slice(0, 100), slice(100, 100)]
    assert divided(100, 0.25, 1) == [slice(0, 100)]
    image = mark_divider(np.zeros((4, 100, 3), np.uint8), divided(100, 1.0, 2))
    assert not image.any()


def test_labels_stand_in_their_own_part():
    columns = divided(640, 0.5, 2)
    image = add_labels(np.full((480, 640, 3), 200, np.uint8), columns, ["left.shacira", "right"])
    changed = (image != 200).any(-1)
    assert changed[:, :200].any() and changed[:, 500:].any()
    assert not changed[:, 260:480].any() and not changed[:400].any()
    small = np.full((100, 200, 3), 200, np.uint8)
    assert (add_labels(small, divided(200, 0.5, 2), ["a", "b"]) == 200).all()
    narrow = divided(640, 0.02, 2)  # no room for the left one
    image = add_labels(np.full((480, 640, 3), 200, np.uint8), narrow, ["left.shacira", "right"])
    assert (image[:, :12] == 200).all() and (image[:, 500:] != 200).any()
