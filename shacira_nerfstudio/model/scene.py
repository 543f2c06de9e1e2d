"""A whole scene: a radiance field, where it is empty, how rays sample it, and what lies behind it.

Whoever has a :class:`RadianceScene`, trained or from a file, needs nothing else to render it.
Cameras have x right, y up and look along -z; pixel centres are at half integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from shacira_nerfstudio.backends import MarchSettings
from shacira_nerfstudio.backends.geometry import check_rays, constant
from shacira_nerfstudio.backends.networks import density_of
from shacira_nerfstudio.backends.types import MAX_LOG2_STRIDE
from shacira_nerfstudio.model.encoding import LatentHashEncoding
from shacira_nerfstudio.model.occupancy import OccupancyGrid, step_growth
from shacira_nerfstudio.model.radiance_field import RadianceField
from shacira_nerfstudio.model.volrend import (
    MIN_WEIGHT,
    RenderedRays,
    blend_background,
    render_rays,
    render_train,
)

Color = tuple[float, float, float]
MAX_SIDE, MAX_PIXELS = 1 << 16, 1 << 27
"""Of a picture; a file knows the same bounds."""
_BAND_RAYS = 1 << 22
"""Rays of a picture that are in memory at a time."""
_RAYS_AT_A_TIME = {"cpu": 1 << 15, "cuda": 1 << 18}
"""Rays that are rendered together: on a GPU so many that it does not wait for the host."""
_STRIDES = tuple(2**k for k in range(MAX_LOG2_STRIDE + 1))
_NAMED: dict[str, Color] = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


@dataclass(frozen=True)
class Background:
    """What rays see behind the scene."""

    kind: Literal["white", "black", "last_sample", "color"]
    """``last_sample`` repeats the colour of the last sample of a ray."""
    color: Color = (0.0, 0.0, 0.0)
    """Of kind ``color``; from 0 to 1. Other kinds ignore it."""

    def __post_init__(self) -> None:
        if self.kind not in (*_NAMED, "last_sample", "color"):
            names = ", ".join((*_NAMED, "last_sample", "color"))
            raise ValueError(f"expected a background of {names}, got {self.kind!r}")
        if len(self.color) != 3 or not all(0 <= value <= 1 for value in self.color):
            raise ValueError(f"expected a background of 3 colours in [0, 1], got {self.color}")

    @classmethod
    def named(cls, name: str) -> Background:
        """White, black or ``last_sample``."""
        return cls(name, _NAMED.get(name, (0.0, 0.0, 0.0)))  # pyright: ignore[reportArgumentType]

    @classmethod
    def of_color(cls, color: Color) -> Background:
        """A colour, by its name if it has one."""
        names = [name for name, value in _NAMED.items() if value == tuple(color)]
        return cls(names[0] if names else "color", color)  # pyright: ignore[reportArgumentType]

    @property
    def fill_color(self) -> Color | None:
        """The colour behind all rays; None if each has its own."""
        return None if self.kind == "last_sample" else _NAMED.get(self.kind, self.color)

    @property
    def fill(self) -> Tensor | str:
        """What :func:`blend_background` takes: a colour [3], or ``last_sample``."""
        color = self.fill_color
        return "last_sample" if color is None else torch.tensor(color)

    def behind(self, rendered: RenderedRays) -> Float[Tensor, "R 3"]:
        """Colours of rays with the background behind them."""
        color, like = self.fill_color, rendered.color
        fill = "last_sample" if color is None else constant(color, like.dtype, like.device)
        return blend_background(rendered, fill)


@dataclass(frozen=True)
class SceneSettings:
    """How a scene is sampled, and what lies behind it."""

    train_march: MarchSettings
    render_march: MarchSettings
    """After training; the same but for the length of steps."""
    background: Background
    """After training; what training puts behind its rays is the host's choice."""
    early_stop: float = 1e-4
    """Transmittance below which a ray ends."""
    max_samples_per_ray: int = 0
    """Of training; 0 means no limit."""
    max_stride: int = 1
    """Of training: march steps that one sample may stand for where space is thin, a power of 2."""
    stride_opacity: float = 0.25
    """Opacity that these steps may have together."""

    def __post_init__(self) -> None:
        if self.max_stride not in _STRIDES:
            raise ValueError(f"expected a max_stride of {_STRIDES}, got {self.max_stride}")
        if replace(self.train_march, step_size=self.render_march.step_size) != self.render_march:
            raise ValueError(
                "expected marches that differ in their step_size only, got "
                f"{self.train_march} and {self.render_march}"
            )
        if not 0 <= self.early_stop < 1:
            raise ValueError(f"expected early_stop in [0, 1), got {self.early_stop}")
        if self.max_samples_per_ray < 0:
            raise ValueError(
                f"expected max_samples_per_ray of 0 or more, got {self.max_samples_per_ray}"
            )


