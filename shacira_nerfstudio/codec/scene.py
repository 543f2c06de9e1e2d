"""What a file holds, as integers and float32 in numpy arrays: the border of models and bytes.

Everything here checks itself when it is made, so a PackedScene that exists can be encoded, but for
one rule that needs the whole grid: entries that nothing reaches hold 0 (see
``features.reached_entries``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from shacira_nerfstudio.codec.entropy.frequency_table import MAX_SYMBOL
from shacira_nerfstudio.grid import GridSpec

KINDS = {"radiance_field": 3, "image": 2, "video": 3}
"""Kinds of field and their number of axes: x, y, z; x, y; x, y, t."""

CONTRACTIONS = ("affine", "contracted")
BACKGROUNDS = ("white", "black", "last_sample", "color")
MAX_WEIGHT_VALUE = 2047
MAX_LATENT_DIM = 16
MAX_CAMERAS = 1 << 16
MAX_CELLS, MAX_CELLS_PER_AXIS = 1 << 24, 1 << 12
"""Of an occupancy grid. Along one axis there are few enough that wavefronts are no endless work."""

MAX_INTEGER = (1 << 53) - 1
"""Largest integer that every reader of JSON keeps exactly."""


class _ByContent:
    """Equality of dataclasses with arrays among their fields."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        names = [f.name for f in fields(self)]  # pyright: ignore[reportArgumentType]
        return all(_same(getattr(self, name), getattr(other, name)) for name in names)

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return type(a) is type(b) and a == b


def _check_array(what: str, array: object, dtype: type, shape: tuple[int | None, ...]) -> None:
    """Demands dtype and shape; None stands for any length."""
    found = (array.dtype, array.shape) if isinstance(array, np.ndarray) else type(array).__name__
    expected = f"expected {what} as {np.dtype(dtype)} of shape {shape}, got {found}"
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != len(shape):
        raise ValueError(expected)
    if any(s is not None and s != n for s, n in zip(shape, array.shape, strict=True)):
        raise ValueError(expected)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"expected finite {what}, got others")


@dataclass(frozen=True, eq=False)
class QuantizedTensor(_ByContent):
    """Weights as integers times a step: one step for all of them or one per row."""

    values: np.ndarray
    """int16, 1 to 3 dimensions, from -2047 to 2047."""
    steps: np.ndarray
    """float32, finite, above 0, [1] or [rows]."""

    def __post_init__(self) -> None:
        ndim = getattr(self.values, "ndim", 0)
        _check_array("weights", self.values, np.int16, (None,) * min(max(ndim, 1), 3))
        if not self.values.size or np.abs(self.values.astype(np.int32)).max() > MAX_WEIGHT_VALUE:
            raise ValueError(f"expected weights within ±{MAX_WEIGHT_VALUE}, got others or none")
        _check_array("steps", self.steps, np.float32, (None,))
        if len(self.steps) not in (1, len(self.values)) or not (self.steps > 0).all():
            raise ValueError(f"expected 1 or {len(self.values)} steps above 0, got {self.steps}")

    def dequantize(self) -> np.ndarray:
        """``values · steps``, float32."""
        steps = self.steps.reshape(-1, *[1] * (self.values.ndim - 1))
        return self.values.astype(np.float32) * steps


