"""Image metrics: their limits, and that nothing is downloaded."""

import pytest
import torch

pytest.importorskip("torchmetrics")

from shacira_nerfstudio.plugin import metrics


def test_ms_ssim_needs_an_image_of_five_scales():
    image = torch.rand(176, 180, 3)
    assert metrics.multiscale_ssim(image, image) == pytest.approx(1.0, abs=1e-5)
    assert 0 <= (metrics.multiscale_ssim(image, image.flip(0)) or 0) < 0.5
    assert metrics.multiscale_ssim(image[:175], image[:175]) is None


def test_lpips_weights_are_looked_for_on_this_machine_only(monkeypatch, tmp_path):
    pytest.importorskip("torchvision")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert not metrics.has_lpips_weights()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth").touch()
    assert metrics.has_lpips_weights()


def test_masked_pixels_do_not_count():
    truth = torch.rand(24, 20, 3)
    mask = torch.ones(24, 20, 1, dtype=torch.bool)
    mask[:12] = False
    predicted = truth + 0.1
    predicted[:12] = torch.rand(12, 20, 3)
    measure = metrics.ImageMetrics(use_lpips=False)
    found, whole = measure(predicted, truth, mask), measure(predicted, truth)
    assert found["psnr"] == pytest.approx(20, abs=1e-3) and whole["psnr"] < 12
    assert found["ssim"] > whole["ssim"] + 0.2
    everything = measure(predicted, truth, torch.ones_like(mask))
    assert everything["psnr"] == pytest.approx(whole["psnr"])
    assert measure(predicted, truth, ~mask)["psnr"] < 10
