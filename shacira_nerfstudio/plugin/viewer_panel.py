"""The panel under "Custom Elements" of the host's web viewer, while training and of a file.

It shows how large the file would be, how good the picture is, and exports at the press of a button;
it chooses what is rendered for looking. A module without parameters, because the viewer looks for
its elements on modules only, and shows them in the order of their names.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import yaml
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.viewer.viewer_elements import (
    ViewerButton,
    ViewerCheckbox,
    ViewerControl,
    ViewerNumber,
    ViewerSlider,
)
from torch import Tensor, nn

from shacira_nerfstudio.codec import PackedScene
from shacira_nerfstudio.compression.compressor import Compressor
from shacira_nerfstudio.model.bits import ray_bits
from shacira_nerfstudio.model.scene import RadianceScene
from shacira_nerfstudio.plugin.dataset_metadata import DatasetMetadata
from shacira_nerfstudio.plugin.panel.export_now import Exports, Snapshot
from shacira_nerfstudio.plugin.panel.live_text import LiveText
from shacira_nerfstudio.plugin.panel.look import EntryCosts, Look, view_of
from shacira_nerfstudio.plugin.panel.progress import TrainingProgress, byte_lines
from shacira_nerfstudio.plugin.run_metadata import run_metadata
from shacira_nerfstudio.plugin.stored_cameras import SCENE_NAME

VISER_NERFSTUDIO_SCALE_RATIO = 10.0
"""The host's constant of that name; its module is not yet importable when plugins load."""
_REFRESH_S = 0.5
"""Between two texts."""
_STEP_FORWARD = 0.05
"""Scene units from the first camera: behind the frustum that the viewer draws of it, which would
frame the picture from where it stands."""


class ShownModel(Protocol):
    """What is asked of a model."""

    scene: RadianceScene
    compressor: Compressor
    dataset: DatasetMetadata
    file_scene: PackedScene | None
    file_bytes: dict[str, int]

    def pack(self, *, meta: Mapping[str, str | int] | None = None) -> PackedScene: ...


class _ViewerAccess(ViewerControl):
    """The viewer, once there is one; puts every client that connects where the first camera
    stands."""

    viewer: Any = None

    def __init__(self, panel: ViewerPanel) -> None:
        super().__init__()
        self._panel = panel

    def _setup(self, viewer: Any) -> None:
        super()._setup(viewer)
        self.viser_server.on_client_connect(self._panel.place)


