"""The scene of tiny runs, see ``tiny_runs``."""

import pytest


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Folder of six views of 24 pixels."""
    from shacira_nerfstudio.scenes.demo_scene import write_demo_scene

    folder = tmp_path_factory.mktemp("scene")
    write_demo_scene(folder, num_views=6, size=24)
    return folder
