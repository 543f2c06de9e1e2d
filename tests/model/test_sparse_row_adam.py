"""Adam in each row's own time."""

import copy

import pytest
import torch

from shacira_nerfstudio.backends import SparseRowGradient
from shacira_nerfstudio.model import sparse_row_adam
from shacira_nerfstudio.model.sparse_row_adam import NetworkAdam, SparseRowAdam


def make(backend, rows=37, **options):
    """A parameter whose gradient is sparse where the backend writes such, and its optimiser."""
    parameter = torch.nn.Parameter(torch.randn(rows, 2))
    if backend.supports_sparse_gradient:
        gradient = SparseRowGradient.zeros(rows, 2)
        parameter.sparse_gradient = (gradient, backend)
        parameter.grad = gradient.values
    return parameter, SparseRowAdam([parameter], **options)


def give(parameter, grad):
    """Puts a gradient where the backend would have written it."""
    sparse = getattr(parameter, "sparse_gradient", None)
    if sparse is None:
        parameter.grad = grad.clone()
        return
    other = SparseRowGradient.of(grad.clone())
    sparse[0].values += other.values
    sparse[0].touched |= other.touched


def test_it_is_adam_where_every_row_is_touched(backend):
    parameter, optimizer = make(backend, lr=0.1)
    twin = torch.nn.Parameter(parameter.detach().clone())
    adam = torch.optim.Adam([twin], lr=0.1, eps=1e-15)
    for _ in range(5):
        grad = torch.randn(37, 2)
        give(parameter, grad)
        twin.grad = grad.clone()
        optimizer.step()
        adam.step()
        optimizer.zero_grad()
    torch.testing.assert_close(parameter, twin, rtol=1e-5, atol=1e-6)


def test_weight_decay_is_that_of_adamw(backend):
    parameter, optimizer = make(backend, lr=0.1, weight_decay=0.3)
    twin = torch.nn.Parameter(parameter.detach().clone())
    adam = torch.optim.AdamW([twin], lr=0.1, eps=1e-15, weight_decay=0.3)
    for _ in range(3):
        grad = torch.randn(37, 2)
        give(parameter, grad)
        twin.grad = grad.clone()
        optimizer.step()
        adam.step()
    torch.testing.assert_close(parameter, twin, rtol=1e-5, atol=1e-6)


def test_a_row_lives_in_its_own_time(backend):
    """A row that is touched in steps 2 and 5 ends where it would if these were all steps."""
    parameter, optimizer = make(backend, lr=0.1)
    start = parameter.detach().clone()
    first, second = torch.randn(37, 2), torch.randn(37, 2)
    for step in range(7):
        grad = torch.randn(37, 2)
        grad[3] = {2: first[3], 5: second[3]}.get(step, torch.zeros(2))
        give(parameter, grad)
        before = parameter[3].detach().clone()
        optimizer.step()
        assert torch.equal(parameter[3], before) == (step not in (2, 5))
    alone, other = make(backend, lr=0.1)
    alone.data.copy_(start)
    for grad in (first, second):
        give(alone, grad)
        other.step()
    torch.testing.assert_close(parameter[3], alone[3])


def test_a_step_clears_the_gradient_and_zero_grad_too(backend):
    parameter, optimizer = make(backend)
    give(parameter, torch.randn(37, 2))
    optimizer.zero_grad()
    assert parameter.grad is None or not parameter.grad.any()
    if backend.supports_sparse_gradient:
        assert parameter.grad is parameter.sparse_gradient[0].values  # the array is used again
        assert not parameter.sparse_gradient[0].touched.any()


def test_a_state_that_was_saved_goes_on(backend):
    parameter, optimizer = make(backend, lr=0.1)
    grads = [torch.randn(37, 2) * (torch.rand(37, 1) < 0.5) for _ in range(4)]
    for grad in grads[:2]:
        give(parameter, grad)
        optimizer.step()
    other, resumed = make(backend, lr=0.1)
    other.data.copy_(parameter.data)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for grad in grads[2:]:
        for p, o in ((parameter, optimizer), (other, resumed)):
            give(p, grad)
            o.step()
    assert torch.equal(parameter, other)


