"""The one bridge between model and codec: a float field to integers, and integers to a field that
renders.

The latent decoder never enters a file: it is folded into the first layer of the density network,
exactly. Weights become integers with one step per row, latents integers, occupancy bits; what is
left of floats are those steps and the settings of the renderer.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from shacira_nerfstudio.backends import Backend, MarchSettings
from shacira_nerfstudio.codec import (
    CameraSet,
    PackedScene,
    QuantizedTensor,
    RenderSettings,
    SceneFormatError,
)
from shacira_nerfstudio.codec.latents.features import reached_entries
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.build import build_field
from shacira_nerfstudio.model.radiance_field import FieldShape, RadianceField, weight_steps

MAX_SYMBOL = 4095
"""Largest magnitude of a latent in a file."""
_SIZES = ("hidden_dim", "geo_feat_dim", "num_color_layers", "sh_degree")


@dataclass(frozen=True)
class UnpackedScene:
    """A decoded file, ready to render."""

    field: RadianceField
    occupied: Tensor
    """bool [G, G, G]."""
    march: MarchSettings
    background: str
    """white, black, last_sample or color."""
    background_color: tuple[float, float, float]
    early_stop: float
    scene: PackedScene


def _float32(value: float) -> float:
    return float(np.float32(value))


def render_settings(
    march: MarchSettings,
    *,
    background: str,
    background_color: tuple[float, float, float],
    early_stop: float,
) -> RenderSettings:
    """What the file says about rendering; all numbers become single precision."""
    return RenderSettings(
        contraction=march.contraction,
        box=np.array(march.box, np.float32),
        near=_float32(march.near),
        far=_float32(march.far),
        step_size=_float32(march.step_size),
        knee=_float32(march.knee),
        background=background,
        background_color=tuple(_float32(v) for v in background_color),  # pyright: ignore
        early_stop=_float32(early_stop),
    )


def quantize_weight(weight: Tensor, bits: int, *, per_row: bool = True) -> QuantizedTensor:
    """Integers of so many bits and their steps: of each row, or one for all of them."""
    rows = weight.detach().float().cpu()
    rows = rows if rows.ndim > 1 else rows[None]
    steps = weight_steps(rows, bits)
    steps = steps if per_row else steps.amax(0, keepdim=True)
    values = (rows / steps[:, None]).round().to(torch.int16)
    return QuantizedTensor(values=values.view(weight.shape).numpy(), steps=steps.numpy())


@torch.no_grad()
def float_weights(field: RadianceField, appearance: Tensor | None) -> dict[str, Tensor]:
    """Weights as a file names them, before they become integers.

    Args:
        appearance: The code to bake in, if the field has codes per image.
    """
    layers = {name: weight.detach() for name, weight in field.layers().items()}
    if field.shape.appearance_dim:
        # A constant code only shifts the bias of the layer that reads it.
        weight, bias = layers["color_mlp.0.weight"], layers["color_mlp.0.bias"]
        first, last = field.shape.sh_degree**2, -field.shape.geo_feat_dim
        code = torch.zeros(field.shape.appearance_dim) if appearance is None else appearance
        layers["color_mlp.0.bias"] = bias + weight[:, first:last] @ code.to(weight)
        layers["color_mlp.0.weight"] = torch.cat([weight[:, :first], weight[:, last:]], 1)
    return layers


def pack_weights(field: RadianceField, appearance: Tensor | None) -> dict[str, QuantizedTensor]:
    """Weights as a file holds them.

    Args:
        appearance: As in :func:`float_weights`.
    """
    if field.packed_weights is not None:
        return dict(field.packed_weights)
    layers = float_weights(field, appearance)
    return {name: quantize_weight(w, field.bits_of(name)) for name, w in layers.items()}


def _pack_symbols(field: RadianceField, occupied: np.ndarray) -> np.ndarray:
    """Integers [E, d], 0 wherever no occupied cell looks."""
    encoding = field.encoding
    symbols = encoding.rounded().detach().cpu().numpy().astype(np.int16)
    largest = int(np.abs(symbols.astype(np.int32)).max(initial=0))
    if largest > MAX_SYMBOL:
        raise ValueError(f"expected latents of at most {MAX_SYMBOL} in magnitude, got {largest}")
    return without_unreached(encoding.grid, symbols, occupied)


def without_unreached(
    grid: GridSpec, symbols: np.ndarray, occupied: np.ndarray | None
) -> np.ndarray:
    """Symbols [E, d] with 0 in entries that no occupied cell reaches, as a file has them."""
    symbols = symbols.copy()
    for level, (begin, end) in enumerate(itertools.pairwise(grid.offsets)):
        symbols[begin:end][~reached_entries(grid, level, occupied)] = 0
    return symbols


def pack_field(
    field: RadianceField,
    occupied: Tensor,
    rendering: RenderSettings,
    *,
    appearance: Tensor | None = None,
    cameras: CameraSet | None = None,
    meta: Mapping[str, str | int] | None = None,
    num_levels_present: int | None = None,
) -> PackedScene:
    """Float field to integers.

    Args:
        occupied: bool [G, G, G].
        appearance: The code to bake in, if the field has codes per image.
        num_levels_present: Of a field from a shortened file: how many levels it has.

    Raises:
        ValueError: the field's latents are not quantised, or too large.
    """
    if not field.encoding.is_quantized:
        raise ValueError(
            "expected a field with quantised latents, got one trained with quantizer none: "
            "rounding it now would destroy it"
        )
    cells = occupied.detach().cpu().numpy().astype(bool)
    return PackedScene(
        kind="radiance_field",
        architecture={name: int(getattr(field.shape, name)) for name in _SIZES},
        grid=field.encoding.grid,
        symbols=_pack_symbols(field, cells),
        occupancy=cells,
        weights=pack_weights(field, appearance),
        rendering=rendering,
        cameras=cameras,
        meta=dict(meta or {}),
        num_levels_present=num_levels_present,
    )


def _field_shape(scene: PackedScene) -> FieldShape:
    limits = {"hidden_dim": 4096, "geo_feat_dim": 4096, "num_color_layers": 16, "sh_degree": 4}
    sizes = {}
    for name in _SIZES:
        value = scene.architecture.get(name)
        if not isinstance(value, int) or not 1 <= value <= limits[name]:
            raise SceneFormatError("HEAD", f"{name} from 1 to {limits[name]}", repr(value))
        sizes[name] = value
    return FieldShape(**sizes)


def unpack_scene(scene: PackedScene, backend: Backend, *, device: str = "cpu") -> UnpackedScene:
    """Integers to a field in eval mode.

    Raises:
        SceneFormatError: the scene is no radiance field, or its weights do not fit its
        architecture.
    """
    if scene.kind != "radiance_field" or scene.rendering is None or scene.occupancy is None:
        found = f"kind {scene.kind!r}"
        raise SceneFormatError("HEAD", "a radiance_field with RNDR and OCCU sections", found)
    shape = _field_shape(scene)
    weights = scene.weights
    latent_dim = scene.symbols.shape[1]
    _check_shapes(scene, shape, latent_dim)
    field = build_field(
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
    for name, parameter in field.layers().items():
        parameter.data.copy_(torch.from_numpy(weights[name].dequantize()))
    field.packed_weights = dict(weights)
    field.eval().to(device)
    rendering = scene.rendering
    low, high = (tuple(float(v) for v in corner) for corner in rendering.box)
    return UnpackedScene(
        field=field,
        occupied=torch.from_numpy(scene.occupancy.copy()).to(device),
        march=MarchSettings(
            rendering.contraction,  # pyright: ignore[reportArgumentType]
            (low, high),  # pyright: ignore[reportArgumentType]
            near=rendering.near,
            far=rendering.far,
            step_size=rendering.step_size,
            knee=rendering.knee,
        ),
        background=rendering.background,
        background_color=rendering.background_color,
        early_stop=rendering.early_stop,
        scene=scene,
    )


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


def mean_appearance(codes: nn.Parameter | Tensor) -> Tensor | None:
    """The code that a file bakes in: the mean over training images; None without codes."""
    return codes.detach().mean(0) if codes.shape[1] else None
