"""Pictures and cameras that are not what they seem: put right, or refused all in one message."""

import copy
import json

import cv2
import numpy as np
import OpenEXR
import pytest
import torch
from PIL import Image, ImageOps
from tiny_data_sets import managers, parsed, write_images

from shacira_nerfstudio.plugin.config import shacira_method
from shacira_nerfstudio.plugin.data_manager import EightBitDataset, ShaciraDataManager
from shacira_nerfstudio.plugin.input_check import InputError, camera_faults, read_pictures, refuse
from shacira_nerfstudio.plugin.rtmv_dataparser import RtmvDataParserConfig, ShaciraDataset
from shacira_nerfstudio.scenes import rtmv
from shacira_nerfstudio.scenes.camera_faults import pose_fault, transforms_faults
from shacira_nerfstudio.scenes.demo_scene import write_demo_scene

WIDE, TALL = (6, 8), (8, 6)  # rows, columns


def oriented(path, pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def noise(size, channels=3):
    return np.random.default_rng(1).integers(0, 256, (*size, channels), np.uint8)


def faults_of(outputs):
    return read_pictures(outputs)[1]


def test_all_offenders_are_listed_with_what_was_expected_and_found(tmp_path, monkeypatch):
    paths = write_images(tmp_path, (3,) * 6, (WIDE, TALL, (3, 4), (12, 16), WIDE, WIDE))
    paths[4].unlink()
    paths[5].write_text("no picture")
    outputs = parsed(paths, sizes=(WIDE,) * 6)
    with pytest.raises(InputError) as error:
        managers(outputs, monkeypatch)
    message = str(error.value)
    assert message.startswith("expected a sound data set, found 5 faults:")
    assert f"{paths[1]}: expected 8x6 pixels, as its camera says, found 6x8: its sides" in message
    assert f"{paths[2]}: expected 8x6 pixels, as its camera says, found 4x3: resized by" in message
    assert f"{paths[3]}: expected 8x6 pixels, as its camera says, found 16x12" in message
    assert f"{paths[4]}: expected a file, found none" in message
    assert f"{paths[5]}: expected a picture, found one that cannot be read" in message
    assert str(paths[0]) not in message


def test_pictures_that_break_off_are_listed_once_they_are_read(tmp_path, monkeypatch):
    paths = write_images(tmp_path, (3,) * 3, ((60, 80),) * 3)
    for path in paths[:2]:
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError) as error:
        managers(parsed(paths, sizes=((60, 80),) * 3), monkeypatch)
    assert [str(path) in str(error.value) for path in paths] == [True, True, False]


def test_nan_in_an_exr_is_named_before_training(tmp_path):
    write_demo_scene(tmp_path, num_views=6, size=8)
    rgba = np.full((8, 8, 4), 0.5, np.float32)
    rgba[2, 3, 3] = np.nan
    for stem in ("00001", "00003"):
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"RGBA": rgba}).write(str(tmp_path / f"{stem}.exr"))
    config = RtmvDataParserConfig(data=tmp_path, normalization="box")
    dataset = EightBitDataset(config.setup().get_dataparser_outputs("train"))
    images = [dataset[index]["image"] for index in range(4)]
    assert len({image.shape for image in images}) == 1  # so that they can be joined
    assert len(dataset.faults) == 2
    for stem, fault in zip(("00001", "00003"), dataset.faults, strict=True):
        assert f"{stem}.exr, found 1 pixels" in fault and "row 2, column 3" in fault


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_follows_the_camera(tmp_path, orientation):
    pixels = noise(WIDE)
    path = oriented(tmp_path / "a.png", pixels, orientation)
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    stored = parsed([path], sizes=(WIDE,))
    if orientation in (1, 5, 6, 7, 8):  # only one reading has the camera's size
        assert not faults_of(stored)
        assert np.array_equal(ShaciraDataset(stored).get_numpy_image(0), pixels)
    else:
        assert "mogrify -auto-orient" in faults_of(stored)[0]
    if orientation >= 5:
        turned = parsed([path], sizes=(TALL,))
        assert not faults_of(turned)
        assert np.array_equal(ShaciraDataset(turned).get_numpy_image(0), upright)


def test_a_square_picture_with_a_rotation_is_ambiguous(tmp_path):
    path = oriented(tmp_path / "a.jpg", noise((8, 8)), 6)
    (fault,) = faults_of(parsed([path], sizes=((8, 8),)))
    assert "EXIF orientation 6" in fault and "COLMAP" in fault


