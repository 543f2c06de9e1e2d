"""Hypothesis strategies for what the codec eats; they sample degenerate cases on purpose."""

import hypothesis
import numpy as np
from hypothesis import strategies as st

from shacira_nerfstudio.codec import CameraSet, PackedScene, QuantizedTensor, RenderSettings
from shacira_nerfstudio.codec.latents.features import reached_entries
from shacira_nerfstudio.codec.scene import KINDS
from shacira_nerfstudio.codec.sections.cameras import rounded_cameras
from shacira_nerfstudio.grid import GridSpec


def modest(max_examples=25):
    """The same few examples in every run, and no files left behind."""
    return hypothesis.settings(
        max_examples=max_examples, deadline=None, derandomize=True, database=None
    )


seeds = st.integers(0, 2**32 - 1)


@st.composite
def counts(draw, max_symbols=300):
    """How often symbols occur: flat, peaked, sparse, one symbol only, up to 10^7 of one."""
    rng = np.random.default_rng(draw(seeds))
    num_symbols = draw(st.sampled_from([1, 2, 3, 17, max_symbols]))
    spread = draw(st.sampled_from([0.001, 0.1, 1.0, 10.0]))
    scale = draw(st.sampled_from([1, 100, 10_000_000]))
    distance = np.abs(np.arange(num_symbols) - rng.integers(num_symbols))
    result = (scale * np.exp(-distance / (spread * num_symbols))).astype(np.int64)
    result[rng.random(num_symbols) < draw(st.sampled_from([0.0, 0.5]))] = 0
    if not result.any():
        result[rng.integers(num_symbols)] = 1
    return result


@st.composite
def symbols(draw, size, *, alphabet=None):
    """Integers of a rounded Laplace distribution whose scale goes from nearly nothing to broad."""
    rng = np.random.default_rng(draw(seeds))
    sigma = draw(st.sampled_from([0.001, 0.3, 1.0, 10.0, 300.0]))
    values = np.round(rng.laplace(size=size) * sigma)
    limit = 4095 if alphabet is None else alphabet
    return np.clip(values, -limit, limit).astype(np.int16)


