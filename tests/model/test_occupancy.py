"""Which cells count as occupied, and what makes them so."""

import pytest
import torch

from shacira_nerfstudio.backends import MarchSettings
from shacira_nerfstudio.backends.geometry import contract, spacing_inverse, uncontract
from shacira_nerfstudio.model.occupancy import (
    OccupancyGrid,
    remove_isolated_cells,
    seen_cells,
    step_growth,
)

G = 8
BOX = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))


def settings_of(contraction, **options):
    return MarchSettings(
        contraction, BOX, **{"near": 0.0, "far": 100.0, "step_size": 0.01, **options}
    )


def half(x):
    """Opaque where the first coordinate is below 1/2."""
    return (x[:, 0] < 0.5).float()


def test_everything_is_occupied_before_the_first_look():
    grid = OccupancyGrid(G)
    assert grid.occupied.shape == (G, G, G)
    assert grid.occupied.all()
    assert grid.occupied_fraction == 1.0


def test_an_update_everywhere_finds_what_is_there():
    grid = OccupancyGrid(G)
    grid.update(half, everywhere=True)
    assert grid.occupied[: G // 2].all()
    assert not grid.occupied[G // 2 :].any()
    assert grid.occupied_fraction == 0.5


@pytest.mark.parametrize("chunk", [7, 1 << 18])
def test_an_update_looks_once_into_every_cell_at_a_random_place(chunk):
    grid, places = OccupancyGrid(G), []

    def look(x):
        assert len(x) <= chunk
        places.append(x)
        return x[:, 0]

    grid.update(look, everywhere=True, chunk=chunk)
    x = torch.cat(places)
    cell = (x * G).floor().long()
    flat = (cell[:, 0] * G + cell[:, 1]) * G + cell[:, 2]
    assert torch.equal(flat, torch.arange(G**3))
    inside = x * G - cell
    # 512 uniform numbers per axis: five standard deviations of their mean are 0.064.
    assert ((inside.mean(0) - 0.5).abs() < 0.064).all()
    assert inside.std() > 0.25
    assert torch.equal(grid.opacity, x[:, 0])


def test_old_opacities_fade():
    grid = OccupancyGrid(G, decay=0.5, threshold=0.1)
    grid.update(half, everywhere=True)
    other = lambda x: 1 - half(x)
    fractions = []
    for _ in range(5):
        grid.update(other, everywhere=True)
        fractions.append(grid.occupied_fraction)
    # 1/2, 1/4, 1/8 are above the threshold of 0.1, 1/16 is not.
    assert fractions == [1.0, 1.0, 1.0, 0.5, 0.5]
    assert not grid.occupied[: G // 2].any()


def test_a_faint_scene_is_not_lost():
    grid = OccupancyGrid(G, threshold=0.01)
    grid.update(lambda x: 1e-4 * half(x), everywhere=True)
    assert grid.occupied[: G // 2].all()
    assert not grid.occupied[G // 2 :].any()


def test_a_smaller_threshold_keeps_what_is_fainter():
    grid, faint = OccupancyGrid(G, threshold=0.1), lambda x: 0.02 * half(x) + 0.4 * half(1 - x)
    grid.update(faint, everywhere=True, threshold=0.01)
    assert grid.occupied.all()
    grid.update(faint, everywhere=True)
    assert not grid.occupied[: G // 2].any()
    grid.update(faint, everywhere=True, threshold=0.3)  # above the grid's own
    assert grid.occupied[G // 2 :].all()


def test_samples_stand_for_as_many_steps_as_are_faint_together():
    grid = OccupancyGrid(4)
    assert grid.log2_strides(1, 0.25) is None
    assert int(grid.log2_strides(16, 0.25).min()) == 4  # before the first look, and where empty
    for opacity, exponent in [(0.3, 0), (0.126, 0), (0.125, 1), (0.06, 2), (0.01, 4), (1e-9, 4)]:
        grid.opacity.fill_(opacity)  # in place: nothing of before is left
        strides = grid.log2_strides(16, 0.25)
        assert strides.shape == grid.occupied.shape and strides.dtype == torch.uint8
        assert (strides == exponent).all(), opacity
    grid.opacity.fill_(1.0)
    grid.occupied = grid.occupied.clone()
    grid.occupied[1] = False
    strides = grid.log2_strides(8, 0.25)
    assert (strides[1] == 3).all() and not strides[2].any()
    assert grid.log2_strides(8, 0.25) is strides


def test_an_empty_scene_keeps_the_last_cells():
    grid = OccupancyGrid(G, decay=0.0)
    grid.update(half, everywhere=True)
    grid.update(lambda x: torch.zeros(len(x)), everywhere=True)
    assert grid.occupied_fraction == 0.5


def test_a_sampled_update_finds_everything_in_time():
    grid, num_looked = OccupancyGrid(G), []

    def look(x):
        num_looked.append(len(x))
        return half(x)

    for _ in range(60):
        grid.update(look, everywhere=False)
    assert max(num_looked) <= G**3 // 4
    # After 60 samples of an eighth, a cell was missed with probability (7/8)^60 < 1e-3; occupied
    # ones are looked at beside that, so that a fade of 0.95 loses none.
    assert grid.occupied[: G // 2].float().mean() > 0.97
    assert not grid.occupied[G // 2 :].any()


def test_a_cell_drawn_twice_keeps_the_larger_value(monkeypatch):
    grid = OccupancyGrid(2)
    monkeypatch.setattr(grid, "_cells_to_update", lambda everywhere: torch.tensor([3, 3, 3, 5]))
    grid.update(lambda x: torch.tensor([0.2, 0.9, 0.1, 0.4]), everywhere=False)
    assert grid.opacity.tolist() == pytest.approx([0, 0, 0, 0.9, 0, 0.4, 0, 0])


def test_unseen_cells_stay_empty():
    grid = OccupancyGrid(G)
    seen = torch.rand(G, G, G) < 0.5
    grid.mark_unseen(seen)
    assert torch.equal(grid.occupied, seen)
    for everywhere in (True, False, False):
        grid.update(lambda x: torch.ones(len(x)), everywhere=everywhere)
        assert not (grid.occupied & ~seen).any()
    assert torch.equal(grid.occupied, seen)


def test_the_state_is_saved():
    grid = OccupancyGrid(G)
    grid.mark_unseen(torch.rand(G, G, G) < 0.5)
    grid.update(half, everywhere=True)
    other = OccupancyGrid(G)
    other.load_state_dict(grid.state_dict())
    assert torch.equal(other.occupied, grid.occupied)
    grid.update(half, everywhere=True)
    other.update(half, everywhere=True)
    assert torch.equal(other.opacity > 0.5, grid.opacity > 0.5)


@pytest.mark.parametrize("resolution", [1, 513])
def test_impossible_resolutions_are_refused(resolution):
    with pytest.raises(ValueError, match=f"got {resolution}"):
        OccupancyGrid(resolution)


# ── growth of steps ──


def test_steps_do_not_grow_in_a_box():
    assert step_growth(torch.rand(10, 3), settings_of("affine")).tolist() == [1] * 10


def test_growth_is_how_much_longer_a_step_is():
    # A camera at the centre of the box: with a knee of 1 the marcher's own steps at distance t are
    # t^2 times as long.
    t = torch.tensor([0.5, 1.0, 1.5, 3.0, 10.0], dtype=torch.float64)
    points = t[:, None] * torch.tensor([0.2, -1.0, 0.4], dtype=torch.float64)
    growth = step_growth(contract(points, settings_of("contracted")), settings_of("contracted"))
    assert growth.tolist() == pytest.approx([1, 1, 2.25, 9, 100])
    u = torch.where(t <= 1, t, 2 - 1 / t)
    step = spacing_inverse(u + 5e-7, 1.0) - spacing_inverse(u - 5e-7, 1.0)
    # A symmetric difference; at the knee itself the slope is 1 on both sides.
    assert (step / 1e-6).tolist() == pytest.approx(growth.tolist(), rel=1e-5)


# ── cells that cameras see ──


def random_poses(count):
    """Rotations by QR, positions within [-1.5, 1.5]^3."""
    rotations = torch.linalg.qr(torch.randn(count, 3, 3))[0]
    rotations *= torch.linalg.det(rotations).sign()[:, None, None]
    return torch.cat([rotations, 3 * torch.rand(count, 3, 1) - 1.5], 2)


def in_view(points, poses, intrinsics, sizes):
    """Whether each point projects into some image, by the book."""
    seen = torch.zeros(len(points), dtype=torch.bool)
    for pose, (fx, fy, cx, cy), (w, h) in zip(poses, intrinsics, sizes, strict=True):
        right, up, back = pose[:, :3].T
        offset = points - pose[:, 3]
        ahead = -(offset @ back)
        u, v = cx + fx * (offset @ right) / ahead, cy - fy * (offset @ up) / ahead
        seen |= (ahead > 0) & (u >= 0) & (u <= w) & (v >= 0) & (v <= h)
    return seen


@pytest.mark.parametrize("num_cells", [4, 16])
@pytest.mark.parametrize("contraction", ["affine", "contracted"])
def test_every_visible_point_lies_in_a_seen_cell(contraction, num_cells):
    settings = settings_of(contraction)
    poses = random_poses(3)
    intrinsics = torch.tensor([[80.0, 90, 30, 20], [200, 200, 50, 50], [40, 40, 10, 25]])
    sizes = torch.tensor([[64, 48], [100, 100], [32, 32]])
    cells = seen_cells(num_cells, settings, poses, intrinsics, sizes, margin=0.0)
    x = torch.rand(50_000, 3)
    visible = in_view(uncontract(x, settings), poses, intrinsics.tolist(), sizes.tolist())
    i, j, k = (x * num_cells).long().unbind(1)
    assert visible.any()
    assert cells[i, j, k][visible].all()


def test_most_of_what_no_camera_sees_is_left_out():
    pose = torch.tensor([[[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.5]]])
    cells = seen_cells(
        16,
        settings_of("affine"),
        pose,
        torch.tensor([[50.0, 50, 25, 25]]),
        torch.tensor([[50, 50]]),
        margin=0.0,
    )
    # The camera at z = 0.5 looks down: cells behind it by more than their radius are out.
    assert not cells[:, :, 13:].any()
    assert cells[8, 8, :11].all()
    # A right-angled pyramid, 1.5 deep and cut by the box: about 1.17 of its volume of 8.
    assert 0.1 < cells.float().mean() < 0.4


def test_strays_go_and_pits_are_filled():
    cells = torch.zeros(12, 12, 12, dtype=torch.bool)
    cells[1:6, 1:6, 1:6] = True
    expected = cells.clone()
    cells[3, 3, 3] = False  # a pit: all 26 around it are occupied
    cells[3, 3, 1] = False  # one in a face has 17: it stays as it is
    expected[3, 3, 1] = False
    cells[9, 9, 9] = True  # a stray
    cells[8, 2, 8] = cells[9, 2, 8] = True  # a pair of them
    cells[8, 8, 0:4] = expected[8, 8, 1:3] = True  # a line, whose ends have one neighbour
    before = cells.clone()
    assert remove_isolated_cells(cells).equal(expected)
    assert cells.equal(before)


def test_full_and_empty_space_are_tidy():
    for value in (False, True):
        cells = torch.full((5, 5, 5), value)
        assert remove_isolated_cells(cells).equal(cells)


def test_cells_that_no_ray_sees_are_emptied_and_their_neighbours_stay():
    grid = OccupancyGrid(G)
    grid.update(lambda x: torch.ones(len(x)), everywhere=True)
    seen, faint = torch.tensor([[0.05, 0.05, 0.05]]), torch.tensor([[0.95, 0.95, 0.95]])
    grid.observe(torch.cat([seen, seen, faint]), torch.tensor([0.3, 0.2, 0.09]))
    grid.update(lambda x: torch.ones(len(x)), everywhere=False)
    assert grid.occupied.all()  # watched, but nothing emptied yet
    grid.visible_from = 0.1
    grid.update(lambda x: torch.ones(len(x)), everywhere=False)
    assert torch.equal(grid.occupied.nonzero(), torch.cartesian_prod(*[torch.arange(2)] * 3))
    grid.observe(faint, torch.tensor([0.1]))
    grid.update(lambda x: torch.ones(len(x)), everywhere=False)
    assert grid.occupied.sum() == 16
    # What is seen but empty stays empty.
    grid.opacity.zero_()
    grid.update(lambda x: (x[:, 0] < 0.5).float(), everywhere=True)
    assert grid.occupied.sum() == 8


def test_neighbours_in_all_directions():
    grid = OccupancyGrid(G)
    grid.opacity += 1
    grid.weight.copy_((torch.rand(G**3) < 0.02).float())
    grid.visible_from = 0.5
    grid.update(lambda x: torch.ones(len(x)), everywhere=True)
    wide = torch.nn.functional.max_pool3d(grid.weight.view(1, 1, G, G, G), 3, 1, 1)[0, 0]
    assert torch.equal(grid.occupied, wide > 0) and 0 < grid.occupied.sum() < G**3


def test_positions_on_the_border_are_those_of_the_last_cells():
    grid = OccupancyGrid(G)
    grid.observe(torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([0.5]))
    assert grid.weight.view(G, G, G)[-1, 0, -1] == 0.5 and grid.weight.count_nonzero() == 1


@pytest.mark.parametrize("num_occupied", [5, 400])
def test_a_sample_without_waiting_is_of_the_same_cells(num_occupied):
    """As many of all seen cells; of the occupied all if there are few, else some."""
    grid, count = OccupancyGrid(G), 128
    seen = torch.rand(G, G, G) < 0.9
    grid.mark_unseen(seen)
    chosen = seen.flatten().nonzero()[:, 0][torch.randperm(int(seen.sum()))[:num_occupied]]
    grid.occupied = torch.zeros(G**3, dtype=torch.bool).index_fill(0, chosen, True).view(G, G, G)
    cells = grid._sample_without_waiting(count)
    anywhere, occupied = cells[:-count], cells[-count:]
    assert len(anywhere) == count * int(seen.sum()) // G**3
    assert seen.flatten()[anywhere].all()
    assert grid.occupied.flatten()[occupied].all()
    if num_occupied <= count:
        assert set(occupied.tolist()) == set(chosen.tolist())
    else:
        drawn = torch.cat([grid._sample_without_waiting(count)[-count:] for _ in range(60)])
        assert set(drawn.tolist()) == set(chosen.tolist())
    grid.occupied = torch.zeros_like(grid.occupied)
    assert len(grid._sample_without_waiting(count)) == len(cells)


def test_strides_are_kept_however_often_opacities_were_written():
    grid = OccupancyGrid(4)
    for _ in range(300):  # versions are numbers, and large ones are not the same object
        grid.opacity.fill_(0.01)
    strides = grid.log2_strides(8, 0.25)
    assert grid.log2_strides(8, 0.25) is strides
    grid.opacity.fill_(1.0)
    assert grid.log2_strides(8, 0.25) is not strides