@dataclass(frozen=True, eq=False)
class PinholeCamera:
    """Where a picture is taken from, and its optics in pixels."""

    camera_to_world: Float[np.ndarray, "3 4"]
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        pose = np.asarray(self.camera_to_world, np.float32)
        if pose.shape != (3, 4) or not np.isfinite(pose).all():
            raise ValueError(f"expected a finite camera_to_world [3, 4], got {pose.tolist()}")
        object.__setattr__(self, "camera_to_world", pose)
        if not (1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE) or (
            self.width * self.height > MAX_PIXELS
        ):
            raise ValueError(
                f"expected a width and height of 1 to {MAX_SIDE} pixels, {MAX_PIXELS} in all, got "
                f"{self.width} and {self.height}"
            )
        optics = (self.fx, self.fy, self.cx, self.cy)
        if not all(map(math.isfinite, optics)) or not (self.fx > 0 and self.fy > 0):
            raise ValueError(f"expected finite optics with fx, fy > 0, got {optics}")

    def resized(self, *, width: int | None = None, height: int | None = None) -> PinholeCamera:
        """The same view in another number of pixels; one given side keeps the shape."""
        if width is None and height is not None:
            width = max(1, round(self.width * (height / self.height)))
        if height is None and width is not None:
            height = max(1, round(self.height * (width / self.width)))
        if width is None or height is None:
            return self
        x, y = width / self.width, height / self.height
        optics = self.fx * x, self.fy * y, self.cx * x, self.cy * y
        return PinholeCamera(self.camera_to_world, *optics, width, height)

    def rays(
        self, begin: int = 0, end: int | None = None
    ) -> tuple[Float[Tensor, "HW 3"], Float[Tensor, "HW 3"]]:
        """Origins and unit directions of the pixels of rows begin:end, row after row."""
        pose = torch.from_numpy(self.camera_to_world)
        end = self.height if end is None else min(end, self.height)
        rows, columns = torch.arange(begin, end) + 0.5, torch.arange(self.width) + 0.5
        v, u = torch.meshgrid(rows, columns, indexing="ij")
        fx, fy, cx, cy = (float(value) for value in (self.fx, self.fy, self.cx, self.cy))
        local = torch.stack([(u - cx) / fx, (cy - v) / fy, -torch.ones_like(u)], -1).view(-1, 3)
        directions = F.normalize(local @ pose[:, :3].T, dim=-1)
        return pose[:, 3].expand_as(directions).contiguous(), directions


