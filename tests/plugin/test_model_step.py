"""Training steps of the model inside the host's own trainer, on a tiny scene."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
import yaml
from tiny_runs import NUM_STEPS, make_config, make_trainer, steps

pytestmark = pytest.mark.nerfstudio


@pytest.fixture(scope="module")
def trained(scene, tmp_path_factory):
    config = make_config(scene, tmp_path_factory.mktemp("run"))
    config.save_config()
    trainer = make_trainer(config)
    history = steps(trainer, 0, NUM_STEPS // 2)
    trainer.save_checkpoint(NUM_STEPS // 2 - 1)
    return trainer, history + steps(trainer, NUM_STEPS // 2, NUM_STEPS)


def test_the_loss_falls(trained):
    _, history = trained
    first, last = (
        torch.stack([h[0]["rgb_loss"] for h in part]).mean().item()
        for part in (history[:4], history[-4:])
    )
    assert last < 0.8 * first


def test_metrics_of_a_step(trained):
    _, history = trained
    _, metrics, _ = history[-1]
    names = {"psnr", "bits_per_latent", "occupied_fraction", "estimated_bytes", "num_rays"}
    assert names <= set(metrics)
    parts = [v for k, v in metrics.items() if k.startswith("estimated_bytes_")]
    assert sum(parts) == pytest.approx(metrics["estimated_bytes"])


def test_a_resumed_run_continues_the_schedule_exactly(trained, scene, tmp_path):
    trainer, history = trained
    config = make_config(scene, tmp_path)
    config.load_dir = trainer.checkpoint_dir
    resumed = make_trainer(config)
    assert resumed._start_step == NUM_STEPS // 2
    again = steps(resumed, resumed._start_step, NUM_STEPS)
    assert [h[2] for h in again] == [h[2] for h in history[NUM_STEPS // 2 :]]


def test_a_resumed_run_ends_where_it_would_have(trained, scene, tmp_path):
    trainer, _ = trained
    config = make_config(scene, tmp_path)
    config.load_dir = trainer.checkpoint_dir
    resumed = make_trainer(config)
    resumed.train()
    assert resumed.step == NUM_STEPS


def _ticking(seconds=0.05):
    """A clock that goes on by so much each time it is looked at."""
    ticks = itertools.count()
    return lambda: next(ticks) * seconds


def test_a_run_ends_when_its_minutes_are_over(scene, tmp_path):
    config = make_config(scene, tmp_path, {"max_minutes": 0.1})
    config.max_num_iterations = 0
    config.save_config()
    trainer = make_trainer(config)
    model = trainer.pipeline.model
    model.time_budget._clock = _ticking()
    trainer.train()
    num_steps = config.max_num_iterations
    assert 20 < num_steps < 120 and trainer.step == num_steps
    assert model.compressor.schedule.num_steps == num_steps
    assert model.scene.field.quantize_weights and model.time_budget.seconds <= 6.2
    saved = yaml.load((config.get_base_dir() / "config.yml").read_text("utf-8"), yaml.Loader)
    assert saved.max_num_iterations == num_steps and model.pack().meta == {}
    (checkpoint,) = trainer.checkpoint_dir.glob("*.ckpt")
    # The time that has passed is not given again.
    again = make_config(scene, tmp_path / "again", {"max_minutes": 0.2})
    again.max_num_iterations, again.load_dir = 0, checkpoint.parent
    resumed = make_trainer(again)
    assert resumed.pipeline.model.time_budget.seconds == pytest.approx(model.time_budget.seconds)
    resumed.pipeline.model.time_budget._clock = _ticking()
    resumed.train()
    assert 1.5 * num_steps < again.max_num_iterations < 2.5 * num_steps


def test_checkpoints_load_without_pickled_code(trained):
    trainer, _ = trained
    (path,) = sorted(trainer.checkpoint_dir.glob("*.ckpt"))
    state = torch.load(path, map_location="cpu", weights_only=True)
    assert not any("lpips" in key for key in state["pipeline"])


def test_number_of_rays_adapts_to_the_samples(trained):
    trainer, history = trained
    samples = history[-1][1]["num_samples"]
    # One batch scatters about the target; before adapting it was 512 rays with 20 times as many.
    assert samples < 3 * trainer.pipeline.model.config.sampling.target_num_samples


def test_eval_outputs_have_one_row_per_ray(trained):
    trainer, _ = trained
    trainer.pipeline.eval()
    camera, batch = (
        trainer.pipeline.datamanager.fixed_indices_eval_dataloader[0]
        if hasattr(trainer.pipeline.datamanager.fixed_indices_eval_dataloader, "__getitem__")
        else next(iter(trainer.pipeline.datamanager.fixed_indices_eval_dataloader))
    )
    outputs = trainer.pipeline.model.get_outputs_for_camera(camera)
    height, width = batch["image"].shape[:2]
    assert {name: tuple(v.shape) for name, v in outputs.items()} == {
        "rgb": (height, width, 3),
        "accumulation": (height, width, 1),
        "depth": (height, width, 1),
    }
    metrics, images = trainer.pipeline.model.get_image_metrics_and_images(outputs, batch)
    assert {"psnr", "ssim", "estimated_bytes"} <= set(metrics)
    assert images["img"].shape == (height, 3 * width, 3)
    trainer.pipeline.train()


def test_appearance_codes_and_baseline_train(scene, tmp_path):
    baseline = {"quantizer.mode": "none", "rate_lambda": 0.0}
    baseline |= {"grid.latent_dim": 2, "grid.features_per_level": 2}
    codes, sga = {"networks.appearance_dim": 4}, {"quantizer.mode": "sga"}
    binary = {"quantizer.mode": "binary", "grid.latent_dim": 4}
    learned = {"rate.model": "learned"}
    for index, options in enumerate((codes, sga, binary, baseline, learned)):
        trainer = make_trainer(make_config(scene, tmp_path / str(index), options))
        field = trainer.pipeline.model.scene.field
        before = {name: p.detach().clone() for name, p in field.named_parameters()}
        appearance = trainer.pipeline.model.scene.appearance.detach().clone()
        steps(trainer, 0, 4)
        model = trainer.pipeline.model
        still = [n for n, p in field.named_parameters() if p.numel() and torch.equal(p, before[n])]
        # Without integers there is nothing to rate, and tables are not learned; a Bernoulli of
        # signs has one parameter.
        kind = options.get("quantizer.mode", "noise")
        unused = "density.scale" if kind == "binary" else "rate_model"
        unused = None if options == learned else unused
        assert all(unused and unused in name for name in still), still
        assert torch.equal(appearance, model.scene.appearance) == (options != codes)


@pytest.mark.parametrize("mode", ["noise", "none"])
def test_latents_that_are_quantised_learn_faster_where_the_capture_asks_for_it(
    scene, tmp_path, mode
):
    options = {"latents_lr_mult": 2.0, "quantizer.mode": mode, "rate_lambda": 0.0}
    trainer = make_trainer(make_config(scene, tmp_path, options))
    (_, _, (*_, rates)), *_ = steps(trainer, 0, 1)
    base = {name: entry["optimizer"].lr for name, entry in trainer.config.optimizers.items()}
    others = rates["fields"] / base["fields"]
    assert others > 0
    expected = others * (2 if mode == "noise" else 1)
    assert rates["latents"] / base["latents"] == pytest.approx(expected)
    group = trainer.optimizers.optimizers["latents"].param_groups[0]
    assert group["lr"] == rates["latents"]


def test_level_dropout_trains_prefixes_and_leaves_their_rate_out(scene, tmp_path):
    trainer = make_trainer(make_config(scene, tmp_path, {"rate.level_dropout": 0.5}))
    model = trainer.pipeline.model
    encoding = model.scene.encoding
    trained, get_outputs = [], model.get_outputs
    model.get_outputs = lambda rays: trained.append(encoding.trained_levels) or get_outputs(rays)
    history = steps(trainer, 0, 40)
    schedule = model.compressor.schedule
    expected = [schedule.num_levels_at(step, 4, seed=torch.initial_seed()) for step in range(40)]
    assert set(expected) == {1, 2, 3, 4}
    assert trained == expected
    assert ["rate_loss" in losses for losses, _, _ in history] == [n == 4 for n in expected]
    assert encoding.trained_levels == 4  # for the occupancy


def test_a_file_of_signs_holds_signs_and_looks_the_same(scene, tmp_path):
    from shacira_nerfstudio.bench.throughput.nerfstudio_side import own_file, twin
    from shacira_nerfstudio.codec import decode_scene, encode_scene

    options = {"quantizer.mode": "binary"}
    options |= {"grid.latent_dim": 4, "grid.features_per_level": 4}
    trainer = make_trainer(make_config(scene, tmp_path, options))
    steps(trainer, 0, 30)
    model = trainer.pipeline.model
    assert model.scene.encoding.latent_decoder.matrix is None  # signs need no scale of their own
    data = own_file(model)
    symbols = decode_scene(data).symbols
    assert set(symbols.flatten().tolist()) <= {-1, 0, 1} and (symbols == -1).any()
    assert encode_scene(decode_scene(data)) == data
    decoded = twin(model, model.config.backend, data)
    camera = trainer.pipeline.datamanager.eval_dataset.cameras[0:1]
    model.eval()
    ours, theirs = (m.get_outputs_for_camera(camera)["rgb"] for m in (model, decoded))
    assert (ours - theirs).abs().mean() < 0.02  # weights at eight bits


def test_a_run_empties_cells_that_no_ray_sees(scene, tmp_path):
    trainer = make_trainer(make_config(scene, tmp_path, {"sampling.visibility_start": 0.5}))
    occupancy = trainer.pipeline.model.scene.occupancy
    steps(trainer, 0, NUM_STEPS // 4)
    assert not occupancy.weight.any()
    steps(trainer, NUM_STEPS // 4, NUM_STEPS // 2)
    assert occupancy.weight.any() and occupancy.visible_from is None
    before = occupancy.occupied_fraction
    # After so few steps all is fog: only what weighs most of all shall count.
    threshold = float(occupancy.weight.sort().values[-100])
    trainer.pipeline.model.config.sampling.visibility_threshold = threshold
    steps(trainer, NUM_STEPS // 2, NUM_STEPS)
    assert occupancy.visible_from == threshold
    assert 0 < occupancy.occupied_fraction < before
    seen = occupancy.weight.view_as(occupancy.occupied) >= threshold
    assert not occupancy.occupied[~_with_neighbours(seen)].any()


def _with_neighbours(cells):
    padded = torch.nn.functional.pad(cells, (1,) * 6)
    size = len(cells)
    near = [slice(k, k + size) for k in range(3)]
    return torch.stack([padded[x, y, z] for x in near for y in near for z in near]).any(0)


def test_a_file_is_rendered_in_the_steps_that_were_asked_for(scene, tmp_path):
    from shacira_nerfstudio.bench.throughput.nerfstudio_side import own_file, twin
    from shacira_nerfstudio.codec import decode_scene

    trainer = make_trainer(make_config(scene, tmp_path, {"sampling.render_steps_across_box": 512}))
    steps(trainer, 0, 30)
    model = trainer.pipeline.model.eval()
    settings = model.scene.settings
    assert settings.train_march.step_size == 4 * settings.render_march.step_size
    data = own_file(model)
    assert decode_scene(data).rendering.step_size == np.float32(settings.render_march.step_size)
    camera = trainer.pipeline.datamanager.eval_dataset.cameras[0:1]
    found = twin(model, model.config.backend, data).get_outputs_for_camera(camera)["rgb"]
    fine = model.get_outputs_for_camera(camera)["rgb"]
    model.scene.settings = dataclasses.replace(settings, render_march=settings.train_march)
    coarse = model.get_outputs_for_camera(camera)["rgb"]
    assert not torch.equal(fine, coarse)
    assert (found - fine).abs().mean() < (found - coarse).abs().mean()
