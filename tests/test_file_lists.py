"""`info`, `verify` and `eval` of many files: a row each, and a broken one stops no other."""

import csv
import io
import json
import time

import pytest
from synthetic_ball import make_ball

from shacira_nerfstudio.cli import main as cli
from shacira_nerfstudio.cli.file_lists import find_files, list_text
from shacira_nerfstudio.codec import describe, encode_scene, truncate


def run(*args):
    return cli.main([str(arg) for arg in args])


@pytest.fixture(scope="module")
def data():
    return encode_scene(make_ball())


@pytest.fixture
def folder(tmp_path, data):
    """Two sound files, one of which lies deeper, and a broken one."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.shacira").write_bytes(data)
    (tmp_path / "broken.shacira").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (tmp_path / "deep" / "b.shacira").write_bytes(truncate(data, max_level=0))
    return tmp_path


NAMES = ("a.shacira", "broken.shacira", "deep/b.shacira")


def test_info_gives_a_row_for_each_file(folder, data, capsys):
    assert run("info", folder, "--json") == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == [str(folder / name) for name in NAMES]
    whole, known = rows[0], describe(data)
    assert whole["bytes"] == len(data) and whole["levels"] == known["num_levels"]
    assert whole["bits_per_latent"] == pytest.approx(known["bits_per_latent"], abs=1e-4)
    assert whole["num_latents"] == known["num_latents"]
    assert known["digest"].startswith(whole["digest"])
    assert whole["step"] == 7
    assert rows[1].keys() == {"file", "error"} and "expected CRC-32" in rows[1]["error"]
    assert rows[2]["levels"] == 1 and rows[2]["bytes"] < len(data)


def test_tables_and_csv_say_the_same(folder, capsys):
    run("info", folder / "a.shacira", folder / "deep", "--csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["file"] for row in rows] == [str(folder / NAMES[0]), str(folder / NAMES[2])]
    assert run("info", folder / "a.shacira", folder / "deep") == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["file", "bytes"] and len(lines) == 2
    assert f"{int(rows[0]['bytes']):,}" in lines[0].split()
    assert run("info", folder / "a.shacira", "--csv") == 0  # of one file, too
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_verify_gives_a_row_for_each_file(folder, capsys):
    assert run("verify", folder, "--json") == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["valid"] for row in rows] == [True, False, True]
    assert "expected CRC-32" in rows[1]["reason"]
    (folder / "broken.shacira").unlink()
    assert run("verify", folder) == 0
    assert "True" in capsys.readouterr().out
    assert run("verify", folder, folder / "gone.shacira") == 1
    assert "No such file" in capsys.readouterr().out


def test_eval_measures_each_file_and_names_what_failed(folder, capsys, monkeypatch):
    from shacira_nerfstudio.plugin import evaluate, evaluate_file

    def measured(file, **options):
        assert options["data"].name == "scene" and options["dataparser"] == ("rtmv-data",)
        if file.name == "broken.shacira":
            raise ValueError("broken\nin two lines")
        return {"psnr": 30.5, "ssim": 0.9}

    monkeypatch.setattr(evaluate_file, "evaluate_file", measured)
    monkeypatch.setattr(evaluate, "evaluate_run", lambda config: {"psnr": float(len(config.name))})
    assert run("eval", folder, "--data", "scene", "--json", "rtmv-data") == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == {
        "file": str(folder / "a.shacira"),
        "bytes": (folder / "a.shacira").stat().st_size,
        "psnr": 30.5,
        "ssim": 0.9,
    }
    assert rows[1]["error"] == "broken in two lines" and rows[2]["psnr"] == 30.5
    # An export folder knows its own data set.
    (folder / "deep" / "config.yml").write_text("")
    assert run("eval", folder / "a.shacira", folder / "deep", "--json") == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "expected a data set (--data), or" in rows[0]["error"]
    assert rows[1]["psnr"] == len("config.yml")
    assert run("eval", folder, "--sheet", folder / "sheet", "--data", "d") == 2
    assert "expected one file with --sheet" in capsys.readouterr().err


def test_what_is_no_list_is_one_line(tmp_path, capsys):
    assert run("info", tmp_path) == 2
    assert "expected .shacira files in" in capsys.readouterr().err
    assert run("verify") == 2
    assert "expected a .shacira file or a folder" in capsys.readouterr().err
    assert run("info", "a.shacira", "--json", "--csv") == 2
    assert "expected --json or --csv, got both" in capsys.readouterr().err
    assert run("info", "a.shacira", "b.shacira", "--plot", tmp_path / "x.png") == 2
    assert "expected one file to draw" in capsys.readouterr().err


def test_each_file_once(folder):
    found = find_files([folder, folder / "a.shacira", folder / "gone.shacira"])
    assert found == [*(folder / name for name in NAMES), folder / "gone.shacira"]


def test_texts_do_not_move_the_cursor():
    text = list_text([{"file": "a\x1b[2J", "error": None}], "table")
    assert "\x1b" not in text and text.splitlines()[0] == "file"


def test_two_hundred_files_within_a_second(folder, data, capsys):
    for index in range(200):
        (folder / f"{index}.shacira").write_bytes(data)
    begin = time.process_time()
    run("info", folder, "--csv")
    assert len(capsys.readouterr().out.splitlines()) == 204
    assert time.process_time() - begin < 1.0  # 2,000 in ten
