"""Presets: strict YAML, the defaults spelled out, and flags that the host understands."""

from pathlib import Path

import pytest

from shacira_nerfstudio.plugin.presets import load_preset, preset_flags

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def write(folder, text):
    path = folder / "preset.yaml"
    path.write_text(text, encoding="utf-8")
    return path


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
    from shacira_nerfstudio.plugin.config import shacira_method

    for key, value in load_preset(path).items():
        default = value_at(shacira_method.config, key)
        assert type(value) is type(default), f"{key}: {value!r} for {default!r}"


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


QUALITIES = {"draft": "5 minutes", "normal": "15 minutes", "max": "90 minutes"}
SECONDS_PER_SAMPLE = 0.17 / 98304
"""Of a training step on two cores, by which the presets were laid out."""


@pytest.mark.nerfstudio
def test_qualities_are_three_and_end_in_time():
    from shacira_nerfstudio.plugin.config import shacira_method

    steps, tables = [], []
    limits = {"draft": 5 * 60, "normal": 15 * 60, "max": 90 * 60}
    for name, time in QUALITIES.items():
        path = next(path for path in CONFIGS if path.stem == name)
        head = path.read_text("utf-8").splitlines()[0]
        assert head.startswith(f"# {name}:") and time in head and "two cores" in head
        values = load_preset(path)
        steps.append(values["max_num_iterations"])
        tables.append(values["model.grid.log2_hashmap_size"])
        samples = values["model.sampling.target_num_samples"]
        # A tenth is for start, checkpoints and the growth of the table.
        assert 0.7 < steps[-1] * samples * SECONDS_PER_SAMPLE / limits[name] < 0.9
    assert steps == sorted(steps) and tables == sorted(tables)
    default = shacira_method.config.pipeline.model.grid.log2_hashmap_size
    assert tables[1] == default


def test_the_command_says_how_long_each_takes(capsys):
    from shacira_nerfstudio.cli import main as cli

    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name, time in QUALITIES.items():
        assert f"{name}.yaml" in text and time in text
