"""Where rays are sampled while training, how many a step takes, and which cells they skip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from shacira_nerfstudio.backends.late_numbers import LateNumbers
from shacira_nerfstudio.model.scene import RadianceScene
from shacira_nerfstudio.model.volrend import RenderedRays
from shacira_nerfstudio.option_ranges import Auto, settled

MARCHED_PER_VISIBLE = 3.0
"""Marched samples cost a look-up without gradient; a step takes at most so many times its visible
samples."""
_FIRST_NUM_RAYS = 512
"""The first steps march through a full occupancy grid: few rays fill the batch."""


@dataclass
class SamplingOptions:
    """Where rays are sampled, and how many a step takes."""

    near_plane: float = 0.05
    """Distance at which rays begin, scene units."""
    far_plane: float = 1000.0
    """Distance at which rays end, scene units."""
    steps_across_box: int | Auto = "auto"
    """March steps along the diagonal of the box, or of all of contracted space; more is finer and
    slower. auto follows the capture."""
    render_steps_across_box: int | Auto = "auto"
    """The same for what is rendered after training, and by whoever opens the file: finer steps than
    those of training, whose places are random, show sharp scenes better. 0 takes those of
    training; auto follows the capture and the quality."""
    occupancy_resolution: int = 128
    """Occupancy cells per axis; a multiple of 32 marches fastest."""
    occupancy_every: int = 16
    """Steps between updates of the occupancy."""
    occupancy_warmup: int = 256
    """Steps in which updates look at all cells."""
    occupancy_threshold: float = 0.01
    """Opacity of one march step from which a cell is occupied."""
    occupancy_rise: float | Auto = "auto"
    """Fraction of training over which that threshold rises from half the opacity that empty space
    begins with; 0 has it from the start, larger looks longer for what is still faint. auto follows
    the capture."""
    visibility_start: float | Auto = "auto"
    """Fraction of training after which cells are emptied that no training ray sees, fog and what
    is hidden: smaller files that render faster. 1 leaves them; auto follows the capture."""
    visibility_threshold: float = 0.005
    """Weight in the colour of some training ray from which a cell is seen; neighbours of such a
    cell stay as well."""
    early_stop: float | Auto = "auto"
    """Transmittance at which a ray ends, while training and for whoever opens the file; larger is
    faster, and colours are wrong by as much at the most. auto follows the capture."""
    target_num_samples: int | Auto = "auto"
    """Visible samples per training step; the number of rays adapts to it. 0 keeps the data
    manager's number; auto follows the capture, the quality and the device."""
    max_num_rays: int | Auto = "auto"
    """Most rays per training step; auto follows the device."""
    max_samples_per_ray: int = 1024
    """Rays with more samples are cut there and not trained on."""
    max_stride: int | Auto = "auto"
    """March steps that one training sample may stand for where space is thin, a power of 2 up to
    32; 1 samples each step. auto follows the capture."""
    stride_opacity: float = 0.25
    """Opacity that the steps of one such sample may have together; larger is faster and coarser."""
    RANGES: ClassVar[dict[str, str]] = {
        "near_plane": "[0, inf)",
        "far_plane": "(0, inf)",
        "steps_across_box": "[1, 65536]",
        "render_steps_across_box": "[0, 65536]",
        "occupancy_resolution": "[1, 256]",
        "occupancy_every": "[1, inf)",
        "occupancy_warmup": "[0, inf)",
        "occupancy_threshold": "[0, 1)",
        "visibility_start": "[0, 1]",
        "visibility_threshold": "[0, 1]",
        "early_stop": "[0, 1)",
        "target_num_samples": "[0, inf)",
        "max_num_rays": "[1, inf)",
        "max_samples_per_ray": "[0, inf)",
        "occupancy_rise": "[0, 1]",
        "max_stride": "[1, 32]",
        "stride_opacity": "(0, 1]",
    }


class AdaptiveSampling:
    """Fills the batches of one run, and keeps its occupancy grid up to date.

    Nothing of it is saved: all of it follows from the step and from the last batch.
    """

    def __init__(self, options: SamplingOptions) -> None:
        self.options = options
        self.num_rays, self.num_visible, self.num_marched = _FIRST_NUM_RAYS, 0, 0
        self._late, self._rays_of_numbers = LateNumbers(), _FIRST_NUM_RAYS
        self.observes_weights = False
        """Whether this step's rays tell the occupancy grid which cells they see."""

    def watch(
        self, scene: RadianceScene, *, observes_weights: bool, empties_invisible: bool
    ) -> None:
        """Sets what is noted of the rays of a step, and whether cells that none saw are empty."""
        self.observes_weights = observes_weights
        if empties_invisible:
            scene.occupancy.visible_from = self.options.visibility_threshold

    @property
    def adapts_num_rays(self) -> bool:
        """Whether steps take as many rays as fill their batch."""
        return settled(self.options.target_num_samples) > 0

    def note_batch(self, num_rays: int, rendered: RenderedRays) -> None:
        """Notes what the batch of a step cost; where only a GPU knows that, it is the batch of the
        step before last that counts from now on."""
        self.num_rays, visible, marched = num_rays, rendered.num_samples, rendered.num_marched
        if isinstance(visible, Tensor) and isinstance(marched, Tensor):
            known = self._late.take()
            if known is not None:
                (self.num_visible, self.num_marched), self._rays_of_numbers = known
            self._late.put(torch.stack([visible, marched]), num_rays)
        else:
            self.num_visible, self.num_marched = int(visible), int(marched)
            self._rays_of_numbers = num_rays

    def update_occupancy(self, step: int, scene: RadianceScene, *, num_steps: int) -> None:
        """Looks at cells again, after every so many steps of a run of ``num_steps``."""
        is_warm_up = step < self.options.occupancy_warmup
        every = self.options.occupancy_every * (2 if is_warm_up else 1)
        if step and step % every == 0:
            threshold = self._occupancy_threshold(step / num_steps, scene)
            scene.update_occupancy(everywhere=is_warm_up, threshold=threshold)

    def _occupancy_threshold(self, fraction: float, scene: RadianceScene) -> float:
        """Opacity from which a cell is occupied after a fraction of training.

        It rises geometrically from half of what empty space begins with. With the last one from the
        start, thin space before the cameras would be emptied before anything was learned of it, and
        what lies behind, where steps and so opacities are larger, would have to explain it: fog.
        """
        last, rise = self.options.occupancy_threshold, settled(self.options.occupancy_rise)
        begin = math.exp(scene.field.initial_log_density) * scene.settings.train_march.step_size / 2
        if fraction >= rise or not 0 < begin < last:
            return last
        return begin * (last / begin) ** (fraction / rise)

    def adapt_num_rays(self) -> None:
        """Takes more rays, or fewer, from the next step on."""
        if not (self.adapts_num_rays and self.num_marched):
            return
        cost = max(self.num_visible, self.num_marched / MARCHED_PER_VISIBLE)
        target = settled(self.options.target_num_samples)
        wanted = self._rays_of_numbers * target / max(cost, 1)
        # Half way only: the count of one batch is noisy.
        wanted = 0.5 * (self.num_rays + min(wanted, 4.0 * self.num_rays))
        self.num_rays = int(min(max(wanted, 64), settled(self.options.max_num_rays)))

    def metrics(self) -> dict[str, float]:
        """Figures for the log."""
        return {
            "num_rays": self.num_rays,
            "num_samples": self.num_visible,
            "num_samples_marched": self.num_marched,
        }
