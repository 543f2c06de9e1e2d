"""Which cells of the unit cube may hold something: what lets the marcher skip empty space.

A running maximum of density per cell, as in Instant-NGP (Müller et al., 2022, Appendix E.2). A cell
is occupied if one march step through it could be seen. The bit grid is side information that the
file codes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from shacira_nerfstudio.backends import MarchSettings
from shacira_nerfstudio.backends.geometry import uncontract


class OccupancyGrid(nn.Module):
    """Opacity of one march step per cell, and the bits derived from it.

    Args:
        resolution: G, cells per axis.
        decay: Factor on the running maximum at each update.
        threshold: Opacity of one step from which a cell counts; the mean over cells if that is
            smaller, so that a scene that is still faint is not lost.
    """

    def __init__(self, resolution: int, *, decay: float = 0.95, threshold: float = 0.01) -> None:
        super().__init__()
        if not 2 <= resolution <= 512:
            raise ValueError(f"expected a resolution of 2 to 512 cells, got {resolution}")
        self.resolution, self.decay, self.threshold = resolution, decay, threshold
        self.opacity: Tensor
        self.occupied: Tensor
        self.seen: Tensor
        self.weight: Tensor
        self._latest_strides: tuple[tuple, Tensor] | None = None
        self._latest_seen: tuple[tuple, Tensor] | None = None
        self.visible_from: float | None = None
        """Weight in some training ray from which a cell counts as visible; while it is set, cells
        that are not, nor next to one that is, are empty."""
        size = (resolution,) * 3
        self.register_buffer("opacity", torch.zeros(resolution**3))
        self.register_buffer("occupied", torch.ones(size, dtype=torch.bool))
        self.register_buffer("seen", torch.ones(size, dtype=torch.bool))
        self.register_buffer("weight", torch.zeros(resolution**3))

    @classmethod
    def from_cells(cls, occupied: Bool[Tensor, "G G G"]) -> OccupancyGrid:
        """The grid of a decoded file, which nothing updates: it holds no opacities."""
        grid = cls(2)
        grid.resolution, grid.occupied = len(occupied), occupied
        grid.opacity = grid.weight = occupied.new_zeros(0, dtype=torch.float32)
        grid.seen = occupied.new_zeros(0)
        return grid

    @property
    def occupied_fraction(self) -> Float[Tensor, ""]:
        """A tensor: no step waits for it."""
        return self.occupied.count_nonzero() / self.occupied.numel()

    def _positions(self, cells: Tensor) -> Float[Tensor, "N 3"]:
        """A random position in each cell, given by its flat index."""
        g = self.resolution
        index = torch.stack([cells // (g * g), cells // g % g, cells % g], -1)
        return (index + torch.rand(len(cells), 3, device=cells.device)) / g

    def _cells_to_update(self, everywhere: bool) -> Tensor:
        """All seen cells, or a sample: some of all, some of the occupied."""
        if everywhere:
            return self._seen_cells()
        count, flat = max(1, self.resolution**3 // 8), self.seen.view(-1)
        if flat.device.type != "cpu":
            return self._sample_without_waiting(count)
        anywhere = torch.randint(len(flat), (count,), device=flat.device)
        anywhere = anywhere[flat[anywhere]]
        occupied = self.occupied.view(-1).nonzero()[:, 0]
        if len(occupied) > count:
            occupied = occupied[torch.randint(len(occupied), (count,), device=flat.device)]
        return torch.cat([anywhere, occupied])

    def _sample_without_waiting(self, count: int) -> Tensor:
        """The same sample, of a size that does not depend on what is occupied: where less is,
        cells come several times."""
        seen, device = self._seen_cells(), self.seen.device
        num_anywhere = max(1, count * len(seen) // self.resolution**3)
        anywhere = seen[torch.randint(len(seen), (num_anywhere,), device=device)]
        # The cell with rank r among the occupied ones is where their number reaches r + 1.
        reached = self.occupied.view(-1).cumsum(0)
        total = reached[-1].clamp_min(1)
        drawn = (torch.rand(count, dtype=torch.float64, device=device) * total).long()
        in_order = torch.arange(count, device=device) % total
        ranks = torch.where(total > count, drawn, in_order)
        occupied = torch.searchsorted(reached, ranks + 1).clamp_max(len(reached) - 1)
        return torch.cat([anywhere, occupied])

    def _seen_cells(self) -> Tensor:
        """Flat indices of seen cells, found anew only after they changed: a GPU is waited for."""
        latest, state = self._latest_seen, (self.seen, self.seen._version)
        if latest is None or not _is_unchanged(latest[0], state):
            latest = self._latest_seen = state, self.seen.view(-1).nonzero()[:, 0]
        return latest[1]

    @torch.no_grad()
    def update(
        self,
        opacity_fn: Callable[[Tensor], Tensor],
        *,
        everywhere: bool,
        threshold: float | None = None,
        chunk: int = 1 << 18,
    ) -> None:
        """Looks at cells again and derives the bits anew.

        Args:
            opacity_fn: Opacity of one march step at positions in the unit cube, [N, 3] -> [N].
            everywhere: All cells (for the first updates) instead of a sample.
            threshold: In place of the grid's own, if it is smaller.
        """
        if not len(self.opacity):
            raise RuntimeError("occupied cells of a decoded file cannot be updated")
        cells = self._cells_to_update(everywhere)
        self.opacity *= self.decay
        for part in cells.split(chunk):
            value = opacity_fn(self._positions(part))
            # A cell may be drawn twice: keep the larger.
            self.opacity.scatter_reduce_(0, part, value, "amax")
        threshold = self.threshold if threshold is None else min(threshold, self.threshold)
        limit = self.opacity[self._seen_cells()].mean().clamp_max(threshold)
        occupied = (self.opacity > limit).view_as(self.occupied) & self.seen
        if self.visible_from is not None:
            occupied &= self._visible_cells(self.visible_from)
        # Never lose everything.
        self.occupied = torch.where(occupied.any(), occupied, self.occupied)

    @torch.no_grad()
    def log2_strides(self, max_stride: int, opacity: float) -> UInt8[Tensor, "G G G"] | None:
        """Log2 of how many march steps one sample may stand for in each cell: as many as have
        ``opacity`` together, and at most ``max_stride``; None for a ``max_stride`` of 1."""
        if max_stride == 1:
            return None
        state = self.opacity, self.opacity._version, self.occupied, self.occupied._version
        latest = self._latest_strides
        if latest is None or not _is_unchanged(latest[0], state):
            strides = (opacity / self.opacity.clamp_min(1e-9)).clamp(1, max_stride)
            log2_strides = strides.log2().floor().to(torch.uint8).view_as(self.occupied)
            # No sample begins in an empty cell, and none has to end before it.
            largest = max_stride.bit_length() - 1
            log2_strides = torch.where(self.occupied, log2_strides, largest)
            latest = self._latest_strides = state, log2_strides
        return latest[1]

    @torch.no_grad()
    def observe(self, positions: Float[Tensor, "S 3"], weights: Float[Tensor, " S"]) -> None:
        """Notes what samples in the unit cube weigh in their rays' colours: the largest per
        cell."""
        index = (positions * self.resolution).long().clamp_(0, self.resolution - 1)
        flat = (index[:, 0] * self.resolution + index[:, 1]) * self.resolution + index[:, 2]
        self.weight.scatter_reduce_(0, flat, weights.to(self.weight.dtype), "amax")

    def _visible_cells(self, threshold: float) -> Tensor:
        """Cells of at least that weight in some ray that was observed, and their neighbours."""
        visible = (self.weight >= threshold).view_as(self.occupied)
        for axis in range(3):  # one after the other, which is many times faster than a pool of 3^3
            near = visible.clone()
            ahead, behind = (near.narrow(axis, i, near.shape[axis] - 1) for i in (1, 0))
            here = visible.narrow(axis, 0, visible.shape[axis] - 1)
            there = visible.narrow(axis, 1, visible.shape[axis] - 1)
            ahead |= here
            behind |= there
            visible = near
        return visible

    @torch.no_grad()
    def mark_unseen(self, seen: Tensor) -> None:
        """Cells that no camera sees are empty for good: nothing there could be learned."""
        self.seen = seen.view_as(self.seen)
        self.occupied = self.occupied & self.seen


def _is_unchanged(before: tuple, now: tuple) -> bool:
    """Whether these are the same tensors, and as often written to."""
    pairs = zip(before, now, strict=True)
    return all(a is b if isinstance(a, Tensor) else a == b for a, b in pairs)


def step_growth(x: Float[Tensor, "N 3"], settings: MarchSettings) -> Float[Tensor, " N"]:
    """How many times longer than ``step_size`` a march step is about a position of the unit cube.

    In contracted space at r = max |y| > 1 the radial scale is 1 / r^2, and the marcher's steps
    follow it.
    """
    if settings.contraction == "affine":
        return torch.ones_like(x[:, 0])
    m = (x * 4 - 2).abs().amax(-1).clamp(1.0, 2 - 1e-3)
    return 1 / (2 - m).square()


@torch.no_grad()
def seen_cells(
    resolution: int,
    settings: MarchSettings,
    camera_to_worlds: Float[Tensor, "N 3 4"],
    intrinsics: Float[Tensor, "N 4"],
    sizes: Float[Tensor, "N 2"],
    *,
    margin: float = 0.1,
) -> Tensor:
    """Which cells some camera may see, bool [G, G, G].

    A cell counts if its centre projects into an image widened by ``margin`` (for lens distortion)
    and by the cell's own size as the camera sees it.

    Args:
        camera_to_worlds: OpenGL axes: x right, y up, looking along -z.
        intrinsics: fx, fy, cx, cy in pixels.
        sizes: Width and height in pixels.
    """
    g = resolution
    axis = (torch.arange(g) + 0.5) / g
    x = torch.cartesian_prod(axis, axis, axis)
    world = uncontract(x, settings)
    low, high = torch.tensor(settings.box)
    width = (high - low).max() / g * (2 if settings.contraction == "contracted" else 1)
    radius = width * step_growth(x, settings) * 3**0.5 / 2
    seen = torch.zeros(len(x), dtype=torch.bool)
    for pose, (fx, fy, cx, cy), (w, h) in zip(
        camera_to_worlds.cpu(), intrinsics.cpu().tolist(), sizes.cpu().tolist(), strict=True
    ):
        local = (world - pose[:, 3]) @ pose[:, :3]
        depth = -local[:, 2]
        near = depth.clamp_min(1e-6)
        slack_x, slack_y = fx * radius / near + margin * w, fy * radius / near + margin * h
        u, v = cx + fx * local[:, 0] / near, cy - fy * local[:, 1] / near
        inside = (u > -slack_x) & (u < w + slack_x) & (v > -slack_y) & (v < h + slack_y)
        seen |= inside & (depth > -radius)
    return seen.view(g, g, g)


def remove_isolated_cells(occupied: Bool[Tensor, "G G G"]) -> Bool[Tensor, "G G G"]:
    """Occupied cells without isolated ones, and without holes.

    A cell is isolated with at most one occupied cell among its 26 neighbours; those on a line have
    two. A free cell is a hole with 18 or more. On a trained scene isolated cells are mostly noise
    of the running maximum, but each of them costs more than ten bits in a file, and entries that
    only it reaches.
    """
    cells = occupied[None, None].float()
    around = torch.nn.functional.conv3d(cells, cells.new_ones(1, 1, 3, 3, 3), padding=1) - cells
    return (occupied & (around[0, 0] > 1)) | (around[0, 0] >= 18)
