"""RTMV on disk: the conventions are laws that a scene with depth can be held to."""

import json

import numpy as np
import OpenEXR
import pytest
from PIL import Image

from shacira_nerfstudio.scenes import rtmv
from shacira_nerfstudio.scenes.demo_scene import write_demo_scene


def write_exr(path, **channels):
    pixels = {name: np.array(values, np.float32, order="C") for name, values in channels.items()}
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, pixels).write(str(path))


def write_rgba(path, rgba):
    write_exr(path, **{name: np.asarray(rgba)[..., k] for k, name in enumerate("RGBA")})


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_demo_scene(tmp_path_factory.mktemp("demo"), num_views=6, size=48)


@pytest.fixture
def one_view(tmp_path):
    """A folder of one 4x4 view whose files a test may replace."""
    write_demo_scene(tmp_path, num_views=1, size=4)
    return tmp_path


def edit_json(path, **changes):
    data = json.loads(path.read_text())
    data["camera_data"].update(changes)
    path.write_text(json.dumps(data))


def project(frame, points):
    """Columns, rows and distances of world points as seen by a frame."""
    pose = frame.camera_to_world
    x, y, z = ((points - pose[:3, 3]) @ pose[:3, :3]).T
    fx, fy, cx, cy = frame.intrinsics
    return cx + fx * x / -z, cy - fy * y / -z, np.sqrt(x * x + y * y + z * z)


# Cameras and depth


def test_cam2world_is_stored_transposed(scene):
    stored = json.loads((scene / "00002.json").read_text())["camera_data"]
    pose = rtmv.read_rtmv_scene(scene)[2].camera_to_world
    np.testing.assert_allclose(pose[:3, 3], stored["location_world"])
    look = np.subtract(stored["camera_look_at"]["at"], stored["camera_look_at"]["eye"])
    np.testing.assert_allclose(-pose[:3, 2], look / np.linalg.norm(look), atol=1e-12)
    assert pose[2, 1] > 0  # the y axis points up
    np.testing.assert_allclose(
        np.array(stored["camera_view_matrix"]).T @ pose, np.eye(4), atol=1e-12
    )


def test_frame_rays_invert_projection(scene):
    frame = rtmv.read_rtmv_scene(scene)[0]
    origin, directions = rtmv.frame_rays(frame)
    columns, rows, _ = project(frame, (origin + 2.5 * directions).reshape(-1, 3))
    np.testing.assert_allclose(columns.reshape(48, 48)[5], np.arange(48) + 0.5)
    np.testing.assert_allclose(rows.reshape(48, 48)[:, 5], np.arange(48) + 0.5)


def test_frame_rays_use_the_stated_principal_point(one_view):
    edit_json(one_view / "00000.json", intrinsics={"fx": 5.0, "fy": 6.0, "cx": 1.5, "cy": 3.5})
    frame = rtmv.read_rtmv_scene(one_view)[0]
    _, directions = rtmv.frame_rays(frame)
    np.testing.assert_allclose(directions[3, 1], -frame.camera_to_world[:3, 2], atol=1e-12)


def agreement(source, target):
    """Share of the source's surface that the target sees at its depth, share it sees through."""
    columns, rows, distance = project(target, rtmv.depth_points(source))
    inside = (columns >= 0) & (columns < 48) & (rows >= 0) & (rows < 48)
    assert inside.all()
    seen = rtmv.read_rtmv_depth(target)[rows.astype(int), columns.astype(int)]
    gap = np.nan_to_num(seen, nan=9.0) - distance
    return np.mean(np.abs(gap) < 0.05), np.mean(gap > 0.05)


@pytest.mark.parametrize(("source", "target"), [(0, 5), (1, 3), (5, 3)])
def test_depth_of_one_view_reprojects_into_another(scene, source, target):
    frames = rtmv.read_rtmv_scene(scene)
    seen, seen_through = agreement(frames[source], frames[target])
    assert seen > 0.5
    assert seen_through < 0.2  # at silhouettes, by the nearest pixel's error


