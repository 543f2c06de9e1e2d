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
