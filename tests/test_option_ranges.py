"""Numbers that somebody typed: named, with what was expected and what was found, all at once."""

import dataclasses
import math

import pytest

from shacira_nerfstudio.compression.options import (
    CompressionOptions,
    GridOptions,
    QuantizerOptions,
    RateOptions,
    ScheduleOptions,
)
from shacira_nerfstudio.model.sampling import SamplingOptions
from shacira_nerfstudio.option_ranges import out_of_range, settled

GROUPS = [GridOptions, QuantizerOptions, RateOptions, ScheduleOptions, SamplingOptions]


def numbers(options):
    """Names of the fields that hold numbers, or will."""
    values = {f.name: (f.type, getattr(options, f.name)) for f in dataclasses.fields(options)}
    return {
        name
        for name, (kind, value) in values.items()
        if type(value) in (int, float) or kind in ("int | Auto", "float | Auto")
    }


@pytest.mark.parametrize("group", [*GROUPS, CompressionOptions], ids=lambda group: group.__name__)
def test_every_number_has_a_range_that_its_default_is_in(group):
    options = group()
    assert numbers(options) == set(group.RANGES)
    assert out_of_range(options, group.RANGES) == []
    for name in group.RANGES:
        for value in (-1, math.nan, math.inf):
            broken = group()
            object.__setattr__(broken, name, value)
            assert out_of_range(broken, group.RANGES, prefix="group.")[0].startswith(
                f"group.{name}"
            )


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1]", (0, 0.5, 1), (-0.1, 1.1)),
        ("(0, 1)", (0.5,), (0, 1)),
        ("[2, inf)", (2, 10**30), (1, math.inf, math.nan)),
    ],
)
def test_intervals(interval, inside, outside):
    @dataclasses.dataclass
    class Options:
        value: float

    for value in inside:
        assert out_of_range(Options(value), {"value": interval}) == []
    for value in outside:
        found = out_of_range(Options(value), {"value": interval})
        assert found == [f"value in {interval}, got {value}"]


def test_a_number_may_be_left_open_only_where_that_is_the_default():
    assert out_of_range(GridOptions(max_res="auto"), {"max_res": "[2, 9]"}) == []
    with pytest.raises(TypeError):
        out_of_range(GridOptions(base_res="auto"), {"base_res": "[1, 9]"})
    assert settled(3) == 3 and settled(0) == 0
    with pytest.raises(ValueError, match="chosen by now"):
        settled("auto")


def test_compression_names_all_that_is_wrong():
    with pytest.raises(ValueError, match=r"rate_lambda in \[0, inf\), got -1; rate.rdo_start in"):
        CompressionOptions(rate_lambda=-1, rate=RateOptions(rdo_start=2.0))


@pytest.mark.nerfstudio
def test_the_method_names_all_that_is_wrong():
    from shacira_nerfstudio.plugin.model_config import NetworksConfig, ShaciraModelConfig

    config = ShaciraModelConfig()
    config.check()
    assert numbers(config.networks) == set(NetworksConfig.RANGES)
    config.rate_lambda, config.grid.num_levels, config.networks.weight_bits = -1.0, 0, 40
    expected = r"rate_lambda in .*; grid.num_levels in \[1, 64\], got 0; networks.weight_bits in"
    with pytest.raises(ValueError, match=expected):
        config.check()
