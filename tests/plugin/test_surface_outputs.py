"""Points and meshes of Nerfstudio's own exporter: the model gives what it asks for."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from synthetic_ball import make_ball

pytest.importorskip("nerfstudio")
pytestmark = pytest.mark.nerfstudio

from nerfstudio.model_components import renderers  # noqa: E402
from nerfstudio.utils.eval_utils import eval_setup  # noqa: E402

from shacira_nerfstudio.backends import get_backend  # noqa: E402
from shacira_nerfstudio.codec import save_scene  # noqa: E402
from shacira_nerfstudio.compression.pack import unpack_scene  # noqa: E402
from shacira_nerfstudio.plugin.import_scene import import_scene  # noqa: E402
from shacira_nerfstudio.plugin.surface_outputs import OutputsWithNormals, cut_out  # noqa: E402


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """config.yml of an export folder without a data set."""
    folder = tmp_path_factory.mktemp("export")
    save_scene(folder / "ball.shacira", make_ball(log_density=4.0))
    return import_scene(folder / "ball.shacira", folder / "out")


def rays(count=64):
    origins = torch.tensor([[0.0, 0, 3]]).repeat(count, 1)
    return origins, F.normalize(torch.randn(count, 3) * 0.2 - origins, dim=-1)


def outputs_of(scene, origins, directions):
    rendered = scene.render_rays(origins, directions)
    values = {
        "rgb": scene.settings.background.behind(rendered),
        "accumulation": rendered.accumulation[:, None],
        "depth": rendered.depth[:, None],
    }
    return rendered, OutputsWithNormals(values, scene, origins, directions)


def test_normals_are_there_for_whoever_asks():
    scene = unpack_scene(make_ball(), get_backend("reference", "cpu"))
    origins, directions = rays()
    _, outputs = outputs_of(scene, origins, directions)
    assert "normals" in outputs and "rgb" in outputs and "bits" not in outputs
    assert set(outputs) == {"rgb", "accumulation", "depth"}  # what pictures are made of
    normals = outputs["normals"]
    assert normals.shape == (64, 3) and normals.min() >= 0 and normals.max() <= 1
    towards = ((normals * 2 - 1) * -directions).sum(-1)
    assert towards.min() > -1e-5  # of those that met nothing, back along the ray
    assert torch.allclose(towards[outputs["accumulation"][:, 0] < 0.5], torch.tensor(1.0))
    with pytest.raises(KeyError, match="nothing"):
        outputs["nothing"]


def test_colours_are_cut_out(monkeypatch):
    scene = unpack_scene(make_ball(), get_backend("reference", "cpu"))
    rendered, outputs = outputs_of(scene, *rays())
    rgba = cut_out(outputs, "rgb", scene.settings.background.fill)
    assert torch.equal(rgba[:, 3], rendered.accumulation)
    seen = rendered.accumulation > 0.2
    expected = rendered.color / rendered.accumulation[:, None]
    assert torch.allclose(rgba[seen, :3], expected[seen], atol=1e-5)
    # The host may have another background in force, which outputs are on then.
    black = {**outputs, "rgb": rendered.color}
    with renderers.background_color_override_context(torch.zeros(3)):
        assert torch.allclose(
            cut_out(black, "rgb", scene.settings.background.fill), rgba, atol=1e-5
        )


def test_the_hosts_point_cloud(config):
    """As `ns-export pointcloud` with its default options, offline, without a data set."""
    try:
        from nerfstudio.exporter.exporter_utils import generate_point_cloud
        from nerfstudio.scripts.exporter import validate_pipeline
    except (ImportError, OSError) as error:  # of open3d and pymeshlab
        pytest.skip(f"the exporter does not load: {error}")
    pipeline = eval_setup(config)[1]
    validate_pipeline("model_output", "normals", pipeline)
    pipeline.datamanager.train_pixel_sampler.num_rays_per_batch = 1024
    # Rays are of all that the cameras see, although there are no pictures.
    pixels = pipeline.datamanager._begin_batch().result()[1]["indices"]
    assert pixels.amax(0).tolist() == [2, 7, 11] and pixels.amin(0).tolist() == [0, 0, 0]
    cloud = generate_point_cloud(
        pipeline, num_points=500, reorient_normals=True, normal_output_name="normals"
    )
    points, normals = np.asarray(cloud.points), np.asarray(cloud.normals)
    assert len(points) >= 450 and np.linalg.norm(points, axis=1).max() < 0.9  # no walls of the box
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-2)
    assert normals[:, 2].mean() > 0.3  # towards the cameras