@pytest.mark.parametrize("axes", [[0], [0, 1]], ids=["mirrored", "upside down"])
def test_the_reprojection_law_can_fail(scene, axes):
    frames = rtmv.read_rtmv_scene(scene)
    pose = frames[5].camera_to_world.copy()
    pose[:3, axes] *= -1
    broken = rtmv.RtmvFrame(**{**vars(frames[5]), "camera_to_world": pose})
    seen, seen_through = agreement(frames[0], broken)
    assert seen < 0.3
    assert seen_through > 0.4


def test_reprojected_colours_agree(scene):
    frames = rtmv.read_rtmv_scene(scene)
    source, target = frames[0], frames[5]
    columns, rows, distance = project(target, rtmv.depth_points(source))
    rows, columns = rows.astype(int), columns.astype(int)
    visible = np.abs(rtmv.read_rtmv_depth(target)[rows, columns] - distance) < 0.02
    mine = rtmv.read_rtmv_image(source)[np.isfinite(rtmv.read_rtmv_depth(source))][visible]
    theirs = rtmv.read_rtmv_image(target)[rows, columns][visible]
    assert np.median(np.abs(mine - theirs)) < 0.04


def test_depth_is_valid_between_minus_and_plus_thousand(one_view):
    depth = np.array([[2.0, -3.4e38, 1000.0, 999.0], [np.inf, np.nan, -1000.0, -999.0]] * 2)
    write_exr(one_view / "00000.depth.exr", R=depth, G=depth, B=depth, A=np.ones((4, 4)))
    found = rtmv.read_rtmv_depth(rtmv.read_rtmv_scene(one_view)[0])
    expected = [[2.0, np.nan, np.nan, 999.0], [np.nan, np.nan, np.nan, -999.0]] * 2
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_depth_comes_from_npz_or_from_a_channel_of_the_image(one_view):
    depth = np.arange(16.0).reshape(4, 4)
    (one_view / "00000.depth.exr").unlink()
    assert rtmv.read_rtmv_depth(rtmv.read_rtmv_scene(one_view)[0]) is None
    zeros = np.zeros((4, 4))
    write_exr(one_view / "00000.exr", R=zeros, G=zeros, B=zeros, A=zeros, **{"depth.V": depth})
    np.testing.assert_array_equal(rtmv.read_rtmv_depth(rtmv.read_rtmv_scene(one_view)[0]), depth)
    np.savez(one_view / "00000.depth.npz", np.stack([depth + 1, zeros], axis=-1))
    np.testing.assert_array_equal(
        rtmv.read_rtmv_depth(rtmv.read_rtmv_scene(one_view)[0]), depth + 1
    )


# Images


def test_srgb_curve():
    linear = np.array([0.0, 0.0031308, 0.5, 1.0])
    np.testing.assert_allclose(rtmv.linear_to_srgb(linear), [0, 0.04045, 0.735357, 1], atol=1e-6)
    ramp = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(rtmv.srgb_to_linear(rtmv.linear_to_srgb(ramp)), ramp, atol=1e-7)


def test_compositing_is_linear_and_precedes_clipping(tmp_path):
    write_rgba(tmp_path / "a.exr", np.full((1, 1, 4), (1.6, 0.4, 0.0, 0.25)))
    black = rtmv.read_rtmv_image(tmp_path / "a.exr", background="black")[0, 0]
    white = rtmv.read_rtmv_image(tmp_path / "a.exr", background="white")[0, 0]
    np.testing.assert_allclose(black, rtmv.linear_to_srgb(np.array([0.4, 0.1, 0.0])), atol=1e-6)
    np.testing.assert_allclose(white, rtmv.linear_to_srgb(np.array([1.0, 0.85, 0.75])), atol=1e-6)
    assert black.dtype == np.float32


def test_downscaling_averages_clipped_linear_values(tmp_path):
    rgba = np.zeros((5, 4, 4))
    rgba[..., 3], rgba[:, 1::2, :3] = 1, 4.0  # columns of black and of four times white
    rgba[4] = 7.0  # a row that fills no block is cut off
    write_rgba(tmp_path / "a.exr", rgba)
    image = rtmv.read_rtmv_image(tmp_path / "a.exr", downscale=2)
    assert image.shape == (2, 2, 3)
    np.testing.assert_allclose(image, 0.735357, atol=1e-6)  # the curve at 0.5


