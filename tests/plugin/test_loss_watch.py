"""Training that left the numbers stops, says where, and saves nothing."""

import pytest
import torch
from tiny_runs import make_config, make_trainer, steps

from shacira_nerfstudio.plugin.loss_watch import LossWatch, NotFiniteError

NAN, ONE = torch.tensor(torch.nan), torch.tensor(1.0)


def test_a_loss_that_is_not_finite_ends_the_run_at_its_step(tmp_path):
    watch = LossWatch()
    watch.note({"rgb_loss": ONE, "rate_loss": ONE})
    watch.check(6, tmp_path)
    watch.note({"rgb_loss": ONE, "rate_loss": ONE / 0})
    with pytest.raises(NotFiniteError, match=r"in step 7, got a rate_loss .*no check"):
        watch.check(7, tmp_path)
    for name in ("step-000000004.ckpt", "step-000000009.ckpt"):
        (tmp_path / name).write_bytes(b"")
    watch.note({"rgb_loss": NAN})
    with pytest.raises(NotFiniteError, match=r"got a rgb_loss .*learning rate.*step-000000009"):
        watch.check(8, tmp_path)


def test_weights_are_looked_at_before_they_are_saved(tmp_path):
    watch = LossWatch()
    watch.note({"rgb_loss": ONE})
    watch.check(3, tmp_path, saves=[ONE, torch.zeros(3)])
    watch.note({"rgb_loss": ONE})
    with pytest.raises(NotFiniteError, match="got a weights that is not"):
        watch.check(4, tmp_path, saves=[ONE, torch.tensor([0.0, torch.inf])])


class _OnGpu(torch.Tensor):
    """Says that it lies on a GPU."""

    @property
    def device(self):
        return torch.device("cuda")


def test_a_gpu_is_asked_now_and_then(tmp_path):
    watch = LossWatch()
    for step in range(1, 50):
        watch.note({"rgb_loss": (NAN if step == 20 else ONE).as_subclass(_OnGpu)})
        watch.check(step, tmp_path)
    watch.note({"rgb_loss": ONE.as_subclass(_OnGpu)})
    with pytest.raises(NotFiniteError, match="the steps from 0 to 50"):
        watch.check(50, tmp_path)


@pytest.mark.nerfstudio
def test_a_run_stops_and_keeps_its_last_checkpoint(scene, tmp_path):
    trainer = make_trainer(make_config(scene, tmp_path))
    steps(trainer, 0, 2)
    trainer.save_checkpoint(1)
    with torch.no_grad():
        trainer.pipeline.model.scene.field.color_mlp[-1].bias.fill_(torch.nan)
    with pytest.raises(NotFiniteError, match=r"step 2, got a rgb_loss .*step-000000001\.ckpt"):
        steps(trainer, 2, 4)
    assert [path.name for path in trainer.checkpoint_dir.iterdir()] == ["step-000000001.ckpt"]
