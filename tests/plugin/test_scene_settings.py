"""March and background of a scene, by the options and by the data set."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny_runs import set_options

from shacira_nerfstudio.plugin.capture_kind import choose_settings
from shacira_nerfstudio.plugin.dataset_metadata import DatasetMetadata
from shacira_nerfstudio.plugin.model_config import ShaciraModelConfig
from shacira_nerfstudio.plugin.scene_settings import scene_settings, trains_on_random_background

BOUNDED, UNBOUNDED = DatasetMetadata(is_bounded=True), DatasetMetadata(is_bounded=False)
WHITE, BLACK, GREY = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.5, 0.25, 0.5)


def resolve(dataset=None, *, low=(-1.0, -1.0, -1.0), high=(1.0, 1.0, 1.0), steps=1024, **changes):
    config = ShaciraModelConfig()
    set_options(config, {"sampling.steps_across_box": steps, **changes})
    box = SimpleNamespace(aabb=torch.tensor([low, high]))
    dataset = dataset or DatasetMetadata()
    choose_settings(config, dataset)
    return scene_settings(config, box, dataset)


@pytest.mark.parametrize(
    ("alpha_color", "bounded", "asked", "expected"),
    [
        (None, None, "auto", "contracted"),
        (WHITE, None, "auto", "affine"),
        (None, True, "auto", "affine"),
        (None, False, "auto", "contracted"),
        (WHITE, False, "auto", "contracted"),
        (BLACK, True, "auto", "affine"),
        (None, None, "affine", "affine"),
        (WHITE, True, "contracted", "contracted"),
    ],
)
def test_contraction(alpha_color, bounded, asked, expected):
    dataset = DatasetMetadata(alpha_color=alpha_color, is_bounded=bounded)
    assert resolve(dataset, contraction=asked).train_march.contraction == expected


def test_without_metadata_a_scene_is_open():
    assert DatasetMetadata.of(None) == DatasetMetadata.of({}) == DatasetMetadata()
    assert resolve().train_march.contraction == "contracted"


def test_numbers_of_the_march():
    march = resolve(BOUNDED).train_march
    assert march.box == ((-1, -1, -1), (1, 1, 1))
    assert (march.near, march.far, march.knee) == (0.05, 1000, 0)
    assert march.step_size == pytest.approx(2 * math.sqrt(3) / 1024)
    march = resolve(UNBOUNDED, steps=512).train_march
    assert march.knee == 2
    assert march.step_size == pytest.approx(4 * math.sqrt(3) / 512)  # [-2, 2]^3


def test_a_box_that_is_given_counts():
    march = resolve(BOUNDED, box=(0.0, 0.0, 0.0, 1.0, 2.0, 1.0)).train_march
    assert march.box == ((0, 0, 0), (1, 2, 1))
    assert march.step_size == pytest.approx(2 * math.sqrt(3) / 1024)


def test_nothing_is_made_of_what_is_not_chosen():
    config = ShaciraModelConfig()
    with pytest.raises(ValueError, match="chosen by now, got auto"):
        scene_settings(config, SimpleNamespace(aabb=torch.ones(2, 3)), DatasetMetadata())


def test_rendering_has_steps_of_its_own_if_asked_for():
    assert resolve().render_march == resolve().train_march
    settings = resolve(UNBOUNDED, **{"sampling.render_steps_across_box": 4096})
    assert settings.train_march.step_size == 4 * settings.render_march.step_size
    same_steps = replace(settings.render_march, step_size=settings.train_march.step_size)
    assert same_steps == settings.train_march


def test_the_longest_side_of_a_box_counts():
    march = resolve(low=(0.0, -3.0, 1.0), high=(1.0, 5.0, 2.0)).train_march
    assert march.box == ((0, -3, 1), (1, 5, 2))
    assert march.step_size == pytest.approx(16 * math.sqrt(3) / 1024)
    assert march.knee == 8


@pytest.mark.parametrize(
    ("alpha_color", "asked", "while_training", "name", "afterwards"),
    [
        (WHITE, "auto", WHITE, "white", WHITE),
        (BLACK, "auto", BLACK, "black", BLACK),
        (GREY, "auto", GREY, "color", GREY),
        (None, "auto", None, "black", BLACK),
        (None, "random", None, "black", BLACK),
        (WHITE, "random", None, "black", BLACK),
        (None, "white", WHITE, "white", WHITE),
        (WHITE, "black", BLACK, "black", BLACK),
        (None, "last_sample", "last_sample", "last_sample", "last_sample"),
    ],
)
def test_background(alpha_color, asked, while_training, name, afterwards):
    dataset = DatasetMetadata(alpha_color=alpha_color)
    background = resolve(dataset, background_color=asked).background
    assert background.kind == name
    fill = background.fill
    assert (tuple(fill.tolist()) if isinstance(fill, torch.Tensor) else fill) == afterwards
    # None leaves a random background to the host, which adds it in the loss.
    config = ShaciraModelConfig(background_color=asked)
    is_random = trains_on_random_background(config, dataset)
    assert (None if is_random else afterwards) == while_training
