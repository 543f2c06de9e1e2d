"""Reports of a few synthetic rows: every figure in them can be told beforehand."""

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from shacira_nerfstudio.bench.report import tables
from shacira_nerfstudio.bench.report.plot_data import byte_text, byte_ticks, plots
from shacira_nerfstudio.bench.report.plot_png import write_png
from shacira_nerfstudio.bench.report.readme_block import (
    BEGIN,
    EMPTY,
    END,
    replace_block,
    results_block,
)
from shacira_nerfstudio.bench.report.results_page import CSV_HEAD, survey_csv, write_report
from shacira_nerfstudio.bench.report.rows import ablations, curves, load_rows
from shacira_nerfstudio.cli import main as cli

ROWS = Path(__file__).with_name("synthetic_rows.jsonl")


RESULTS = Path(tables.__file__).parents[1] / "results"
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def rows():
    return load_rows([ROWS])


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    paths = write_report([ROWS], folder)
    assert sorted(paths) == sorted(path for path in folder.rglob("*") if path.is_file())
    return folder


def cells(table):
    """Rows of a Markdown table, by their first cell."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()]
    head = [cell.strip() for cell in table.splitlines()[0].split("|")[2:-1]]
    return {line[0]: dict(zip(head, line[1:], strict=True)) for line in lines[2:]}


def test_rows_become_curves_by_method_and_points_by_setting(rows):
    by_name = {(curve.scene, curve.name): curve for curve in curves(rows)}
    assert by_name.keys() == {
        *(("lego", name) for name in ("shacira", "other", "ngp-fp16")),
        ("fox", "shacira"),
    }
    ours = by_name["lego", "shacira"]
    assert [point.label for point in ours.points] == [
        "lambda 0.008",
        "lambda 0.002",
        "lambda 0.0005",
    ]
    seeds = ours.points[1]  # of two seeds: 32.0 and 32.2 dB, 200,000 and 220,000 bytes
    assert len(seeds.rows) == 2
    assert (seeds.psnr, seeds.bytes) == (pytest.approx(32.1), 210_000)


def test_a_point_is_named_by_the_settings_that_it_has(rows):
    row = next(row for row in rows if row["scene"] == "fox")
    changes = ({}, {"model.target_size_kb": 60.0}, {"model.target_psnr": 27.0})
    some = [{**row, "settings": change, "psnr": 20.0 + n} for n, change in enumerate(changes)]
    (curve,) = curves(some)
    assert [point.label for point in curve.points] == [
        *("lambda 0.001", "target_size_kb 60.0", "target_psnr 27.0"),
    ]


def test_curves_that_share_a_method_are_told_apart(rows):
    more = [{**row, "steps": 2000, "key": "x"} for row in rows if row["scene"] == "fox"]
    more += [{**row, "preset": "big", "key": "y"} for row in rows if row["scene"] == "fox"]
    fox = [row for row in rows if row["scene"] == "fox"]
    names = {curve.name for curve in curves([*fox, *more])}
    assert names == {
        *("shacira big", "shacira synthetic, 1000 steps", "shacira synthetic, 2000 steps"),
    }


def test_a_learning_curve_is_what_differs_in_its_steps_alone(rows):
    assert tables.learning_table(curves(rows)) == ""
    (plain,) = (row for row in rows if row["method"] == "ngp-fp16")
    more = [{**plain, "steps": 8000, "psnr": 36.0, "key": "x"}]
    more += [{**plain, "steps": 500, "settings": {"model.grid.log2_hashmap_size": 15}, "key": "y"}]
    lines = tables.learning_table(curves([*rows, *more])).splitlines()[2:]
    assert [line.split(" | ")[1:] for line in lines] == [
        ["1,000", "600", "20,000,000", "33.00", "- |"],
        ["8,000", "600", "20,000,000", "36.00", "+1.00 |"],  # 3 dB over three doublings
    ]


def test_the_bd_table_says_what_follows_from_the_rows(rows):
    lego = [curve for curve in curves(rows) if curve.scene == "lego"]
    table = cells(tables.bd_table(lego))
    # "other" has three times the bytes at both ends, and four times by the paper's accounting.
    plain = [curve for curve in lego if curve.name != "shacira"]
    assert table["shacira"]["other"].endswith(" %")
    assert -68 < float(table["shacira"]["other"][:-2]) < -64
    assert table["other"]["other"] == tables.NONE
    assert cells(tables.bd_table(plain))["other"]["other, paper's accounting"] == "-25.0 %"
    assert table["shacira"]["ngp-fp16"].endswith("at 33.00 dB")  # a single point
    assert -99 < float(table["shacira"]["ngp-fp16"].split()[0]) < -98
    # What has no PSNR in common with anything is left out; without anything to compare, all is.
    assert "ngp-fp16" not in table and "MaskDWT (published)" not in table["shacira"]
    assert tables.bd_table([curve for curve in curves(rows) if curve.scene == "fox"]) == ""
    better = [{**row, "psnr": row["psnr"] + 1.5} for row in rows if row["scene"] == "lego"]
    assert "MaskDWT (published)" in cells(tables.bd_table(curves(better)))["shacira"]
    # At half the resolution nothing published is an anchor.
    assert "published" not in tables.bd_table(
        curves([{**row, "resolution": [400, 400]} for row in better])
    )


def test_quality_stands_beside_both_sizes(rows):
    lego = [curve for curve in curves(rows) if curve.scene == "lego"]
    table = cells(tables.quality_table(lego))
    line = table["shacira, lambda 0.0005"]
    assert line["bytes (`ls -l`)"] == "400,000" and line["paper's accounting"] == "800,000"
    assert line["MS-SSIM"] == "0.9500" and table["other, lambda 0.0005"]["MS-SSIM"] == tables.NONE
    assert "shacira, lambda 0.002 (2 seeds)" in table
    parts = cells(tables.parts_table(lego))
    assert parts["shacira, lambda 0.0005"] == {"latents": "380,000", "weights": "20,000"}
    costs = cells(tables.cost_table(lego))["shacira, lambda 0.0005"]
    assert (costs["train s"], costs["decode s"], costs["test views"]) == ("600", "0.25", "20")
    row = next(row for row in rows if row["scene"] == "lego")
    assert costs["where"] == f"{row['backend']}, {row['machine']}"
    noted = curves([{**row, "note": "beside others"} for row in rows])
    costs = cells(tables.cost_table(noted))["shacira, lambda 0.0005"]
    assert costs["where"].endswith(f"{row['machine']}, beside others")


def test_ablations_are_compared_with_their_base(rows):
    found = cells(tables.ablation_table(ablations(rows)))
    twice = found["no x"]  # twice the bytes of the base of its lambda, at equal PSNR
    assert twice["dB to base"] == "+0.00"
    assert twice["bytes to base"] == twice["bytes at its PSNR"] == "+100.0 %"
    beyond = found["no rate term"]  # no base of its lambda: the nearest PSNR; beyond its curve
    assert beyond["dB to base"] == "+2.00" and beyond["bytes to base"] == "+125.0 %"
    assert beyond["bytes at its PSNR"] == tables.NONE
    assert "where" not in twice
    moved = [{**row, "note": "elsewhere"} if row["key"] == "f0" else row for row in rows]
    found = cells(tables.ablation_table(ablations(moved)))
    assert found["no x"]["where"] == f"{found['no rate term']['where']}, elsewhere"
    alone = tables.ablation_table([row for row in ablations(rows) if row["ablation"] == "no x"])
    assert cells(alone)["no x"]["bytes to base"] == tables.NONE


def test_the_csv_is_that_of_the_survey(report, rows):
    text = (report / "csv" / "lego-800x800.csv").read_text("utf-8")
    lines = list(csv.reader(io.StringIO(text)))
    assert tuple(lines[0]) == CSV_HEAD == ("Submethod", "PSNR", "SSIM", "LPIPS", "Size [Bytes]")
    by_name = {line[0]: line[1:] for line in lines[1:]}
    assert by_name["shacira, lambda 0.008"] == ["30", "0.75", "0.05", "100000"]
    assert by_name["other, lambda 0.008"][2] == ""
    assert survey_csv([c for c in curves(rows) if c.scene == "lego"]) == text


def test_the_page_needs_nothing_else_and_tells_every_point(report, rows):
    page = (report / "rd.html").read_text("utf-8")
    assert not re.search(r"<script|src=|href=|https?:|@import|url\(", page)
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 2
    for drawing, plot in zip(drawings, plots(curves(rows)), strict=True):
        root = ElementTree.fromstring(drawing)
        circles = root.findall(".//circle")
        assert len(circles) == sum(len(series.points) for series in plot.series)
        for circle in circles:
            assert 0 < float(circle.get("cx", "-1")) < 860 and circle.find("title") is not None
    assert "shacira\nlambda 0.008\n30.00 dB, 100,000 bytes" in page


def test_names_are_escaped(rows, tmp_path):
    row = {**rows[0], "method": "<b>&", "scene": "a/../b"}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", "utf-8")
    write_report([path], tmp_path / "out")
    page = (tmp_path / "out" / "rd.html").read_text("utf-8")
    assert "<b>" not in page and "&lt;b&gt;&amp;" in page
    assert (tmp_path / "out" / "rd-a_.._b-800x800.png").exists()


def test_published_curves_stand_beside_ours(rows):
    lego = next(plot for plot in plots(curves(rows)) if "lego" in plot.title)
    names = [series.name for series in lego.series if series.kind == "published"]
    assert names == [
        f"{system} (published)" for system in ("MaskDWT", "HAC", "HAC++")
    ]  # SHACIRA gives no PSNR on lego
    half = [{**row, "resolution": [400, 400]} for row in rows if row["scene"] == "lego"]
    (plot,) = plots(curves(half))
    names = [series.name for series in plot.series if series.kind == "published"]
    assert names == [f"{system} (published, 800x800)" for system in ("MaskDWT", "HAC", "HAC++")]


def test_pictures_are_there(report):
    for name in ("rd-lego-800x800.png", "rd-fox-540x960.png"):
        with Image.open(report / name) as image:
            assert image.width > 600 and len(image.convert("L").getcolors(1 << 16) or []) > 3


@pytest.mark.parametrize("length", [1, 30, 70])
def test_a_legend_has_room(rows, tmp_path, length):
    (plot,) = plots(curves([row for row in rows if row["scene"] == "fox"]))
    many = [replace(plot.series[0], name=f"{n} {'n' * length}") for n in range(9)]
    write_png(replace(plot, series=tuple(many)), tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        pixels = image.convert("L")
        for left in (0, image.width - 2):
            edge = pixels.crop((left, 0, left + 2, image.height))
            assert edge.getextrema() == (255, 255)


def test_results_are_dated_and_linked(report):
    text = (report / "RESULTS.md").read_text("utf-8")
    assert "Measured 2000-01-01 on no machine, synthetic numbers for tests." in text
    assert "shacira bench rd configs/sweeps/synthetic.yaml" in text
    assert "synthetic_rows.jsonl" in text and str(report) not in text
    assert "half floats in zstd-19" in text
    for name in re.findall(r"\]\(([^)]+)\)", text):
        assert (report / name).exists(), name
    assert "HAC++ (Chen et al., TPAMI 2025)" in text  # published figures with their sources


def test_the_same_rows_make_the_same_bytes(report, tmp_path, capsys):
    shutil.copy(ROWS, tmp_path)
    out = tmp_path / "again"
    assert cli.main(["bench", "report", str(tmp_path / ROWS.name), "--output", str(out)]) == 0
    printed = capsys.readouterr().out.split()
    assert str(out / "RESULTS.md") in printed
    for path in report.rglob("*.*"):
        assert path.read_bytes() == (out / path.relative_to(report)).read_bytes(), path


def test_committed_results_are_generated_and_not_edited(tmp_path):
    write_report(sorted(RESULTS.glob("*.jsonl")), tmp_path)
    for path in [tmp_path / "RESULTS.md", tmp_path / "rd.html", *tmp_path.glob("csv/*")]:
        committed = RESULTS / path.relative_to(tmp_path)
        assert committed.read_text("utf-8") == path.read_text("utf-8"), committed


def test_the_readme_shows_the_committed_results():
    text = README.read_text("utf-8")
    rows = load_rows(sorted(RESULTS.glob("*.jsonl")))
    assert replace_block(text, results_block(rows, "shacira_nerfstudio/bench/results")) == text


def test_a_readme_gets_the_same_figures(rows, tmp_path, capsys):
    readme, out = tmp_path / "README.md", tmp_path / "a" / "report"
    readme.write_text(f"Before.\n{BEGIN}\nold\n{END}\nAfter.\n", "utf-8")
    command = ["bench", "report", str(ROWS), "--output", str(out), "--readme", str(readme)]
    assert cli.main(command) == 0
    assert str(readme) in capsys.readouterr().out
    text = readme.read_text("utf-8")
    assert text.startswith(f"Before.\n{BEGIN}\n") and text.endswith(f"\n{END}\nAfter.\n")
    assert "old" not in text and "Measured 2000-01-01" in text
    table = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    line = cells(table)["lego 800x800, shacira, lambda 0.0005"]
    assert line["bytes"] == "400,000" and line["PSNR dB"] == "34.00" and line["train s"] == "600"
    assert line["trained with"] == next(row["backend"] for row in rows)
    for name in re.findall(r"\]\(([^)]+)\)", text):
        assert (tmp_path / name).exists(), name
    # Where ablations were made says nothing of these lines.
    moved = [{**row, "machine": "elsewhere"} if row["ablation"] else row for row in rows]
    assert "elsewhere" not in results_block(moved, "report") != results_block([], "report") == EMPTY
    assert results_block(ablations(rows), "report") == EMPTY
    before = readme.read_text("utf-8")
    assert cli.main(command) == 0 and readme.read_text("utf-8") == before
    readme.write_text("no marks", "utf-8")
    assert cli.main(command) == 2


def test_no_results_are_one_line_and_status_2(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text("", "utf-8")
    command = ["bench", "report", str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "out")]
    assert cli.main(command) == 2
    assert "expected results, found none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_ticks_are_round():
    assert byte_ticks(90e3, 950e3) == [100e3, 200e3, 500e3]
    assert byte_ticks(90e3, 250e3) == [100e3, 150e3, 200e3]
    assert byte_ticks(90e3, 60e6) == [100e3, 1e6, 10e6]
    assert [byte_text(size) for size in (500, 2e5, 5e6)] == ["0.5 kB", "200 kB", "5 MB"]
