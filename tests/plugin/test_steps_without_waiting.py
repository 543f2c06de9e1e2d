"""Training steps on a GPU never make the host wait, shown without one.

Tensors here are on the device `meta`: they have a shape and hold nothing. Whoever asks one for a
number, or makes a tensor whose size depends on numbers, gets an error instead of an answer. Kernels
of Triton are not called. What runs is the code that a GPU runs, in the host's own trainer; that
kernels are right is shown elsewhere.
"""

import contextlib
import importlib

import pytest
import torch
from tiny_runs import make_config, make_trainer, steps
from torch.utils._python_dispatch import TorchDispatchMode

from shacira_nerfstudio.backends import late_numbers
from shacira_nerfstudio.backends.geometry import constant
from shacira_nerfstudio.model import occupancy, sparse_row_adam
from shacira_nerfstudio.plugin.pixels.device_pixels import DeviceBatches, DevicePixels, DeviceRays

pytestmark = pytest.mark.nerfstudio
pytest.importorskip("triton", reason="pip install triton")
backend_module = pytest.importorskip("shacira_nerfstudio.backends.triton.backend")
pytest.importorskip("triton.backends.compiler")
from triton_variants import SIGNATURES, Launches  # noqa: E402

DEVICE = "meta"
BEGIN, END = 4, 14
"""Steps of the run that are taken: some update the occupancy, of all cells and of some; none is
logged, and none refreshes code lengths, which test_background_refresh.py is about."""


class Copies(TorchDispatchMode):
    """Notes what goes from one device to another."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = str(function)
        if name.startswith(("aten._to_copy", "aten.copy_")):
            source = args[1] if name.startswith("aten.copy_") else args[0]
            target = args[0] if name.startswith("aten.copy_") else result
            if source.device.type != target.device.type:
                self.found.append((name, tuple(source.shape)))
        return result


class KnownNumbers:
    """In place of copies into pinned memory, which there is not without a GPU."""

    def take(self):
        return [4096, 4096], 512

    def put(self, numbers, note=None):
        assert numbers.device.type == DEVICE and numbers.ndim == 1


def as_empty(tensor):
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE)


def move(owner):
    """Replaces all tensors of an object."""
    for name, value in vars(owner).items():
        if isinstance(value, torch.Tensor):
            setattr(owner, name, as_empty(value))
    return owner


def move_module(module):
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, value in tensors.items():
                if value is not None:
                    fake = as_empty(value)
                    is_parameter = isinstance(value, torch.nn.Parameter)
                    tensors[name] = (
                        torch.nn.Parameter(fake, value.requires_grad) if is_parameter else fake
                    )


def forget_constants():
    level_constants = importlib.import_module("shacira_nerfstudio.backends.triton.table.levels")
    adam = importlib.import_module("shacira_nerfstudio.backends.triton.table.adam")
    for cached in (constant, level_constants.level_constants, adam._corrections):
        cached.cache_clear()
    importlib.import_module("shacira_nerfstudio.backends.triton.rays.march")._latest.clear()


@pytest.fixture(scope="module")
def real(scene, tmp_path_factory):
    """A trainer on the CPU after its first steps, whose data and tables are there."""
    options = {
        "backend": "reference",
        "sampling.max_stride": 4,
        "sampling.visibility_start": 0.01,
        "distortion_loss_mult": 0.01,
        "networks.appearance_dim": 2,
    }
    trainer = make_trainer(make_config(scene, tmp_path_factory.mktemp("run"), options))
    steps(trainer, 0, BEGIN)
    return trainer


@contextlib.contextmanager
def on_device(trainer, monkeypatch, precision, *, is_fused):
    """The trainer as it would be on a GPU."""
    manager, model = trainer.pipeline.datamanager, trainer.pipeline.model
    images = manager.train_image_dataloader.cached_collated_batch
    pixels = DevicePixels(images["image"], torch.as_tensor(images["image_idx"]), None, "cpu")
    rays = DeviceRays(manager.eight_bit.cameras, "cpu")
    batches = DeviceBatches(rays, manager.eight_bit.alpha_color, pixels, "cpu")
    launches = Launches(monkeypatch)
    # Of this device torch knows no autocast, and Adam no kernel.
    monkeypatch.setattr(torch, "autocast", lambda *a, **k: contextlib.nullcontext())
    monkeypatch.setattr(sparse_row_adam, "_are_on_cuda", lambda _: False)
    monkeypatch.setattr(late_numbers.LateNumbers, "take", KnownNumbers.take)
    monkeypatch.setattr(late_numbers.LateNumbers, "put", KnownNumbers.put)
    forget_constants()
    move(pixels), move(rays), move(batches)
    manager.device, manager.device_batches = DEVICE, batches
    move_module(model)
    model.kwargs["device"] = DEVICE
    backend = backend_module.TritonBackend(torch.device(DEVICE), precision=precision)
    model.scene.encoding.backend = backend.with_fused_networks() if is_fused else backend
    model.scene.encoding._rounded = model.scene.encoding._sparse_gradient = None
    model.renderer_rgb.background_color = model._fill()
    grid = model.scene.occupancy
    assert isinstance(grid, occupancy.OccupancyGrid)
    cells = torch.arange(grid.resolution**3, device=DEVICE)
    grid._latest_strides, grid._latest_seen = None, ((grid.seen, grid.seen._version), cells)
    trainer.optimizers = trainer.setup_optimizers()
    model.callbacks._optimizers = trainer.optimizers
    model.loss_watch._is_finite = {}
    assert model.device.type == DEVICE
    yield launches
    forget_constants()


@pytest.mark.parametrize(
    ("precision", "is_fused"),
    [("float32", False), ("bfloat16", False), ("bfloat16", True), ("float16", False)],
)
def test_no_step_waits(real, monkeypatch, precision, is_fused):
    with on_device(real, monkeypatch, precision, is_fused=is_fused) as launches:
        steps(real, BEGIN, BEGIN + 5)  # constants are sent once
        with Copies() as copies:
            history = steps(real, BEGIN + 5, END)
        # All of it is compiled in test_triton_compile.py.
        assert len(launches.found) > 8
        assert launches.found <= SIGNATURES, launches.found - SIGNATURES
        losses, metrics, _ = history[-1]
        assert {"rgb_loss", "rate_loss", "distortion_loss"} <= set(losses)
        assert all(loss.device.type == DEVICE for loss in losses.values())
        assert metrics["num_samples_marched"] == metrics["num_samples"] == 4096
        assert copies.found == []
        # An error comes of whatever would wait.
        asked = torch.Tensor.nonzero, torch.Tensor.tolist, torch.Tensor.cpu, lambda v: v[v > 0]
        for ask in (float, bool, *asked):
            with pytest.raises((RuntimeError, NotImplementedError)):
                ask(losses["rgb_loss"].view(1))
        with Copies() as copies:
            torch.zeros(3).to(DEVICE)
        assert len(copies.found) == 1