@st.composite
def grids(draw, num_dims=None):
    """Small grids with dense and hashed levels; axes of equal or of different resolutions."""
    dims = draw(st.sampled_from([2, 3])) if num_dims is None else num_dims
    num_sides = draw(st.sampled_from([1, dims]))
    sides = [draw(st.integers(2, 5)) for _ in range(num_sides)] * (dims // num_sides)
    growth = st.integers(0, 12 if dims == 3 else 40)
    growths = [draw(growth) for _ in range(num_sides)] * (dims // num_sides)
    return GridSpec.create(
        num_dims=dims,
        num_levels=draw(st.integers(1, 4)),
        base_res=sides,
        max_res=[side + more for side, more in zip(sides, growths, strict=True)],
        log2_hashmap_size=draw(st.integers(3, 9)),
    )


@st.composite
def occupancies(draw, num_dims):
    """None, or a grid of 1 to 13 cells per axis, cubes among them: free, full, sparse, half."""
    if draw(st.booleans()):
        rng = np.random.default_rng(draw(seeds))
        sides = st.sampled_from([1, 2, 3, 8, 9, 13])
        num_sides = draw(st.sampled_from([1, num_dims]))
        shape = [draw(sides) for _ in range(num_sides)] * (num_dims // num_sides)
        return rng.random(shape) < draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
    return None


@st.composite
def tensors(draw):
    rng = np.random.default_rng(draw(seeds))
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    limit = draw(st.sampled_from([0, 1, 127, 2047]))
    values = rng.integers(-limit, limit + 1, size=shape).astype(np.int16)
    rows = draw(st.sampled_from([1, shape[0]]))
    steps = rng.random(rows) + 0.5 if draw(st.booleans()) else np.full(rows, 0.25)
    return QuantizedTensor(values, steps.astype(np.float32))


@st.composite
def renderings(draw, num_dims):
    low = np.array(draw(st.lists(st.floats(-9, 9, width=32), min_size=num_dims, max_size=num_dims)))
    near = draw(st.floats(0, 10, width=32))
    return RenderSettings(
        contraction=draw(st.sampled_from(["affine", "contracted"])),
        box=np.stack([low, low + 2]).astype(np.float32),
        near=near,
        far=near + 1,
        step_size=draw(st.floats(0.001, 1)),
        knee=draw(st.sampled_from([0.0, 1.0])),
        background=draw(st.sampled_from(["white", "black", "last_sample", "color"])),
        background_color=(0.1, draw(st.floats(0, 1)), 1.0),
        early_stop=1e-4,
    )


@st.composite
def camera_sets(draw):
    rng = np.random.default_rng(draw(seeds))
    count = draw(st.integers(1, 5))
    shared = draw(st.booleans())
    intrinsics = rng.random((1 if shared else count, 4)).astype(np.float32)
    poses = rng.normal(size=(count, 3, 4)) * draw(st.sampled_from([1e-3, 1, 50]))
    are_rotations = draw(st.booleans())
    if are_rotations:
        poses[:, :, :3] = random_rotations(rng, count)
    cameras = CameraSet(
        poses.astype(np.float32),
        np.repeat(intrinsics, count if shared else 1, axis=0),
        np.full((count, 2), draw(st.integers(1, 2**32 - 1)), dtype=np.uint32),
    )
    return rounded_cameras(cameras) if are_rotations else cameras


def random_rotations(rng, count):
    """[count, 3, 3], of any axis and angle."""
    axes, _ = np.linalg.qr(rng.normal(size=(count, 3, 3)))
    return axes * np.linalg.det(axes)[:, None, None]


metadata = st.dictionaries(
    st.from_regex("[a-z0-9_]{1,8}", fullmatch=True),
    st.one_of(st.integers(-(2**53) + 1, 2**53 - 1), st.text(max_size=20)),
    max_size=4,
)
words = st.dictionaries(
    st.from_regex("[a-z0-9_]{1,8}", fullmatch=True),
    st.one_of(st.integers(0, 9999), st.from_regex("[a-z ]{0,12}", fullmatch=True)),
    max_size=4,
)


@st.composite
def scenes(draw):
    """Whole scenes: 2 and 3 axes, with and without everything that is optional."""
    grid = draw(grids())
    occupancy = draw(occupancies(grid.num_dims))
    values = draw(symbols((grid.num_entries, draw(st.integers(1, 3)))))
    present = draw(st.integers(1, grid.num_levels))
    some_psnr = st.tuples(*[st.integers(0, 65535)] * grid.num_levels)
    for level in range(grid.num_levels):
        rows = values[grid.offsets[level] : grid.offsets[level + 1]]
        rows[~reached_entries(grid, level, occupancy)] = 0
        if level >= present:
            rows[:] = 0
    return PackedScene(
        kind=draw(st.sampled_from([name for name, dims in KINDS.items() if dims == grid.num_dims])),
        architecture=draw(words),
        grid=grid,
        symbols=values,
        occupancy=occupancy,
        weights=draw(
            st.dictionaries(st.from_regex("[a-z0-9_.]{1,9}", fullmatch=True), tensors(), max_size=3)
        ),
        rendering=draw(st.one_of(st.none(), renderings(grid.num_dims))),
        cameras=draw(st.one_of(st.none(), camera_sets())),
        meta=draw(metadata),
        num_levels_present=None if present == grid.num_levels else present,
        prefix_psnr=draw(st.one_of(st.none(), some_psnr)),
    )


def busy_scene():
    """Latents that lie thicker in one half of space, on two channels, a third of it occupied."""
    grid = GridSpec.create(num_dims=3, num_levels=5, base_res=8, max_res=64, log2_hashmap_size=14)
    rng = np.random.default_rng(0)
    occupancy = np.zeros((16, 16, 16), bool)
    occupancy[4:14, 3:12, 2:13] = True
    symbols = np.zeros((grid.num_entries, 2), np.int16)
    for level in range(grid.num_levels):
        rows = symbols[grid.offsets[level] : grid.offsets[level + 1]]
        spread = np.linspace(0.1, 1.2, len(rows))[:, None]
        rows[:] = np.round(rng.laplace(size=rows.shape) * spread)
        rows[~reached_entries(grid, level, occupancy)] = 0
    return PackedScene("radiance_field", {}, grid, symbols, occupancy, {})
