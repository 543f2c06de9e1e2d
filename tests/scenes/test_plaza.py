"""The plaza is an RTMV scene to the letter, the same each time, and goes on where it stopped."""

import json

import numpy as np
import pytest

from shacira_nerfstudio.scenes import rtmv
from shacira_nerfstudio.scenes.linear_pixels import read_exr
from shacira_nerfstudio.scenes.plaza.layout import BALL, make_plaza
from shacira_nerfstudio.scenes.plaza.tracer_numba import nearest
from shacira_nerfstudio.scenes.plaza.writer import write_plaza

NUM_VIEWS, SIZE = 6, 40


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plaza")
    assert write_plaza(folder, num_views=NUM_VIEWS, size=SIZE, num_processes=1) == NUM_VIEWS
    return folder


def test_files(scene):
    suffixes = ("json", "exr", "depth.exr", "seg.exr")
    expected = {f"{view:05d}.{suffix}" for view in range(NUM_VIEWS) for suffix in suffixes}
    assert {path.name for path in scene.iterdir()} == expected
    assert rtmv.is_rtmv_scene(scene)


def test_pixels_depth_and_objects_agree(scene):
    for frame in rtmv.read_rtmv_scene(scene):
        channels = read_exr(frame.image_path)
        alpha = channels["A"]
        depth, numbers = rtmv.read_rtmv_depth(frame), rtmv.read_rtmv_segmentation(frame)
        assert set(np.unique(alpha)) <= {0.0, 0.25, 0.5, 0.75, 1.0}
        assert np.all(channels["R"][alpha == 0] == 0)
        # A gap may be at the centre of a pixel alone, or just beside it.
        assert np.mean(np.isfinite(depth[alpha == 1])) > 0.99
        assert np.mean(np.isnan(depth[alpha == 0])) > 0.99
        assert np.array_equal(np.isfinite(depth), numbers > 0)
        objects = json.loads(frame.image_path.with_suffix(".json").read_text())["objects"]
        by_number = {entry["segmentation_id"]: entry for entry in objects}
        for number in np.unique(numbers[numbers > 0]).tolist():
            entry = by_number[number]
            rows, columns = np.nonzero(numbers == number)
            extent = [columns.min(), columns.max(), rows.min(), rows.max()]
            assert entry["bounding_box_minx_maxx_miny_maxy"] == extent
            assert entry["visibility"] == 1
        assert np.mean(alpha > 0) > 0.2 and np.all(alpha[0] == 0)


def test_depth_lies_on_the_first_surface(scene):
    """Seen from any other view, each point is at the first hit of its ray, or behind it."""
    frames, solids = rtmv.read_rtmv_scene(scene), make_plaza(0).solids
    points = rtmv.depth_points(frames[0])
    lowest, highest = frames[0].box
    assert np.all((points > lowest - 1e-4) & (points < highest + 1e-4))
    numbers = np.arange(len(solids[0]))
    for frame in frames:
        eye = frame.camera_to_world[:3, 3]
        distance = np.linalg.norm(points - eye, axis=-1)
        directions = (points - eye) / distance[:, None]
        first = np.array(
            [nearest(eye, direction, solids, numbers, len(numbers))[0] for direction in directions]
        )
        assert np.mean(first < distance + 1e-3) > 0.99  # the others graze an edge
        assert np.mean(np.abs(first - distance) < 1e-3) > 0.1


def test_light_is_high_in_range_and_shadows_fall(scene):
    frames = rtmv.read_rtmv_scene(scene)
    pixels = [read_exr(frame.image_path) for frame in frames]
    seen = np.concatenate([np.stack([p[c][p["A"] == 1] for c in "RGB"], -1) for p in pixels])
    assert seen.max() > 1.0  # what a mirror shows of a lamp
    assert np.mean(seen > 1.0) < 0.05 and np.all(np.std(seen, axis=0) > 0.08)
    ground = np.concatenate(
        [
            p["G"][rtmv.read_rtmv_segmentation(frame) == 1]
            for p, frame in zip(pixels, frames, strict=True)
        ]
    )
    assert np.percentile(ground, 5) < 0.4 * np.percentile(ground, 90)


def test_objects_stand_apart_and_on_something():
    plaza = make_plaza(3)
    assert len(plaza.kinds) == 73
    low = plaza.centers[:, 2] - plaza.sizes[:, 2]
    tops = plaza.centers[:, 2] + plaza.sizes[:, 2]
    assert np.all(np.isclose(low[1:], 0) | [np.isclose(tops, one).any() for one in low[1:]])
    stands = np.flatnonzero(np.isclose(low, 0))
    radius = np.where(
        plaza.kinds == 0, np.linalg.norm(plaza.sizes[:, :2], axis=1), plaza.sizes[:, :2].max(1)
    )
    for one in stands:
        for other in stands[stands > one]:
            apart = np.linalg.norm(plaza.centers[one, :2] - plaza.centers[other, :2])
            assert apart > radius[one] + radius[other]
    assert (plaza.kinds == BALL).any()


def test_whoever_was_interrupted_goes_on(scene, tmp_path):
    options = {"num_views": NUM_VIEWS, "size": SIZE, "num_processes": 1}
    for path in scene.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "00004.json").unlink()  # which is written last
    (tmp_path / "00004.exr").write_bytes(b"half of")
    (tmp_path / ".abc.part").write_bytes(b"of a killed process")
    assert write_plaza(tmp_path, **options) == 1
    assert write_plaza(tmp_path, **options) == 0
    for path in scene.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    assert not list(tmp_path.glob(".*"))


def test_views_of_another_scene_are_refused(scene):
    with pytest.raises(ValueError, match="found another scene in"):
        write_plaza(scene, num_views=NUM_VIEWS, size=SIZE, seed=1)
    with pytest.raises(ValueError, match="found another scene in"):
        write_plaza(scene, num_views=NUM_VIEWS, size=SIZE + 1)
    with pytest.raises(ValueError, match=r"expected at most 3 views in .* found 00005\.json"):
        write_plaza(scene, num_views=3, size=SIZE)


def test_processes_write_the_same(scene, tmp_path):
    assert write_plaza(tmp_path, num_views=3, size=SIZE, num_processes=2) == 3
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (scene / path.name).read_bytes(), path.name
