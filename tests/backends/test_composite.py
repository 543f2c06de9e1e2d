"""Compositing: what `reference` gives in double precision, values and gradients.

`reference` runs here as well, in single precision, where that is a test: the tolerances are those
of the number format and not of an implementation.
"""

import pytest
import torch
from synthetic_inputs import packed_samples

from shacira_nerfstudio.backends.composed import keep_first, num_visible


@pytest.mark.parametrize(
    "counts",
    [[], [0], [0, 0, 0], [1], [5], [0, 3, 0, 0, 40, 1, 0], [17] * 60],
    ids=lambda counts: f"{len(counts)}_rays_{sum(counts)}_samples",
)
def test_composite(backend, device, reference, counts):
    sigmas, rgbs, t_starts, t_ends, info = packed_samples(counts)
    leaves = [v.clone().to(device).requires_grad_() for v in (sigmas, rgbs)]
    truth = [v.double().requires_grad_() for v in (sigmas, rgbs)]
    found = backend.composite(*leaves, *[v.to(device) for v in (t_starts, t_ends, info)])
    expected = reference.composite(*truth, t_starts.double(), t_ends.double(), info)
    upstream = [torch.randn(v.shape) for v in expected]
    for f, e in zip(found, expected, strict=True):
        assert f.shape == e.shape
        # Sums of at most 40 weights that add up to 1, distances of up to 11.
        torch.testing.assert_close(f.detach().cpu().double(), e.detach(), rtol=1e-6, atol=1e-5)
    torch.autograd.backward(found, [u.to(device) for u in upstream])
    torch.autograd.backward(expected, [u.double() for u in upstream])
    for f, e in zip(leaves, truth, strict=True):
        # The gradient in sigma is a difference of terms of up to 3 distances.
        torch.testing.assert_close(f.grad.cpu().double(), e.grad, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("early_stop", [0.0, 1e-4, 0.3, 1.0])
def test_num_visible(early_stop):
    sigmas, _, t_starts, t_ends, info = packed_samples([0, 30, 1, 0, 25, 30] * 10)
    found = num_visible(sigmas * 0.5, t_starts, t_ends, info, early_stop=early_stop)
    depths, expected = (sigmas * 0.5 * (t_ends - t_starts)).double(), []
    for first, count in info.tolist():
        in_front = torch.exp(-depths[first : first + count].cumsum(0)).roll(1)
        in_front[:1] = 1
        expected.append(int((in_front >= early_stop).sum()))
    assert found.tolist() == expected
    assert found.any()
    assert torch.equal(found, info[:, 1]) == (early_stop == 0)


def test_num_visible_without_samples():
    none, info = torch.zeros(0), torch.zeros(4, 2, dtype=torch.long)
    found = num_visible(none, none, none, info, early_stop=0.1)
    assert torch.equal(found, torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize("counts", [[], [0, 0], [3, 0, 2, 5, 1] * 500], ids=len)
def test_keep_first(counts):
    info = torch.tensor(counts, dtype=torch.long)
    info = torch.stack([info.cumsum(0) - info, info], 1).view(-1, 2)
    kept = (info[:, 1] * torch.rand(len(info))).round().long()
    total = int(info[:, 1].sum())
    by_channel = torch.rand(4, 2, total).permute(2, 0, 1)  # as interpolation lays it out
    tensors = [torch.rand(total), torch.rand(total, 3), by_channel, torch.rand(total, 1)]
    found_info, found = keep_first(info, kept, tensors)
    assert torch.equal(found_info[:, 1], kept)
    assert torch.equal(found_info[:, 0], kept.cumsum(0) - kept)
    spans = zip(info[:, 0].tolist(), kept.tolist(), strict=True)
    index = [sample for first, count in spans for sample in range(first, first + count)]
    for f, tensor in zip(found, tensors, strict=True):
        assert torch.equal(f, tensor[index])
