"""Normals of surfaces that can be computed by hand."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from shacira_nerfstudio.model.normals import surface_normals


@dataclasses.dataclass
class Seen:
    depth: torch.Tensor
    accumulation: torch.Tensor


class Ball:
    """The unit ball, opaque."""

    def render_rays(self, origins, directions):
        along = -(origins * directions).sum(-1)
        inside = along**2 - (origins**2).sum(-1) + 1
        return Seen(along - inside.clamp_min(0).sqrt(), (inside > 0).float())


class Step:
    """Two walls, the nearer one on the left."""

    def render_rays(self, origins, directions):
        near = (1 - origins[:, 2]) / directions[:, 2]
        far = (2 - origins[:, 2]) / directions[:, 2]
        is_left = origins[:, 0] + near * directions[:, 0] < 0
        return Seen(torch.where(is_left, near, far), torch.ones(len(origins)))


class OnePixel:
    """A thing so small that no ray beside meets it."""

    def render_rays(self, origins, directions):
        return Seen(torch.ones(len(origins)), torch.zeros(len(origins)))


def test_a_ball():
    directions = F.normalize(torch.tensor([[0.0, 0, 1], [0.2, 0, 1], [0.1, -0.25, 1]]), dim=-1)
    origins = torch.tensor([[0.0, 0, -3]]).expand(3, 3)
    depth = Ball().render_rays(origins, directions).depth
    normals, slope = surface_normals(Ball(), origins, directions, depth, angle=1e-3)
    points = origins + depth[:, None] * directions
    assert torch.allclose(normals, points, atol=6e-3)  # those of the unit ball are its points
    assert slope[0] < 0.01 and torch.isfinite(slope).all()


def test_an_edge_of_a_ball_is_steep():
    angle = math.asin(1 / 3) - 1e-4
    directions = torch.tensor([[math.sin(angle), 0, math.cos(angle)]])
    origins = torch.tensor([[0.0, 0, -3]])
    depth = Ball().render_rays(origins, directions).depth
    _, slope = surface_normals(Ball(), origins, directions, depth, angle=1e-3)
    assert slope > 8


@pytest.mark.parametrize("x", [-1e-3, 1e-3])
def test_at_an_edge_the_surface_of_the_ray_counts(x):
    origins = torch.tensor([[0.0, 0, 0]])
    directions = F.normalize(torch.tensor([[x, 0, 1]]), dim=-1)
    depth = Step().render_rays(origins, directions).depth
    normals, slope = surface_normals(Step(), origins, directions, depth, angle=5e-3)
    assert torch.allclose(normals, torch.tensor([[0.0, 0, -1]]), atol=1e-2) and slope < 0.1


def test_a_lone_ray_looks_back():
    directions = F.normalize(torch.randn(4, 3), dim=-1)
    normals, slope = surface_normals(
        OnePixel(), torch.zeros(4, 3), directions, torch.ones(4), angle=1e-3
    )
    assert torch.equal(normals, -directions) and torch.isinf(slope).all()