class ViewerPanel(nn.Module):
    """Elements are attributes without a leading underscore: that is how the viewer finds them.

    Args:
        model: Whose scene is shown. Held in a list: it must not become a child of its child.
    """

    def __init__(self, model: ShownModel) -> None:
        super().__init__()
        self._model = [model]
        self._progress = TrainingProgress()
        self._costs = EntryCosts(model.pack)
        self._due = 0.0
        is_file, encoding = model.file_scene is not None, model.scene.encoding
        levels = encoding.grid.num_levels
        about = "Training has not begun."
        if is_file:
            about = "  \n".join(byte_lines(f"{SCENE_NAME}, decoded", model.file_bytes))
        self.about = LiveText(about)
        self.control = _ViewerAccess(self)
        self.export = ViewerButton("Export now", self._export)
        self.exported = LiveText("")
        self._exports = Exports(self.exported.show)
        self.levels = ViewerSlider(
            "Levels",
            levels,
            1,
            levels,
            1,
            hint="Show the scene as the first levels of the file alone would.",
        )
        self.quantized = ViewerCheckbox(
            "Quantised",
            encoding.is_quantized,
            disabled=is_file or not encoding.is_quantized,
            hint="Show integers, as the file has them; or the continuous latents of training.",
        )
        if not is_file:
            self.rate_lambda = ViewerNumber(
                "Rate lambda",
                model.compressor.options.rate_lambda,
                cb_hook=self._set_rate,
                hint="Weight of the rate while training; larger gives smaller files.",
            )
        self.reset_view = ViewerButton("View from first camera", self._reset_view)

    # ── training ──

    def note(self, metrics: Mapping[str, Any]) -> None:
        """Takes the metrics of a training step; shows them now and then, if there is a viewer."""
        self._progress.note(metrics)
        if not self.about.is_shown:
            return
        trainer = self.control.viewer.trainer
        is_last = trainer.step + 1 >= self._model[0].compressor.schedule.num_steps
        if is_last or time.monotonic() >= self._due:
            self._due = time.monotonic() + _REFRESH_S
            self.about.show(self._progress.text(self._model[0].compressor, trainer.step))

    def _set_rate(self, element: Any) -> None:
        compressor, rate = self._model[0].compressor, max(float(element.value), 0.0)
        compressor.options = dataclasses.replace(compressor.options, rate_lambda=rate)

    # ── looking ──

    def look(self) -> Look | None:
        """What the panel asks to see, if it is the viewer that renders now. Evaluation and steering
        see the scene as it is."""
        viewer = self.control.viewer
        if viewer is None or not _is_render_thread():
            return None
        chosen, num_levels = viewer.control_panel, self._model[0].scene.encoding.grid.num_levels
        shown = [chosen.output_render, chosen.split_output_render if chosen.split else None]
        return Look(
            num_levels=min(max(int(self.levels.value), 1), num_levels),
            is_quantized=bool(self.quantized.value),
            shows_bits="bits" in shown,
        )

    def view(self, look: Look) -> RadianceScene:
        """The scene as it is looked at."""
        return view_of(self._model[0].scene, look)

    def bits(
        self, look: Look, origins: Tensor, directions: Tensor, *, limits: Tensor | None
    ) -> Tensor | None:
        """What rays cost [R, 1], in bits; 0 as long as nobody looks at it, since it takes as long
        as the picture; None for a scene that no file can be made of."""
        scene = self._model[0].scene
        if scene.is_trainable and not scene.encoding.is_quantized:
            return None
        if not look.shows_bits:
            return torch.zeros_like(origins[:, :1])
        costs = self._costs.bits(scene)
        # What an entry costs is what its integer costs, however the scene is shown.
        view = self.view(dataclasses.replace(look, is_quantized=True))
        return ray_bits(view, origins, directions, costs, limits=limits)[:, None]

    # ── exporting ──

    def _export(self, _: Any) -> None:
        """Called by the host with the lock of training held, see :mod:`export_now`."""
        if self._exports.is_busy:
            return
        try:
            self._exports.start(self._snapshot())
        except (ValueError, OSError) as error:
            self.exported.show(f"**Not exported**: {error}")

    def _snapshot(self) -> Snapshot:
        model, viewer = self._model[0], self.control.viewer
        base = Path(viewer.log_filename).parent
        if model.file_scene is not None:
            size = sum(model.file_bytes.values())
            raise ValueError(
                f"this scene comes from a file already, {SCENE_NAME} of {size:,} bytes beside the "
                "config.yml that was opened"
            )
        config = _config_of(viewer, base)
        step = viewer.step if viewer.trainer is None else viewer.trainer.step
        meta = run_metadata(
            config,
            step,
            rate_lambda=model.compressor.rate_lambda,
            num_train_images=len(viewer.pipeline.datamanager.train_dataset),
        )
        return Snapshot(model.pack(meta=meta), config, step, base / "exports" / f"step-{step:09d}")

    def wait_for_export(self) -> None:
        """Until an export that was started has ended."""
        self._exports.wait()

    # ── the first view ──

    def _reset_view(self, _: Any) -> None:
        for client in self.control.viser_server.get_clients().values():
            self.place(client)

    def place(self, client: Any) -> None:
        """Moves one client to the first camera.

        The viewer starts at (0.3, 0.3, 0.3) in scene units, often inside the object.
        """
        pose = self._first_pose()
        if pose is None:
            return
        forward = -np.asarray(pose[:, 2], dtype=np.float64)
        position = np.asarray(pose[:, 3], dtype=np.float64) + _STEP_FORWARD * forward
        # Dragging turns about what is looked at: as far away as the scene's centre, the origin.
        distance = max(float(-position @ forward), _STEP_FORWARD)
        # The viewer shows scene units enlarged by this factor.
        with client.atomic():
            client.camera.position = position * VISER_NERFSTUDIO_SCALE_RATIO
            target = position + distance * forward
            client.camera.look_at = target * VISER_NERFSTUDIO_SCALE_RATIO

    def _first_pose(self) -> Any:
        """Camera-to-world [3, 4] of the first camera that the model knows of, or None."""
        model = self._model[0]
        if model.file_scene is not None and model.file_scene.cameras is not None:
            return model.file_scene.cameras.camera_to_worlds[0]
        cameras = model.dataset.cameras
        return None if cameras is None else cameras.camera_to_worlds[0].cpu().numpy()


def _is_render_thread() -> bool:
    from nerfstudio.viewer.render_state_machine import RenderStateMachine

    return isinstance(threading.current_thread(), RenderStateMachine)


def _config_of(viewer: Any, base: Path) -> TrainerConfig:
    """Of the run that is shown. ns-viewer does not hand on the one that it has just loaded."""
    if viewer.trainer is not None:
        return viewer.trainer.config
    path = base / "config.yml"
    config = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.Loader)
    if not isinstance(config, TrainerConfig):
        raise ValueError(f"expected the configuration of a run in {path}")
    return config
