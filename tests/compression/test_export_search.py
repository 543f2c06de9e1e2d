"""What an export does to a scene's cells, on scenes of made-up integers; tests/plugin has real
runs."""

import numpy as np

from shacira_nerfstudio.codec import PackedScene, decode_scene, encode_scene
from shacira_nerfstudio.codec.latents import features, level_kinds
from shacira_nerfstudio.compression import export_search
from shacira_nerfstudio.grid import GridSpec


def test_coarser_cells_where_a_level_is_no_longer_saturated():
    """Of a saturated level every entry is stored, of others what cells reach."""
    grid = GridSpec(3, ((10,) * 3,), (512,))
    occupancy = np.zeros((16,) * 3, dtype=bool)
    occupancy[:, :, :5] = True
    symbols = np.ones((512, 1), dtype=np.int16)
    fine = PackedScene("radiance_field", {}, grid, symbols, occupancy, {})
    coarse = export_search.coarser_occupancy(fine)
    assert level_kinds.saturated_levels(grid, occupancy) == (True,)
    assert level_kinds.saturated_levels(grid, coarse.occupancy) == (False,)
    reached = features.reached_entries(grid, 0, coarse.occupancy)
    assert np.array_equal(coarse.symbols[:, 0], reached) and not reached.all()
    assert decode_scene(encode_scene(coarse)) == coarse
