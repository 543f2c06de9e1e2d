"""Grids of all kinds: every operation on them has to know the resolution of each axis."""

import conftest as everywhere

from shacira_nerfstudio.grid import GridSpec

# As in the first ones, with another resolution along each axis: dense levels, the last of them
# full, then hashed ones.
GRIDS = {
    **everywhere.GRIDS,
    "3d_unequal": GridSpec(
        3, ((3, 2, 4), (5, 4, 6), (8, 4, 16), (9, 8, 16), (20, 9, 31)), (24, 120, 512, 512, 512)
    ),
    "2d_unequal": GridSpec(2, ((2, 3), (4, 6), (8, 32), (9, 33), (21, 70)), (8, 24, 256, 256, 256)),
}
