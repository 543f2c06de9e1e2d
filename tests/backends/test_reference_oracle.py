"""`reference` against loops, closed forms and numbers computed by hand: the truth must be true."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shacira_nerfstudio.backends import AdamState, MarchSettings, SparseRowGradient, TableQuantizer
from shacira_nerfstudio.backends.composed import num_visible
from shacira_nerfstudio.backends.geometry import (
    contract,
    ray_bounds,
    spacing,
    spacing_inverse,
    uncontract,
)

UNIT_BOX = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
OTHER_BOX = ((-1.0, 0.5, -2.0), (3.0, 2.5, 1.0))
AFFINE = MarchSettings("affine", OTHER_BOX, near=0.1, far=20.0, step_size=0.07)
CONTRACTED = MarchSettings("contracted", OTHER_BOX, near=0.1, far=50.0, step_size=0.11, knee=1.5)

# ── interpolate ──


def oracle_interpolate(x, table, grid):
    """One position, in plain floats: a list of levels of lists of channels."""
    result = []
    for level, axes in enumerate(grid.resolutions):
        cell = [min(max(v, 0.0), 1.0) * (n - 1) + 0.5 for v, n in zip(x, axes, strict=True)]
        low = [math.floor(c) for c in cell]
        total = [0.0] * table.shape[1]
        for corner in itertools.product((0, 1), repeat=grid.num_dims):
            weight = 1.0
            for c, v, side in zip(cell, low, corner, strict=True):
                weight *= (c - v) if side else 1 - (c - v)
            vertex = torch.tensor([v + side for v, side in zip(low, corner, strict=True)])
            row = grid.offsets[level] + int(grid.vertex_index(level, vertex))
            total = [t + weight * float(v) for t, v in zip(total, table[row], strict=True)]
        result.append(total)
    return result


def test_interpolate_matches_the_oracle(reference, tiny_grid):
    table = torch.randn(tiny_grid.num_entries, 2, dtype=torch.float64)
    corners = list(itertools.product((0.0, 0.5, 1.0, -0.3, 1.7), repeat=tiny_grid.num_dims))
    x = torch.cat(
        [
            torch.rand(50, tiny_grid.num_dims, dtype=torch.float64),
            torch.tensor(corners, dtype=torch.float64),
        ]
    )
    expected = torch.tensor([oracle_interpolate(row, table, tiny_grid) for row in x.tolist()])
    # The oracle's list becomes single precision on the way back.
    torch.testing.assert_close(reference.interpolate(x, table, tiny_grid).float(), expected)


def test_weights_sum_to_one(reference, tiny_grid):
    x = torch.rand(100, tiny_grid.num_dims, dtype=torch.float64)
    table = torch.tensor([[3.0, -7.0]], dtype=torch.float64).expand(tiny_grid.num_entries, 2)
    values = reference.interpolate(x, table, tiny_grid)
    torch.testing.assert_close(values, table[:100, None].expand_as(values), rtol=1e-13, atol=0)


def test_at_a_vertex_its_entry(reference, tiny_grid):
    table = torch.randn(tiny_grid.num_entries, 1, dtype=torch.float64)
    for level, axes in enumerate(tiny_grid.resolutions):
        vertex = torch.stack([torch.randint(1, n, (20,)) for n in axes], 1)
        x = (vertex - 0.5).double() / (torch.tensor(axes) - 1)
        values = reference.interpolate(x, table, tiny_grid)
        entry = tiny_grid.offsets[level] + tiny_grid.vertex_index(level, vertex)
        torch.testing.assert_close(values[:, level], table[entry])


def test_interpolate_gradient(reference, tiny_grid):
    x = torch.rand(5, tiny_grid.num_dims, dtype=torch.float64, requires_grad=True)
    table = torch.randn(tiny_grid.num_entries, 1, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(5, tiny_grid.num_levels, 1, dtype=torch.float64)
    (reference.interpolate(x, table, tiny_grid) * upstream).sum().backward()
    assert x.grad is None
    # Linear in the table: the gradient, applied to any table, is the change of the result.
    change = torch.randn_like(table)
    expected = (reference.interpolate(x, change, tiny_grid) * upstream).sum()
    torch.testing.assert_close((table.grad * change).sum(), expected.detach())


# ── contraction and spacing ──


def test_contract_hand_computed():
    contracted = MarchSettings("contracted", OTHER_BOX, near=0, far=1, step_size=1)
    points = torch.tensor(
        [
            [1.0, 1.5, -0.5],  # centre
            [3.0, 2.5, 1.0],  # corner of the box: y = 1
            [5.0, 1.5, -0.5],  # y = (2, 0, 0) -> 1.5
            [9.0, 3.5, -0.5],  # y = (4, 2, 0) -> (1.75, 0.875, 0)
            [1.0 - 2e9, 1.5, -0.5],  # y = -1e9: at the border
        ],
        dtype=torch.float64,
    )
    y = [[0, 0, 0], [1, 1, 1], [1.5, 0, 0], [1.75, 0.875, 0], [-2, 0, 0]]
    expected = (torch.tensor(y, dtype=torch.float64) + 2) / 4
    torch.testing.assert_close(contract(points, contracted), expected)
    affine = MarchSettings("affine", OTHER_BOX, near=0, far=1, step_size=1)
    expected = torch.tensor([[0.5, 0.5, 0.5], [1, 1, 1], [1.5, 0.5, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(contract(points[:3], affine), expected)


@given(y=st.tuples(*[st.floats(-1e3, 1e3)] * 3), settings=st.sampled_from([AFFINE, CONTRACTED]))
def test_uncontract_inverts(y, settings):
    point = torch.tensor(y, dtype=torch.float64)
    x = contract(point, settings)
    assert settings.contraction == "affine" or ((x >= 0) & (x <= 1)).all()
    # At r = 1e3 the contraction squeezes lengths by r^2 = 1e6, which rounding grows by again.
    torch.testing.assert_close(uncontract(x, settings), point, rtol=1e-8, atol=1e-8)


@given(
    t=st.floats(0, 1e3), step=st.floats(1e-6, 1e3), knee=st.sampled_from([0.0, 0.3, 1.0, 7.0, 2e3])
)
def test_spacing_rises_and_inverts(t, step, knee):
    t = torch.tensor([t, t + step], dtype=torch.float64)
    u = spacing(t, knee)
    assert u[1] >= u[0]
    assert knee == 0 or u[1] < 2 * knee
    # The slope of the inverse is up to (1e3 / 0.3)^2 at the far end.
    torch.testing.assert_close(spacing_inverse(u, knee), t, rtol=1e-8, atol=1e-12)


def test_spacing_hand_computed():
    t = torch.tensor([0.0, 1.0, 2.0, 4.0, 8.0])
    assert spacing(t, 2.0).tolist() == [0, 1, 2, 3, 3.5]
    assert spacing(t, 0.0).tolist() == t.tolist()


def test_ray_bounds_hand_computed():
    settings = MarchSettings("affine", UNIT_BOX, near=0.25, far=1.5, step_size=0.1)
    origins = torch.tensor(
        [[-1, 0.5, 0.5], [0.5, 0.5, 0.5], [0.5, 0.5, 2], [-1, 2, 0.5], [0, 0, 0], [0.5, 0.5, 3]]
    )
    directions = torch.tensor(
        [[1, 0, 0], [0, 1, 0], [0, 0, -1], [1, 0, 0], [0.6, 0.8, 0], [0, 0, -1]]
    )
    begin, end = ray_bounds(origins, directions, settings)
    hit = end > begin
    assert hit.tolist() == [True, True, True, False, True, False]
    torch.testing.assert_close(begin[hit], torch.tensor([1.0, 0.25, 1.0, 0.25]))
    torch.testing.assert_close(end[hit], torch.tensor([1.5, 0.5, 1.5, 1.25]))


@pytest.mark.parametrize(
    "changes",
    [
        {"contraction": "none"},
        {"box": ((0, 0, 0), (1, 0, 1))},
        {"near": -1.0},
        {"near": 2.0, "far": 2.0},
        {"step_size": 0.0},
        {"step_size": float("nan")},
        {"knee": -1.0},
    ],
)
def test_impossible_settings_are_refused(changes):
    good = {"contraction": "affine", "box": UNIT_BOX, "near": 0.0, "far": 1.0, "step_size": 0.1}
    MarchSettings(**good)
    with pytest.raises(ValueError, match="expected"):
        MarchSettings(**{**good, **changes})


# ── march ──


def test_march_hand_computed(reference):
    settings = MarchSettings("affine", UNIT_BOX, near=0.0, far=10.0, step_size=0.25)
    origins = torch.tensor([[-1.0, 0.5, 0.5], [0.5, 0.5, 0.4]])
    directions = torch.tensor([[1.0, 0, 0], [0, 0, -1.0]])
    occupancy = torch.ones(4, 4, 4, dtype=torch.bool)
    samples = reference.march(origins, directions, occupancy, settings)
    # The first ray enters at t = 1 and leaves at 2. The second ends at t = 0.4: the middle of its
    # second step, 0.375, still lies inside.
    assert samples.packed_info.tolist() == [[0, 4], [4, 2]]
    assert samples.ray_indices.tolist() == [0, 0, 0, 0, 1, 1]
    assert samples.t_starts.tolist() == [1, 1.25, 1.5, 1.75, 0, 0.25]
    assert samples.t_ends.tolist() == [1.25, 1.5, 1.75, 2, 0.25, 0.5]
    assert samples.positions[:4, 0].tolist() == [0.125, 0.375, 0.625, 0.875]
    assert samples.next_step.tolist() == [-1, -1]

    occupancy[:2] = False
    samples = reference.march(origins[:1], directions[:1], occupancy, settings, max_samples=1)
    assert samples.positions.tolist() == [[0.625, 0.5, 0.5]]
    assert samples.next_step.tolist() == [3]
    jitter = torch.tensor([0.5])
    samples = reference.march(origins[:1], directions[:1], occupancy, settings, jitter=jitter)
    assert samples.t_starts.tolist() == [1.375, 1.625]


def oracle_march(o, d, occupancy, settings, jitter):
    """Every step of one ray, in plain floats: a list of (t_start, t_end, position)."""
    low, high = settings.box
    begin, end = settings.near, settings.far
    if settings.contraction == "affine":
        for a in range(3):
            if d[a] == 0:
                if not low[a] < o[a] < high[a]:
                    return []
                continue
            ends = sorted([(low[a] - o[a]) / d[a], (high[a] - o[a]) / d[a]])
            begin, end = max(begin, ends[0]), min(end, ends[1])

    def g(t):
        knee = settings.knee
        return t if knee == 0 or t <= knee else knee * (2 - knee / t)

    def g_inverse(u):
        knee = settings.knee
        return u if knee == 0 or u <= knee else knee * knee / max(2 * knee - u, 1e-6 * knee)

    samples, step = [], 0
    while begin < end:
        u = g(begin) + (step + jitter) * settings.step_size
        t = g_inverse(u + settings.step_size / 2)
        # Beyond 2 knee there is no distance left.
        if not t < end or (settings.knee and u >= 2 * settings.knee):
            break
        x = [(o[a] + t * d[a] - low[a]) / (high[a] - low[a]) for a in range(3)]
        if settings.contraction == "contracted":
            y = [2 * v - 1 for v in x]
            r = max(abs(v) for v in y)
            if r > 1:
                y = [v / r * (2 - 1 / r) for v in y]
            x = [(v + 2) / 4 for v in y]
        size = occupancy.shape[0]
        cell = tuple(min(max(math.floor(v * size), 0), size - 1) for v in x)
        if occupancy[cell]:
            samples.append((g_inverse(u), g_inverse(u + settings.step_size), x))
        step += 1
    return samples


@pytest.mark.parametrize("settings", [AFFINE, CONTRACTED], ids=lambda s: s.contraction)
def test_march_matches_the_oracle(reference, settings):
    origins = torch.randn(20, 3, dtype=torch.float64) * 2 + torch.tensor([1.0, 1.5, -0.5])
    directions = torch.nn.functional.normalize(torch.randn(20, 3, dtype=torch.float64), dim=-1)
    directions[:3] = -torch.eye(3, dtype=torch.float64)
    jitter = torch.rand(20, dtype=torch.float64)
    occupancy = torch.rand(6, 6, 6) < 0.5
    samples = reference.march(origins, directions, occupancy, settings, jitter=jitter)
    counts = []
    for ray in range(20):
        expected = oracle_march(
            origins[ray].tolist(), directions[ray].tolist(), occupancy, settings, float(jitter[ray])
        )
        counts.append(len(expected))
        first = sum(counts[:-1])
        assert samples.packed_info[ray].tolist() == [first, len(expected)]
        for s, (t_start, t_end, x) in enumerate(expected, start=first):
            assert float(samples.t_starts[s]) == pytest.approx(t_start, rel=1e-12)
            assert float(samples.t_ends[s]) == pytest.approx(t_end, rel=1e-12)
            assert samples.positions[s].tolist() == pytest.approx(x, rel=1e-12)
    # The rays are a fair test: some miss, some do not.
    assert min(counts) == 0 if settings.contraction == "affine" else min(counts) > 0
    assert max(counts) > 10


# ── composite and visible ──


def test_composite_hand_computed(reference):
    half = math.log(2)  # optical depth that lets half of the light through
    color, accumulation, distance = reference.composite(
        torch.tensor([half, half, 2 * half, 1e9]),
        torch.tensor([[1.0, 0], [0, 1], [1, 1], [0.25, 0.5]]),
        torch.tensor([0.0, 1, 3, 5]),
        torch.tensor([1.0, 2, 4, 6]),
        torch.tensor([[0, 2], [2, 0], [2, 2]]),
    )
    # Weights 1/2 and 1/4; none; 3/4 and what is left.
    torch.testing.assert_close(
        color, torch.tensor([[0.5, 0.25], [0, 0], [0.75 + 0.0625, 0.75 + 0.125]])
    )
    torch.testing.assert_close(accumulation, torch.tensor([0.75, 0, 1]))
    expected = torch.tensor([0.5 * 0.5 + 0.25 * 1.5, 0, 0.75 * 3.5 + 0.25 * 5.5])
    torch.testing.assert_close(distance, expected)


def test_composite_gradient_by_finite_differences(reference):
    info = torch.tensor([[0, 3], [3, 0], [3, 4]])
    t = torch.arange(8, dtype=torch.float64) / 4
    sigmas = (torch.rand(7, dtype=torch.float64) * 3).requires_grad_()
    rgbs = torch.rand(7, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s, c: reference.composite(s, c, t[:-1], t[1:], info), (sigmas, rgbs)
    )


def test_visible_hand_computed():
    sigmas = torch.tensor([1.0, 1, 1, 5, 0, 1])
    t = torch.arange(6.0)
    info = torch.tensor([[0, 3], [3, 3]])

    def visible(early_stop):
        return num_visible(sigmas, t, t + 1, info, early_stop=early_stop).tolist()

    # Transmittance in front: 1, e^-1, e^-2; 1, e^-5, e^-5.
    assert visible(0.0) == [3, 3]
    assert visible(0.2) == [2, 1]
    assert visible(1.0) == [1, 1]


# ── rows ──


def test_noise_hand_computed(reference):
    # lowbias32 of 1 ^ 6 = 7, step by step in Python's integers.
    x = 7
    x = (x ^ x >> 16) * 0x7FEB352D % 2**32
    x = (x ^ x >> 15) * 0x846CA68B % 2**32
    x ^= x >> 16
    found = reference.quantize(torch.zeros(2, 1), TableQuantizer("noise", 6))
    assert found[1, 0].item() == (x >> 8) / 2**24 - 0.5


def test_update_rows_hand_computed(reference):
    parameter = torch.tensor([[1.0], [1.0], [1.0]])
    state = AdamState(torch.zeros(3, 2, 1), torch.zeros(3, dtype=torch.int16))
    options = {"lr": 0.1, "betas": (0.5, 0.75), "eps": 0.0, "weight_decay": 0.0}
    for grad in ([2.0, 0.0, 1.0], [-4.0, 3.0, 0.0]):
        reference.update_rows(
            parameter, SparseRowGradient.of(torch.tensor(grad)[:, None]), state, **options
        )
    # Row 0 twice: moments 1 and 1, then (1 - 4) / 2 and (3 + 16) / 4, corrected by 3/4 and 7/16.
    twice = 1 - 0.1 - 0.1 * (-1.5 / 0.75) / math.sqrt(4.75 / 0.4375)
    # Rows 1 and 2 once, at different times: the first step of Adam is the sign.
    expected = torch.tensor([[twice], [0.9], [0.9]])
    torch.testing.assert_close(parameter, expected)
    assert state.num_updates.tolist() == [2, 1, 1]
