"""Pieces of `make demo`; the whole of it is a command of its own."""

import io
import sys

import pytest
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from shacira_nerfstudio.cli import demo
from shacira_nerfstudio.plugin.presets import load_preset


@pytest.fixture
def progress():
    with Progress(console=Console(file=io.StringIO())) as progress:
        yield progress


def test_the_bar_follows_the_host(tmp_path, progress):
    lines = "10 (25.00%)   0.5 s   1 m\\n20 (50.00%)   0.5 s   1 m"
    log = tmp_path / "log"
    seen = []
    update = progress.update
    progress.update = lambda task, **fields: (
        seen.append(fields["completed"]),
        update(task, **fields),
    )
    demo._run([sys.executable, "-c", f"print('{lines}')"], log, progress, "train")
    assert seen == [25.0, 50.0, 100]
    assert "20 (50.00%)" in log.read_text(encoding="utf-8")


def test_a_failing_command_shows_the_end_of_its_log(tmp_path, progress):
    code = "import sys; print('all went wrong'); sys.exit(3)"
    with pytest.raises(RuntimeError, match=r"(?s)status 3.*all went wrong") as error:
        demo._run([sys.executable, "-c", code], tmp_path / "log", progress, "train")
    assert str(tmp_path / "log") in str(error.value)


def test_the_picture_shows_truth_file_and_error(tmp_path):
    for index in demo._PICTURE_VIEWS:
        Image.new("RGB", (30, 10), (index, 0, 0)).save(tmp_path / f"eval_img_{index:04d}.png")
    demo._write_picture(tmp_path, tmp_path / "sheet.png")
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.width == 60 and sheet.height > 2 * 20
    assert sheet.getpixel((5, sheet.height - 1)) == (demo._PICTURE_VIEWS[-1], 0, 0)


def test_the_preset_is_there():
    assert load_preset(demo.PRESET)["max_num_iterations"] > 0


@pytest.mark.parametrize("code", ["", "raise ImportError('libusb is not there')"])
def test_the_demo_knows_whether_the_host_can_export(tmp_path, monkeypatch, code):
    # The host's exporter imports open3d, which needs libraries that no Python package brings.
    (tmp_path / "open3d.py").write_text(code, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    expected = "ImportError: libusb is not there" if code else None
    assert demo._host_export_problem() == expected
