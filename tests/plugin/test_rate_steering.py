"""Steering and optimisation inside the host's trainer: sizes met, latents final, runs resumed."""

import dataclasses

import pytest
import torch

pytest.importorskip("nerfstudio")
pytestmark = pytest.mark.nerfstudio

from tiny_runs import NUM_STEPS, make_config, make_trainer, set_options, steps  # noqa: E402

from shacira_nerfstudio.codec import decode_scene  # noqa: E402
from shacira_nerfstudio.compression.rate_steering import padded_target  # noqa: E402
from shacira_nerfstudio.compression.schedule import FIRST_TRIM, TrainingSchedule  # noqa: E402
from shacira_nerfstudio.plugin.export_folder import export_run  # noqa: E402
from shacira_nerfstudio.plugin.export_options import ExportOptions  # noqa: E402
from shacira_nerfstudio.plugin.model_config import ShaciraModelConfig  # noqa: E402

RDO_STEP = 72


@pytest.fixture(scope="module")
def plain(scene, tmp_path_factory):
    """A run without a target, and its file just before latents become final."""
    trainer = make_trainer(
        make_config(scene, tmp_path_factory.mktemp("plain"), {"rate.rdo_strength": 1.0})
    )
    steps(trainer, 0, RDO_STEP)
    before = file_bytes(trainer)
    steps(trainer, RDO_STEP, RDO_STEP + 1)
    final = trainer.pipeline.model.scene.encoding.rounded().clone()
    steps(trainer, RDO_STEP + 1, NUM_STEPS)
    return trainer, before, final


def file_bytes(trainer):
    return trainer.pipeline.model.compressor.size_meter.file_bytes()


def quality(trainer):
    """As it is steered by."""
    return trainer.pipeline.model.callbacks._probe_psnr()


TARGET = {
    "target_size_kb": 8.0,
    "grid.latents_init_std": 1.0,
    "grid.log2_hashmap_size": 12,
}
"""Networks, head and occupancy alone take some 5 kB, with all latents it would be some 9 kB."""


def test_latents_become_fewer_and_final(plain):
    trainer, before, final = plain
    model = trainer.pipeline.model
    assert torch.equal(model.scene.encoding.rounded(), final)
    assert not model.scene.encoding.latents.requires_grad
    assert file_bytes(trainer) < before
    # The networks went on: they no longer are what the file before had.
    assert any(p.requires_grad for p in model.scene.field.density_mlp.parameters())


def test_a_little_is_taken_away_if_a_little_is_too_much(scene, tmp_path):
    trainer = make_trainer(make_config(scene, tmp_path, {**TARGET, "target_size_kb": 0.0}))
    steps(trainer, 0, 30)
    stage = trainer.pipeline.model.compressor.rdo_stage()
    whole = stage.size(stage.to_size(1e9))
    for share in (0.998, 0.99, 0.97):
        assert share - 0.004 < stage.size(stage.to_size(share * whole)) / whole <= share


def test_switched_off_latents_learn_to_the_end(scene, tmp_path):
    trainer = make_trainer(make_config(scene, tmp_path))
    steps(trainer, RDO_STEP, RDO_STEP + 1)
    assert trainer.pipeline.model.scene.encoding.latents.requires_grad


@pytest.mark.parametrize("rdo_strength", [0.25, 0.0])
def test_a_file_is_as_large_as_it_should_be(scene, tmp_path, rdo_strength):
    trainer = make_trainer(
        make_config(scene, tmp_path, {**TARGET, "rate.rdo_strength": rdo_strength})
    )
    history = steps(trainer, 0, NUM_STEPS)
    size = file_bytes(trainer)
    assert 0.98 * 8000 < size <= 8000
    rates = {round(h[1]["rate_lambda"], 9) for h in history}
    assert len(rates) > 5
    assert history[-1][1]["measured_bytes"] > 0
    # What was counted is what an export writes.
    trainer.save_checkpoint(trainer.step)
    trainer.config.save_config()
    folder = tmp_path / "export"
    options = ExportOptions(trainer.config.get_base_dir() / "config.yml", folder)
    data = export_run(options).path.read_bytes()
    assert len(data) == size
    scene = decode_scene(data)
    assert scene.meta["target_size_kb"] == "8"


