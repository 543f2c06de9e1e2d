"""The one bridge between model and codec: a float scene to integers, and integers to a scene that
renders.

The latent decoder never enters a file: it is folded into the first layer of the density network,
exactly. Weights become integers with one step per row, latents integers, occupancy bits; what is
left of floats are those steps and the settings of the renderer.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from shacira_nerfstudio.backends import Backend, MarchSettings, NetworkWeights
from shacira_nerfstudio.codec import (
    CameraSet,
    PackedScene,
    QuantizedTensor,
    RenderSettings,
    SceneFormatError,
)
from shacira_nerfstudio.codec.latents.features import reached_entries
from shacira_nerfstudio.codec.latents.level_kinds import saturated_levels
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.occupancy import OccupancyGrid
from shacira_nerfstudio.model.radiance_field import FieldShape, RadianceField, weight_steps
from shacira_nerfstudio.model.scene import (
    Background,
    PinholeCamera,
    RadianceScene,
    SceneSettings,
)

MAX_SYMBOL = 4095
"""Largest magnitude of a latent in a file."""
_SIZES = ("hidden_dim", "geo_feat_dim", "num_color_layers", "sh_degree")


def render_settings(settings: SceneSettings) -> RenderSettings:
    """What the file says about rendering; all numbers become single precision."""
    march, background = settings.render_march, settings.background
    return RenderSettings(
        contraction=march.contraction,
        box=np.array(march.box, np.float32),
        near=march.near,
        far=march.far,
        step_size=march.step_size,
        knee=march.knee,
        background=background.kind,
        background_color=background.color,
        early_stop=settings.early_stop,
    )


def scene_settings(rendering: RenderSettings) -> SceneSettings:
    """The reverse: a file knows one march."""
    low, high = (tuple(float(v) for v in corner) for corner in rendering.box)
    march = MarchSettings(
        rendering.contraction,  # pyright: ignore[reportArgumentType]
        (low, high),  # pyright: ignore[reportArgumentType]
        near=rendering.near,
        far=rendering.far,
        step_size=rendering.step_size,
        knee=rendering.knee,
    )
    background = Background(
        rendering.background,  # pyright: ignore[reportArgumentType]
        rendering.background_color,
    )
    return SceneSettings(march, march, background, rendering.early_stop)


def stored_cameras(cameras: CameraSet | None) -> list[PinholeCamera]:
    """Cameras that a file holds; none if there are none."""
    if cameras is None:
        return []
    poses, sizes = cameras.camera_to_worlds, cameras.sizes.tolist()
    return [
        PinholeCamera(pose, *optics, width=width, height=height)
        for pose, optics, (width, height) in zip(
            poses, cameras.intrinsics.tolist(), sizes, strict=True
        )
    ]


def quantize_weight(weight: Tensor, bits: int, *, per_row: bool = True) -> QuantizedTensor:
    """Integers of so many bits and their steps: of each row, or one for all of them."""
    rows = weight.detach().float().cpu()
    rows = rows if rows.ndim > 1 else rows[None]
    steps = weight_steps(rows, bits)
    steps = steps if per_row else steps.amax(0, keepdim=True)
    values = (rows / steps[:, None]).round().to(torch.int16)
    return QuantizedTensor(values=values.view(weight.shape).numpy(), steps=steps.numpy())


@torch.no_grad()
def float_weights(scene: RadianceScene) -> dict[str, Tensor]:
    """Weights by name as a file holds them, the mean appearance code baked in, before they become
    integers."""
    field, code = scene.field, scene.mean_appearance()
    weights = field.network_weights().map(lambda _, tensor: tensor.detach())
    if field.shape.appearance_dim:
        # A constant code only shifts the bias of the layer that reads it.
        weight, bias = weights.color[0]
        first, last = field.shape.sh_degree**2, -field.shape.geo_feat_dim
        if code is not None:
            bias = bias + weight[:, first:last] @ code.to(weight)
        layer = torch.cat([weight[:, :first], weight[:, last:]], 1), bias
        weights = NetworkWeights(weights.density, (layer, *weights.color[1:]))
    return weights.named()


def pack_weights(scene: RadianceScene) -> dict[str, QuantizedTensor]:
    """Weights as a file holds them."""
    if scene.field.weight_integers is not None:
        return {
            name: QuantizedTensor(values.numpy(), steps.numpy())
            for name, (values, steps) in scene.field.weight_integers.items()
        }
    bits_of = scene.field.bits_of
    return {name: quantize_weight(w, bits_of(name)) for name, w in float_weights(scene).items()}


def _pack_symbols(field: RadianceField, occupied: np.ndarray) -> np.ndarray:
    """Integers [E, d], 0 wherever no occupied cell looks."""
    encoding = field.encoding
    symbols = encoding.rounded().detach().cpu().numpy().astype(np.int16)
    largest = max(int(symbols.max(initial=0)), -int(symbols.min(initial=0)))
    if largest > MAX_SYMBOL:
        raise ValueError(f"expected latents of at most {MAX_SYMBOL} in magnitude, got {largest}")
    return without_unreached(encoding.grid, symbols, occupied)


def _no_symbols(field: RadianceField) -> np.ndarray:
    shape = field.encoding.grid.num_entries, field.encoding.latent_decoder.latent_dim
    return np.zeros(shape, np.int16)


def without_unreached(
    grid: GridSpec, symbols: np.ndarray, occupied: np.ndarray | None
) -> np.ndarray:
    """Symbols [E, d] with 0 in entries that no occupied cell reaches, as a file has them."""
    symbols = symbols.copy()
    saturated = None if occupied is None else saturated_levels(grid, occupied)
    for level, (begin, end) in enumerate(itertools.pairwise(grid.offsets)):
        reached = reached_entries(grid, level, occupied, saturated=saturated)
        symbols[begin:end][~reached] = 0
    return symbols


def pack_scene(
    scene: RadianceScene,
    *,
    occupied: Tensor | None = None,
    cameras: CameraSet | None = None,
    meta: Mapping[str, str | int] | None = None,
    num_levels_present: int | None = None,
    with_latents: bool = True,
) -> PackedScene:
    """Float scene to integers.

    Args:
        occupied: bool [G, G, G]; by default the scene's own.
        with_latents: False leaves all symbols 0: for who asks what the rest of the file takes.
        num_levels_present: Of a scene from a shortened file: how many levels it has.

    Raises:
        ValueError: the field's latents are not quantised, or too large.
    """
    field = scene.field
    if not field.encoding.is_quantized:
        raise ValueError(
            "expected a field with quantised latents, got one trained with quantizer none: "
            "rounding it now would destroy it"
        )
    occupied = scene.occupancy.occupied if occupied is None else occupied
    cells = occupied.detach().cpu().numpy().astype(bool)
    return PackedScene(
        kind="radiance_field",
        architecture={name: int(getattr(field.shape, name)) for name in _SIZES},
        grid=field.encoding.grid,
        symbols=_pack_symbols(field, cells) if with_latents else _no_symbols(field),
        occupancy=cells,
        weights=pack_weights(scene),
        rendering=render_settings(scene.settings),
        cameras=cameras,
        meta=dict(meta or {}),
        num_levels_present=num_levels_present,
    )


def repack_scene(
    scene: PackedScene,
    *,
    cameras: CameraSet | None,
    meta: Mapping[str, str | int] | None = None,
) -> PackedScene:
    """A decoded scene with other cameras, and with further metadata beside its own."""
    return dataclasses.replace(scene, cameras=cameras, meta={**scene.meta, **(meta or {})})


def _field_shape(scene: PackedScene) -> FieldShape:
    limits = {"hidden_dim": 4096, "geo_feat_dim": 4096, "num_color_layers": 16, "sh_degree": 4}
    sizes = {}
    for name in _SIZES:
        value = scene.architecture.get(name)
        if not isinstance(value, int) or not 1 <= value <= limits[name]:
            raise SceneFormatError("HEAD", f"{name} from 1 to {limits[name]}", repr(value))
        sizes[name] = value
    return FieldShape(**sizes)


def unpack_scene(scene: PackedScene, backend: Backend, *, device: str = "cpu") -> RadianceScene:
    """Integers to a scene in eval mode, which cannot be trained.

    Raises:
        SceneFormatError: the scene is no radiance field, or its weights do not fit its
        architecture.
    """
    if scene.kind != "radiance_field" or scene.rendering is None or scene.occupancy is None:
        found = f"kind {scene.kind!r}"
        raise SceneFormatError("HEAD", "a radiance_field with RNDR and OCCU sections", found)
    if len(set(scene.occupancy.shape)) > 1:
        raise SceneFormatError("OCCU", "as many cells along each axis", str(scene.occupancy.shape))
    shape = _field_shape(scene)
    latent_dim = scene.latent_dim
    _check_shapes(scene, shape, latent_dim)
    field = RadianceField.create(
        scene.grid,
        shape,
        backend,
        latent_dim=latent_dim,
        features_per_level=latent_dim,
        identity_decoder=True,
        weight_bits=0,
        with_latents=False,
    )
    field.encoding.install_symbols(torch.from_numpy(scene.symbols.copy()))
    names = field.network_weights().named()
    field.set_weights({name: torch.from_numpy(scene.weights[name].dequantize()) for name in names})
    field.weight_integers = {
        name: (torch.from_numpy(tensor.values.copy()), torch.from_numpy(tensor.steps.copy()))
        for name, tensor in scene.weights.items()
    }
    occupancy = OccupancyGrid.from_cells(torch.from_numpy(scene.occupancy.copy()))
    return RadianceScene(field, occupancy, scene_settings(scene.rendering)).eval().to(device)


def _check_shapes(scene: PackedScene, shape: FieldShape, latent_dim: int) -> None:
    """Weights of a file must be exactly those that its architecture names."""
    sizes = {
        "density_mlp": [
            scene.grid.num_levels * latent_dim,
            shape.hidden_dim,
            1 + shape.geo_feat_dim,
        ],
        "color_mlp": [
            shape.sh_degree**2 + shape.geo_feat_dim,
            *[shape.hidden_dim] * shape.num_color_layers,
            3,
        ],
    }
    expected: dict[str, tuple[int, ...]] = {}
    for name, widths in sizes.items():
        for index, (inputs, outputs) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            expected[f"{name}.{index}.weight"] = (outputs, inputs)
            expected[f"{name}.{index}.bias"] = (outputs,)
    found = {name: tensor.values.shape for name, tensor in scene.weights.items()}
    if found != expected:
        wrong = sorted(set(found.items()) ^ set(expected.items()))[:4]
        raise SceneFormatError(
            "WGTS", "the weights that HEAD's architecture names", f"differences at {wrong}"
        )
