"""Options of the method, in groups that each host puts into its own configuration.

The groups are plain dataclasses: hosts show them, with the strings below their fields, as flags and
keys of presets. The path of this module is part of every configuration that is saved.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from shacira_nerfstudio.model.quantize import get_quantizer
from shacira_nerfstudio.option_ranges import Auto, out_of_range, refuse

BYTES_PER_KB = 1000
LEARNING_RATES = {"latents": 0.1, "latent_decoder": 5e-3, "entropy_model": 3e-2, "fields": 5e-3}
"""Of each group of parameters, before the schedule; those of latents in steps of the quantiser."""


@dataclass
class GridOptions:
    """The grid of latents, and what is decoded of it."""

    num_levels: int | Auto = "auto"
    """Levels of the grid; fewer are faster and take fewer bytes. auto follows the capture."""
    base_res: int = 16
    """Vertices per axis of the coarsest level."""
    max_res: int | Auto = "auto"
    """Vertices per axis of the finest level; auto follows the capture and the quality."""
    log2_hashmap_size: int | Auto = "auto"
    """Log2 of the largest table of a level; larger holds more detail, costs memory and bytes. auto
    follows the capture and the quality."""
    latent_dim: int | Auto = "auto"
    """Integers per entry. 2 describes photographs of a real place far better and trains a quarter
    slower; for an object on a plain background 1 does as well. auto follows the capture."""
    features_per_level: int = 4
    """Features that the latent decoder makes of them."""
    decoder_per_level: bool = True
    """A latent decoder for each level, instead of one for all as in the paper."""
    latents_init_std: float = 0.02
    """Standard deviation of the latents at the start; below 0.1 all of them round to 0."""
    decoder_init_std: float = 0.1
    """Standard deviation of the latent decoder at the start."""
    RANGES: ClassVar[dict[str, str]] = {
        "num_levels": "[1, 64]",
        "base_res": "[2, 1048576]",
        "max_res": "[2, 1048576]",
        "log2_hashmap_size": "[3, 28]",
        "latent_dim": "[1, 16]",
        "features_per_level": "[1, 64]",
        "latents_init_std": "[0, inf)",
        "decoder_init_std": "[0, inf)",
    }


@dataclass
class QuantizerOptions:
    """What stands for rounding while training."""

    mode: Literal["noise", "sga", "sga_tanh", "straight_through", "binary", "none"] = "noise"
    """Stand-in for rounding during the first part of training: additive noise, stochastic Gumbel
    annealing (sga_tanh as in the paper's code, to compare with), straight-through rounding; or
    binary (latents of -1 and 1 all along, as in BiRF: give it a latent_dim of 4 to 8 and as many
    features_per_level), or none (plain hash grid, which cannot be exported)."""
    anneal_fraction: float = 0.7
    """Fraction of training that uses the quantiser; the rest rounds. Larger adapts longer to
    noise."""
    final_temperature: float = 0.1
    """Temperature at which sga ends; smaller is closer to rounding."""
    RANGES: ClassVar[dict[str, str]] = {
        "anneal_fraction": "[0, 1]",
        "final_temperature": "(0, inf)",
    }


@dataclass
class RateOptions:
    """What latents cost while training, and when they are moved towards 0."""

    model: Literal["code_lengths", "learned"] = "code_lengths"
    """What a latent costs: code_lengths charges by the frequency tables that the file would have
    now; learned by densities that are trained along, as in the paper."""
    refresh_steps: int = 250
    """Steps between refreshes of these code lengths, and of what the rest of the file takes; more
    for grids of more than 2^23 entries, in proportion."""
    entropy_model_layers: int = 1
    """Layers of the learned densities of the latents; 1 is a logistic distribution, more bend
    it."""
    shared_entropy_model: bool = False
    """One learned density for all levels, as in the paper, instead of one per level."""
    sample_fraction: float = 0.125
    """Fraction of the entries on which each step estimates the rate, unbiased; smaller is faster
    and noisier."""
    max_entries: int = 1 << 20
    """Most entries on which a step estimates the rate: what a step costs does not grow with the
    table."""
    rdo_strength: float = 0.0
    """What a bit is worth, over what rate_lambda makes it worth, when latents that are not worth
    their bits are moved towards 0 at rdo_start; 0.03 takes about a tenth of the bytes. Larger gives
    smaller files, 0 switches it off: latents learn to the end."""
    rdo_start: float = 0.9
    """Fraction of training after which that is done, if it is: latents then stay as they are and
    only networks go on. Smaller leaves networks longer to adapt."""
    level_dropout: float = 0.0
    """Probability that a step trains the first few levels alone. Larger makes shortened files look
    better and whole ones worse; 0 trains all levels always."""
    RANGES: ClassVar[dict[str, str]] = {
        "refresh_steps": "[1, inf)",
        "entropy_model_layers": "[1, 16]",
        "sample_fraction": "(0, 1]",
        "max_entries": "[1, inf)",
        "rdo_strength": "[0, inf)",
        "rdo_start": "[0, 1]",
        "level_dropout": "[0, 1]",
    }


@dataclass
class ScheduleOptions:
    """Learning rates, and when network weights are quantised."""

    warmup_steps: int = 100
    """Steps over which learning rates rise."""
    decay_start: float = 0.5
    """Fraction of training after which learning rates fall."""
    final_lr_factor: float = 0.03
    """Fraction of the learning rates that is left at the end."""
    weight_qat_start: float = 0.8
    """Fraction of training after which network weights are quantised in the loop."""
    RANGES: ClassVar[dict[str, str]] = {
        "warmup_steps": "[0, inf)",
        "decay_start": "[0, 1]",
        "final_lr_factor": "[0, 1]",
        "weight_qat_start": "[0, 1]",
    }


@dataclass(frozen=True)
class CompressionOptions:
    """All that a :class:`Compressor` wants to know."""

    rate_lambda: float = 1.0e-3
    """Weight of the rate; where steering starts, if there is a target."""
    target_size_kb: float = 0.0
    """Size to end at, in kB of 1000 bytes; 0 means none."""
    target_psnr: float = 0.0
    """Quality to end at, in dB; 0 means none."""
    quantizer: QuantizerOptions = field(default_factory=QuantizerOptions)
    rate: RateOptions = field(default_factory=RateOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    visibility_start: float = 1.0
    """Fraction of training after which cells that no ray sees are empty; 1 means never."""
    RANGES: ClassVar[dict[str, str]] = {
        "rate_lambda": "[0, inf)",
        "target_size_kb": "[0, inf)",
        "target_psnr": "[0, inf)",
        "visibility_start": "[0, 1]",
    }

    def __post_init__(self) -> None:
        groups = {"": self, "quantizer.": self.quantizer, "rate.": self.rate}
        groups["schedule."] = self.schedule
        refuse(
            problem
            for prefix, group in groups.items()
            for problem in out_of_range(group, group.RANGES, prefix=prefix)
        )
        if self.target_size_kb and self.target_psnr:
            raise ValueError(
                "expected target_size_kb or target_psnr, got both: one rate cannot serve two aims"
            )
        if self.has_target and not (self.rate_lambda > 0 and self.codes_integers):
            raise ValueError(
                "expected a rate_lambda above 0, where steering starts, and a quantizer of "
                f"integers, got {self.rate_lambda} and {self.quantizer.mode}"
            )

    @property
    def has_target(self) -> bool:
        return self.target_size_kb > 0 or self.target_psnr > 0

    @property
    def target_bytes(self) -> float:
        """0 without a target size."""
        return self.target_size_kb * BYTES_PER_KB

    @property
    def codes_integers(self) -> bool:
        """Whether latents have frequency tables, and a 0 to move to."""
        return get_quantizer(self.quantizer.mode).codes_integers

    @property
    def moves_latents(self) -> bool:
        """Whether latents are moved towards 0 before the end of training, to be final then."""
        is_wanted = self.rate.rdo_strength > 0 and self.rate.rdo_start < 1
        return is_wanted and self.rate_lambda > 0 and self.codes_integers