def test_exposure_brightens_the_scene_and_not_the_background(tmp_path):
    write_rgba(tmp_path / "a.exr", [[(0.1, 0.1, 0.1, 1.0), (0.0, 0.0, 0.0, 0.0)]])
    image = rtmv.read_rtmv_image(tmp_path / "a.exr", exposure=2.0, background=(0.2, 0.4, 0.6))[0]
    np.testing.assert_allclose(image[0], rtmv.linear_to_srgb(np.array([0.4] * 3)), atol=1e-6)
    np.testing.assert_allclose(image[1], [0.2, 0.4, 0.6], atol=1e-6)


def test_nan_and_inf_do_not_leave_the_reader(tmp_path):
    write_rgba(tmp_path / "a.exr", [[(0.0, np.inf, -np.inf, 1.0), (np.nan, np.inf, 0.0, 0.0)]])
    image = rtmv.read_rtmv_image(tmp_path / "a.exr")[0]
    np.testing.assert_allclose(image, [[0, 1, 0], [1, 1, 1]], atol=1e-6)
    for bad in ((np.nan, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0, np.nan)):
        write_rgba(tmp_path / "b.exr", [[(0.0, 0.0, 0.0, 1.0), bad]])
        with pytest.raises(ValueError, match=r"b\.exr, found 1 pixels .* row 0, column 1"):
            rtmv.read_rtmv_image(tmp_path / "b.exr")


def test_png_equals_exr(scene, tmp_path):
    for frame in rtmv.read_rtmv_scene(scene)[:2]:
        with OpenEXR.File(str(frame.image_path)) as exr:
            rgba = exr.channels()["RGBA"].pixels.copy()
        rgba[..., :3] = rtmv.linear_to_srgb(np.clip(rgba[..., :3], 0, 1))
        Image.fromarray(np.round(rgba * 255).astype(np.uint8)).save(tmp_path / "a.png")
        for options in ({}, {"background": "black"}, {"downscale": 3}):
            expected = rtmv.read_rtmv_image(frame, **options)
            found = rtmv.read_rtmv_image(tmp_path / "a.png", **options)
            assert np.abs(found - expected).max() <= 1 / 255


def test_an_opaque_png_keeps_its_values(tmp_path):
    values = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_allclose(rtmv.read_rtmv_image(tmp_path / "a.png") * 255, values, atol=1e-3)


def test_an_exr_without_alpha_is_opaque(tmp_path):
    half = np.full((2, 2), 0.5)
    write_exr(tmp_path / "a.exr", R=half, G=half, B=half)
    np.testing.assert_allclose(rtmv.read_rtmv_image(tmp_path / "a.exr"), 0.735357, atol=1e-6)


# Splits and normalisation


def test_splits():
    found = rtmv.split_indices(150)
    assert found == {"train": range(100), "val": range(100, 105), "test": range(105, 150)}
    assert [len(part) for part in rtmv.split_indices(60).values()] == [40, 2, 18]
    assert [len(part) for part in rtmv.split_indices(2).values()] == [1, 0, 1]
    with pytest.raises(ValueError, match="at least 2 views to split, got 1"):
        rtmv.split_indices(1)