@dataclass(frozen=True, eq=False)
class RenderSettings(_ByContent):
    """All that rendering computes with besides grid, symbols and weights.

    Floats are rounded to float32 here, so that they pass through a file unchanged.
    """

    contraction: str
    """"affine" maps ``box`` to the unit cube; "contracted" maps it to [-1, 1]^D, all of space into
    [-2, 2]^D by the L-infinity contraction, and that to the unit cube."""
    box: np.ndarray
    """float32 [2, D], lower and upper corner in the world."""
    near: float
    far: float
    step_size: float
    """March step, in units of the normalised box."""
    knee: float
    """Distance from which the step grows; 0 means never."""
    background: str
    """"white", "black", "last_sample" or "color"."""
    background_color: tuple[float, float, float]
    """Used when ``background`` is "color"; from 0 to 1."""
    early_stop: float
    """Transmittance below which a ray ends."""

    def __post_init__(self) -> None:
        for name in ("near", "far", "step_size", "knee", "early_stop"):
            object.__setattr__(self, name, float(np.float32(getattr(self, name))))
        color = tuple(float(np.float32(c)) for c in self.background_color)
        object.__setattr__(self, "background_color", color)
        if self.contraction not in CONTRACTIONS or self.background not in BACKGROUNDS:
            raise ValueError(
                f"expected contraction in {CONTRACTIONS} and background in {BACKGROUNDS}, got "
                f"{self.contraction!r} and {self.background!r}"
            )
        _check_array("box", self.box, np.float32, (2, None))
        numbers = [self.near, self.far, self.step_size, self.knee, self.early_stop, *color]
        if not np.isfinite(numbers).all() or not (self.box[0] < self.box[1]).all():
            raise ValueError(f"expected finite numbers and a box that is not empty, got {self}")
        if not 0 <= self.near < self.far or self.step_size <= 0 or self.knee < 0:
            raise ValueError(f"expected 0 <= near < far, step_size > 0, knee >= 0, got {self}")
        if not 0 <= self.early_stop < 1 or len(color) != 3 or not all(0 <= c <= 1 for c in color):
            raise ValueError(f"expected early_stop in [0, 1), 3 colours in [0, 1], got {self}")


@dataclass(frozen=True, eq=False)
class CameraSet(_ByContent):
    """Cameras for looking at a scene without its data set."""

    camera_to_worlds: np.ndarray
    """float32 [N, 3, 4], OpenGL axes: x right, y up, looking along -z."""
    intrinsics: np.ndarray
    """float32 [N, 4]: fx, fy, cx, cy in pixels."""
    sizes: np.ndarray
    """uint32 [N, 2]: width, height in pixels."""

    def __post_init__(self) -> None:
        count = len(self.camera_to_worlds)
        if not 1 <= count <= MAX_CAMERAS:
            raise ValueError(f"expected 1 to {MAX_CAMERAS} cameras, got {count}")
        _check_array("camera_to_worlds", self.camera_to_worlds, np.float32, (count, 3, 4))
        _check_array("intrinsics", self.intrinsics, np.float32, (count, 4))
        _check_array("sizes", self.sizes, np.uint32, (count, 2))


