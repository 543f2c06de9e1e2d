"""Plans: what they expand to, and the one error that each mistake gives."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from shacira_nerfstudio.bench.plan import Job, Limits, job_of, load_plan

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
GOOD = """
scene: lego
dataparser: blender-data
steps: 100
settings: {model.networks.hidden_dim: 32, model.grid.num_levels: 8}
runs:
  - preset: small.yaml
    rate_lambdas: [1.0e-3, 4.0e-3]
    seeds: [1, 2]
    settings: {model.grid.num_levels: 4}
  - preset: plain.yaml
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "small.yaml").write_text(
        "model.grid.max_res: 64\nmodel.rate_lambda: 0.5\n", "utf-8"
    )
    (tmp_path / "plain.yaml").write_text("model.quantizer.mode: none\n", "utf-8")

    def write(text):
        path = tmp_path / "plan.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_plan_expands_runs_rates_and_seeds(write):
    jobs = load_plan(write(GOOD))
    assert [(job.rate_lambda, job.seed) for job in jobs] == [
        *((0.001, 1), (0.001, 2), (0.004, 1), (0.004, 2)),
        (0.0, 42),
    ]
    assert [job.method for job in jobs] == ["shacira"] * 4 + ["ngp-fp16"]
    assert jobs[0].settings == {
        "model.grid.max_res": 64,
        "model.networks.hidden_dim": 32,
        "model.grid.num_levels": 4,
    }
    assert jobs[0].changes == {"model.grid.num_levels": 4}
    assert jobs[-1].is_baseline and not jobs[0].is_baseline
    assert jobs[0].preset_values() == {
        **jobs[0].settings,
        "model.rate_lambda": 0.001,
        "max_num_iterations": 100,
        "machine.seed": 1,
        "datamanager.camera_res_scale_factor": 1.0,
    }


def test_keys_name_settings_and_nothing_else(write):
    first, again = load_plan(write(GOOD)), load_plan(write("# a comment\n" + GOOD))
    assert [job.key for job in first] == [job.key for job in again]
    assert len({job.key for job in first}) == len(first)
    moved = GOOD.replace("settings: {model.grid.num_levels: 4}", "").replace(
        "model.grid.num_levels: 8", "model.grid.num_levels: 4"
    )
    assert load_plan(write(moved))[0].key == first[0].key
    assert load_plan(write(GOOD.replace("steps: 100", "steps: 101")))[0].key != first[0].key


def test_a_preset_that_changes_makes_another_job(write, tmp_path):
    key = load_plan(write(GOOD))[0].key
    (tmp_path / "small.yaml").write_text("model.grid.max_res: 65\n", "utf-8")
    assert load_plan(write(GOOD))[0].key != key


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("steps: 100", "stepz: 100", "expected keys among .* found stepz"),
        ("seeds: [1, 2]", "sedes: [1, 2]", "run 1: expected keys among .* found sedes"),
        ("steps: 100", "steps: 100\nsteps: 200", "expected each key once, found 'steps' again"),
        (
            "model.networks.hidden_dim: 32",
            "model.networks.hidden_dim: 32, model.networks.hidden_dim: 64",
            "again",
        ),
        ("steps: 100", "steps: 0", "whole number from 1 on for steps, found 0"),
        ("steps: 100", "steps: 1.5", "whole number"),
        ("steps: 100", "steps: true", "whole number"),
        ("steps: 100", "", "whole number from 1 on for steps, found None"),
        ("scene: lego", "scene: 3", "expected a name for scene"),
        ("scene: lego", "scene: lego\nscenes: [ship]", "scene or scenes, found both"),
        ("scene: lego", "scenes: ship", "list of names for scenes, found 'ship'"),
        ("scene: lego", "scene: lego\nqualities: [best]", "list of draft, normal, max"),
        ("scene: lego", "scene: lego\nlimits: {cpu: 1}", "limits: expected keys among"),
        ("scene: lego", "scene: lego\nlimits: {cpus: 0}", "whole number from 1 on for cpus"),
        ("scene: lego", "scene: lego\nlimits: {minutes: -1}", "number from 0.001 on for minutes"),
        ("scene: lego", "scene: lego\ndownscale: 0.5", "downscale from 1 on"),
        ("[1.0e-3, 4.0e-3]", "[1e-3]", "1.0e-3, not 1e-3"),
        ("[1.0e-3, 4.0e-3]", "[1.0e-3, 1.0e-3]", "different numbers"),
        ("[1.0e-3, 4.0e-3]", "[-1.0]", "different numbers"),
        ("[1.0e-3, 4.0e-3]", "[.inf]", "different numbers"),
        ("[1.0e-3, 4.0e-3]", "0.1", "list of different numbers"),
        ("seeds: [1, 2]", "seeds: []", "different whole numbers"),
        (
            "model.networks.hidden_dim: 32",
            "model.rate_lambda: 0.1",
            "expected rate_lambdas instead",
        ),
        ("model.networks.hidden_dim: 32", "model.networks.hidden_dim: [32]", "plain scalar"),
        ("plain.yaml", "plain.yaml\n    rate_lambdas: [1.0]", "no rate_lambdas"),
        ("plain.yaml", "plain.yaml\n    method: shacira", "expected the method ngp-fp16"),
        ("small.yaml", "small.yaml\n    method: ngp-fp16", "expected the method ngp-fp16"),
        ("  - preset: plain.yaml", "  - plain.yaml", "run 2: expected `key: value`"),
        ("preset: plain.yaml", "preset: plain.yaml\n    demo_scene: {size: 8}", "num_views"),
        ("preset: plain.yaml", "preset: plain.yaml\n    demo_scene: {sise: 8}", "sise"),
        ("scene: lego", "scene: lego\n3: 4", "expected a name as key"),
        ("scene: lego", "scene: !!python/name:os.getcwd ''", "constructor"),
    ],
)
def test_a_mistake_is_one_clear_error(write, old, new, complaint):
    assert old in GOOD
    path = write(GOOD.replace(old, new, 1))
    with pytest.raises(ValueError, match=complaint) as error:
        load_plan(path)
    assert str(path) in str(error.value)


