"""What `auto` decides, for every kind of capture."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
import yaml
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image
from tiny_runs import make_config, make_trainer, set_options

from shacira_nerfstudio.plugin.capture_kind import (
    QUALITIES,
    SETTINGS,
    STEPS,
    choose_settings,
    num_steps_of,
)
from shacira_nerfstudio.plugin.config import shacira_method
from shacira_nerfstudio.plugin.dataset_metadata import DatasetMetadata
from shacira_nerfstudio.plugin.device_settings import ON_CUDA
from shacira_nerfstudio.plugin.evaluate import open_run
from shacira_nerfstudio.plugin.model_config import ShaciraModelConfig

BOX = ((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5))
AROUND = np.linspace(0, 2 * np.pi, 12, endpoint=False)


def cameras(angles, kind=CameraType.PERSPECTIVE):
    """Cameras on a circle in the plane z = 0 that look outwards."""
    angles = np.asarray(angles)
    zero, cos, sin = np.zeros_like(angles), np.cos(angles), np.sin(angles)
    axes = [[sin, -cos, zero], [zero, zero, zero + 1], [-cos, -sin, zero], [cos, sin, zero]]
    poses = torch.tensor(np.array(axes).transpose(2, 1, 0), dtype=torch.float32)
    return Cameras(poses, 20.0, 20.0, 10.0, 10.0, 20, 20, camera_type=kind)


OBJECT = DatasetMetadata(
    alpha_color=(1.0, 1.0, 1.0),
    cameras=cameras(AROUND),
    is_bounded=True,
    object_box=BOX,
    is_cut_out=True,
    reason="pictures are cut out",
)
BLENDER = DatasetMetadata(alpha_color=(0.0, 0.0, 0.0), cameras=cameras(AROUND), is_bounded=True)
PLACE = DatasetMetadata(cameras=cameras(AROUND))
FORWARD = DatasetMetadata(cameras=cameras([-0.1, 0.0, 0.1]))


def chosen(dataset, **options):
    config = ShaciraModelConfig()
    set_options(config, options)
    choice = choose_settings(config, dataset)
    return config, choice


def values_of(config):
    flat = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat |= {f"{field.name}.{name}": part for name, part in values_of(value).items()}
        else:
            flat[field.name] = value
    return flat


@pytest.mark.parametrize(
    ("dataset", "kind"),
    [
        (OBJECT, "object"),
        (BLENDER, "object"),
        (PLACE, "place"),
        (FORWARD, "forward"),
        (DatasetMetadata(cameras=cameras([0.0, 0.1], CameraType.EQUIRECTANGULAR)), "place"),
        (DatasetMetadata(cameras=FORWARD.cameras, alpha_color=(1.0, 1.0, 1.0)), "object"),
        (DatasetMetadata(), "place"),
    ],
)
def test_pixels_and_cameras_say_the_kind(dataset, kind):
    config, choice = chosen(dataset)
    assert choice.kind == config.capture == kind and choice.reason
    wanted = {name: row[1] for name, row in SETTINGS[kind].items() if name != STEPS}
    found = values_of(config)
    assert {name: found[name] for name in wanted} == wanted
    assert num_steps_of(config) == SETTINGS[kind][STEPS][1]


def test_every_option_that_is_open_has_a_value_for_every_kind_and_quality():
    is_open = {name for name, value in values_of(ShaciraModelConfig()).items() if value == "auto"}
    # These are chosen in another way.
    is_open -= {"capture", "box", "background_color", "backend"}
    for kind, rows in SETTINGS.items():
        assert rows.keys() - {STEPS} == is_open
        assert all(len(row) == len(QUALITIES) for row in rows.values())
        for column, quality in enumerate(QUALITIES):
            config, choice = chosen(PLACE, quality=quality, capture=kind)
            config.check()
            assert choice.values == {
                name: row[column] for name, row in rows.items() if name != STEPS
            }
            assert num_steps_of(config) == rows[STEPS][column]
        assert list(rows[STEPS]) == sorted(rows[STEPS])


def test_objects_are_trained_as_they_have_been():
    config, _ = chosen(BLENDER)
    grid, sampling = config.grid, config.sampling
    assert (grid.latent_dim, grid.log2_hashmap_size, grid.max_res) == (1, 18, 1024)
    assert (sampling.steps_across_box, sampling.render_steps_across_box) == (768, 0)
    assert sampling.target_num_samples == 96 << 10 and config.networks.num_color_layers == 1
    assert config.box == config.background_color == "auto"  # the data parser's


def test_what_is_given_wins_and_all_else_follows():
    given = {"grid.latent_dim": 4, "contraction": "affine", "background_color": "random"}
    config, choice = chosen(PLACE, **given)
    found = values_of(config)
    assert {name: found[name] for name in given} == given
    assert not given.keys() & choice.values.keys()
    assert config.capture == "place" and config.grid.max_res == SETTINGS["place"]["grid.max_res"][1]
    config, choice = chosen(PLACE, capture="object")
    assert config.contraction == "affine" and choice.reason == "as asked for"
    config, _ = chosen(OBJECT, capture="place")
    assert config.contraction == "contracted" and config.box == "auto"
    assert chosen(OBJECT)[0].box == (*BOX[0], *BOX[1])
    assert chosen(OBJECT)[0].background_color == "white"
    assert chosen(OBJECT, fit_box=False)[0].box == "auto"


def test_a_second_choice_changes_nothing():
    config, _ = chosen(OBJECT)
    before = copy.deepcopy(config)
    assert choose_settings(config, PLACE).values == {} and config == before


def test_the_line_says_what_was_chosen_and_why():
    config, choice = chosen(OBJECT, **{"grid.max_res": 77})
    line = choice.line(config.quality, "9 steps")
    assert "\n" not in line and "object (pictures are cut out), quality normal, 9 steps" in line
    assert "contraction affine" in line and "latent_dim 1" in line and "max_res" not in line
    assert "box (-0.5, -0.5, -0.5, 0.5, 0.5, 0.5)" in line and "background_color white" in line


@pytest.mark.parametrize(
    ("box", "is_good"),
    [((0, 0, 0, 1, 1, 1), True), ((0, 0, 1, 1, 1, 1), False), ((0, 0, 0, 1, 1, np.inf), False)],
)
def test_a_box_has_its_lower_corner_first(box, is_good):
    config, _ = chosen(PLACE, box=box)
    if is_good:
        config.check()
    else:
        with pytest.raises(ValueError, match="expected box with its lower corner first"):
            config.check()


# ── whole runs ──


def write_capture(folder, angles, *, channels):
    """A capture as Nerfstudio has them; with 4 channels of a disc in front of nothing."""
    views = cameras(angles).camera_to_worlds.numpy()
    if channels == 4:
        views[:, :, 3] *= -3  # they look inwards
    rows, columns = np.mgrid[-10:10, -10:10]
    pixels = np.random.default_rng(0).integers(0, 255, (20, 20, channels), np.uint8)
    if channels == 4:
        pixels[..., 3] = 255 * (rows**2 + columns**2 < 50)
    frames = []
    for index, pose in enumerate(views):
        Image.fromarray(pixels).save(folder / f"{index}.png")
        matrix = [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]]
        frames.append({"file_path": f"{index}.png", "transform_matrix": matrix})
    lens = {"fl_x": 20.0, "fl_y": 20.0, "cx": 10.0, "cy": 10.0, "w": 20, "h": 20}
    text = json.dumps({**lens, "frames": frames})
    (folder / "transforms.json").write_text(text, encoding="utf-8")


def set_up_run(folder, output, **options):
    """A run of no step, saved as ns-train does; its trainer and its config.yml."""
    config = make_config(folder, output, options)
    config.pipeline.datamanager.dataparser = NerfstudioDataParserConfig(data=folder)
    config.max_num_iterations = 0
    config.save_config()
    trainer = make_trainer(config)
    trainer.save_checkpoint(0)
    return trainer, output / "e" / "shacira" / "t" / "config.yml"


@pytest.mark.nerfstudio
@pytest.mark.parametrize(
    ("angles", "channels", "kind"),
    [(AROUND, 4, "object"), (AROUND, 3, "place"), (AROUND / 40, 3, "forward")],
)
def test_a_run_saves_what_was_chosen_for_it(tmp_path, capsys, angles, channels, kind):
    folder = tmp_path / "capture"
    folder.mkdir()
    write_capture(folder, angles, channels=channels)
    trainer, path = set_up_run(folder, tmp_path / "out")
    config = trainer.config.pipeline.model
    assert config.capture == kind and config.grid.max_res == 64  # which was given
    assert config.grid.latent_dim == SETTINGS[kind]["grid.latent_dim"][1]
    assert trainer.config.max_num_iterations == SETTINGS[kind][STEPS][1]
    assert " ".join(capsys.readouterr().out.split()).count(f"Capture of kind {kind}") == 1
    saved = yaml.load(path.read_text("utf-8"), Loader=yaml.Loader)
    assert saved.pipeline.model == config
    assert saved.max_num_iterations == trainer.config.max_num_iterations
    # Whoever opens it sees the same scene, and is told nothing again.
    opened = open_run(path).model
    assert opened.scene.settings == trainer.pipeline.model.scene.settings
    assert opened.config == config and "of kind" not in capsys.readouterr().out


@pytest.mark.nerfstudio
def test_the_method_leaves_the_number_of_steps_to_quality_and_capture():
    assert shacira_method.config.max_num_iterations == 0


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_gpu_takes_more_steps_and_larger_batches_of_the_same_model(kind):
    for column, quality in enumerate(QUALITIES):
        on_cpu, _ = chosen(PLACE, quality=quality, capture=kind)
        on_gpu = ShaciraModelConfig(quality=quality, capture=kind)
        choose_settings(on_gpu, PLACE, device_type="cuda")
        differing = {
            name for name, value in values_of(on_gpu).items() if values_of(on_cpu)[name] != value
        }
        assert differing == set(ON_CUDA) - {STEPS}
        assert on_gpu.sampling.target_num_samples >= on_cpu.sampling.target_num_samples
        steps = num_steps_of(on_gpu, device_type="cuda")
        assert steps == ON_CUDA[STEPS][column] > num_steps_of(on_cpu)
        # A run that goes on elsewhere keeps what was chosen.
        assert choose_settings(on_gpu, PLACE, device_type="cpu").values == {}
