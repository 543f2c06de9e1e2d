"""How many rays a training step takes, and which cells of the scene they skip."""

from __future__ import annotations

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.pixel_samplers import PixelSampler

from shacira_nerfstudio.compression.schedule import TrainingSchedule
from shacira_nerfstudio.model.occupancy import seen_cells
from shacira_nerfstudio.model.scene import RadianceScene
from shacira_nerfstudio.model.volrend import RenderedRays
from shacira_nerfstudio.plugin.model_config import SamplingConfig

MARCHED_PER_VISIBLE = 3.0
"""Marched samples cost a look-up without gradient; a step takes at most so many times its visible
samples."""
_FIRST_NUM_RAYS = 512
"""The first steps march through a full occupancy grid: few rays fill the batch."""


class AdaptiveSampling:
    """Fills the batches of one run, and keeps its occupancy grid up to date.

    Nothing of it is saved: all of it follows from the step and from the last batch.
    """

    def __init__(self, config: SamplingConfig) -> None:
        self.config = config
        self.num_rays, self.num_visible, self.num_marched = _FIRST_NUM_RAYS, 0, 0
        self.observes_weights = False
        """Whether this step's rays tell the occupancy grid which cells they see."""

    def before_step(self, step: int, scene: RadianceScene, schedule: TrainingSchedule) -> None:
        """Sets what is noted of this step's rays, and what follows from it."""
        self.observes_weights = schedule.observes_weights(step)
        if schedule.empties_invisible(step):
            scene.occupancy.visible_from = self.config.visibility_threshold

    def set_num_rays(self, pixel_sampler: PixelSampler) -> None:
        """Tells the host how many rays to draw."""
        if self.config.target_num_samples:
            pixel_sampler.set_num_rays_per_batch(self.num_rays)

    def observe(self, num_rays: int, rendered: RenderedRays) -> None:
        """Notes what a step's batch cost."""
        self.num_rays = num_rays
        self.num_visible, self.num_marched = rendered.num_samples, rendered.num_marched

    def update_occupancy(self, step: int, scene: RadianceScene) -> None:
        """Looks at cells again, after every so many steps."""
        is_warm_up = step < self.config.occupancy_warmup
        every = self.config.occupancy_every * (2 if is_warm_up else 1)
        if step and step % every == 0:
            scene.update_occupancy(everywhere=is_warm_up)

    def adapt_num_rays(self) -> None:
        """Takes more rays, or fewer, from the next step on."""
        if not (self.config.target_num_samples and self.num_marched):
            return
        cost = max(self.num_visible, self.num_marched / MARCHED_PER_VISIBLE)
        wanted = self.num_rays * self.config.target_num_samples / max(cost, 1)
        # Half way only: the count of one batch is noisy.
        wanted = 0.5 * (self.num_rays + min(wanted, 4.0 * self.num_rays))
        self.num_rays = int(min(max(wanted, 64), self.config.max_num_rays))

    def metrics(self) -> dict[str, float]:
        """Figures for the log."""
        return {
            "num_rays": self.num_rays,
            "num_samples": self.num_visible,
            "num_samples_marched": self.num_marched,
        }


def mark_unseen_cells(scene: RadianceScene, cameras: Cameras | None) -> None:
    """In an unbounded capture most of space is behind all cameras: it stays empty."""
    settings = scene.settings.train_march
    if settings.contraction != "contracted" or cameras is None:
        return
    if not bool((cameras.camera_type == CameraType.PERSPECTIVE.value).all()):
        return  # a fisheye or a panorama sees what a pinhole does not
    columns = [cameras.fx, cameras.fy, cameras.cx, cameras.cy]
    sizes = torch.cat([cameras.width, cameras.height], -1).float()
    seen = seen_cells(
        scene.occupancy.resolution,
        settings,
        cameras.camera_to_worlds,
        torch.cat(columns, -1),
        sizes,
    )
    scene.occupancy.mark_unseen(seen.to(scene.device))
