"""The data parser serves RTMV to Nerfstudio; the data set serves every other parser, too."""

import numpy as np
import OpenEXR
import pytest
import torch
import yaml
from PIL import Image

from shacira_nerfstudio.scenes import rtmv
from shacira_nerfstudio.scenes.demo_scene import write_demo_scene

pytest.importorskip("nerfstudio")
pytestmark = pytest.mark.nerfstudio

from nerfstudio.cameras.cameras import Cameras  # noqa: E402
from nerfstudio.data.dataparsers.base_dataparser import (  # noqa: E402
    DataparserOutputs,
    transform_poses_to_original_space,
)
from nerfstudio.data.datasets.base_dataset import InputDataset  # noqa: E402

from shacira_nerfstudio.plugin.dataset_metadata import DatasetMetadata  # noqa: E402
from shacira_nerfstudio.plugin.input_check import FILE_SIZES, read_pictures  # noqa: E402
from shacira_nerfstudio.plugin.rtmv_dataparser import (  # noqa: E402
    RtmvDataParserConfig,
    ShaciraDataset,
    rtmv_dataparser,
)

NUM_VIEWS, SIZE = 30, 24


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo")
    return write_demo_scene(path, num_views=NUM_VIEWS, size=SIZE)


def outputs(scene, split="train", **options):
    parser = RtmvDataParserConfig(data=scene, **options).setup()
    return parser.get_dataparser_outputs(split=split)


def rays_of(cameras, index):
    """Origins and directions [H, W, 3] that Nerfstudio gives the pixels of one camera."""
    bundle = cameras.generate_rays(camera_indices=index, keep_shape=True)
    return bundle.origins.numpy(), bundle.directions.numpy()


# The parser


def test_splits_follow_the_order(scene):
    names = {
        split: [path.stem for path in outputs(scene, split).image_filenames]
        for split in ("train", "val", "test")
    }
    stems = [f"{view:05d}" for view in range(NUM_VIEWS)]
    assert names == {"train": stems[:20], "val": stems[20:21], "test": stems[21:]}
    with pytest.raises(ValueError, match="expected a split of"):
        outputs(scene, "all")


SPLITS = {
    "shares": ({"train_share": 0.5, "val_share": 0.1}, (range(15), range(15, 18), range(18, 30))),
    "no val": ({"train_share": 0.9, "val_share": 0.0}, (range(27), range(27, 30), range(27, 30))),
    "all train": ({"train_share": 1.0, "val_share": 0.0}, (range(30),) * 3),
    "interval": (
        {"eval_interval": 8},
        ([k for k in range(30) if k % 8], range(0, 30, 8), range(0, 30, 8)),
    ),
}


@pytest.mark.parametrize("kind", SPLITS)
def test_splits_by_option(scene, kind):
    options, expected = SPLITS[kind]
    for split, views in zip(("train", "val", "test"), expected, strict=True):
        names = [int(path.stem) for path in outputs(scene, split, **options).image_filenames]
        assert names == list(views)


@pytest.mark.parametrize(
    "options", [{"train_share": 0.0}, {"train_share": 0.9, "val_share": 0.2}, {"eval_interval": 1}]
)
def test_splits_that_are_none(scene, options):
    with pytest.raises(ValueError, match=r"expected (shares of views|an interval of at least 2)"):
        outputs(scene, **options)


def test_scenes_without_val_views_validate_on_test(tmp_path):
    write_demo_scene(tmp_path, num_views=3, size=4)
    assert [path.stem for path in outputs(tmp_path, "val").image_filenames] == ["00002"]


def test_rays_of_nerfstudio_are_those_of_the_scene(scene):
    found, frames = outputs(scene), rtmv.read_rtmv_scene(scene)
    center = -found.dataparser_transform[:, 3].numpy()
    for index in (0, 7):
        origins, directions = rays_of(found.cameras, index)
        eye, expected = rtmv.frame_rays(frames[index])
        np.testing.assert_allclose(directions, expected, atol=1e-5)
        unit_eye = (eye - center) * found.dataparser_scale
        np.testing.assert_allclose(origins[3, 4], unit_eye, atol=1e-5)


