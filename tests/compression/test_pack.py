"""Field to integers and back: nothing drifts, nothing visible is lost, and nonsense is refused."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from shacira_nerfstudio.backends import MarchSettings
from shacira_nerfstudio.backends.geometry import uncontract
from shacira_nerfstudio.codec import (
    CameraSet,
    PackedScene,
    QuantizedTensor,
    SceneFormatError,
    decode_scene,
    encode_scene,
)
from shacira_nerfstudio.codec.latents.features import reached_entries
from shacira_nerfstudio.compression.pack import (
    pack_scene,
    repack_scene,
    stored_cameras,
    unpack_scene,
)
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.occupancy import OccupancyGrid
from shacira_nerfstudio.model.quantize import get_quantizer
from shacira_nerfstudio.model.radiance_field import FieldShape, fake_quantize
from shacira_nerfstudio.model.scene import Background, RadianceScene, SceneSettings
from shacira_nerfstudio.model.volrend import render_rays

MARCH = MarchSettings(
    "contracted", ((-1.1, -0.7, -1.0), (0.9, 1.3, 1.0)), near=0.05, far=37.7, step_size=0.1, knee=2
)
SETTINGS = SceneSettings(MARCH, MARCH, Background("color", (0.1, 0.2, 0.3)), early_stop=1e-4)
SHAPES = {
    "usual": FieldShape(hidden_dim=8, geo_feat_dim=3, num_color_layers=2, sh_degree=2),
    "other": FieldShape(hidden_dim=5, geo_feat_dim=1, num_color_layers=1, sh_degree=4),
}


def some_cells():
    """A corner of space, so that many entries of fine levels are out of reach."""
    cells = torch.zeros(8, 8, 8, dtype=torch.bool)
    cells[1:3, 2:5, 4] = torch.rand(2, 3) < 0.7
    cells[2, 3, 4] = True
    return cells


def around(field, cells, *, code=None):
    """A scene of a field and the cells that are occupied, with one appearance code."""
    occupancy = OccupancyGrid(len(cells))
    occupancy.occupied = cells
    scene = RadianceScene(field, occupancy, SETTINGS, num_images=0 if code is None else 1)
    if code is not None:
        scene.appearance.data.copy_(code)
    return scene.eval()


def repacked(scene, backend):
    return pack_scene(unpack_scene(scene, backend), cameras=scene.cameras, meta=scene.meta)


@pytest.fixture
def scene(make_field):
    return pack_scene(around(make_field(), some_cells()))


# ── round trips ──


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("latent_dim", [1, 2])
def test_pack_of_unpack_is_the_scene(make_field, reference, shape, latent_dim):
    cameras = CameraSet(
        camera_to_worlds=np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32),
        intrinsics=np.full((2, 4), 50, np.float32),
        sizes=np.full((2, 2), 100, np.uint32),
    )
    field = make_field(shape=SHAPES[shape], latent_dim=latent_dim)
    meta = {"tool": "tests", "steps": 3}
    scene = pack_scene(around(field, some_cells()), cameras=cameras, meta=meta)
    assert scene.latent_dim == latent_dim
    assert scene.meta == {"tool": "tests", "steps": 3}
    once = repacked(scene, reference)
    assert once == scene
    assert repacked(once, reference) == scene


def test_the_file_gives_the_same_scene(scene, reference):
    decoded = decode_scene(encode_scene(scene))
    assert decoded == scene
    assert repacked(decoded, reference) == scene


def test_packing_leaves_the_field_alone(make_field):
    field = make_field()
    before = {name: value.clone() for name, value in field.state_dict().items()}
    scene = around(field, torch.ones(4, 4, 4) > 0)
    first, second = (pack_scene(scene) for _ in range(2))
    assert first == second
    assert all(torch.equal(value, before[name]) for name, value in field.state_dict().items())


def test_settings_of_the_renderer_come_back_in_single_precision(scene, reference):
    settings = unpack_scene(scene, reference).settings
    march = settings.render_march
    assert settings.train_march == march
    assert march.contraction == "contracted"
    assert march.far == float(np.float32(37.7))
    assert march.knee == 2
    assert march.box[0] == tuple(float(np.float32(v)) for v in (-1.1, -0.7, -1.0))
    color = tuple(float(np.float32(v)) for v in (0.1, 0.2, 0.3))
    assert settings.background == Background("color", color)
    assert settings.early_stop == float(np.float32(1e-4))


# ── what is in the scene ──


def test_symbols_are_rounded_latents_where_something_looks(make_field):
    field, cells = make_field(), some_cells()
    scene = pack_scene(around(field, cells))
    rounded, grid = field.encoding.rounded().numpy(), field.encoding.grid
    blanked = 0
    for level, (begin, end) in enumerate(zip(grid.offsets[:-1], grid.offsets[1:], strict=True)):
        reached = reached_entries(grid, level, cells.numpy())
        assert np.array_equal(scene.symbols[begin:end][reached], rounded[begin:end][reached])
        assert not scene.symbols[begin:end][~reached].any()
        blanked += int((~reached).sum())
    assert blanked > grid.num_entries / 4
    assert np.array_equal(scene.occupancy, cells.numpy())


def test_weights_are_what_the_loop_quantised(make_field):
    field = make_field(weight_bits=5, first_layer_bits=9)
    scene = pack_scene(around(field, some_cells()))
    weights = field.network_weights().named()
    assert set(scene.weights) == set(weights)
    for name, weight in weights.items():
        packed, bits = scene.weights[name], 9 if name.startswith("density_mlp.0") else 5
        assert int(np.abs(packed.values).max()) == 2 ** (bits - 1) - 1
        assert len(packed.steps) == (len(weight) if weight.ndim > 1 else 1)
        expected = fake_quantize(weight, bits).detach().numpy()
        # The loop adds the difference to the float weight, which rounds once more.
        np.testing.assert_allclose(packed.dequantize(), expected, rtol=0, atol=1e-6)


def test_an_unpacked_scene_renders_as_the_field(make_field, backend, device):
    field, cells = make_field(backend), some_cells()
    with torch.no_grad():
        field.density_mlp[1].bias[0] += 2
    field.to(device)
    unpacked = unpack_scene(pack_scene(around(field, cells)), backend, device=device)
    field.quantize_weights = True
    origins = torch.randn(200, 3, device=device) * 2
    # Cells 1:3, 2:5, 4 of the contracted cube, in the world.
    targets = uncontract(
        (torch.rand(200, 3) * torch.tensor([2, 3, 1]) + torch.tensor([1, 2, 4])) / 8, MARCH
    )
    rays = origins, F.normalize(targets.to(device) - origins, dim=-1)
    found = unpacked.render_rays(*rays, min_weight=0.0)
    expected = render_rays(field, cells.to(device), unpacked.settings.render_march, *rays)
    assert found.num_samples == expected.num_samples > 100
    assert float(expected.accumulation.max()) > 0.1
    # Weights differ in the last bit of single precision.
    torch.testing.assert_close(found.color, expected.color, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.accumulation, expected.accumulation, rtol=1e-4, atol=1e-5)


def test_baked_appearance_is_exact(make_field):
    sizes = {"hidden_dim": 8, "geo_feat_dim": 3, "num_color_layers": 2, "sh_degree": 2}
    field = make_field(shape=FieldShape(**sizes, appearance_dim=4))
    plain = make_field(shape=FieldShape(**sizes))
    code = torch.randn(4)
    # The same field with the code's part of the first colour layer moved into its bias.
    state = {k: v for k, v in field.state_dict().items() if k != "color_mlp.0.weight"}
    weight = field.color_mlp[0].weight.detach()
    # Columns: 4 harmonics, 4 of the code, 3 of geometry.
    state["color_mlp.0.weight"] = torch.cat([weight[:, :4], weight[:, 8:]], 1)
    state["color_mlp.0.bias"] = field.color_mlp[0].bias.detach() + weight[:, 4:8] @ code
    plain.load_state_dict(state)
    x, directions = torch.rand(50, 3), F.normalize(torch.randn(50, 3), dim=-1)
    _, geo = field.density(x)
    with_code = field.color(field.ray_features(directions, code.expand(50, -1)), geo)
    torch.testing.assert_close(plain.color(plain.ray_features(directions), geo), with_code)

    cells = some_cells()
    scene = pack_scene(around(field, cells, code=code))
    assert scene == pack_scene(around(plain, cells))
    assert scene != pack_scene(around(field, cells))


def test_other_cells_than_the_scene_s_own(make_field, reference):
    scene, cells = around(make_field(), torch.ones(8, 8, 8) > 0), some_cells()
    assert pack_scene(scene, occupied=cells) == pack_scene(around(scene.field, cells))
    assert scene.occupancy.occupied.all()


def test_a_file_gets_other_cameras_and_more_metadata(scene):
    first = dataclasses.replace(scene, meta={"tool": "tests", "step": 3})
    found = repack_scene(first, cameras=None, meta={"step": 4, "author": "me"})
    assert found.meta == {"tool": "tests", "step": 4, "author": "me"}
    assert dataclasses.replace(found, meta=first.meta) == first
    assert repack_scene(first, cameras=first.cameras) == first


def test_stored_cameras_have_their_optics():
    cameras = CameraSet(
        camera_to_worlds=np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32),
        intrinsics=np.array([[50, 51, 8, 6], [40, 41, 7, 5]], np.float32),
        sizes=np.array([[16, 12], [14, 10]], np.uint32),
    )
    second = stored_cameras(cameras)[1]
    assert np.array_equal(second.camera_to_world, cameras.camera_to_worlds[1])
    found = (second.fx, second.fy, second.cx, second.cy, second.width, second.height)
    assert found == (40, 41, 7, 5, 14, 10)
    assert stored_cameras(None) == []


# ── refusals ──


def test_a_field_without_quantiser_is_refused(make_field):
    field = make_field()
    field.encoding.set_quantizer(get_quantizer("none"))
    with pytest.raises(ValueError, match="quantised latents"):
        pack_scene(around(field, some_cells()))


def test_latents_that_are_too_large_are_refused(make_field):
    field = make_field()
    scene = around(field, torch.ones(4, 4, 4) > 0)
    with torch.no_grad():
        field.encoding.latents[0, 0] = -4095.4
    pack_scene(scene)
    with torch.no_grad():
        field.encoding.latents[0, 0] = -4095.6
    with pytest.raises(ValueError, match="4095 in magnitude, got 4096"):
        pack_scene(scene)


def test_a_decoded_field_cannot_be_trained(scene, reference):
    unpacked = unpack_scene(scene, reference)
    assert not unpacked.field.training
    assert not unpacked.is_trainable
    with pytest.raises(RuntimeError, match="cannot be trained"):
        unpacked.field.train().density(torch.rand(2, 3))
    with pytest.raises(RuntimeError, match="cannot be updated"):
        unpacked.update_occupancy(everywhere=True)


def without(weights, name):
    return {key: value for key, value in weights.items() if key != name}


def tensor(*shape):
    return QuantizedTensor(np.ones(shape, np.int16), np.ones(1, np.float32))


@pytest.mark.parametrize(
    "change",
    [
        lambda w: without(w, "color_mlp.1.bias"),
        lambda w: {**w, "color_mlp.3.bias": tensor(3)},
        lambda w: {**w, "density_mlp.0.weight": tensor(8, 11)},
        lambda w: {**w, "density_mlp.1.bias": tensor(5)},
        lambda w: {**w, "density_mlp.1.bias": tensor(4, 1)},
        lambda w: {**w, "color_mlp.0.weight": tensor(7, 8)},
        lambda w: {},
    ],
    ids=["missing", "extra", "inputs", "outputs", "dimensions", "transposed", "none"],
)
def test_wrong_weights_are_refused(scene, reference, change):
    with pytest.raises(SceneFormatError, match="WGTS"):
        unpack_scene(dataclasses.replace(scene, weights=change(dict(scene.weights))), reference)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_dim": 9},
        {"hidden_dim": 0},
        {"hidden_dim": 1 << 40},
        {"geo_feat_dim": -1},
        {"num_color_layers": 17},
        {"sh_degree": 5},
        {"sh_degree": "two"},
    ],
    ids=str,
)
def test_wrong_architectures_are_refused(scene, reference, change):
    wrong = dataclasses.replace(scene, architecture={**scene.architecture, **change})
    with pytest.raises(SceneFormatError, match=r"HEAD|WGTS"):
        unpack_scene(wrong, reference)


def test_incomplete_scenes_are_refused(scene, reference):
    for part in ("rendering", "occupancy"):
        with pytest.raises(SceneFormatError, match="RNDR and OCCU"):
            unpack_scene(dataclasses.replace(scene, **{part: None}), reference)
    flat = dataclasses.replace(scene, occupancy=scene.occupancy[:4])
    with pytest.raises(SceneFormatError, match="OCCU"):
        unpack_scene(flat, reference)
    lacking = dataclasses.replace(scene, architecture=without(scene.architecture, "sh_degree"))
    with pytest.raises(SceneFormatError, match=r"sh_degree .* found None"):
        unpack_scene(lacking, reference)
    image = PackedScene(
        kind="image",
        architecture={},
        grid=GridSpec(2, ((4, 4),), (16,)),
        symbols=np.zeros((16, 1), np.int16),
        occupancy=None,
        weights={},
    )
    with pytest.raises(SceneFormatError, match="found kind 'image'"):
        unpack_scene(image, reference)
