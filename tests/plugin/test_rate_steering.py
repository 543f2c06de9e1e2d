"""Steering and optimisation inside the host's trainer: sizes met, latents final, runs resumed."""

import pytest
import torch

pytest.importorskip("nerfstudio")
pytestmark = pytest.mark.nerfstudio

from tiny_runs import NUM_STEPS, make_config, make_trainer, steps  # noqa: E402

from shacira_nerfstudio.codec import decode_scene, encode_scene  # noqa: E402
from shacira_nerfstudio.compression.rate_steering import (  # noqa: E402
    FIRST_TRIM,
    check_targets,
    file_bytes,
)
from shacira_nerfstudio.compression.rdo_stage import RdoStage  # noqa: E402
from shacira_nerfstudio.plugin.model_config import ShaciraModelConfig  # noqa: E402

RDO_STEP = 72


@pytest.fixture(scope="module")
def plain(scene, tmp_path_factory):
    """A run without a target, and its file just before latents become final."""
    trainer = make_trainer(make_config(scene, tmp_path_factory.mktemp("plain"), rdo_strength=1.0))
    steps(trainer, 0, RDO_STEP)
    before = file_bytes(trainer.pipeline.model, trainer)
    steps(trainer, RDO_STEP, RDO_STEP + 1)
    final = trainer.pipeline.model.field.encoding.rounded().clone()
    steps(trainer, RDO_STEP + 1, NUM_STEPS)
    return trainer, before, final


def rounded(model):
    return model.field.encoding.rounded


TARGET = {"target_size_kb": 8.0, "latents_init_std": 1.0, "log2_hashmap_size": 12}
"""Networks, head and occupancy alone take some 5 kB, with all latents it would be some 9 kB."""


def test_latents_become_fewer_and_final(plain):
    trainer, before, final = plain
    model = trainer.pipeline.model
    assert torch.equal(model.field.encoding.rounded(), final)
    assert not model.field.encoding.latents.requires_grad
    assert file_bytes(model, trainer) < before
    # The networks went on: they no longer are what the file before had.
    assert any(p.requires_grad for p in model.field.density_mlp.parameters())


def test_a_little_is_taken_away_if_a_little_is_too_much(scene, tmp_path):
    trainer = make_trainer(make_config(scene, tmp_path, **{**TARGET, "target_size_kb": 0.0}))
    steps(trainer, 0, 30)
    stage = RdoStage(trainer.pipeline.model, trainer)
    whole = stage.size(stage.to_size(1e9))
    for share in (0.998, 0.99, 0.97):
        assert share - 0.004 < stage.size(stage.to_size(share * whole)) / whole <= share


def test_switched_off_latents_learn_to_the_end(scene, tmp_path):
    trainer = make_trainer(make_config(scene, tmp_path))
    steps(trainer, RDO_STEP, RDO_STEP + 1)
    assert trainer.pipeline.model.field.encoding.latents.requires_grad


@pytest.mark.parametrize("rdo_strength", [0.25, 0.0])
def test_a_file_is_as_large_as_it_should_be(scene, tmp_path, rdo_strength):
    trainer = make_trainer(make_config(scene, tmp_path, rdo_strength=rdo_strength, **TARGET))
    history = steps(trainer, 0, NUM_STEPS)
    model = trainer.pipeline.model
    size = file_bytes(model, trainer)
    assert 0.98 * 8000 < size <= 8000
    rates = {round(h[1]["rate_lambda"].item(), 9) for h in history}
    assert len(rates) > 5
    assert history[-1][1]["measured_bytes"] > 0
    # What was counted is what an export writes.
    from shacira_nerfstudio.plugin.export_folder import pack_run

    data = encode_scene(pack_run(model, trainer.config, trainer.pipeline, trainer.step))
    assert len(data) == size
    scene = decode_scene(data)
    assert scene.meta["target_size_kb"] == "8"