def test_normalisation_fills_the_box_up_to_the_margin(scene):
    found, frames = outputs(scene), rtmv.read_rtmv_scene(scene)
    points = []
    for index, frame in enumerate(frames[:20]):
        depth = rtmv.read_rtmv_depth(frame) * found.dataparser_scale
        origins, directions = rays_of(found.cameras, index)
        points.append((origins + directions * depth[..., None])[np.isfinite(depth)])
    assert np.abs(np.concatenate(points)).max() == pytest.approx(0.98, abs=1e-4)
    np.testing.assert_array_equal(found.scene_box.aabb, [[-1, -1, -1], [1, 1, 1]])


def test_transform_and_scale_undo_the_normalisation(scene):
    found = outputs(scene, "test", normalization="box")
    poses = transform_poses_to_original_space(
        found.cameras.camera_to_worlds,
        found.dataparser_transform,
        found.dataparser_scale,
        camera_convention="opengl",
    )
    frames = rtmv.read_rtmv_scene(scene)[21:]
    expected = np.stack([frame.camera_to_world[:3] for frame in frames])
    np.testing.assert_allclose(poses, expected, atol=1e-5)


def test_all_splits_share_the_normalisation_of_the_training_views(scene):
    train, test = outputs(scene, "train"), outputs(scene, "test")
    assert train.dataparser_scale == test.dataparser_scale
    assert torch.equal(train.dataparser_transform, test.dataparser_transform)


def test_depth_is_optional_unless_asked_for(tmp_path):
    write_demo_scene(tmp_path, num_views=3, size=4)
    (tmp_path / "00001.depth.exr").unlink()
    box = outputs(tmp_path, normalization="box").dataparser_scale
    assert outputs(tmp_path, normalization="auto").dataparser_scale == box
    with pytest.raises(ValueError, match=r"expected depth for every view in .* found none"):
        outputs(tmp_path, normalization="depth")


def test_downscaling(scene):
    found = outputs(scene, downscale_factor=5)
    assert (int(found.cameras.width[0]), int(found.cameras.height[0])) == (4, 4)  # 24 // 5
    full = outputs(scene).cameras
    torch.testing.assert_close(found.cameras.cx * 5, full.cx)
    torch.testing.assert_close(found.cameras.fx * 5, full.fx)
    assert full.width[0] == SIZE  # of its own accord nothing is halved
    assert outputs(scene, max_size=10).metadata["rtmv"]["downscale"] == 3
    assert outputs(scene, downscale_factor=2.0).metadata["rtmv"]["downscale"] == 2  # ns-render
    for factor in (0, 1.5):
        with pytest.raises(ValueError, match="expected a whole downscale_factor"):
            outputs(scene, downscale_factor=factor)