def test_what_is_much_too_large_is_cut_while_there_is_training_left(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingSchedule, "steers_rate", lambda self, step: False)
    trainer = make_trainer(make_config(scene, tmp_path, {**TARGET, "rate_lambda": 1e-6}))
    model = trainer.pipeline.model
    first = model.compressor.schedule.first_trim_step
    assert first == FIRST_TRIM * NUM_STEPS
    steps(trainer, 0, first)
    encoding = model.scene.encoding
    latents, symbols = (f().clone() for f in (encoding.latents.detach, encoding.rounded))
    target = padded_target(8000, lr_factor=0.0)
    assert 8000 < target < 1.05 * target < file_bytes(trainer)
    steps(trainer, first, first + 1)
    assert file_bytes(trainer) < 1.02 * target  # a step at a low learning rate apart
    assert encoding.latents.requires_grad
    still = encoding.rounded() == symbols
    assert 0.5 < still.float().mean() < 1
    moved = (encoding.latents.detach() - latents).abs()
    # Some others cross a half in that step by training alone.
    assert moved[still].max() < 0.1 and moved[~still].median() > 0.5


def test_a_target_below_networks_and_occupancy_is_told(scene, tmp_path, caplog):
    trainer = make_trainer(make_config(scene, tmp_path, {"target_size_kb": 0.1}))
    steps(trainer, NUM_STEPS - 1, NUM_STEPS)
    assert "expected a target_size_kb that networks and occupancy alone fit in" in caplog.text
    assert not trainer.pipeline.model.scene.encoding.rounded().any()


def test_a_resumed_run_steers_on(scene, tmp_path):
    trainer = make_trainer(make_config(scene, tmp_path / "a", TARGET))
    steps(trainer, 0, 40)
    trainer.save_checkpoint(39)
    state = trainer.pipeline.model.compressor.steering.control
    assert state.count > 5 and state.offset
    config = make_config(scene, tmp_path / "b", TARGET)
    config.load_dir = trainer.checkpoint_dir
    resumed = make_trainer(config)
    assert resumed.pipeline.model.compressor.steering.control == state


def test_a_quality_moves_the_rate_the_other_way(scene, tmp_path):
    factors = []
    for target in (5.0, 60.0):
        trainer = make_trainer(make_config(scene, tmp_path / str(target), {"target_psnr": target}))
        history = steps(trainer, 0, 40)
        assert history[-1][1]["measured_psnr"] > 0
        factors.append(trainer.pipeline.model.compressor.steering.control.factor)
    assert factors[0] > 1 > factors[1]


def test_what_a_quality_does_not_need_is_taken_away(scene, tmp_path, monkeypatch):
    # Steering itself would come so near to the target that little is left to take away.
    monkeypatch.setattr(TrainingSchedule, "steers_rate", lambda self, step: False)
    options = {**TARGET, "target_size_kb": 0.0, "rate_lambda": 1e-5, "target_psnr": 1.0}
    trainer = make_trainer(make_config(scene, tmp_path, options))
    steps(trainer, 0, NUM_STEPS - 1)
    before = file_bytes(trainer), quality(trainer)
    target, compressor = before[1] - 0.5, trainer.pipeline.model.compressor
    compressor.options = dataclasses.replace(compressor.options, target_psnr=target)
    steps(trainer, NUM_STEPS - 1, NUM_STEPS)
    after = file_bytes(trainer), quality(trainer)
    assert target <= after[1] < target + 0.1 and after[0] < before[0]


def test_quality_is_measured_on_the_same_rays_and_leaves_training_alone(plain):
    trainer = plain[0]
    model = trainer.pipeline.model
    model.train()
    torch.manual_seed(1)
    first = quality(trainer)
    torch.manual_seed(2)
    del model.callbacks._probe
    assert quality(trainer) == first
    assert model.training


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"target_size_kb": 1.0, "target_psnr": 30.0}, "got both"),
        ({"target_size_kb": -1.0}, r"target_size_kb in \[0, inf\), got -1"),
        ({"target_psnr": 30.0, "rate_lambda": 0.0}, "rate_lambda above 0"),
        ({"target_size_kb": 1.0, "quantizer.mode": "none"}, "a quantizer of integers"),
        ({"target_size_kb": 1.0, "quantizer.mode": "binary"}, "a quantizer of integers"),
    ],
)
def test_targets_that_make_no_sense_are_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        options = ShaciraModelConfig()
        settled = {"sampling.visibility_start": 1.0, "rate_lambda": 1e-3}
        set_options(options, {**settled, **changes})
        options.compression_options()
