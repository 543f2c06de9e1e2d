"""Pixels that stay the same: which they are, and that masks are honoured."""

import numpy as np
import pytest
import torch

pytest.importorskip("nerfstudio")
pytestmark = pytest.mark.nerfstudio

from nerfstudio.cameras.cameras import Cameras  # noqa: E402

from shacira_nerfstudio.plugin import probe_rays  # noqa: E402


class Images:
    """Each pixel's colour says where it is: image, row, column."""

    def __init__(self, count=3, height=6, width=8, masks=None):
        self.size, self.masks, self.count = (height, width), masks, count
        poses = torch.eye(4)[None, :3].repeat(count, 1, 1)
        poses[:, 2, 3] = torch.arange(count)
        self.cameras = Cameras(poses, 5.0, 5.0, width / 2, height / 2, width, height)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rows, columns = torch.meshgrid(*map(torch.arange, self.size), indexing="ij")
        image = torch.stack([torch.full_like(rows, index), rows, columns], -1).float()
        return {"image": image} | ({} if self.masks is None else {"mask": self.masks[index]})


SAMPLERS = pytest.mark.parametrize("sample", [probe_rays.export_rays, probe_rays.steering_rays])


def keep(colors):
    return colors


@SAMPLERS
def test_rays_go_through_the_pixels_whose_colours_they_have(sample):
    rays = sample(Images(), keep)
    assert torch.equal(rays.origins[:, 2], rays.colors[:, 0])
    x, y = (rays.colors[:, 2] + 0.5 - 4) / 5, (3 - (rays.colors[:, 1] + 0.5)) / 5
    expected = torch.nn.functional.normalize(torch.stack([x, y, -torch.ones_like(x)], -1), dim=-1)
    assert torch.allclose(rays.directions, expected, atol=1e-6)
    again = sample(Images(), keep)
    assert torch.equal(rays.colors, again.colors) and torch.equal(rays.directions, again.directions)
    assert len(rays.colors.unique(dim=0)) == 3 * 6 * 8


@SAMPLERS
def test_masked_pixels_are_not_drawn(sample):
    masks = torch.zeros(3, 6, 8, 1, dtype=torch.bool)
    masks[0, 1:3, 2:5] = True
    masks[2, 4, 7] = True  # and nothing of image 1
    colors = sample(Images(masks=masks), keep).colors.unique(dim=0).long()
    expected = masks[..., 0].nonzero()
    assert torch.equal(colors, expected)
    with pytest.raises(ValueError, match="outside of masks"):
        sample(Images(masks=torch.zeros_like(masks)), keep)


def test_an_export_draws_rows_and_then_columns_of_each_image():
    """The choices of all exports so far were made on these very pixels."""
    generator = np.random.default_rng(0)
    count = -(-probe_rays.NUM_EXPORT_RAYS // 3)
    colors = probe_rays.export_rays(Images(), keep).colors.numpy()
    for index in range(3):
        rows, columns = generator.integers(6, size=count), generator.integers(8, size=count)
        found = colors[index * count : (index + 1) * count]
        assert np.array_equal(found, np.stack([np.full(count, index), rows, columns], 1))


def test_colours_are_put_on_the_background():
    rays = probe_rays.steering_rays(Images(), lambda colors: colors + 100)
    assert rays.colors.min() == 100


def test_of_many_images_some_are_taken_evenly():
    images = probe_rays.export_rays(Images(count=100), keep).colors[:, 0].unique().tolist()
    assert len(images) == probe_rays.MAX_IMAGES and images[0] == 0 and images[-1] == 99
    assert set(np.diff(images)) == {3, 4}
