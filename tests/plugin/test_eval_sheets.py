"""`shacira eval --sheet`: each view that is measured is on a sheet, with its numbers."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from synthetic_ball import make_ball

from shacira_nerfstudio.cli import main as cli
from shacira_nerfstudio.codec import save_scene

pytestmark = pytest.mark.nerfstudio


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.shacira"
    save_scene(path, dataclasses.replace(make_ball(), meta={"dataparser": "rtmv-data"}))
    return path


def test_a_file_is_drawn_beside_the_truth(file, scene, tmp_path):
    sheets = tmp_path / "sheets"
    command = ["eval", str(file), "--data", str(scene), "--sheet", str(sheets)]
    assert cli.main(command) == 0
    (path,) = sheets.iterdir()
    pixels = np.asarray(Image.open(path).convert("RGB")) / 255
    # 24 pixels grow to 240; the first row begins below head and caption.
    truth, rendered = (pixels[46:286, left : left + 240] for left in (8, 256))
    assert truth.std() > 0.05 and not np.array_equal(truth, rendered)
    blocks = truth.reshape(24, 10, 24, 10, 3)
    assert not np.ptp(blocks, axis=(1, 3)).any()


def test_views_come_with_name_and_numbers(file, scene):
    from shacira_nerfstudio.plugin.evaluate_file import evaluate_file

    views = []
    results = evaluate_file(file, data=scene, on_view=lambda *view: views.append(view))
    assert len(views) == 2  # of six views, every third is for testing
    psnrs = [-10 * np.log10(np.square(truth - shown).mean()) for truth, shown, _ in views]
    assert np.mean(psnrs) == pytest.approx(results["psnr"], abs=1e-3)
    for number, (_, _, caption) in enumerate(views):
        assert caption.startswith(f"view {number}, ")
        assert f"PSNR {psnrs[number]:.2f} dB, SSIM " in caption