def test_a_pixel_more_or_less_is_somebodys_rounding(tmp_path, monkeypatch):
    sizes = ((120, 151), (121, 150))
    paths = write_images(tmp_path, (3, 3), sizes)
    outputs = parsed(paths, sizes=((120, 150),) * 2)
    (ours,) = managers(outputs, monkeypatch, kinds=(ShaciraDataManager,))
    cameras = ours.train_dataset.cameras
    assert cameras.width[:, 0].tolist() == [151, 150]
    assert cameras.height[:, 0].tolist() == [120, 121]
    # 120x121 is not 121x120 rounded.
    (paths,) = [write_images(tmp_path, (3,), ((120, 121),))]
    assert "sides are swapped" in faults_of(parsed(paths, sizes=((121, 120),)))[0]


def _modes():
    rgb = Image.fromarray(noise(WIDE))
    rgba, grey = Image.fromarray(noise(WIDE, 4)), rgb.convert("L")
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    return {
        "grey.png": (grey, grey.convert("RGB")),
        "alpha_grey.png": (rgba.convert("LA"), rgba.convert("LA").convert("RGBA")),
        "palette.png": (palette, palette.convert("RGB")),
        "bits.png": (rgb.convert("1"), rgb.convert("1").convert("RGB")),
        "sixteen.png": (deep, grey.convert("RGB")),
        "cmyk.tif": (rgb.convert("CMYK"), rgb.convert("CMYK").convert("RGB")),
    }


@pytest.mark.parametrize("name", _modes())
def test_modes_show_what_the_file_means(tmp_path, name):
    image, expected = _modes()[name]
    image.save(tmp_path / name)
    outputs = parsed([tmp_path / name], sizes=(WIDE,))
    assert not faults_of(outputs)
    assert np.array_equal(ShaciraDataset(outputs).get_numpy_image(0), np.asarray(expected))


def test_a_cmyk_jpeg_and_colours_of_16_bits(tmp_path):
    flat = Image.new("RGB", (8, 6), (200, 40, 80))
    flat.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    deep = np.tile(np.array([80, 40, 200], np.uint16) * 257, (6, 8, 1))
    alpha = np.full((6, 8, 1), 128 * 257, np.uint16)
    cv2.imwrite(str(tmp_path / "b.png"), deep)
    cv2.imwrite(str(tmp_path / "c.png"), np.concatenate([deep, alpha], -1))
    paths = [tmp_path / name for name in ("a.jpg", "b.png", "c.png")]
    outputs = parsed(paths, sizes=(WIDE,) * 3)
    assert not faults_of(outputs)
    images = [ShaciraDataset(outputs).get_numpy_image(index) for index in range(3)]
    for image in images:
        assert np.abs(image[..., :3].astype(int) - (200, 40, 80)).max() <= 3
    assert [image.shape[-1] for image in images] == [3, 3, 4] and (images[2][..., 3] == 128).all()


def test_modes_without_a_meaning_are_refused(tmp_path):
    Image.fromarray(noise(WIDE, 1)[..., 0].astype(np.float32)).save(tmp_path / "a.tif")
    assert "Pillow's mode F" in faults_of(parsed([tmp_path / "a.tif"], sizes=(WIDE,)))[0]


def test_masks_are_looked_at(tmp_path):
    paths = write_images(tmp_path, (3, 3, 3))
    masks = [tmp_path / f"mask{index}.png" for index in range(3)]
    Image.new("L", (8, 6), 255).save(masks[0])
    Image.new("L", (4, 3), 255).save(masks[1])
    Image.new("RGB", (8, 6)).save(masks[2])
    faults = faults_of(parsed(paths, mask_filenames=masks))
    assert faults == [
        f"{masks[1]}: expected 8x6 pixels, as its picture, found 4x3",
        f"{masks[2]}: expected a mask of one channel, found mode RGB",
    ]


