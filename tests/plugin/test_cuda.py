"""A GPU through the host's trainer. Run where there is one:
``SHACIRA_TEST_BACKENDS=reference,reference@cuda,triton@cuda pytest tests/backends
tests/plugin/test_cuda.py``.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import NUM_STEPS, make_config, make_trainer, steps

from shacira_nerfstudio.cli import main as cli
from shacira_nerfstudio.codec import encode_scene, load_scene
from shacira_nerfstudio.viewer.scene_files import open_scene

GOLDEN = Path(__file__).parents[1] / "golden" / "v1_tiny.shacira"

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_run_on_a_gpu_makes_a_file_that_the_cpu_renders_alike(scene, tmp_path):
    config = make_config(scene, tmp_path)
    config.machine.device_type = "cuda"
    trainer = make_trainer(config)
    model = trainer.pipeline.model
    assert model.device.type == "cuda"
    assert model.scene.encoding.backend.name in ("triton", "reference")
    history = steps(trainer, 0, NUM_STEPS)
    first, last = (float(history[i][0]["rgb_loss"]) for i in (0, -1))
    assert last < first

    data = encode_scene(model.pack())
    camera = trainer.pipeline.datamanager.eval_dataset.cameras[0:1]
    model.show_file(data)
    model.eval()
    on_gpu = model.get_outputs_for_camera(camera.to("cuda"))["rgb"].cpu()

    config = make_config(scene, tmp_path / "cpu", {"backend": "reference"})
    other = make_trainer(config).pipeline.model
    other.show_file(data)
    other.eval()
    on_cpu = other.get_outputs_for_camera(camera.to("cpu"))["rgb"]
    # Sums in another order, and a sample more or less where a ray grazes a cell.
    assert (on_gpu - on_cpu).abs().mean() < 1e-3


def test_commands_render_view_and_export_on_a_gpu(scene, tmp_path):
    """What they write is what they write on a CPU, within a step of eight bits."""
    pictures = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        options = ["--width", "24", "--frames", "1", "--device", device]
        assert cli.main(["render", str(GOLDEN), "-o", str(out), *options]) == 0
        (path,) = out.iterdir()
        pictures[device] = np.asarray(Image.open(path)).astype(int)
        _, opened = open_scene(GOLDEN, device)  # as `shacira view` does
        assert next(opened.parameters()).device.type == device
    assert np.abs(pictures["cuda"] - pictures["cpu"]).mean() < 1

    config = make_config(scene, tmp_path / "run")
    config.machine.device_type = "cuda"
    trainer = make_trainer(config)
    config.save_config()
    steps(trainer, 0, 20)
    trainer.save_checkpoint(19)
    where = ["--load-config", str(trainer.base_dir / "config.yml")]
    assert cli.main(["export", *where, "--output-dir", str(tmp_path / "export")]) == 0
    assert load_scene(tmp_path / "export" / "scene.shacira").grid.num_entries > 0


@pytest.mark.parametrize("devices", [("cuda", "cpu"), ("cpu", "cuda")], ids="-".join)
def test_a_checkpoint_moves_between_devices(scene, tmp_path, devices):
    checkpoints = None
    for number, device in enumerate(devices):
        config = make_config(scene, tmp_path / device)
        config.machine.device_type, config.load_dir = device, checkpoints
        trainer = make_trainer(config)
        assert trainer._start_step == 20 * number
        history = steps(trainer, 20 * number, 20 * (number + 1))
        assert all(bool(loss.isfinite()) for losses, _, _ in history for loss in losses.values())
        trainer.save_checkpoint(20 * (number + 1) - 1)
        checkpoints = trainer.checkpoint_dir
    for optimizer in trainer.optimizers.optimizers.values():
        for state in optimizer.state.values():
            assert all(v.device.type in (devices[1], "cpu") for v in state.values())