@pytest.mark.parametrize("factor", [2, 5])
def test_files_larger_than_their_downscaled_cameras_are_sound(scene, factor):
    found = outputs(scene, downscale_factor=factor)
    pictures, faults = read_pictures(found)
    assert not faults
    assert {picture.size for picture in pictures} == {(SIZE, SIZE)}
    assert ShaciraDataset(found).get_image_float32(0).shape[:2] == (SIZE // factor,) * 2
    found.metadata[FILE_SIZES][1] = (SIZE, SIZE + 1)  # as a meta.json that is not of that picture
    assert f"expected {SIZE}x{SIZE + 1} pixels" in read_pictures(found)[1][0]


def pixel_of(camera, points):
    """Columns, rows and distances of points as one of Nerfstudio's cameras sees them."""
    pose = camera.camera_to_worlds.double().numpy()
    x, y, z = ((points - pose[:, 3]) @ pose[:, :3]).T
    column = float(camera.cx) + float(camera.fx) * x / -z
    return column, float(camera.cy) - float(camera.fy) * y / -z, np.sqrt(x * x + y * y + z * z)


@pytest.fixture(scope="module")
def sharp_scene(tmp_path_factory):
    return write_demo_scene(tmp_path_factory.mktemp("sharp"), num_views=4, size=96)


@pytest.mark.parametrize("factor", [1, 2])
def test_a_point_lies_at_the_right_pixel_of_two_views(sharp_scene, factor):
    """What one view shows, by Nerfstudio's rays and the file's depth, another one shows where its
    camera says: at that pixel its own depth is the point's distance, and its colour the same."""
    found = outputs(sharp_scene, train_share=1.0, val_share=0.0, downscale_factor=factor)
    frames, dataset = rtmv.read_rtmv_scene(sharp_scene), ShaciraDataset(found)
    source, target = 0, 3
    origins, directions = rays_of(found.cameras, source)
    depths = [
        rtmv.read_rtmv_depth(frames[index]) * found.dataparser_scale for index in (source, target)
    ]
    middle = factor // 2  # of a block of pixels; one off the centre at even factors
    depth = depths[0][middle::factor, middle::factor]
    is_seen = np.isfinite(depth)
    points = (origins + directions * depth[..., None])[is_seen].astype(np.float64)
    column, row, distance = pixel_of(found.cameras[target], points)
    places = np.floor(row).astype(int), np.floor(column).astype(int)
    other = depths[1][middle::factor, middle::factor][places]
    agrees = np.abs(other - distance) < 0.02 * factor
    assert agrees.mean() > 0.4  # the others are hidden there, or at an edge
    colours = [dataset[index]["image"].numpy() for index in (source, target)]
    difference = np.abs(colours[0][is_seen] - colours[1][places]).mean(-1)
    assert np.median(difference[agrees]) < 0.5 * np.median(difference[~agrees])


@pytest.mark.parametrize("kind", ["png", "exr", "jpg"])
def test_the_kind_of_images_by_option(scene, tmp_path, kind):
    for path in scene.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / f"{path.stem}.exr").write_bytes((scene / f"{path.stem}.exr").read_bytes())
        for suffix in ("png", "jpg"):
            Image.new("RGB", (SIZE, SIZE), (200, 0, 0)).save(tmp_path / f"{path.stem}.{suffix}")
    found = outputs(tmp_path, images=kind)
    assert {path.suffix for path in found.image_filenames} == {f".{kind}"}
    red = ShaciraDataset(found)[0]["image"][0, 0]
    assert (red[1] < 0.1) == (kind != "exr")
    assert {path.suffix for path in outputs(tmp_path).image_filenames} == {".exr"}
    (tmp_path / "00001.png").unlink()
    if kind == "png":
        with pytest.raises(FileNotFoundError, match=r"expected 00001\.png beside"):
            outputs(tmp_path, images=kind)


def test_a_random_background_leaves_alpha(scene):
    dataset = ShaciraDataset(outputs(scene, background="random", downscale_factor=2))
    assert dataset.alpha_color is None
    assert DatasetMetadata.of(dataset.metadata).is_bounded is True
    image, on_white = dataset[0]["image"], ShaciraDataset(outputs(scene, downscale_factor=2))[0]
    assert image.shape == (SIZE // 2, SIZE // 2, 4)
    alpha = image[..., 3:].numpy()
    assert alpha.min() == 0 and alpha.max() == 1
    linear = rtmv.srgb_to_linear(image[..., :3].numpy()) * alpha + 1 - alpha
    np.testing.assert_allclose(rtmv.linear_to_srgb(linear), on_white["image"], atol=2e-6)
    assert dataset.get_data(0, "uint8")["image"].shape[-1] == 4


def test_a_folder_that_is_no_scene(tmp_path):
    (tmp_path / "transforms.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"expected an RTMV scene .* transforms\.json"):
        outputs(tmp_path)


def test_config_survives_the_config_file(scene):
    config = RtmvDataParserConfig(data=scene, exposure=0.5)
    assert yaml.load(yaml.dump(config), Loader=yaml.Loader) == config
    assert isinstance(rtmv_dataparser.config, RtmvDataParserConfig)


# The data set


def test_images_are_those_of_the_reader(scene):
    options = {"background": "black", "exposure": -1.0}
    dataset = ShaciraDataset(outputs(scene, "test", downscale_factor=2, **options))
    expected = rtmv.read_rtmv_image(scene / "00023.exr", downscale=2, **options)
    batch = dataset[2]
    assert batch["image"].dtype == torch.float32 and batch["image_idx"] == 2
    np.testing.assert_array_equal(batch["image"], expected)
    small = dataset.get_data(2, image_type="uint8")["image"]
    assert small.dtype == torch.uint8
    np.testing.assert_array_equal(small, np.round(expected * 255))


def test_metadata_for_the_model(scene):
    parsed = outputs(scene, background="black")
    dataset = ShaciraDataset(parsed)
    found = DatasetMetadata.of(dataset.metadata)
    assert dataset.metadata["rtmv"] == {"background": "black", "exposure": 0.0, "downscale": 1}
    assert found.alpha_color == (0.0, 0.0, 0.0) and found.is_bounded is True
    assert found.cameras is dataset.cameras
    assert "shacira" not in parsed.metadata  # the parser's own answer is left alone


def test_the_data_managers_scale_shrinks_images_and_cameras(scene):
    dataset = ShaciraDataset(outputs(scene), scale_factor=0.5)
    assert dataset[0]["image"].shape == (12, 12, 3)
    np.testing.assert_array_equal(
        dataset[0]["image"], rtmv.read_rtmv_image(scene / "00000.exr", downscale=2)
    )
    assert int(dataset.cameras.width[0]) == 12
    with pytest.raises(ValueError, match="expected a camera_res_scale_factor of 1, 1/2"):
        ShaciraDataset(outputs(scene), scale_factor=0.7)[0]


def test_an_image_of_another_size_than_its_camera(tmp_path):
    write_demo_scene(tmp_path, num_views=2, size=4)
    dataset = ShaciraDataset(outputs(tmp_path))
    (write_demo_scene(tmp_path / "other", num_views=1, size=6) / "00000.exr").rename(
        tmp_path / "00000.exr"
    )
    with pytest.raises(ValueError, match=r"expected \(4, 4\) rows, columns .* got \(6, 6\)"):
        dataset[0]


def other_parser(path, image, name, alpha_color):
    """What a parser that knows nothing of RTMV returns for one image."""
    if name.endswith(".exr"):
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"RGBA": image.astype(np.float32)}).write(str(path / name))
    else:
        Image.fromarray(image).save(path / name)
    height, width = image.shape[:2]
    cameras = Cameras(torch.eye(4)[None, :3], 5.0, 5.0, width / 2, height / 2, width, height)
    return DataparserOutputs([path / name], cameras, alpha_color=alpha_color)