def test_normalization_from_depth_fills_the_cube(scene):
    frames = rtmv.read_rtmv_scene(scene)
    points = np.concatenate([rtmv.depth_points(frame) for frame in frames[:4]])
    unit = rtmv.normalization_from_depth(frames[:4]).apply(points)
    largest = np.argmax(np.ptp(points, axis=0))
    np.testing.assert_allclose(unit.max(axis=0) + unit.min(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose([unit[:, largest].min(), unit[:, largest].max()], [-1, 1])
    assert np.abs(unit).max() <= 1 + 1e-12


def test_normalization_from_box_has_five_percent_margin(scene):
    frames = rtmv.read_rtmv_scene(scene)
    found = rtmv.normalization_from_box(frames)
    np.testing.assert_allclose(found.apply(frames[0].box)[:, 0], [-1 / 1.05, 1 / 1.05])
    np.testing.assert_allclose(found.center, frames[0].box.mean(axis=0))


def test_normalization_says_when_its_source_is_missing(one_view):
    (one_view / "00000.depth.exr").unlink()
    edit_json(one_view / "00000.json", scene_min_3d_box=None)
    frames = rtmv.read_rtmv_scene(one_view)
    assert rtmv.normalization_from_depth(frames) is None
    assert rtmv.normalization_from_box(frames) is None


def test_detection(scene, one_view):
    assert rtmv.is_rtmv_scene(scene)
    (one_view / "00000.exr").unlink()
    assert not rtmv.is_rtmv_scene(one_view)
    assert not rtmv.is_rtmv_scene(one_view / "nowhere")
    with pytest.raises(
        FileNotFoundError, match=r"expected 00000\.exr or 00000\.png or .*found none"
    ):
        rtmv.read_rtmv_scene(one_view)


def test_a_folder_that_is_no_scene_is_named_with_its_content(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected an RTMV scene .* found no such folder"):
        rtmv.read_rtmv_scene(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="found nothing in it"):
        rtmv.read_rtmv_scene(tmp_path)
    (tmp_path / "transforms_train.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"found transforms_train\.json"):
        rtmv.read_rtmv_scene(tmp_path)


def test_broken_json_is_explained(one_view):
    path = one_view / "00000.json"
    data = json.loads(path.read_text())
    stored = data["camera_data"]["cam2world"]
    edit_json(path, cam2world=np.transpose(stored).tolist())
    with pytest.raises(ValueError, match="expected a transposed cam2world"):
        rtmv.read_rtmv_scene(one_view)
    edit_json(path, cam2world=stored, intrinsics={"fx": 1.0})
    with pytest.raises(ValueError, match=r"expected the key 'fy' in .*00000\.json, found \['fx'\]"):
        rtmv.read_rtmv_scene(one_view)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"expected JSON in .*00000\.json"):
        rtmv.read_rtmv_scene(one_view)


def test_wrong_pixels_are_explained(one_view):
    frame = rtmv.read_rtmv_scene(one_view)[0]
    write_rgba(frame.image_path, np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match=r"expected 4x4 pixels in .*as in its JSON, found 3x2"):
        rtmv.read_rtmv_image(frame)
    write_exr(frame.image_path, Y=np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"expected channels R, G, B in .*found \['Y'\]"):
        rtmv.read_rtmv_image(frame)
    frame.image_path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="expected an OpenEXR file at"):
        rtmv.read_rtmv_image(frame)


def test_bad_options_are_explained(scene):
    frame = rtmv.read_rtmv_scene(scene)[0]
    with pytest.raises(ValueError, match=r"expected white, black or 3 values in .*got 'green'"):
        rtmv.read_rtmv_image(frame, background="green")
    with pytest.raises(ValueError, match="expected downscale 1 to 48, got 0"):
        rtmv.read_rtmv_image(frame, downscale=0)


def test_segmentation_is_optional_and_whole_numbers(one_view):
    frame = rtmv.read_rtmv_scene(one_view)[0]
    assert frame.segmentation_path is None and rtmv.read_rtmv_segmentation(frame) is None
    numbers = np.arange(16.0).reshape(4, 4)
    numbers[0, 0], numbers[3, 3] = np.finfo(np.float32).min, np.nan
    for channels in ({"R": numbers, "G": numbers}, {"Y": numbers}):
        write_exr(one_view / "00000.seg.exr", **channels)
        found = rtmv.read_rtmv_segmentation(rtmv.read_rtmv_scene(one_view)[0])
        assert found.dtype == np.int32 and found[0, 0] == found[3, 3] == -1
        assert found.flatten()[1:15].tolist() == list(range(1, 15))
    write_exr(one_view / "00000.seg.exr", Q=numbers)
    with pytest.raises(ValueError, match="expected a channel R or Y"):
        rtmv.read_rtmv_segmentation(rtmv.read_rtmv_scene(one_view)[0])


def test_splits_by_interval_and_shares():
    splits = rtmv.split_indices(10, interval=4)
    assert [list(splits[name]) for name in ("train", "test")] == [[1, 2, 3, 5, 6, 7, 9], [0, 4, 8]]
    for count in range(3, 200):  # shares that binary numbers miss
        assert len(rtmv.split_indices(count)["train"]) == 2 * count // 3
        assert len(rtmv.split_indices(count)["val"]) == count // 30