@dataclass(frozen=True, eq=False)
class PackedScene(_ByContent):
    """A compressed scene: ``encode_scene`` makes bytes of it, ``decode_scene`` gives it back."""

    kind: str
    """One of KINDS."""
    architecture: Mapping[str, int | str]
    """What the model needs to build itself: integers and short ASCII words."""
    grid: GridSpec
    symbols: np.ndarray
    """int16 [num_entries, latent_dim], from -4095 to 4095; 0 where nothing reaches the entry."""
    occupancy: np.ndarray | None = None
    """bool [G_0, G_1] or [G_0, G_1, G_2] over the unit cube, first axis x; None means that
    everything is occupied."""
    weights: Mapping[str, QuantizedTensor] = field(default_factory=dict)
    """By name; the order does not matter."""
    rendering: RenderSettings | None = None
    cameras: CameraSet | None = None
    meta: Mapping[str, str | int] = field(default_factory=dict)
    """For people: tool, licence, author, training."""
    num_levels_present: int | None = None
    """Levels that were stored, when the finest are missing; their symbols are 0. None means all."""
    prefix_psnr: tuple[int, ...] | None = None
    """Per level l, in 0.01 dB: PSNR of the levels 0 … l alone. None if nobody has measured it."""

    def __post_init__(self) -> None:
        if KINDS.get(self.kind) != self.grid.num_dims:
            raise ValueError(
                f"expected a kind of {KINDS} with that number of axes, got {self.kind!r} with "
                f"{self.grid.num_dims}"
            )
        self._check_symbols()
        if self.occupancy is not None:
            _check_array("occupancy", self.occupancy, np.bool_, (None,) * self.grid.num_dims)
            shape = self.occupancy.shape
            if self.occupancy.size > MAX_CELLS or not all(
                1 <= length <= MAX_CELLS_PER_AXIS for length in shape
            ):
                raise ValueError(
                    f"expected an occupancy of 1 to {MAX_CELLS_PER_AXIS} cells per axis and "
                    f"{MAX_CELLS} in all, got {shape}"
                )
        for name, tensor in self.weights.items():
            if not re.fullmatch("[a-z0-9_.]{1,255}", name) or not isinstance(
                tensor, QuantizedTensor
            ):
                raise ValueError(f"expected tensors named [a-z0-9_.]+, got {name!r}")
        _check_metadata("architecture", self.architecture, only_ascii=True)
        _check_metadata("meta", self.meta)
        if self.prefix_psnr is not None and not (
            len(self.prefix_psnr) == self.grid.num_levels
            and all(type(psnr) is int and 0 <= psnr < 1 << 16 for psnr in self.prefix_psnr)
        ):
            raise ValueError(
                f"expected a prefix_psnr of 0 to 65535 for each of {self.grid.num_levels} levels, "
                f"got {self.prefix_psnr}"
            )
        if self.rendering is not None and self.rendering.box.shape[1] != self.grid.num_dims:
            raise ValueError(
                f"expected a box of {self.grid.num_dims} axes, got {self.rendering.box}"
            )

    def _check_symbols(self) -> None:
        _check_array("symbols", self.symbols, np.int16, (self.grid.num_entries, None))
        if not 1 <= self.latent_dim <= MAX_LATENT_DIM:
            raise ValueError(f"expected 1 to {MAX_LATENT_DIM} channels, got {self.latent_dim}")
        if int(self.symbols.max()) > MAX_SYMBOL or int(self.symbols.min()) < -MAX_SYMBOL:
            raise ValueError(f"expected symbols within ±{MAX_SYMBOL}, got others")
        if self.num_levels_present is not None:
            if not 1 <= self.num_levels_present < self.grid.num_levels:
                raise ValueError(
                    f"expected 1 to {self.grid.num_levels - 1} levels present, or None for all, "
                    f"got {self.num_levels_present}"
                )
            if self.symbols[self.grid.offsets[self.num_levels_present] :].any():
                raise ValueError("expected symbols 0 in levels that are not present, got others")

    @property
    def latent_dim(self) -> int:
        return self.symbols.shape[1]

    @property
    def num_coded_levels(self) -> int:
        """Levels that are present, 1 to L."""
        return self.num_levels_present or self.grid.num_levels

    def level_symbols(self, level: int) -> np.ndarray:
        """View of one level's symbols, [table_size, latent_dim]."""
        return self.symbols[self.grid.offsets[level] : self.grid.offsets[level + 1]]


def _check_metadata(
    what: str, metadata: Mapping[str, str | int], *, only_ascii: bool = False
) -> None:
    """Demands keys in [a-z0-9_] and values that every JSON reader keeps exactly."""
    for key, value in metadata.items():
        if not isinstance(key, str) or not re.fullmatch("[a-z0-9_]{1,64}", key):
            raise ValueError(f"expected {what} keys of [a-z0-9_], got {key!r}")
        if isinstance(value, str):
            if only_ascii and not (value.isascii() and value.isprintable() and len(value) <= 200):
                raise ValueError(f"expected a short ASCII word as {what}.{key}, got {value!r}")
        elif type(value) is not int or abs(value) > MAX_INTEGER:
            raise ValueError(f"expected a string or an integer as {what}.{key}, got {value!r}")