def test_a_mask_in_a_jpeg_has_noise(tmp_path):
    paths = write_images(tmp_path, (3,), ((16, 32),))
    mask = np.zeros((16, 32), np.uint8)
    mask[3:9, 5:20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.jpg", quality=60)
    with Image.open(tmp_path / "mask.jpg") as image:
        assert (np.asarray(image) > 0).sum() > (mask > 0).sum()
    outputs = parsed(paths, sizes=((16, 32),), mask_filenames=[tmp_path / "mask.jpg"])
    found = ShaciraDataset(outputs)[0]["mask"][..., 0].numpy()
    assert (found == (mask > 0)).mean() > 0.97


def test_images_with_and_without_alpha_are_joined(tmp_path, monkeypatch):
    paths = write_images(tmp_path, (4, 3, 4))
    outputs = parsed(paths)
    (ours,) = managers(outputs, monkeypatch, kinds=(ShaciraDataManager,))
    _, batch = ours.next_train(0)
    assert batch["image"].shape[-1] == 4


BAD_POSES = {
    "finite": np.diag([1, np.nan, 1, 1]),
    "lengths": np.diag([1.0, 1.0, 3.0, 1.0]),
    "mirrored": np.diag([1.0, 1.0, -1.0, 1.0]),
    "right angles": np.array([[1, 0.5, 0, 0], [0, 0.75**0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    "3x4 or 4x4": np.eye(3),
    "of numbers": [["a"] * 4] * 4,
}


@pytest.mark.parametrize("words", BAD_POSES)
def test_poses_that_are_none(words):
    assert words in pose_fault(BAD_POSES[words])


def test_sound_poses_pass():
    turn = np.array([[0.36, 0.48, -0.8, 1], [-0.8, 0.6, 0, 2], [0.48, 0.64, 0.6, 3]])
    assert pose_fault(turn) is None and pose_fault(turn.round(2)) is None
    assert pose_fault(turn * 2.5) is None  # rays are the same


def test_cameras_of_any_parser(tmp_path):
    outputs = parsed(write_images(tmp_path, (3, 3, 3)))
    assert not camera_faults(outputs)
    cameras = outputs.cameras
    cameras.fx, cameras.width = cameras.fx.clone(), cameras.width.clone()
    cameras.fx[0], cameras.width[1] = 0.0, 0
    cameras.camera_to_worlds[2, 0, 3] = torch.nan
    faults = camera_faults(outputs)
    assert [fault.split(":")[0] for fault in faults] == [str(p) for p in outputs.image_filenames]
    for fault, words in zip(faults, ("fx above 0", "width of at least 1", "finite"), strict=True):
        assert words in fault
    with pytest.raises(InputError, match="found 3 faults"):
        refuse(faults)


def write_transforms(folder, **more):
    content = {"fl_x": 9.0, "fl_y": 9.0, "cx": 4, "cy": 3, "w": 8, "h": 6, "camera_model": "OPENCV"}
    content["frames"] = [
        {"file_path": f"{i}.png", "transform_matrix": np.eye(4).tolist()} for i in range(3)
    ]
    content.update(more)
    (folder / "transforms.json").write_text(json.dumps(content))
    return content


def test_a_transforms_json_is_read_before_poses_are_centred(tmp_path):
    content = write_transforms(tmp_path)
    assert not transforms_faults(tmp_path)
    pose = np.eye(4)
    pose[1, 1] = np.nan
    content["frames"][1]["transform_matrix"] = pose.tolist()
    content["frames"][2]["fl_y"] = -1
    write_transforms(tmp_path, fl_x=0, h=0, k1=float("inf"), frames=content["frames"])
    faults = transforms_faults(tmp_path)
    assert len(faults) == 5
    for words in ("fl_x above 0, found 0", "h of at least 1", "k1 that is", "1.png", "fl_y above"):
        assert any(words in fault for fault in faults)
    assert not any("0.png" in fault for fault in faults)
    assert len(transforms_faults(tmp_path / "transforms.json")) == 5


def test_a_data_manager_names_the_camera_and_not_all_of_them(tmp_path):
    content = write_transforms(tmp_path)
    content["frames"][1]["transform_matrix"][0][3] = float("nan")
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    config = copy.deepcopy(shacira_method.config.pipeline.datamanager)
    config.data = tmp_path
    with pytest.raises(InputError, match=r"found 1 fault:\n.*1\.png: expected a pose of finite"):
        config.setup(device="cpu")


def test_a_capture_too_small_to_hold_views_out(tmp_path):
    content = write_transforms(tmp_path)
    for index in range(3):
        content["frames"][index]["transform_matrix"][0][3] = float(index)
        Image.fromarray(noise((6, 8))).save(tmp_path / f"{index}.png")
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    config = copy.deepcopy(shacira_method.config.pipeline.datamanager)
    config.data = tmp_path
    with pytest.raises(InputError, match="held out for evaluation, found none beside 3"):
        config.setup(device="cpu", test_mode="val")


def test_an_rtmv_scene_lists_all_cameras_that_are_none(tmp_path):
    write_demo_scene(tmp_path, num_views=3, size=4)
    for stem, key in (("00000", "fx"), ("00002", "fy")):
        data = json.loads((tmp_path / f"{stem}.json").read_text())
        data["camera_data"]["intrinsics"][key] = float("nan")
        (tmp_path / f"{stem}.json").write_text(json.dumps(data))
    with pytest.raises(
        ValueError, match=r"00000\.json: expected fx(.|\n)*00002\.json: expected fy"
    ):
        rtmv.read_rtmv_scene(tmp_path)