def test_what_is_much_too_large_is_cut_while_there_is_training_left(scene, tmp_path, monkeypatch):
    from shacira_nerfstudio.compression.schedule import TrainingSchedule

    monkeypatch.setattr(TrainingSchedule, "steers_rate", lambda self, step: False)
    trainer = make_trainer(make_config(scene, tmp_path, **{**TARGET, "rate_lambda": 1e-6}))
    model = trainer.pipeline.model
    first = model.make_schedule(NUM_STEPS).first_trim_step
    assert first == FIRST_TRIM * NUM_STEPS
    steps(trainer, 0, first)
    latents, symbols = (f().clone() for f in (model.field.encoding.latents.detach, rounded(model)))
    aim = model.rate_steering.aim(lr_factor=0.0)
    assert 8000 < aim < 1.05 * aim < file_bytes(model, trainer)
    steps(trainer, first, first + 1)
    assert file_bytes(model, trainer) < 1.02 * aim  # a step at a low learning rate apart
    assert model.field.encoding.latents.requires_grad
    still = rounded(model)() == symbols
    assert 0.5 < still.float().mean() < 1
    moved = (model.field.encoding.latents.detach() - latents).abs()
    # Some others cross a half in that step by training alone.
    assert moved[still].max() < 0.1 and moved[~still].median() > 0.5


def test_a_target_below_networks_and_occupancy_is_told(scene, tmp_path, caplog):
    trainer = make_trainer(make_config(scene, tmp_path, target_size_kb=0.1))
    steps(trainer, NUM_STEPS - 1, NUM_STEPS)
    assert "expected a target_size_kb that networks and occupancy alone fit in" in caplog.text
    assert not trainer.pipeline.model.field.encoding.rounded().any()


def test_a_resumed_run_steers_on(scene, tmp_path):
    trainer = make_trainer(make_config(scene, tmp_path / "a", **TARGET))
    steps(trainer, 0, 40)
    trainer.save_checkpoint(39)
    state = trainer.pipeline.model.rate_steering.control
    assert state.count > 5 and state.offset
    config = make_config(scene, tmp_path / "b", **TARGET)
    config.load_dir = trainer.checkpoint_dir
    resumed = make_trainer(config)
    assert resumed.pipeline.model.rate_steering.control == state
    path = next(trainer.checkpoint_dir.glob("*.ckpt"))
    saved = torch.load(path, map_location="cpu", weights_only=True)
    # A run from before there was steering starts without a state.
    model = resumed.pipeline.model
    old = {k[7:]: v for k, v in saved["pipeline"].items() if k.startswith("_model.")}
    del old["rate_steering.state"]
    model.load_state_dict(old, strict=True)


def test_a_quality_moves_the_rate_the_other_way(scene, tmp_path):
    factors = []
    for target in (5.0, 60.0):
        trainer = make_trainer(make_config(scene, tmp_path / str(target), target_psnr=target))
        history = steps(trainer, 0, 40)
        assert history[-1][1]["measured_psnr"].item() > 0
        factors.append(trainer.pipeline.model.rate_steering.control.factor)
    assert factors[0] > 1 > factors[1]


def test_what_a_quality_does_not_need_is_taken_away(scene, tmp_path, monkeypatch):
    from shacira_nerfstudio.compression.schedule import TrainingSchedule

    # Steering itself would come so near to the target that little is left to take away.
    monkeypatch.setattr(TrainingSchedule, "steers_rate", lambda self, step: False)
    options = {**TARGET, "target_size_kb": 0.0, "rate_lambda": 1e-5, "target_psnr": 1.0}
    trainer = make_trainer(make_config(scene, tmp_path, **options))
    steps(trainer, 0, NUM_STEPS - 1)
    model = trainer.pipeline.model
    before = file_bytes(model, trainer), model.rate_steering.psnr(model, trainer)
    target = model.config.target_psnr = before[1] - 0.5
    steps(trainer, NUM_STEPS - 1, NUM_STEPS)
    after = file_bytes(model, trainer), model.rate_steering.psnr(model, trainer)
    assert target <= after[1] < target + 0.1 and after[0] < before[0]


def test_quality_is_measured_on_the_same_rays_and_leaves_training_alone(plain):
    trainer = plain[0]
    model = trainer.pipeline.model
    model.train()
    torch.manual_seed(1)
    first = model.rate_steering.psnr(model, trainer)
    torch.manual_seed(2)
    model.rate_steering._fixed_rays = None
    assert model.rate_steering.psnr(model, trainer) == first
    assert model.training


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"target_size_kb": 1.0, "target_psnr": 30.0}, "got both"),
        ({"target_size_kb": -1.0}, "target_size_kb of 0"),
        ({"target_psnr": 30.0, "rate_lambda": 0.0}, "rate_lambda above 0"),
        ({"target_size_kb": 1.0, "quantizer": "none"}, "a quantizer of integers"),
        ({"target_size_kb": 1.0, "quantizer": "binary"}, "a quantizer of integers"),
    ],
)
def test_targets_that_make_no_sense_are_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_targets(ShaciraModelConfig(**changes))
