"""What is looked at before a kernel is started: what a card would answer with wrong numbers, or
with an error that kills the process. No kernel runs here."""

import contextlib

import pytest
import torch

from shacira_nerfstudio.grid import GridSpec

pytest.importorskip("triton", reason="pip install triton")
launch_module = pytest.importorskip("shacira_nerfstudio.backends.triton.launch")
backend_module = pytest.importorskip("shacira_nerfstudio.backends.triton.backend")
MANY = GridSpec(3, tuple((512,) * 3 for _ in range(64)), (1 << 24,) * 64)
"""2^30 entries."""


class Kernel:
    """Notes how it is started."""

    def __init__(self):
        self.programs = []

    def __getitem__(self, programs):
        return lambda *arguments, **constants: self.programs.append(programs)


class OnSecondCard(torch.Tensor):
    device = torch.device("cuda", 1)  # pyright: ignore


def test_nothing_is_started_for_nothing():
    kernel = Kernel()
    launch_module.launch(kernel, (0, 4), torch.zeros(0))
    assert kernel.programs == []
    launch_module.launch(kernel, (2, 4), torch.zeros(3), None, 5, BLOCK=4)
    assert kernel.programs == [(2, 4)]


def test_tensors_of_several_devices_are_named():
    kernel = Kernel()
    with pytest.raises(ValueError, match=r"expected tensors on one device, got \['cpu', 'meta'\]"):
        launch_module.launch(kernel, (1,), torch.zeros(3), torch.zeros(3, device="meta"))
    assert kernel.programs == []


def test_a_kernel_runs_on_the_card_of_its_tensors(monkeypatch):
    """Not on the current one, where their addresses mean something else."""
    kernel, entered = Kernel(), []

    @contextlib.contextmanager
    def device(which):
        entered.append(which)
        yield
        entered.append(len(kernel.programs))

    monkeypatch.setattr(torch.cuda, "device", device)
    launch_module.launch(kernel, (1,), torch.zeros(3).as_subclass(OnSecondCard))
    assert entered == [torch.device("cuda", 1), 1]


def test_tables_that_int32_cannot_count_are_refused():
    """2^31 numbers of 2^30 entries; on a device that holds nothing."""
    backend = backend_module.TritonBackend(torch.device("meta"))
    table, x = torch.empty(MANY.num_entries, 2, device="meta"), torch.empty(3, 3, device="meta")
    rated = {"first": 0, "stride": 1 << 20}
    calls = [
        lambda: backend.interpolate(x, table, MANY),
        lambda: backend.logistic_bits(table, *torch.ones(2, 64, 2), MANY, seed=1, **rated),
        lambda: backend.quantize(table, backend_module.TableQuantizer("round")),
    ]
    message = r"expected a table of at most 1,073,741,824 numbers .+ got 1,073,741,824 entries of 2"
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()