class RadianceScene(nn.Module):
    """A radiance field with all that rendering needs.

    Args:
        num_images: Images of training, for the field's appearance codes.
    """

    def __init__(
        self,
        field: RadianceField,
        occupancy: OccupancyGrid,
        settings: SceneSettings,
        *,
        num_images: int = 0,
    ) -> None:
        super().__init__()
        self.field, self.occupancy, self.settings = field, occupancy, settings
        self.appearance = nn.Parameter(torch.zeros(num_images, field.shape.appearance_dim))
        """A code per image of training, [N, A]."""

    @property
    def encoding(self) -> LatentHashEncoding:
        return self.field.encoding

    @property
    def is_trainable(self) -> bool:
        """Whether there are float latents; a scene from a file has none."""
        return self.encoding.is_trainable

    @property
    def device(self) -> torch.device:
        return self.occupancy.occupied.device

    @property
    def rays_at_a_time(self) -> int:
        """How many rays of a picture are best rendered together."""
        return _RAYS_AT_A_TIME.get(self.device.type, _RAYS_AT_A_TIME["cpu"])

    def mean_appearance(self) -> Float[Tensor, " A"] | None:
        """The code that looking and files take: the mean over images; None without codes."""
        return self.appearance.detach().mean(0) if self.appearance.numel() else None

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """What training changes, by kind; kinds of which there is nothing are left out."""
        fields = [*self.field.density_mlp.parameters(), *self.field.color_mlp.parameters()]
        rate_model = self.encoding.rate_model if self.encoding.is_quantized else nn.Module()
        groups = {
            "latents": [self.encoding.latents],
            "latent_decoder": list(self.encoding.latent_decoder.parameters()),
            "entropy_model": [p for p in rate_model.parameters() if p.requires_grad],
            "fields": [*fields, self.appearance] if self.appearance.numel() else fields,
        }
        return {name: parameters for name, parameters in groups.items() if parameters}

    def train_rays(
        self,
        origins: Float[Tensor, "R 3"],
        directions: Float[Tensor, "R 3"],
        *,
        image_indices: Int[Tensor, " *R"] | None = None,
        observe_weights: bool = False,
        limits: Float[Tensor, "R 2"] | None = None,
        with_distortion: bool = False,
    ) -> tuple[RenderedRays, Float[Tensor, " R"]]:
        """Renders rays with gradients, see :func:`render_train`.

        Args:
            image_indices: Where each ray comes from, for its appearance code; needed only if the
                field has such codes.
            observe_weights: Whether the rays tell the occupancy grid which cells they see.
            limits: Where each ray begins and ends at the most.
            with_distortion: Whether :attr:`RenderedRays.distortion` is wanted.
        """
        codes = None
        if self.field.shape.appearance_dim:
            if image_indices is None:
                raise ValueError("expected image_indices for a field with appearance codes")
            codes = self.appearance[image_indices.flatten()]
        return render_train(
            self.field,
            self.occupancy.occupied,
            self.settings.train_march,
            origins,
            directions,
            early_stop=self.settings.early_stop,
            max_samples=self.settings.max_samples_per_ray,
            appearance=codes,
            observe=self.occupancy.observe if observe_weights else None,
            limits=limits,
            log2_strides=self.occupancy.log2_strides(
                self.settings.max_stride, self.settings.stride_opacity
            ),
            with_distortion=with_distortion,
        )

    def render_rays(
        self,
        origins: Float[Tensor, "R 3"],
        directions: Float[Tensor, "R 3"],
        *,
        min_weight: float = MIN_WEIGHT,
        limits: Float[Tensor, "R 2"] | None = None,
    ) -> RenderedRays:
        """Renders rays for looking, without background; in eval mode.

        Args:
            min_weight: See :meth:`Backend.render`.
            limits: Where each ray begins and ends at the most.

        Raises:
            ValueError: some ray is not finite.
        """
        check_rays(origins, directions)
        return render_rays(
            self.field,
            self.occupancy.occupied,
            self.settings.render_march,
            origins,
            directions,
            early_stop=self.settings.early_stop,
            min_weight=min_weight,
            appearance=self.mean_appearance(),
            limits=limits,
        )

    @torch.no_grad()
    def render_colors(
        self,
        origins: Float[Tensor, "R 3"],
        directions: Float[Tensor, "R 3"],
        *,
        min_weight: float = MIN_WEIGHT,
    ) -> Float[Tensor, "R 3"]:
        """Colours of :meth:`render_rays` on the scene's background, in [0, 1]."""
        rendered = self.render_rays(origins, directions, min_weight=min_weight)
        return self.settings.background.behind(rendered).clamp(0, 1)

    @torch.no_grad()
    def render_view(
        self, camera: PinholeCamera, *, chunk: int | None = None
    ) -> Float[Tensor, "H W 3"]:
        """The image that a camera sees, in [0, 1], on the CPU; in eval mode.

        Args:
            chunk: Rays rendered at a time; smaller takes less memory. By default
                :attr:`rays_at_a_time`.
        """
        chunk = chunk or self.rays_at_a_time
        picture, at = torch.empty(camera.height * camera.width, 3), 0
        num_rows = max(1, _BAND_RAYS // camera.width)  # rays of a whole picture would fill memory
        for begin in range(0, camera.height, num_rows):
            rays = camera.rays(begin, begin + num_rows)
            for part in zip(*(r.to(self.device).split(chunk) for r in rays), strict=True):
                picture[at : at + len(part[0])] = self.render_colors(*part)
                at += len(part[0])
        return picture.view(camera.height, camera.width, 3)

    @torch.no_grad()
    def step_opacity(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        """Opacity of one march step of training at positions of the unit cube."""
        # Rounded latents would all be 0 at the start, when training already sees structure. And
        # cells are those of all levels, however many this step trains.
        encoding = self.encoding
        latents = encoding(x, encoding.mean_table(), num_levels=encoding.grid.num_levels)
        weights, march = self.field.effective_weights(), self.settings.train_march
        sigma = density_of(self.encoding.backend.density_outputs(latents, weights))
        return -torch.expm1(-sigma * march.step_size * step_growth(x, march))

    def update_occupancy(self, *, everywhere: bool, threshold: float | None = None) -> None:
        """Looks again at which cells hold something, see :meth:`OccupancyGrid.update`."""
        self.occupancy.update(self.step_opacity, everywhere=everywhere, threshold=threshold)