def test_steps_are_by_default_those_of_the_preset(write, tmp_path):
    text = GOOD.replace("steps: 100\n", "").replace("  - preset: plain.yaml\n", "")
    (tmp_path / "small.yaml").write_text("max_num_iterations: 70\n", "utf-8")
    assert {job.steps for job in load_plan(write(text))} == {70}
    assert {job.steps for job in load_plan(write("steps: 90\n" + text))} == {90}


def test_scenes_and_qualities_multiply(write):
    text = GOOD.replace("scene: lego", "scenes: [lego, ship]\nqualities: [draft, max]")
    jobs = load_plan(write(text.replace("steps: 100\n", "")))
    first = [(job.scene, job.settings["model.quality"]) for job in jobs[:16:4]]
    assert first == [("lego", "draft"), ("lego", "max"), ("ship", "draft"), ("ship", "max")]
    assert {job.steps for job in jobs} == {0} and len({job.key for job in jobs}) == len(jobs) == 20
    assert "quality draft" in jobs[0].title and "steps" not in jobs[0].title
    assert {job.steps for job in load_plan(write(text))} == {100}


def test_patterns_are_folders_of_the_data_root(write, tmp_path):
    for name in ("bricks/b", "bricks/a", "other/c"):
        (tmp_path / "data" / name).mkdir(parents=True)
    path = write(GOOD.replace("scene: lego", "scenes: [other/c, 'bricks/*']"))
    jobs = load_plan(path, tmp_path / "data")
    assert list(dict.fromkeys(job.scene for job in jobs)) == ["other/c", "bricks/a", "bricks/b"]
    with pytest.raises(ValueError, match=r"expected folders bricks/\* in --data-root"):
        load_plan(path)


def test_a_run_replaces_the_scenes_of_the_plan(write):
    jobs = load_plan(write(GOOD.replace("plain.yaml", "plain.yaml\n    scenes: [ship, drums]")))
    assert [job.scene for job in jobs] == ["lego"] * 4 + ["ship", "drums"]


def test_limits_change_no_job(write):
    key = load_plan(write(GOOD))[0].key
    text = "limits: {cpus: 4, memory_gb: 1.5}\n" + GOOD.replace(
        "seeds: [1, 2]", "seeds: [1, 2]\n    limits: {retries: 0}"
    )
    job = load_plan(write(text))[0]
    assert job.key == key and job.limits == Limits(cpus=4, memory_gb=1.5, retries=0)
    assert job_of(json.loads(json.dumps(asdict(job)))) == job


def test_the_same_job_twice_is_refused(write):
    with pytest.raises(ValueError, match="each job once, found again: lego, ngp-fp16, plain"):
        load_plan(write(GOOD + "  - preset: plain.yaml\n"))


def test_a_plan_without_runs_is_refused(write):
    with pytest.raises(ValueError, match="expected a list of runs, found None"):
        load_plan(write(GOOD[: GOOD.index("runs:")]))


def test_rates_above_are_for_those_that_have_one(write):
    above = GOOD.replace("    rate_lambdas: [1.0e-3, 4.0e-3]\n", "") + "rate_lambdas: [0.5]\n"
    assert [job.rate_lambda for job in load_plan(write(above))] == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_plans_of_the_project_load(path):
    jobs = load_plan(path)
    assert jobs and all(isinstance(job, Job) for job in jobs)
    commands = [f"shacira {name} configs/sweeps/{path.name}" for name in ("bench rd", "sweep")]
    assert any(command in path.read_text("utf-8") for command in commands)


def test_the_curve_and_the_ablations_are_what_they_say():
    plans = {path.stem: load_plan(path) for path in SWEEPS}
    assert {"lego-half", "lego-full", "fox", "ablations", "smoke"} <= plans.keys()
    rates = {job.rate_lambda for job in plans["lego-half"] if job.method == "shacira"}
    assert len(rates) >= 4
    assert any(job.is_baseline for job in plans["lego-half"])
    bases = [job for job in plans["ablations"] if job.ablation == "base"]
    assert len(bases) >= 3
    for job in plans["ablations"]:
        changed = job.settings != bases[0].settings or job.rate_lambda == 0
        assert job.ablation and changed == (job.ablation != "base")


@pytest.mark.nerfstudio
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_method_has_every_option_that_plans_name(path):
    from shacira_nerfstudio.plugin.presets import check_options

    for job in load_plan(path):
        check_options(job.preset_values(), path)


@pytest.mark.nerfstudio
@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        (
            "model.networks.hiden_dim",
            32,
            "expected an option of the method, found 'model.networks.hiden_dim'",
        ),
        ("model.networks.hidden_dim", 32.0, "type int for model.networks.hidden_dim, found 32.0"),
        ("optimizers.latent.optimizer.lr", 1.0, "expected an option"),
    ],
)
def test_an_option_that_is_none_is_found_before_training(key, value, complaint):
    from shacira_nerfstudio.plugin.presets import check_options

    with pytest.raises(ValueError, match=complaint):
        check_options({key: value}, "plan")