def test_whoever_keeps_something_notices_a_step(backend):
    parameter, optimizer = make(backend)
    version = parameter._version
    give(parameter, torch.ones(37, 2))
    optimizer.step()
    assert parameter._version > version


@pytest.mark.parametrize(
    "options",
    [{"lr": -1.0}, {"betas": (0.9, 1.0)}, {"eps": -1e-8}, {"weight_decay": -0.1}],
    ids=str,
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        SparseRowAdam([torch.nn.Parameter(torch.zeros(2, 1))], **options)


def test_a_beta_that_the_kernel_cannot_correct_is_refused(rival):
    parameter, optimizer = make(rival, betas=(0.9, 0.99999))
    give(parameter, torch.ones(37, 2))
    with pytest.raises(ValueError, match="betas"):
        optimizer.step()


def test_what_a_gpu_saved_goes_on_on_a_cpu(tmp_path, monkeypatch):
    """A checkpoint whose numbers are marked as those of a card, as the host reads it."""

    def make_both(is_fused):
        monkeypatch.setattr(sparse_row_adam, "_are_on_cuda", lambda _: is_fused)
        torch.manual_seed(1)
        table, weight = torch.nn.Parameter(torch.randn(9, 2)), torch.nn.Parameter(torch.ones(3))
        optimizers = {"latents": SparseRowAdam([table], lr=0.1), "fields": NetworkAdam([weight])}
        return torch.nn.ParameterList([table, weight]), optimizers

    def step(parameters, optimizers):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 0.3)
        for optimizer in optimizers.values():
            optimizer.step()
        return [parameter.detach().clone() for parameter in parameters]

    parameters, optimizers = make_both(is_fused=True)
    step(parameters, optimizers)
    path = tmp_path / "step.ckpt"
    states = {name: optimizer.state_dict() for name, optimizer in optimizers.items()}
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save({"pipeline": parameters.state_dict(), "optimizers": states}, path)
    expected = step(parameters, optimizers)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path)
    loaded = torch.load(path, map_location="cpu")
    parameters, optimizers = make_both(is_fused=False)
    parameters.load_state_dict(loaded["pipeline"])
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(loaded["optimizers"][name])
    for found, truth in zip(step(parameters, optimizers), expected, strict=True):
        torch.testing.assert_close(found, truth)


def test_a_checkpoint_of_networks_moves_between_devices(monkeypatch):
    """Whether Adam is one kernel follows from where its parameters are, not from the checkpoint."""
    gradient = torch.randn(3, 4)

    def step(optimizer, parameter):
        parameter.grad = gradient.clone()
        optimizer.step()
        return parameter.detach().clone()

    first, second = (torch.nn.Parameter(torch.ones(3, 4)) for _ in range(2))
    monkeypatch.setattr(sparse_row_adam, "_are_on_cuda", lambda _: True)
    fused = NetworkAdam([first], lr=0.1)
    monkeypatch.setattr(sparse_row_adam, "_are_on_cuda", lambda _: False)
    plain = NetworkAdam([second], lr=0.1)
    assert fused.param_groups[0]["fused"] and not plain.param_groups[0]["fused"]
    torch.testing.assert_close(step(fused, first), step(plain, second))
    plain.load_state_dict(fused.state_dict())
    assert not plain.param_groups[0]["fused"] and fused.state_dict()["param_groups"][0]["fused"]
    torch.testing.assert_close(step(fused, first), step(plain, second))
    truth = torch.nn.Parameter(torch.ones(3, 4))
    adam = torch.optim.Adam([truth], lr=0.1)
    step(adam, truth)
    torch.testing.assert_close(step(adam, truth), second.detach())
