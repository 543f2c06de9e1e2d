"""Presets: strict YAML, the defaults spelled out, and flags that the host understands."""

import sys

import pytest

from shacira_nerfstudio.plugin.presets import (
    PRESETS,
    check_options,
    find_preset,
    load_preset,
    preset_flags,
)

CONFIGS = sorted(PRESETS.glob("*.yaml"))


def write(folder, text):
    path = folder / "preset.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def run_train(arguments, monkeypatch):
    """The host's arguments that `shacira train` makes."""
    from nerfstudio.scripts import train as host

    from shacira_nerfstudio.cli import main as cli

    seen = []
    monkeypatch.setattr(host, "entrypoint", lambda: seen.append(sys.argv))
    monkeypatch.setattr(sys, "argv", ["shacira"])
    assert cli.main(["train", *arguments]) == 0
    return seen[0]


def value_at(config, key):
    """The value that a dotted key of a preset names in a TrainerConfig."""
    head = key.split(".", 1)[0]
    node = config.pipeline if head in ("model", "datamanager") else config
    for name in key.split("."):
        node = node[name] if isinstance(node, dict) else getattr(node, name)
    return node


def test_flags_spell_keys_as_the_host_does():
    values = {"model.rate_lambda": 1.0e-3, "max_num_iterations": 5, "model.grid.max_res": 64}
    assert preset_flags({**values, "model.use_lpips": False}) == [
        *("--pipeline.model.rate-lambda", "0.001"),
        *("--max-num-iterations", "5"),
        *("--pipeline.model.grid.max-res", "64"),
        *("--pipeline.model.use-lpips", "False"),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("model.rate_lambda: 1.0\nmodel.rate_lambda: 2.0\n", "again"),
        ("model:\n  rate_lambda: 1.0\n", "plain scalar"),
        ("model.rate_lambda: 1e-3\n", "decimal point"),
        ("- 1\n", "key: value"),
        ("", "key: value"),
        ("model.x: !!python/object/apply:os.getcwd []\n", "constructor"),
        ("a: [1\n", "expected"),
    ],
)
def test_anything_but_plain_scalars_is_refused(tmp_path, text, complaint):
    with pytest.raises(ValueError, match=complaint):
        load_preset(write(tmp_path, text))


@pytest.mark.nerfstudio
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_key_exists_with_its_type(path):
    check_options(load_preset(path), path)


@pytest.mark.nerfstudio
@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("model.grid.max_res", 64, None),
        ("model.grid.max_res", "auto", None),
        ("model.grid.max_res", 64.0, "int or str for model.grid.max_res, found 64.0"),
        ("model.grid.base_res", "auto", "int for model.grid.base_res"),
        ("model.contraction", "affine", None),
        ("model.contraction", 1, "str for"),
        ("model.box", "auto", None),
    ],
)
def test_options_that_follow_the_capture_take_numbers(key, value, complaint):
    if complaint is None:
        check_options({key: value}, "here")
    else:
        with pytest.raises(ValueError, match=complaint):
            check_options({key: value}, "here")


@pytest.mark.nerfstudio
def test_shacira_mid_spells_out_the_defaults():
    from shacira_nerfstudio.plugin.config import shacira_method

    path = next(path for path in CONFIGS if path.stem == "shacira-mid")
    for key, value in load_preset(path).items():
        assert value == value_at(shacira_method.config, key), key


@pytest.mark.nerfstudio
def test_the_baseline_neither_quantises_nor_rates():
    values = load_preset(next(path for path in CONFIGS if path.stem == "ngp"))
    assert values["model.quantizer.mode"] == "none" and values["model.rate_lambda"] == 0
    assert values["model.grid.latent_dim"] == values["model.grid.features_per_level"]


def test_presets_go_by_name_or_by_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_preset("ngp") == PRESETS / "ngp.yaml"
    own = write(tmp_path, "max_num_iterations: 1\n")
    assert find_preset("preset.yaml", tmp_path) == own
    with pytest.raises(FileNotFoundError, match=r"ngp, shacira-mid.* got nowhere; draft"):
        find_preset("nowhere")


def test_a_wrong_load_dir_is_named_before_the_host_starts(tmp_path, capsys):
    from shacira_nerfstudio.cli import main as cli

    models = tmp_path / "run" / "nerfstudio_models"
    models.mkdir(parents=True)
    for name in ("run/config.yml", "run/nerfstudio_models/step-000000009.ckpt"):
        (tmp_path / name).touch()
    (tmp_path / "run" / "empty").mkdir()
    for wrong in (models.parent, models / "deeper", models / "step-000000009.ckpt"):
        assert cli.main(["train", "ngp", "--load-dir", str(wrong), "--data", "x"]) == 2
        error = capsys.readouterr().err.strip()
        assert "\n" not in error and f"perhaps {models}" in error


@pytest.mark.nerfstudio
def test_a_preset_and_a_quality_may_be_given_or_not(monkeypatch):
    data = ["--data", "scene"]
    assert run_train(data, monkeypatch) == ["ns-train", "shacira", *data]
    quality = ["--pipeline.model.quality", "max"]
    assert run_train(["--quality", "max", *data], monkeypatch)[2:] == [*quality, *data]
    assert run_train(["--quality=max"], monkeypatch)[2:] == ["--pipeline.model.quality=max"]
    found = run_train(["shacira-mid", *data], monkeypatch)[2:]
    assert found == ["--pipeline.model.quality", "normal", *data]