@pytest.mark.parametrize("color", [None, (1.0, 1.0, 1.0), (0.0, 0.5, 1.0)])
def test_other_parsers_get_nerfstudios_own_images(tmp_path, color):
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 4), np.uint8)
    alpha_color = None if color is None else torch.tensor(color)
    parsed = other_parser(tmp_path, image, "a.png", alpha_color)
    for scale_factor in (1.0, 0.5):
        mine, stock = ShaciraDataset(parsed, scale_factor), InputDataset(parsed, scale_factor)
        for image_type in ("float32", "uint8"):
            expected = stock.get_data(0, image_type)["image"]
            found = mine.get_data(0, image_type)["image"]
            assert found.dtype == expected.dtype and torch.equal(found, expected)
    info = DatasetMetadata.of(ShaciraDataset(parsed).metadata)
    assert info.alpha_color == color
    assert info.is_bounded is (None if color is None else True)


def test_other_parsers_may_serve_exr(tmp_path):
    rgba = np.zeros((6, 8, 4))
    rgba[:3] = (0.5, 0.5, 0.5, 1.0)
    parsed = other_parser(tmp_path, rgba, "a.exr", torch.tensor([0.0, 0.5, 1.0]))
    image = ShaciraDataset(parsed)[0]["image"].numpy()
    np.testing.assert_allclose(image[:3], 0.735357, atol=1e-6)
    np.testing.assert_allclose(image[3:], np.broadcast_to([0.0, 0.5, 1.0], (3, 8, 3)), atol=1e-6)


def test_png_scenes_equal_exr_scenes(scene, tmp_path):
    for frame in rtmv.read_rtmv_scene(scene)[:3]:
        with OpenEXR.File(str(frame.image_path)) as exr:
            rgba = exr.channels()["RGBA"].pixels.copy()
        rgba[..., :3] = rtmv.linear_to_srgb(np.clip(rgba[..., :3], 0, 1))
        stem = frame.image_path.stem
        Image.fromarray(np.round(rgba * 255).astype(np.uint8)).save(tmp_path / f"{stem}.png")
        (tmp_path / f"{stem}.json").write_bytes((scene / f"{stem}.json").read_bytes())
    png, exr = ShaciraDataset(outputs(tmp_path)), ShaciraDataset(outputs(scene))
    assert len(png) == 2 and png.image_filenames[0].suffix == ".png"
    assert (png[1]["image"] - exr[1]["image"]).abs().max() <= 1 / 255
