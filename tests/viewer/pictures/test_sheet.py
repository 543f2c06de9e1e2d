"""Sheets of an evaluation show what was measured."""

import numpy as np
import pytest
from PIL import Image

from shacira_nerfstudio.viewer.pictures.sheet import LARGEST_ERROR, SheetWriter, error_picture

WIDTH, HEIGHT, GAP = 300, 200, 8


@pytest.fixture
def views():
    random = np.random.default_rng(0)
    return [random.random((HEIGHT, WIDTH, 3)) for _ in range(2)]


def test_a_row_is_truth_rendered_and_error(views, tmp_path):
    truth, rendered = views
    with SheetWriter(tmp_path / "s") as sheets:
        sheets.add(truth, rendered, "view 0, 28.00 dB")
    (path,) = sheets.paths
    pixels = np.asarray(Image.open(path).convert("RGB")) / 255
    assert pixels.shape[1] == 3 * (WIDTH + GAP) + GAP
    top = 26 + 20
    for index, shown in enumerate((truth, rendered, error_picture(truth, rendered))):
        left = GAP + index * (WIDTH + GAP)
        found = pixels[top : top + HEIGHT, left : left + WIDTH]
        assert np.abs(found - shown).max() <= 0.5 / 255 + 1e-6, index


def test_error_is_black_without_and_brightest_above_the_largest():
    truth = np.zeros((1, 3, 3))
    rendered = np.zeros((1, 3, 3))
    rendered[0, 1], rendered[0, 2] = LARGEST_ERROR, 1.0
    colors = error_picture(truth, rendered)
    assert not colors[0, 0].any()
    assert np.array_equal(colors[0, 1], colors[0, 2]) and colors[0, 1].sum() > 2


def test_small_pictures_grow_by_whole_pixels(tmp_path):
    small = np.random.default_rng(1).random((6, 10, 3))
    with SheetWriter(tmp_path) as sheets:
        sheets.add(small, small, "view 0")
    pixels = np.asarray(Image.open(sheets.paths[0]).convert("RGB"))
    width = (pixels.shape[1] - GAP) // 3 - GAP
    assert width % 10 == 0 and width >= 240
    shown = pixels[46 : 46 + 6 * width // 10 : width // 10, 8 : 8 + width : width // 10] / 255
    assert np.abs(shown - small).max() <= 0.5 / 255 + 1e-6


def test_sheets_of_an_earlier_evaluation_go(views, tmp_path):
    for count, expected in ((5, 3), (2, 1)):
        with SheetWriter(tmp_path, rows=2) as sheets:
            for index in range(count):
                sheets.add(*views, f"view {index}")
        names = [f"sheet_{index:03d}.png" for index in range(expected)]
        assert sorted(path.name for path in tmp_path.iterdir()) == names
        assert [path.name for path in sheets.paths] == names


def test_an_evaluation_that_fails_leaves_the_old_sheets(views, tmp_path):
    with SheetWriter(tmp_path) as sheets:
        sheets.add(*views, "view 0")
    before = sheets.paths[0].read_bytes()
    with pytest.raises(RuntimeError), SheetWriter(tmp_path) as sheets:
        sheets.add(views[1], views[0], "view 0")
        raise RuntimeError
    assert sheets.paths == [] and (tmp_path / "sheet_000.png").read_bytes() == before


def test_pictures_of_two_sizes_are_refused(tmp_path):
    with SheetWriter(tmp_path) as sheets:
        with pytest.raises(ValueError, match="of one size"):
            sheets.add(np.zeros((2, 3, 3)), np.zeros((3, 2, 3)), "view 0")
