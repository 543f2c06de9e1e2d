"""What `auto` decides, for every kind of capture."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from shacira_nerfstudio.plugin.scene_settings import resolve_scene_settings

WHITE, BLACK, GREY = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.5, 0.25, 0.5)


def resolve(facts=None, *, low=(-1.0, -1.0, -1.0), high=(1.0, 1.0, 1.0), **changes):
    options = {"contraction": "auto", "background_color": "auto", "steps_across_box": 1024}
    options |= {"render_steps_across_box": 0, "near_plane": 0.05, "far_plane": 1000.0, **changes}
    box = SimpleNamespace(aabb=torch.tensor([low, high]))
    return resolve_scene_settings(SimpleNamespace(**options), box, facts)


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
    facts = {"alpha_color": alpha_color, "bounded": bounded}
    assert resolve(facts, contraction=asked).march.contraction == expected


def test_no_facts_is_an_open_scene():
    assert resolve(None).march == resolve({}).march
    assert resolve(None).march.contraction == "contracted"


def test_numbers_of_the_march():
    march = resolve({"bounded": True}).march
    assert march.box == ((-1, -1, -1), (1, 1, 1))
    assert (march.near, march.far, march.knee) == (0.05, 1000, 0)
    assert march.step_size == pytest.approx(2 * math.sqrt(3) / 1024)
    march = resolve({"bounded": False}, steps_across_box=512).march
    assert march.knee == 2
    assert march.step_size == pytest.approx(4 * math.sqrt(3) / 512)  # [-2, 2]^3


def test_rendering_has_steps_of_its_own_if_asked_for():
    assert resolve().render == resolve().march
    settings = resolve({"bounded": False}, render_steps_across_box=4096)
    assert settings.march.step_size == 4 * settings.render.step_size
    assert replace(settings.render, step_size=settings.march.step_size) == settings.march


def test_the_longest_side_of_a_box_counts():
    march = resolve(low=(0.0, -3.0, 1.0), high=(1.0, 5.0, 2.0)).march
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
    settings = resolve({"alpha_color": alpha_color}, background_color=asked)
    assert settings.background == name
    for training, expected in ((True, while_training), (False, afterwards)):
        found = settings.background_for(training=training)
        # None leaves a random background to the host, which adds it in the loss.
        assert (tuple(found.tolist()) if isinstance(found, torch.Tensor) else found) == expected
