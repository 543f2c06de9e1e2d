"""Grids and fields that every test can afford, and the backends under test."""

import gc
import os
import pathlib

import hypothesis
import pytest
import torch
from compile_once import share_compilation

from shacira_nerfstudio.backends import get_backend
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.radiance_field import FieldShape, RadianceField

# The same examples in every run, no files left behind, and no clock: machines may be busy.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")

# Modules of tests load a million objects that stay: nobody need look for garbage among them.
gc.disable()

if "PYTEST_XDIST_WORKER" in os.environ:
    share_compilation()

# A name may say where the backend runs: reference@cuda.
BACKENDS = os.environ.get("SHACIRA_TEST_BACKENDS", "reference,cpu_numba").split(",")

# Level by level: two dense ones whose table is rounded up to a multiple of 8, a dense one that
# fills its table exactly, a hashed one that just misses that, and one far above.
GRIDS = {
    "3d": GridSpec(3, tuple((n,) * 3 for n in (3, 5, 8, 9, 20)), (32, 128, 512, 512, 512)),
    "2d": GridSpec(2, tuple((n,) * 2 for n in (3, 5, 16, 17, 40)), (16, 32, 256, 256, 256)),
}


# Files that are taken first, so that no worker of `make test` is left alone with one of them at
# the end. What compiles most begins beside what compiles nothing: kernels of a fresh checkout are
# kept on disk, and who comes later only reads them, but two workers would compile the same at once.
FIRST = (
    "backends/test_defaults.py",
    "plugin/test_export_command.py",
    "backends/test_triton_interpreter.py",
    "model/test_volrend.py",
    "viewer/test_page_render.py",
    "model/test_scene.py",
    "viewer/test_host_viewer.py",
    "compression/test_compressor.py",
    "plugin/test_export_folder.py",
    "plugin/test_rate_steering.py",
    "bench/sweep/test_engine.py",
    "viewer/test_view_server.py",
    "plugin/test_viewer_panel.py",
    "viewer/test_view_browser.py",
    "bench/test_throughput.py",
    "plugin/test_model_step.py",
    "viewer/test_page_decoder.py",
    "codec/test_independent_decoder.py",
    "test_import_floors.py",
    "backends/test_march.py",
    "backends/test_march_visible.py",
    "test_wheel.py",
)
TESTS = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items):
    """Puts :data:`FIRST` first; the order of all others, and of tests in a file, stays."""
    place = {TESTS / name: number for number, name in enumerate(FIRST)}
    assert all(path.exists() for path in place), "a file of FIRST has gone"
    items.sort(key=lambda item: place.get(item.path, len(FIRST)))


def pytest_collection_finish():
    """Ends what began above."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def device_of(name):
    return name.partition("@")[2] or "cpu"


def load(name):
    return get_backend(name.partition("@")[0], device_of(name))


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Each backend of SHACIRA_TEST_BACKENDS; one that cannot load fails the test."""
    return load(request.param)


@pytest.fixture(params=[name for name in BACKENDS if name != "reference"])
def rival(request):
    """Each of them but `reference`, where that would only be compared with itself."""
    return load(request.param)


@pytest.fixture(params=[name for name in BACKENDS if name.partition("@")[0] != "reference"])
def row_writer(request):
    """Each of them that writes gradients by rows."""
    backend = load(request.param)
    if not backend.supports_sparse_gradient:
        pytest.skip("the backend has no gradient by rows: autograd makes it")
    return backend


@pytest.fixture
def device(request):
    """Where the backend of a test runs."""
    parameters = request.node.callspec.params
    roles = ("row_writer", "rival", "backend")
    return device_of(next(parameters[role] for role in roles if role in parameters))


@pytest.fixture
def reference():
    return get_backend("reference")


@pytest.fixture(params=GRIDS)
def tiny_grid(request):
    return GRIDS[request.param]


@pytest.fixture
def tiny_grid_3d():
    return GRIDS["3d"]


@pytest.fixture
def make_field(reference, tiny_grid_3d):
    """Builds small fields in eval mode, with latents of several integers and visible densities."""

    def make(backend=None, *, grid=tiny_grid_3d, shape=None, **changes):
        options = {"latent_dim": 2, "features_per_level": 4, **changes}
        shape = shape or FieldShape(hidden_dim=8, geo_feat_dim=3, num_color_layers=2, sh_degree=2)
        field = RadianceField.create(grid, shape, backend or reference, **options)
        with torch.no_grad():
            field.encoding.latents.mul_(100)
            for layer in (*field.density_mlp, *field.color_mlp):
                torch.nn.init.uniform_(layer.bias, -0.5, 0.5)
        return field.eval()

    return make


@pytest.fixture
def tiny_field(make_field, backend, device):
    return make_field(backend).to(device)
