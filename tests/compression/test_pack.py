"""Field to integers and back: nothing drifts, nothing visible is lost, and nonsense is refused."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from shacira_nerfstudio.backends import MarchSettings
from shacira_nerfstudio.backends.reference import uncontract
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
    mean_appearance,
    pack_field,
    render_settings,
    unpack_scene,
)
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.radiance_field import FieldShape, fake_quantize
from shacira_nerfstudio.model.volrend import render_rays

MARCH = MarchSettings(
    "contracted", ((-1.1, -0.7, -1.0), (0.9, 1.3, 1.0)), near=0.05, far=37.7, step_size=0.1, knee=2
)
RENDERING = render_settings(
    MARCH, background="color", background_color=(0.1, 0.2, 0.3), early_stop=1e-4
)
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


def repacked(scene, backend):
    unpacked = unpack_scene(scene, backend)
    return pack_field(
        unpacked.field, unpacked.occupied, scene.rendering, cameras=scene.cameras, meta=scene.meta
    )


@pytest.fixture
def scene(make_field):
    return pack_field(make_field(), some_cells(), RENDERING)


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
    scene = pack_field(
        field, some_cells(), RENDERING, cameras=cameras, meta={"tool": "tests", "steps": 3}
    )
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
    first, second = (pack_field(field, torch.ones(4, 4, 4) > 0, RENDERING) for _ in range(2))
    assert first == second
    assert all(torch.equal(value, before[name]) for name, value in field.state_dict().items())


def test_settings_of_the_renderer_come_back_in_single_precision(scene, reference):
    unpacked = unpack_scene(scene, reference)
    assert unpacked.march.contraction == "contracted"
    assert unpacked.march.far == float(np.float32(37.7))
    assert unpacked.march.knee == 2
    assert unpacked.march.box[0] == tuple(float(np.float32(v)) for v in (-1.1, -0.7, -1.0))
    assert unpacked.background == "color"
    assert unpacked.background_color == tuple(float(np.float32(v)) for v in (0.1, 0.2, 0.3))
    assert unpacked.early_stop == float(np.float32(1e-4))
    assert unpacked.scene is scene


# ── what is in the scene ──


def test_symbols_are_rounded_latents_where_something_looks(make_field):
    field, cells = make_field(), some_cells()
    scene = pack_field(field, cells, RENDERING)
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
    scene = pack_field(field, some_cells(), RENDERING)
    assert set(scene.weights) == set(field.layers())
    for name, weight in field.layers().items():
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
    unpacked = unpack_scene(pack_field(field, cells, RENDERING), backend, device=device)
    field.quantize_weights = True
    origins = torch.randn(200, 3, device=device) * 2
    # Cells 1:3, 2:5, 4 of the contracted cube, in the world.
    targets = uncontract(
        (torch.rand(200, 3) * torch.tensor([2, 3, 1]) + torch.tensor([1, 2, 4])) / 8, MARCH
    )
    rays = origins, F.normalize(targets.to(device) - origins, dim=-1)
    found = render_rays(unpacked.field, unpacked.occupied, unpacked.march, *rays)
    expected = render_rays(field, cells.to(device), unpacked.march, *rays)
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

    scene = pack_field(field, some_cells(), RENDERING, appearance=code)
    assert scene == pack_field(plain, some_cells_like(scene), RENDERING)
    assert scene != pack_field(field, some_cells_like(scene), RENDERING)


def some_cells_like(scene):
    return torch.from_numpy(scene.occupancy)


def test_mean_appearance():
    codes = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert mean_appearance(codes).tolist() == [2, 4]
    assert mean_appearance(torch.zeros(5, 0)) is None


# ── refusals ──


def test_a_field_without_quantiser_is_refused(make_field):
    field = make_field()
    field.encoding.set_quantizer("none", 1.0)
    with pytest.raises(ValueError, match="quantised latents"):
        pack_field(field, some_cells(), RENDERING)


def test_latents_that_are_too_large_are_refused(make_field):
    field = make_field()
    with torch.no_grad():
        field.encoding.latents[0, 0] = -4095.4
    pack_field(field, torch.ones(4, 4, 4) > 0, RENDERING)
    with torch.no_grad():
        field.encoding.latents[0, 0] = -4095.6
    with pytest.raises(ValueError, match="4095 in magnitude, got 4096"):
        pack_field(field, torch.ones(4, 4, 4) > 0, RENDERING)


def test_a_decoded_field_cannot_be_trained(scene, reference):
    field = unpack_scene(scene, reference).field
    assert not field.training
    with pytest.raises(RuntimeError, match="cannot be trained"):
        field.train().density(torch.rand(2, 3))


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
    lacking = dataclasses.replace(scene, architecture=without(scene.architecture, "sh_degree"))
    with pytest.raises(SceneFormatError, match=r"sh_degree .* found None"):
        unpack_scene(lacking, reference)
    image = PackedScene(
        kind="image",
        architecture={},
        grid=GridSpec(2, (4,), (16,)),
        symbols=np.zeros((16, 1), np.int16),
        occupancy=None,
        weights={},
    )
    with pytest.raises(SceneFormatError, match="found kind 'image'"):
        unpack_scene(image, reference)
