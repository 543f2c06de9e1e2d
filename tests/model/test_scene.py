"""A scene: from a file to pixels, the same pictures as by its parts, and nonsense refused."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from shacira_nerfstudio.backends import MarchSettings
from shacira_nerfstudio.backends.networks import density_of
from shacira_nerfstudio.codec import CameraSet, encode_scene, load_scene, save_scene
from shacira_nerfstudio.compression.pack import pack_scene, stored_cameras, unpack_scene
from shacira_nerfstudio.model.occupancy import OccupancyGrid, step_growth
from shacira_nerfstudio.model.quantize import get_quantizer
from shacira_nerfstudio.model.radiance_field import FieldShape
from shacira_nerfstudio.model.scene import (
    Background,
    PinholeCamera,
    RadianceScene,
    SceneSettings,
)
from shacira_nerfstudio.model.volrend import (
    MIN_WEIGHT,
    blend_background,
    render_rays,
    render_train,
)

BOX = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
TRAIN = MarchSettings("affine", BOX, near=0.0, far=10.0, step_size=0.05)
FINER = dataclasses.replace(TRAIN, step_size=0.02)
SETTINGS = SceneSettings(TRAIN, FINER, Background.named("white"), 1e-3, max_samples_per_ray=7)
POSE = np.array([[1, 0, 0, 0.1], [0, 1, 0, 0.2], [0, 0, 1, 3]], np.float32)
CAMERA = PinholeCamera(POSE, 8.0, 8.5, 8.0, 6.0, 16, 12)


def make_scene(field, settings=SETTINGS, num_images=3):
    scene = RadianceScene(field, OccupancyGrid(8), settings, num_images=num_images)
    scene.occupancy.occupied[:, :, :2] = False
    with torch.no_grad():
        field.density_mlp[1].bias[0] += 2
        scene.appearance.normal_()
    return scene.eval()


@pytest.fixture
def scene(make_field, backend, device):
    shape = FieldShape(hidden_dim=8, geo_feat_dim=3, sh_degree=2, appearance_dim=2)
    return make_scene(make_field(backend, shape=shape)).to(device)


@pytest.fixture
def rays(device):
    return [part.to(device) for part in CAMERA.rays()]


# ── pictures ──


def test_a_file_becomes_a_picture_in_three_calls(make_field, backend, device, tmp_path):
    trained = make_scene(make_field(backend))
    cameras = CameraSet(
        POSE[None], np.array([[8, 8.5, 8, 6]], np.float32), np.array([[16, 12]], np.uint32)
    )
    packed = pack_scene(trained, cameras=cameras)
    save_scene(tmp_path / "scene.shacira", encode_scene(packed))

    packed = load_scene(tmp_path / "scene.shacira")
    scene = unpack_scene(packed, backend, device=device)
    picture = scene.render_view(stored_cameras(packed.cameras)[0])

    assert picture.shape == (12, 16, 3)
    assert picture.min() >= 0 and picture.max() <= 1 and picture.std() > 0.01
    assert (picture[0, 0] == 1).all()  # a corner sees past the box
    expected = trained.to(device).render_view(CAMERA)
    # Weights have 8 bits, those of the first layer 12.
    assert (picture - expected).abs().mean() < 0.02


@pytest.mark.parametrize("min_weight", [0.0, MIN_WEIGHT])
def test_looking_is_that_of_the_field_with_the_mean_code(scene, rays, min_weight):
    found = scene.render_rays(*rays, min_weight=min_weight)
    expected = render_rays(
        scene.field,
        scene.occupancy.occupied,
        FINER,
        *rays,
        early_stop=1e-3,
        min_weight=min_weight,
        appearance=scene.appearance.mean(0),
    )
    assert found.num_samples == expected.num_samples > 1000
    for name in ("color", "accumulation", "depth", "last_color"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    blended = blend_background(expected, torch.ones(3, device=scene.device)).clamp(0, 1)
    assert torch.equal(scene.render_colors(*rays, min_weight=min_weight), blended)


@pytest.mark.parametrize("chunk", [50, 1 << 15])
def test_a_view_is_its_rays(scene, rays, chunk):
    view = scene.render_view(CAMERA, chunk=chunk)
    torch.testing.assert_close(view.view(-1, 3), scene.render_colors(*rays).cpu())


def test_training_is_that_of_the_field_with_each_image_s_code(scene, rays):
    scene.train()
    scene.encoding.set_quantizer(get_quantizer("straight_through"))
    images = torch.arange(len(rays[0]), device=scene.device)[:, None] % 3
    torch.manual_seed(1)
    found, truncated = scene.train_rays(*rays, image_indices=images)
    torch.manual_seed(1)
    expected, cut = render_train(
        scene.field,
        scene.occupancy.occupied,
        TRAIN,
        *rays,
        early_stop=1e-3,
        max_samples=7,
        appearance=scene.appearance[images[:, 0]],
    )
    assert torch.equal(found.color, expected.color)
    assert torch.equal(truncated, cut) and cut.any() and not cut.all()
    found.color.sum().backward()
    assert scene.appearance.grad.any(1).all()
    with pytest.raises(ValueError, match="image_indices"):
        scene.train_rays(*rays)


def test_rays_tell_the_occupancy_what_they_see_only_if_asked(make_field, backend, device, rays):
    scene = make_scene(make_field(backend), num_images=0).to(device).train()
    scene.train_rays(*rays)
    assert not scene.occupancy.weight.any()
    scene.train_rays(*rays, observe_weights=True)
    assert scene.occupancy.weight.max() > 0.01


def test_opacity_is_that_of_one_step_of_training(make_field, backend, device):
    march = MarchSettings("contracted", BOX, near=0.0, far=10.0, step_size=0.05, knee=2)
    settings = SceneSettings(march, march, Background.named("black"))
    scene = make_scene(make_field(backend), settings).to(device).train()
    scene.encoding.set_quantizer(get_quantizer("noise"))
    x = torch.rand(50, 3, device=device)
    latents = scene.encoding.backend.interpolate(x, scene.encoding.latents, scene.encoding.grid)
    weights = scene.field.network_weights()
    sigma = density_of(scene.encoding.backend.density_outputs(latents, weights))
    expected = 1 - torch.exp(-sigma * 0.05 * step_growth(x, march))
    torch.testing.assert_close(scene.step_opacity(x), expected, rtol=1e-4, atol=1e-5)
    before = scene.occupancy.opacity.clone()
    scene.update_occupancy(everywhere=True)
    assert (scene.occupancy.opacity != before).all()


# ── what it consists of ──


def test_mean_appearance(make_field):
    shape = FieldShape(hidden_dim=8, geo_feat_dim=3, sh_degree=2, appearance_dim=2)
    scene = make_scene(make_field(shape=shape), num_images=2)
    scene.appearance.data.copy_(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    assert scene.mean_appearance().tolist() == [2, 4]
    assert make_scene(make_field()).mean_appearance() is None


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"rate_model": "learned"}, ["latents", "latent_decoder", "entropy_model", "fields"]),
        ({"rate_model": "code_lengths"}, ["latents", "latent_decoder", "fields"]),
        ({"quantizer": "binary"}, ["latents", "latent_decoder", "entropy_model", "fields"]),
        ({"quantizer": "none"}, ["latents", "latent_decoder", "fields"]),
        ({"identity_decoder": True, "latent_dim": 4}, ["latents", "entropy_model", "fields"]),
    ],
    ids=str,
)
def test_groups_of_parameters(make_field, options, kinds):
    scene = make_scene(make_field(**options))
    groups = scene.parameter_groups()
    assert list(groups) == kinds
    parameters = [p for group in groups.values() for p in group]
    assert len({id(p) for p in parameters}) == len(parameters)
    assert all(p.requires_grad for p in parameters)


def test_codes_train_with_the_fields(scene):
    assert any(p is scene.appearance for p in scene.parameter_groups()["fields"])


def test_a_checkpoint_of_a_scene_comes_back(make_field):
    scene = make_scene(make_field(), num_images=0)
    other = RadianceScene(make_field(), OccupancyGrid(8), SETTINGS)
    other.load_state_dict(scene.state_dict())
    assert torch.equal(other.eval().render_view(CAMERA), scene.render_view(CAMERA))


# ── backgrounds and settings ──


def test_backgrounds_by_name_and_by_colour():
    assert Background.named("white").fill.tolist() == [1, 1, 1]
    assert Background.named("black").fill.tolist() == [0, 0, 0]
    assert Background.named("last_sample").fill == "last_sample"
    assert Background.of_color((1.0, 1.0, 1.0)) == Background.named("white")
    assert Background.of_color((0.0, 0.0, 0.0)) == Background.named("black")
    assert Background.of_color((0.5, 0.25, 1.0)) == Background("color", (0.5, 0.25, 1.0))
    # What a file says beside a name has no effect.
    assert Background("white", (0.5, 0.5, 0.5)).fill.tolist() == [1, 1, 1]


def test_what_lies_behind_rays(scene, rays):
    rendered = scene.render_rays(*rays)
    found = Background("color", (0.2, 0.4, 0.6)).behind(rendered)
    color = torch.tensor([0.2, 0.4, 0.6], device=scene.device)
    assert torch.equal(found, blend_background(rendered, color))
    found = Background.named("last_sample").behind(rendered)
    assert torch.equal(found, blend_background(rendered, "last_sample"))


@pytest.mark.parametrize(
    "options",
    [("grey",), ("random",), ("color", (0.0, 0.0)), ("color", (0.0, 1.5, 0.0))],
    ids=str,
)
def test_impossible_backgrounds_are_refused(options):
    with pytest.raises(ValueError, match="expected a background"):
        Background(*options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"early_stop": -0.1}, "early_stop"),
        ({"early_stop": 1.0}, "early_stop"),
        ({"max_samples_per_ray": -1}, "max_samples_per_ray"),
        ({"render_march": dataclasses.replace(TRAIN, far=5.0)}, "step_size only"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **changes)


# ── cameras ──


def test_rays_of_a_camera():
    turn = torch.linalg.qr(torch.randn(3, 3)).Q
    pose = torch.cat([turn, torch.tensor([[1.0], [2.0], [3.0]])], 1).numpy()
    origins, directions = PinholeCamera(pose, 4.0, 5.0, 1.5, 0.5, 3, 2).rays()
    assert (origins == torch.tensor([1.0, 2, 3])).all()
    # Row after row, centres at half integers; y is up, and the camera looks along -z.
    local = [[(u + 0.5 - 1.5) / 4, (0.5 - v - 0.5) / 5, -1] for v in range(2) for u in range(3)]
    expected = F.normalize(torch.tensor(local) @ turn.T, dim=-1)
    torch.testing.assert_close(directions, expected)


def test_another_size_is_the_same_view():
    twice = CAMERA.resized(width=32)
    assert (twice.width, twice.height) == (32, 24)
    assert (twice.fx, twice.fy, twice.cx, twice.cy) == (16, 17, 16, 12)
    assert (CAMERA.resized(height=24).width, CAMERA.resized(width=1).height) == (32, 1)
    stretched = CAMERA.resized(width=16, height=24)
    assert (stretched.fx, stretched.fy) == (8, 17)
    assert CAMERA.resized() is CAMERA


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "at least 1 pixel"),
        ({"height": -3}, "at least 1 pixel"),
        ({"fx": 0.0}, "fx, fy > 0"),
        ({"cy": math.nan}, "finite optics"),
        ({"camera_to_world": np.eye(4)}, "camera_to_world"),
        ({"camera_to_world": np.full((3, 4), np.inf)}, "camera_to_world"),
    ],
    ids=str,
)
def test_impossible_cameras_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CAMERA, **changes)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        CAMERA.resized(width=0)
