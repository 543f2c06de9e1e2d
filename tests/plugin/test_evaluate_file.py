"""A lone file is measured exactly as its export folder."""

import copy
import dataclasses
import json

import pytest
from synthetic_ball import make_ball

pytest.importorskip("nerfstudio")
pytestmark = pytest.mark.nerfstudio

from nerfstudio.configs.method_configs import all_methods  # noqa: E402

from shacira_nerfstudio.cli import main as cli  # noqa: E402
from shacira_nerfstudio.cli.run_commands import split_dataparser  # noqa: E402
from shacira_nerfstudio.codec import encode_scene  # noqa: E402
from shacira_nerfstudio.plugin.evaluate import evaluate_run  # noqa: E402
from shacira_nerfstudio.plugin.export_folder import write_export_folder  # noqa: E402
from shacira_nerfstudio.plugin.rtmv_dataparser import RtmvDataParserConfig  # noqa: E402

SPEED = {"num_rays_per_sec", "num_rays_per_sec_std", "fps", "fps_std"}


def packed(background="white"):
    ball = make_ball()
    rendering = dataclasses.replace(ball.rendering, background=background)
    return dataclasses.replace(ball, rendering=rendering, meta={"dataparser": "rtmv-data"})


def exported(folder, scene, data, *, scale=1.0, **options):
    """An export folder of a run with options of its data parser, and its numbers."""
    config = copy.deepcopy(all_methods["shacira"])
    manager = config.pipeline.datamanager
    manager.dataparser = RtmvDataParserConfig(data=data, **options)
    manager.camera_res_scale_factor = scale
    write_export_folder(config, 7, encode_scene(scene), folder)
    return numbers(evaluate_run(folder / "config.yml"))


def numbers(results):
    """Without how fast it was."""
    return {name: value for name, value in results.items() if name not in SPEED}


def run(*args):
    return cli.main([str(arg) for arg in args])


CASES = {
    "defaults": ("white", {}, []),
    "black": ("black", {"background": "black"}, []),
    "options": (
        "white",
        {"exposure": 0.5, "normalization": "box"},
        ["rtmv-data", "--exposure", "0.5", "--normalization=box"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_are_those_of_the_export_folder(scene, tmp_path, capsys, case):
    background, options, arguments = CASES[case]
    ball = packed(background)
    expected = exported(tmp_path / "export", ball, scene, **options)
    file = tmp_path / "lone.shacira"
    file.write_bytes((tmp_path / "export" / "scene.shacira").read_bytes())
    out = tmp_path / "eval.json"
    capsys.readouterr()
    options = ["--data", scene, "--json", "--output-path", out, *arguments]
    assert run("eval", file, *options) == 0
    assert numbers(json.loads(capsys.readouterr().out)) == expected
    assert expected["bytes"] == file.stat().st_size and 1 < expected["psnr"] < 40
    said = json.loads(out.read_text())
    assert numbers(said["results"]) == expected and said["checkpoint"] == str(file)
    assert said["method_name"] == "shacira"


def test_half_resolution_and_pictures(scene, tmp_path, capsys, caplog):
    expected = exported(tmp_path / "export", packed(), scene, scale=0.5)
    file = tmp_path / "export" / "scene.shacira"
    capsys.readouterr()
    # The data may be stated with the data parser, as for ns-train.
    views = tmp_path / "views"
    options = ["--json", "--camera-res-scale-factor", "0.5", "--render-output-path", views]
    assert run("eval", file, *options, "rtmv-data", "--data", scene) == 0
    assert numbers(json.loads(capsys.readouterr().out)) == expected
    assert len(list(views.glob("eval_img_*.png"))) >= 1
    # The file's cameras have 12x8 pixels, the pictures 24x24.
    assert "trained on pictures of 12x8, these are 12x12" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a data set to compare with (--data), got none"),
        (["--data", "nothing/there"], "expected a data set at nothing/there"),
        (["no-data", "--data", "x"], "expected a data parser of"),
        (["--load-config", "x"], "expected a .shacira file or --load-config, got both"),
        (["--camera-res-scale-factor", "0"], "expected --camera-res-scale-factor in (0, 1]"),
    ],
)
def test_what_is_missing_is_one_line(tmp_path, capsys, arguments, message):
    file = tmp_path / "lone.shacira"
    file.write_bytes(encode_scene(packed()))
    assert run("eval", file, *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("shacira: error: ") and message in error


def test_a_run_needs_no_data(capsys):
    assert run("eval") == 2
    assert "expected a .shacira file or --load-config, got neither" in capsys.readouterr().err
    assert run("eval", "--load-config", "x.yml", "--data", "d") == 2
    assert "names its own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["f", "--data", "d", "blender-data", "--alpha-color", "white"], 3),
        (["f", "--json", "colmap"], 2),
        (["--data=d", "f", "--allow-truncated", "colmap", "x"], 3),
        (["f", "--data", "rtmv-data"], 3),
        (["--load-config", "c"], 2),
        ([], 0),
    ],
)
def test_where_a_data_parser_begins(arguments, count):
    assert split_dataparser(arguments) == (arguments[:count], arguments[count:])
