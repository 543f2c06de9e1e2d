"""Plans: which scenes, settings and rates to train, as strict YAML; see configs/sweeps/.

    scene: lego                      a folder below --data-root
    dataparser: blender-data         and dataparser_settings: {its_option: value}
    downscale: 2                     images at half resolution, to train on and to measure
    steps: 4000                      by default those of the preset
    seeds: [42]
    runs:                            each may say again whatever stands above
      - preset: shacira-mid          one of the package's, or a file beside the plan
        settings: {model.networks.hidden_dim: 32}
        rate_lambdas: [1.0e-3, 4.0e-3]

``scenes: [castle, bricks/*]`` instead of ``scene`` names several, by patterns too: every run is one
of each. ``qualities: [draft, normal]`` trains each as long as that takes, where no steps are given.
``limits`` says what one run may take, see :class:`Limits`; it changes no result, so not the job.

``settings`` of the plan and of a run add up, everything else is replaced. ``demo_scene``
(num_views, size, seed) writes our procedural scene instead of reading a folder. ``method`` names a
curve, ``ablation`` a row of the ablation table, whose base is named ``base``.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from shacira_nerfstudio.plugin.presets import check_scalars, find_preset, load_preset, load_yaml

BASELINE_METHOD = "ngp-fp16"
"""The uncompressed baseline: its size is that of half floats in a general-purpose compressor."""
BASE = "base"
"""Name of the row that an ablation is compared with."""
_TOP = {"runs"}
_COMMON = {
    *("scene", "scenes", "qualities", "limits", "dataparser", "dataparser_settings"),
    *("demo_scene", "downscale", "preset", "settings", "rate_lambdas", "seeds", "steps"),
    *("method", "ablation"),
}
_QUALITIES = ("draft", "normal", "max")
_DEMO_SCENE = {"num_views", "size", "seed"}
_OWN_KEYS = {
    "model.rate_lambda": "rate_lambdas",
    "max_num_iterations": "steps",
    "machine.seed": "seeds",
    "datamanager.camera_res_scale_factor": "downscale",
}
"""Options that a plan has words of its own for."""


@dataclass(frozen=True)
class Limits:
    """What one run may take. A pool starts as many runs at once as there is room for."""

    cpus: int = 1
    """Cores, which is also its number of threads."""
    gpus: float | None = None
    """Share of a card: 0.5 puts two runs on each. By default one card where there are any."""
    memory_gb: float = 2.0
    """Of 1e9 bytes."""
    minutes: float = 24 * 60.0
    """By the clock; a run that takes longer is ended."""
    retries: int = 2
    """How often a run is started again that was killed or failed, from where it was. What ends with
    status 2, wrong input, is not started again."""


@dataclass(frozen=True)
class Job:
    """One training run with everything that decides its outcome, apart from the code."""

    scene: str
    dataparser: str
    dataparser_settings: dict[str, Any]
    demo_scene: dict[str, int] | None
    """Views, size and seed of the procedural scene; None for a folder of the data root."""
    downscale: float
    method: str
    ablation: str | None
    preset: str
    """Name of the preset, for people; its content is in ``settings``."""
    settings: dict[str, Any]
    """Dotted keys of the preset and the plan."""
    rate_lambda: float
    seed: int
    steps: int
    """0 for those that its quality takes."""
    changes: dict[str, Any]
    """Settings of its run alone, for people."""
    limits: Limits = Limits()

    @property
    def is_baseline(self) -> bool:
        """Whether it has no integers, so no file to export."""
        return _is_baseline(self.settings)

    @property
    def key(self) -> str:
        """Names the job in results and folders: a digest of all its settings."""
        content = asdict(self)
        del content["changes"]  # they are in the settings
        del content["limits"]  # they decide whether there is a result, not which
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """For people, on one line."""
        parts = [self.scene, self.method, self.preset]
        parts += [f"ablation {self.ablation}"] if self.ablation else []
        parts += [f"{key.rsplit('.', 1)[-1]} {value}" for key, value in self.changes.items()]
        rate = [] if self.is_baseline else [f"lambda {self.rate_lambda:g}"]
        length = [f"{self.steps} steps"] if self.steps else []
        return ", ".join([*parts, *rate, *length, f"seed {self.seed}"])

    def preset_values(self) -> dict[str, Any]:
        """All of it as one preset."""
        return {
            **self.settings,
            "model.rate_lambda": float(self.rate_lambda),
            "max_num_iterations": self.steps,
            "machine.seed": self.seed,
            "datamanager.camera_res_scale_factor": 1.0 / self.downscale,
        }


def _is_baseline(settings: dict[str, Any]) -> bool:
    return settings.get("model.quantizer.mode") == "none"


def job_of(content: dict[str, Any]) -> Job:
    """From what ``dataclasses.asdict`` makes of it."""
    return Job(**{**content, "limits": Limits(**content["limits"])})


def load_plan(path: Path, data_root: Path | None = None) -> list[Job]:
    """Every job of a plan, in its order: runs, then scenes, qualities, rates, seeds.

    Args:
        data_root: Where patterns of scenes are looked up.

    Raises:
        ValueError: naming the file and what is wrong: unknown or missing keys, keys twice, values
            of another kind, the same job twice.
    """
    values = load_yaml(path)
    _check_keys(values, _COMMON | _TOP, path)
    runs = values.pop("runs", None)
    if not isinstance(runs, list) or not runs:
        raise ValueError(f"{path}: expected a list of runs, found {runs!r}")
    jobs: list[Job] = []
    for number, run in enumerate(runs, start=1):
        where = f"{path}: run {number}"
        if not isinstance(run, dict):
            raise ValueError(f"{where}: expected `key: value` lines, found {run!r}")
        _check_keys(run, _COMMON, where)
        added = {**_settings_of(values, str(path)), **_settings_of(run, where)}
        limits = {**_mapping(values, "limits", str(path)), **_mapping(run, "limits", where)}
        above = {k: v for k, v in values.items() if k not in _replaced(run)}
        both = {**above, **run, "settings": added, "limits": limits}
        for scene in _scenes(both, data_root, where):
            for quality in _qualities(both, where):
                jobs += _expand({**both, "scene": scene, **quality}, run, path.parent, where)
    seen: dict[str, Job] = {}
    for job in jobs:
        if seen.setdefault(job.key, job) is not job:
            raise ValueError(f"{path}: expected each job once, found again: {job.title}")
    return jobs


def _replaced(run: dict[str, Any]) -> set[str]:
    """A run that names scenes in one way replaces what the plan says in the other, too."""
    return {"scene", "scenes"} if {"scene", "scenes"} & run.keys() else set()


def _scenes(values: dict[str, Any], data_root: Path | None, where: str) -> list[str]:
    """Names of folders below the data root; those of patterns in alphabetical order."""
    if "scenes" not in values:
        return [_name(values, "scene", where)]
    if "scene" in values:
        raise ValueError(f"{where}: expected scene or scenes, found both")
    given, names = values["scenes"], []
    if not isinstance(given, list) or not given or not all(isinstance(n, str) for n in given):
        raise ValueError(f"{where}: expected a list of names for scenes, found {given!r}")
    for name in given:
        if not set("*?[") & set(name):
            names.append(name)
            continue
        root = data_root or Path()
        found = sorted(p.relative_to(root).as_posix() for p in root.glob(name) if p.is_dir())
        if data_root is None or not found:
            raise ValueError(f"{where}: expected folders {name} in --data-root, found none")
        names += found
    return names


def _qualities(values: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """What each quality changes in a run; one that changes nothing if there are none."""
    if "qualities" not in values:
        return [{}]
    given = values["qualities"]
    if not isinstance(given, list) or not given or not all(q in _QUALITIES for q in given):
        raise ValueError(
            f"{where}: expected a list of {', '.join(_QUALITIES)} for qualities, found {given!r}"
        )
    return [{"settings": {**values["settings"], "model.quality": name}} for name in given]


def _limits(values: dict[str, Any], where: str) -> Limits:
    given, names = values["limits"], {field.name for field in fields(Limits)}
    where = f"{where}: limits"
    _check_keys(given, names, where)
    for name, value in given.items():
        kind = int if name in ("cpus", "retries") else float
        least = {"cpus": 1, "retries": 0, "gpus": 0}.get(name, 1e-3)
        if not _is_number(value, kind, least=least):
            word = "whole number" if kind is int else "number"
            raise ValueError(
                f"{where}: expected a {word} from {least:g} on for {name}, found {value!r}"
            )
    return Limits(**given)


def _check_keys(values: dict[str, Any], allowed: set[str], where: Path | str) -> None:
    unknown = sorted(values.keys() - allowed)
    if unknown:
        raise ValueError(
            f"{where}: expected keys among {', '.join(sorted(allowed))}, found {', '.join(unknown)}"
        )


def _mapping(values: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = values.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected `key: value` lines under {key}, found {value!r}")
    return check_scalars(value, f"{where}: {key}")


def _settings_of(values: dict[str, Any], where: str) -> dict[str, Any]:
    settings = _mapping(values, "settings", where)
    for key in settings.keys() & _OWN_KEYS.keys():
        raise ValueError(f"{where}: expected {_OWN_KEYS[key]} instead of the setting {key}")
    return settings


def _name(values: dict[str, Any], key: str, where: str) -> str:
    value = values.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}: expected a name for {key}, found {value!r}")
    return value


def _is_number(value: Any, kind: type, *, least: float) -> bool:
    """Whether it is finite and not too small; whole numbers are numbers, booleans are not."""
    kinds = int if kind is int else (int, float)
    is_one = isinstance(value, kinds) and not isinstance(value, bool)
    return is_one and least <= value < math.inf


def _whole(values: dict[str, Any], key: str, where: str, *, least: int = 1) -> int:
    value = values.get(key)
    if not _is_number(value, int, least=least):
        raise ValueError(
            f"{where}: expected a whole number from {least} on for {key}, found {value!r}"
        )
    return int(value)  # pyright: ignore[reportArgumentType]


def _numbers(values: dict[str, Any], key: str, kind: type, where: str) -> list[Any]:
    """A list, not empty, of different numbers of 0 or more."""
    value = values.get(key)
    numbers = value if isinstance(value, list) else []
    good = [n for n in numbers if _is_number(n, kind, least=0) and numbers.count(n) == 1]
    if not numbers or good != numbers:
        word = "whole numbers" if kind is int else "numbers (YAML wants 1.0e-3, not 1e-3)"
        raise ValueError(f"{where}: expected a list of different {word} for {key}, found {value!r}")
    return [kind(number) for number in numbers]


def _expand(values: dict[str, Any], own: dict[str, Any], folder: Path, where: str) -> list[Job]:
    """Jobs of one run.

    Args:
        own: What stands in the run itself.
    """
    preset = find_preset(_name(values, "preset", where), folder)
    options = load_preset(preset)
    settings = {k: v for k, v in options.items() if k not in _OWN_KEYS} | values["settings"]
    has_steps = "max_num_iterations" in options
    preset_steps = {"steps": options["max_num_iterations"]} if has_steps else {}
    is_baseline = _is_baseline(settings)
    downscale = values.get("downscale", 1)
    if not _is_number(downscale, float, least=1):
        raise ValueError(f"{where}: expected a downscale from 1 on, found {downscale!r}")
    if is_baseline and "rate_lambdas" in own:
        raise ValueError(f"{where}: expected no rate_lambdas for a preset without quantiser")
    changes = dict(own.get("settings", {}))
    if "qualities" in values:
        changes["model.quality"] = settings["model.quality"]
    rates = [0.0] if is_baseline else _numbers(values, "rate_lambdas", float, where)
    return [
        Job(
            scene=_name(values, "scene", where),
            dataparser=_name(values, "dataparser", where),
            dataparser_settings=_mapping(values, "dataparser_settings", where),
            demo_scene=_demo_scene(values, where),
            downscale=float(downscale),
            method=_method(values, is_baseline, where),
            ablation=_name(values, "ablation", where) if "ablation" in values else None,
            preset=preset.stem,
            settings=settings,
            rate_lambda=rate_lambda,
            seed=seed,
            steps=_steps({**preset_steps, **values}, where),
            changes=changes,
            limits=_limits(values, where),
        )
        for rate_lambda in rates
        for seed in _numbers({"seeds": [42], **values}, "seeds", int, where)
    ]


def _steps(values: dict[str, Any], where: str) -> int:
    """0 where qualities decide."""
    is_open = "qualities" in values and "steps" not in values
    return 0 if is_open else _whole(values, "steps", where)


def _method(values: dict[str, Any], is_baseline: bool, where: str) -> str:
    default = BASELINE_METHOD if is_baseline else "shacira"
    method = _name({"method": default, **values}, "method", where)
    if is_baseline != (method == BASELINE_METHOD):
        raise ValueError(
            f"{where}: expected the method {BASELINE_METHOD} for presets without quantiser and "
            f"for no other, found {method!r}"
        )
    return method


def _demo_scene(values: dict[str, Any], where: str) -> dict[str, int] | None:
    if "demo_scene" not in values:
        return None
    content, where = _mapping(values, "demo_scene", where), f"{where}: demo_scene"
    _check_keys(content, _DEMO_SCENE, where)
    sizes = {key: _whole(content, key, where) for key in ("num_views", "size")}
    return {**sizes, "seed": _whole({"seed": 0, **content}, "seed", where, least=0)}
