"""What kind of capture it is, and the settings that follow from it and from the quality asked for.

Pixels and cameras say the kind: pictures with alpha show an object, cameras that look one way from
one plane face forward, all else is a place. Options whose default is ``auto`` are then written into
the configuration, which is saved with the run: whoever opens it later decides nothing anew. What
somebody typed is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from nerfstudio.cameras.cameras import CameraType

from shacira_nerfstudio.plugin.dataset_metadata import DatasetMetadata
from shacira_nerfstudio.plugin.device_settings import STEPS, on_device
from shacira_nerfstudio.plugin.model_config import ShaciraModelConfig
from shacira_nerfstudio.scenes.camera_arrangement import faces_forward

Kind = Literal["object", "place", "forward"]

QUALITIES = ("draft", "normal", "max")
# Quality:                            draft, normal, max
# Contracted space is wide; with one integer per entry it stays foggy. In the time that normal
# takes, levels finer than these remain empty (bear: 8 of 830 kB), and only cost time.
_PLACE: dict[str, tuple[Any, Any, Any]] = {
    STEPS: (1000, 3200, 12000),
    "contraction": ("contracted", "contracted", "contracted"),
    "rate_lambda": (6e-4, 6e-4, 6e-4),
    "grid.num_levels": (10, 10, 16),
    "grid.latent_dim": (2, 2, 2),
    "grid.log2_hashmap_size": (17, 18, 20),
    "grid.max_res": (1024, 1024, 2048),
    "networks.num_color_layers": (1, 1, 2),
    "sampling.steps_across_box": (512, 512, 512),
    "sampling.render_steps_across_box": (0, 0, 0),
    "sampling.target_num_samples": (98304, 98304, 131072),
    "sampling.max_num_rays": (65536, 65536, 65536),
    "sampling.occupancy_rise": (0.25, 0.25, 0.25),
    "sampling.visibility_start": (0.3, 0.3, 0.3),
    "sampling.early_stop": (5e-3, 5e-3, 1e-3),
    "sampling.max_stride": (16, 16, 16),
    "networks.initial_log_density": (-5.0, -5.0, -5.0),
    "distortion_loss_mult": (0.006, 0.006, 0.006),
}

SETTINGS: dict[Kind, dict[str, tuple[Any, Any, Any]]] = {
    # Laid out for 5, 15 and 90 minutes on two cores, by the length of a step at 800x800.
    "object": {
        STEPS: (1400, 4600, 18000),
        "contraction": ("affine", "affine", "affine"),
        "rate_lambda": (1e-3, 1e-3, 1e-3),
        "grid.num_levels": (16, 16, 16),
        "grid.latent_dim": (1, 1, 1),
        "grid.log2_hashmap_size": (17, 18, 19),
        "grid.max_res": (512, 1024, 1024),
        "networks.num_color_layers": (1, 1, 2),
        "sampling.steps_across_box": (768, 768, 768),
        "sampling.render_steps_across_box": (0, 0, 1536),
        "sampling.target_num_samples": (98304, 98304, 131072),
        "sampling.max_num_rays": (65536, 65536, 65536),
        "sampling.occupancy_rise": (0.0, 0.0, 0.0),
        "sampling.visibility_start": (1.0, 1.0, 1.0),
        "sampling.early_stop": (1e-4, 1e-4, 1e-4),
        "sampling.max_stride": (1, 1, 1),
        "networks.initial_log_density": (-1.0, -1.0, -1.0),
        "distortion_loss_mult": (0.0, 0.0, 0.0),
    },
    "place": _PLACE,
    # Never tuned by itself.
    "forward": _PLACE,
}


@dataclass(frozen=True)
class Choice:
    """What was decided for a run."""

    kind: Kind
    reason: str
    values: dict[str, Any]
    """What ``auto`` became, by dotted names of the model's options."""

    def line(self, quality: str, length: str) -> str:
        """One line for people.

        Args:
            length: Of training.
        """
        shown = {k.rpartition(".")[2]: v for k, v in self.values.items() if k != "capture"}
        settings = [f"{name} {_short(value)}" for name, value in shown.items()]
        return (
            f"Capture of kind {self.kind} ({self.reason}), quality {quality}, {length}: "
            f"{', '.join(settings) or 'all as asked for'}. Each is an option of ns-train, and "
            "--pipeline.model.capture names another kind."
        )


def choose_settings(
    config: ShaciraModelConfig, dataset: DatasetMetadata, *, device_type: str = "cpu"
) -> Choice:
    """Decides the kind of capture, and writes a value into each option of a configuration that is
    still ``auto``; a configuration in which none is stays as it is.

    Args:
        device_type: Where the run begins. It may go on elsewhere: its settings stay.
    """
    kind, reason = _kind_of(dataset)
    if config.capture != "auto":
        kind, reason = config.capture, "as asked for"
    column = QUALITIES.index(config.quality)
    wanted: dict[str, Any] = {"capture": kind}
    rows = on_device(SETTINGS[kind], device_type)
    wanted |= {name: row[column] for name, row in rows.items() if name != STEPS}
    if config.contraction != "auto":
        wanted["contraction"] = config.contraction
    if wanted["contraction"] == "affine" and config.fit_box and dataset.object_box is not None:
        wanted["box"] = tuple(value for corner in dataset.object_box for value in corner)
    if dataset.is_cut_out:
        wanted["background_color"] = "white"
    values = {}
    for name, value in wanted.items():
        *groups, last = name.split(".")
        owner: Any = config
        for group in groups:
            owner = getattr(owner, group)
        if getattr(owner, last) == "auto":
            setattr(owner, last, value)
            values[name] = value
    return Choice(kind, reason, values)


def num_steps_of(config: ShaciraModelConfig, *, device_type: str = "cpu") -> int:
    """Training steps of a configuration whose kind of capture has been chosen, by its quality."""
    if config.capture == "auto":
        raise ValueError("expected the kind of capture to be chosen by now, got auto")
    rows = on_device(SETTINGS[config.capture], device_type)
    return rows[STEPS][QUALITIES.index(config.quality)]


def _kind_of(dataset: DatasetMetadata) -> tuple[Kind, str]:
    is_bounded, cameras = dataset.is_bounded, dataset.cameras
    is_bounded = dataset.alpha_color is not None if is_bounded is None else is_bounded
    if is_bounded:
        return "object", dataset.reason or "the data parser has a background for its pictures"
    if cameras is None:
        return "place", "nothing is known of its cameras"
    is_pinhole = bool((cameras.camera_type == CameraType.PERSPECTIVE.value).all())
    poses = cameras.camera_to_worlds.reshape(-1, *cameras.camera_to_worlds.shape[-2:])
    if is_pinhole and faces_forward(poses.to("cpu", torch.float64).numpy()):
        return "forward", "nothing is cut out, all cameras look about the same way from a plane"
    return "place", "nothing is cut out, cameras look around"


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(f'{number:.3g}' for number in value)})"
    return str(value)
