"""Rows of pictures: measured once, averaged, and put beside the published curve."""

import numpy as np
import pytest
from synthetic_pictures import frames, picture

from shacira_nerfstudio.bench.pictures import run
from shacira_nerfstudio.bench.pictures.metrics import figures
from shacira_nerfstudio.bench.pictures.rivals import RIVALS
from shacira_nerfstudio.bench.pictures.summary import (
    ANCHOR,
    PLAIN,
    mean_rows,
    published_curves,
    rate_at,
    summary_text,
)
from shacira_nerfstudio.cli.main import main
from shacira_nerfstudio.pictures.files.image_files import write_image


def test_rows_are_measured_once(tmp_path, capsys):
    for name in "ab":
        write_image(tmp_path / f"{name}.png", picture(176, 168))
    output = tmp_path / "rows.jsonl"
    command = ["bench", "images", "--data", str(tmp_path), "--output", str(output), "--limit", "1"]
    command += ["--num-steps", "4", "--rate-lambdas", "1e-3", "--paper-log2-tables", "8"]
    assert main([*command, "--methods", "ours", "ngp", "rivals"]) == 0
    first = capsys.readouterr()
    rows = run.load_rows(output)
    assert {row["image"] for row in rows} == {"a"}
    assert {"ours, normal", "JPEG", "Instant-NGP, half floats"} <= {row["method"] for row in rows}
    assert all(row["bytes"] > 0 and 0 < row["psnr"] < 80 and row["machine"] for row in rows)
    pages = ["--pages", str(tmp_path / "pages")]
    before = output.read_bytes()
    assert main([*command, *pages, "--methods", "ours", "ngp", "rivals"]) == 0
    table = (tmp_path / "pages" / "rows.md").read_text(encoding="utf-8")
    assert "| a |" in table and "JPEG 90" in table
    assert (tmp_path / "pages" / "rows.png").read_bytes()[:4] == b"\x89PNG"
    assert output.read_bytes() == before and capsys.readouterr().err == ""
    assert first.err.count("\n") == len(rows)


def test_videos_are_measured_once(tmp_path, capsys):
    moving = frames(width=176, height=168, count=3)
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(moving):
        write_image(tmp_path / "frames" / f"{number}.png", frame)
    output = tmp_path / "rows.jsonl"
    command = ["bench", "video", "--data", str(tmp_path / "frames"), "--output", str(output)]
    command += ["--limit", "2", "--num-steps", "3", "--rate-lambdas", "1e-3"]
    command += ["--methods", "ours", "ngp", "rivals", "--log2-tables", "8"]
    assert main([*command, "--pages", str(tmp_path)]) == 0
    rows = run.load_rows(output)
    assert {row["method"] for row in rows} == {"ours, normal", PLAIN, "x264", "x265"}
    assert {row["frames"] for row in rows} == {2} and all(row["psnr"] > 5 for row in rows)
    best = max(row["psnr"] for row in rows if row["method"] == "x264")
    assert best > 30 and (tmp_path / "rows.md").exists()
    before = output.read_bytes()
    capsys.readouterr()
    assert main(command) == 0
    assert output.read_bytes() == before and capsys.readouterr().err == ""


def test_rates_between_points():
    curve = [(0.1, 20.0), (0.4, 30.0)]
    assert rate_at(curve, 25.0) == pytest.approx(0.2)
    assert rate_at(curve, 19.0) is None and rate_at(curve, 31.0) is None


def test_figures_of_the_same_and_of_another_picture():
    truth = picture(176, 168)
    assert figures(truth, truth)["ssim"] == pytest.approx(1)
    found = figures(truth, np.clip(truth.astype(int) + 5, 0, 255).astype(np.uint8))
    assert 30 < found["psnr"] < 36 and found["ms_ssim"] < 1


def row(method, setting, bpp, psnr, image="a"):
    return {
        "key": f"{image}/{method}/{setting}", "image": image, "method": method,
        "setting": setting, "bpp": bpp, "psnr": psnr, "ssim": 0.9, "ms_ssim": 0.95,
        "train_seconds": 1.0, "decode_seconds": 0.1,
    }  # fmt: skip


def test_half_the_rate_is_minus_fifty_percent():
    curve = published_curves()[ANCHOR]
    rows = [row("half", str(k), bpp / 2, psnr) for k, (bpp, psnr) in enumerate(curve)]
    assert "-50.0 %" in summary_text(rows)
    assert len(mean_rows(rows)) == len(curve)
    with pytest.raises(ValueError, match="expected half at 1 on 2 pictures, got 1"):
        mean_rows([row("half", "0", 1, 30, "b"), *rows])


def test_every_codec_has_a_curve():
    assert {rival.name for rival in RIVALS if rival.is_there} >= {"JPEG", "WebP"}
