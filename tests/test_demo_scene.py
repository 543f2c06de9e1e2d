"""The demo scene is a valid RTMV scene, the same one each time, and seen from all around."""

import json

import numpy as np
import OpenEXR
import pytest

from shacira_nerfstudio.scenes import demo_scene, rtmv
from shacira_nerfstudio.scenes.demo_scene import write_demo_scene

NUM_VIEWS, SIZE = 12, 24


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_demo_scene(tmp_path_factory.mktemp("demo"), num_views=NUM_VIEWS, size=SIZE)


def pixels(path):
    with OpenEXR.File(str(path)) as exr:
        return exr.channels()["RGBA"].pixels.copy()


def test_files(scene):
    suffixes = ("json", "exr", "depth.exr")
    expected = {f"{view:05d}.{suffix}" for view in range(NUM_VIEWS) for suffix in suffixes}
    assert {path.name for path in scene.iterdir()} == expected
    assert rtmv.is_rtmv_scene(scene)


def test_json_has_the_keys_of_rtmv(scene):
    data = json.loads((scene / "00003.json").read_text())
    assert set(data) == {"camera_data", "objects"}
    assert set(data["camera_data"]) == {
        *("width", "height", "intrinsics", "cam2world", "camera_view_matrix", "camera_look_at"),
        *("location_world", "quaternion_world_xyzw"),
        *("scene_min_3d_box", "scene_center_3d_box", "scene_max_3d_box"),
    }
    assert set(data["objects"][0]) == {
        *(
            "name",
            "provenance",
            "segmentation_id",
            "visibility",
            "bounding_box_minx_maxx_miny_maxy",
        ),
        *("local_to_world_matrix", "location", "location_world"),
        *("quaternion_xyzw", "quaternion_xyzw_world"),
    }


def test_quaternions_turn_like_their_matrices(scene):
    data = json.loads((scene / "00005.json").read_text())["camera_data"]
    x, y, z, w = data["quaternion_world_xyzw"]
    axis = np.array([x, y, z])
    point = np.array([0.3, -0.7, 0.2])
    turned = point + 2 * np.cross(axis, np.cross(axis, point) + w * point)
    np.testing.assert_allclose(turned, point @ np.array(data["cam2world"])[:3, :3], atol=1e-12)


def test_alpha_is_straight(scene):
    for view in range(NUM_VIEWS):
        rgba = pixels(scene / f"{view:05d}.exr")
        alpha = rgba[..., 3]
        assert set(np.unique(alpha)) <= {0.0, 0.25, 0.5, 0.75, 1.0}
        assert np.all(rgba[alpha == 0] == 0)
        assert np.all(rgba[alpha > 0, :3] > 0)
    rgba = np.concatenate([pixels(scene / f"{view:05d}.exr") for view in range(NUM_VIEWS)])
    thin, thick = (np.median(rgba[rgba[..., 3] == alpha, :3]) for alpha in (0.25, 0.75))
    assert 0.6 < thin / thick < 1.6  # premultiplied colours would be at a third


def test_colours_are_neither_dull_nor_burnt(scene):
    images = [rtmv.read_rtmv_image(frame) for frame in rtmv.read_rtmv_scene(scene)]
    covered = np.concatenate(
        [pixels(scene / f"{v:05d}.exr")[..., 3] == 1 for v in range(NUM_VIEWS)]
    )
    colours = np.concatenate(images)[covered]
    assert np.mean(colours >= 1) < 0.01
    assert np.all(np.std(colours, axis=0) > 0.15)


def test_everything_is_in_view(scene):
    for frame in rtmv.read_rtmv_scene(scene):
        corners = np.array(np.meshgrid(*frame.box.T)).reshape(3, -1).T
        corners = corners[corners[:, 2] < 0.5]  # the board's; the tower ends amid the box's top
        x, y, z = ((corners - frame.camera_to_world[:3, 3]) @ frame.camera_to_world[:3, :3]).T
        focal = frame.intrinsics[0]
        assert np.all(np.abs(focal * x / z) < SIZE / 2) and np.all(np.abs(focal * y / z) < SIZE / 2)
        assert np.all(pixels(frame.image_path)[0, :, 3] == 0)
        assert np.mean(pixels(frame.image_path)[..., 3] > 0) > 0.2


def test_views_surround_the_scene_in_any_run():
    eyes = np.array([demo_scene._camera(view, 0.3)[:3, 3] for view in range(60)])
    assert np.all(eyes[:, 2] > demo_scene.CENTER[2])  # upper hemisphere
    angles = np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0])) % 360
    for start in range(0, 48, 6):
        ordered = np.sort(angles[start : start + 12])
        gaps = np.diff([*ordered, ordered[0] + 360])
        assert gaps.max() < 75
        assert np.ptp(eyes[start : start + 12, 2]) > 1.0


def test_depth_lies_on_the_first_surface(scene):
    """Seen from any other view, each point is at the first hit of its ray, or behind it."""
    data = json.loads((scene / "00000.json").read_text())
    solids = demo_scene._solids(np.random.default_rng(0).normal(size=(4, 12)))
    assert [solid.name for solid in solids] == [entry["name"] for entry in data["objects"]]
    frames = rtmv.read_rtmv_scene(scene)
    points = rtmv.depth_points(frames[0])
    lowest, highest = frames[0].box
    assert np.all((points > lowest - 1e-5) & (points < highest + 1e-5))
    for frame in frames:
        eye = frame.camera_to_world[:3, 3]
        distance = np.linalg.norm(points - eye, axis=-1)
        first, _ = demo_scene._nearest(solids, eye, (points - eye) / distance[:, None])
        assert np.all(first < distance + 1e-4)
        assert np.mean(np.abs(first - distance) < 1e-4) > 0.05


def test_depth_misses_where_alpha_is_zero(scene):
    for view in range(NUM_VIEWS):
        alpha = pixels(scene / f"{view:05d}.exr")[..., 3]
        depth = pixels(scene / f"{view:05d}.depth.exr")
        assert np.all(depth[alpha == 0, 0] == np.finfo(np.float32).min)
        assert np.all((depth[alpha == 1, 0] > 1) & (depth[alpha == 1, 0] < 5))
        assert np.all(depth[..., :1] == depth[..., 1:3]) and np.all(depth[..., 3] == 1)


def test_same_arguments_same_files(scene, tmp_path):
    again = write_demo_scene(tmp_path / "again", num_views=2, size=SIZE)
    other = write_demo_scene(tmp_path / "other", num_views=2, size=SIZE, seed=1)
    for name in ("00001.json", "00001.exr", "00001.depth.exr"):
        assert (again / name).read_bytes() == (scene / name).read_bytes()
        assert (other / name).read_bytes() != (scene / name).read_bytes()


def test_progress_and_errors(tmp_path):
    calls = []
    write_demo_scene(tmp_path, num_views=3, size=3, progress=lambda *done: calls.append(done))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(ValueError, match=r"expected at most 2 views in .* found more"):
        write_demo_scene(tmp_path, num_views=2, size=3)
    with pytest.raises(ValueError, match="expected num_views >= 1"):
        write_demo_scene(tmp_path, num_views=0)
