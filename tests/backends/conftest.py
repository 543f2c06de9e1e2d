"""Every operation has to know the resolution of each axis."""

import pytest
from grids_of_all_kinds import GRIDS


@pytest.fixture(params=GRIDS)
def tiny_grid(request):
    return GRIDS[request.param]
