"""Options of the method: what `ns-train shacira --help` lists. Loaded inside every ns-* command.

The paths of these classes are part of every saved `config.yml`; they do not move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from nerfstudio.models.base_model import ModelConfig

from shacira_nerfstudio.compression.options import (
    CompressionOptions,
    GridOptions,
    QuantizerOptions,
    RateOptions,
    ScheduleOptions,
)
from shacira_nerfstudio.model.sampling import SamplingOptions
from shacira_nerfstudio.option_ranges import Auto, out_of_range, refuse, settled

Corners = tuple[float, float, float, float, float, float]


@dataclass
class NetworksConfig:
    """Density and colour network."""

    hidden_dim: int = 64
    """Width of both networks."""
    geo_feat_dim: int = 15
    """Channels from the density to the colour network."""
    num_color_layers: int | Auto = "auto"
    """Hidden layers of the colour network; auto follows the quality."""
    sh_degree: int = 4
    """Bands of spherical harmonics for view directions, 1 to 4."""
    appearance_dim: int = 0
    """Channels of a code per training image for changing exposure; the file holds their mean. 0
    means none."""
    weight_bits: int = 8
    """Bits per network weight in the file, before entropy coding; 2 to 12."""
    first_layer_bits: int = 12
    """The same for the first layer, which holds the scale of every level."""
    initial_log_density: float | Auto = "auto"
    """Log of the density that space starts with, per world unit; smaller starts thinner. auto
    follows the capture."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """Number format of the factors in both networks' products while training, with sums in float32;
    auto is bfloat16 where the processor has instructions for it, or the NVIDIA card (on older ones
    float16, with scaled gradients). On a CPU steps are 10 to 20 percent shorter, and lego came out
    as well, but fox lost 0.3 dB. Pictures of a file are rendered in float32 in any case."""
    fused: bool = False
    """Compute each network in one kernel while training, where there is one: in backend triton, for
    short numbers. Whether it is faster, `shacira bench cuda` says of a card."""
    RANGES: ClassVar[dict[str, str]] = {
        "hidden_dim": "[1, 4096]",
        "geo_feat_dim": "[1, 4096]",
        "num_color_layers": "[1, 16]",
        "sh_degree": "[1, 4]",
        "appearance_dim": "[0, 4096]",
        "weight_bits": "[2, 12]",
        "first_layer_bits": "[2, 12]",
        "initial_log_density": "[-15, 15]",
    }


@dataclass
class ShaciraModelConfig(ModelConfig):
    """Options of the method. With `quantizer.mode` none and `rate_lambda` 0 it is a plain
    Instant-NGP."""

    rate_lambda: float | Auto = "auto"
    """Weight of the rate: of estimated bits per table entry against the colour loss. Larger gives
    smaller files. auto follows the capture."""
    target_size_kb: float = 0.0
    """Size that the file should have, in kB of 1000 bytes: rate_lambda is where steering starts,
    and moves while training. The file ends at most that large, and within 2 percent of it unless
    networks and occupancy alone take more. 0 leaves rate_lambda as it is."""
    target_psnr: float = 0.0
    """Quality that the file should have, in dB on views it is trained on (held-out views are
    usually a little worse): rate_lambda moves likewise, for the smallest file. 0 leaves rate_lambda
    as it is; it cannot be combined with target_size_kb."""
    quality: Literal["draft", "normal", "max"] = "normal"
    """What training aims at, by the time that an object takes on two cores: draft (laid out for 5
    minutes), normal (15 minutes) or max (90 minutes). Together with the kind of capture it says
    what auto means, and how many steps are trained where max-num-iterations is 0."""
    max_minutes: float = 0.0
    """Minutes that training may take, instead of a number of steps: all that happens at a fraction
    of training follows the clock then, and the run ends in good order when the time is over, or at
    max-num-iterations if that comes first. Only the time in training steps counts. The same command
    then gives another file each time. 0 counts steps."""
    capture: Literal["auto", "object", "place", "forward"] = "auto"
    """Kind of capture, which says what auto means elsewhere: an object that ends at a box, a place
    that reaches to infinity, or the same from cameras that all face forward. auto looks at pixels
    (images with alpha that is used, or put on a colour by the data parser, show an object) and at
    cameras."""
    contraction: Literal["auto", "affine", "contracted"] = "auto"
    """affine ends the scene at its box, contracted reaches to infinity; auto takes affine for an
    object and contracted otherwise."""
    box: Corners | Auto = "auto"
    """Lower, then upper corner of the box, x y z each in the units of the data parser's cameras;
    auto takes the data parser's box, or see fit_box."""
    fit_box: bool = True
    """End an affine scene at a box around what pictures with alpha show, instead of at the data
    parser's box; only where the data parser has no background colour."""
    background_color: Literal["auto", "white", "black", "random", "last_sample"] = "auto"
    """What lies behind. auto: the colour that the data parser put images with alpha on, white for
    an object whose data parser has none; otherwise random while training and black afterwards."""
    rgb_loss: Literal["mse", "l1", "huber"] = "mse"
    """Colour loss; mse is what PSNR measures."""
    distortion_loss_mult: float | Auto = "auto"
    """Weight of the distortion loss of mip-NeRF 360 against fog; 0 means none, and auto follows the
    capture."""
    latents_lr_mult: float = 1.0
    """Factor on the learning rate of latents that are quantised. Larger lets them grow faster out
    of the noise that stands for rounding, which some photographs of a place gain from."""
    backend: str = "auto"
    """Implementation of the hot operations, reference, cpu_numba (CPU) or triton (CUDA); auto picks
    the fastest that loads and says which."""
    grid: GridOptions = field(default_factory=GridOptions)
    networks: NetworksConfig = field(default_factory=NetworksConfig)
    quantizer: QuantizerOptions = field(default_factory=QuantizerOptions)
    rate: RateOptions = field(default_factory=RateOptions)
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    eval_num_rays_per_chunk: int = 1 << 15
    """Rays rendered at a time; smaller takes less memory."""
    use_lpips: bool = False
    """Also report LPIPS. Its weights are downloaded by torchvision on first use, if they are not
    there."""
    enable_collider: bool = False
    """Bound rays by collider_params as well; near_plane and far_plane do so already."""

    def check(self) -> None:
        """Raises one ValueError for all numbers that are out of range."""
        groups = ("grid", "networks", "quantizer", "rate", "sampling", "schedule")
        ranges = {"rate_lambda": "[0, inf)", "target_size_kb": "[0, inf)"}
        ranges |= {"target_psnr": "[0, inf)", "distortion_loss_mult": "[0, inf)"}
        ranges |= {"latents_lr_mult": "(0, inf)"}
        ranges |= {"eval_num_rays_per_chunk": "[1, inf)", "max_minutes": "[0, inf)"}
        problems = out_of_range(self, ranges)
        for name in groups:
            group = getattr(self, name)
            problems += out_of_range(group, group.RANGES, prefix=f"{name}.")
        if self.box != "auto" and not all(
            -math.inf < low < high < math.inf
            for low, high in zip(self.box[:3], self.box[3:], strict=True)
        ):
            problems.append(f"box with its lower corner first, got {self.box}")
        refuse(problems)

    def compression_options(self) -> CompressionOptions:
        """What of this concerns compression."""
        return CompressionOptions(
            settled(self.rate_lambda),
            self.target_size_kb,
            self.target_psnr,
            self.quantizer,
            self.rate,
            self.schedule,
            visibility_start=settled(self.sampling.visibility_start),
        )
