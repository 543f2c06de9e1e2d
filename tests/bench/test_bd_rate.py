"""BD-rate: its laws, known values, and the interpolation under it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shacira_nerfstudio.bench.report.bd_rate import bd_rate, bytes_at, pchip_slopes

CURVE = [(100.0, 30.0), (180.0, 32.5), (420.0, 33.9), (1000.0, 35.0)]
OTHER = [(90.0, 29.0), (150.0, 31.8), (500.0, 34.3), (800.0, 34.9)]


@st.composite
def curves(draw):
    count = draw(st.integers(2, 6))
    step = st.floats(0.1, 5)
    psnrs = 25 + np.cumsum([draw(step) for _ in range(count)])
    sizes = 1000 * np.exp(np.cumsum([draw(st.floats(0.05, 2)) for _ in range(count)]))
    return list(zip(sizes.tolist(), psnrs.tolist(), strict=True))


@given(curves())
def test_a_curve_equals_itself(curve):
    assert bd_rate(curve, curve) == pytest.approx(0, abs=1e-9)


@given(curves(), st.floats(0.05, 20))
def test_a_factor_in_bytes_is_that_factor(curve, factor):
    scaled = [(size * factor, psnr) for size, psnr in curve]
    assert bd_rate(curve, scaled) == pytest.approx(100 * (factor - 1), abs=1e-6)


def test_half_the_bytes_is_minus_fifty_percent():
    assert bd_rate(CURVE, [(size / 2, psnr) for size, psnr in CURVE]) == pytest.approx(-50)


def test_the_other_way_round_is_the_inverse():
    there, back = bd_rate(CURVE, OTHER), bd_rate(OTHER, CURVE)
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1)


def test_the_order_of_points_does_not_matter():
    assert bd_rate(CURVE[::-1], OTHER) == pytest.approx(bd_rate(CURVE, OTHER))


def test_straight_lines_have_a_closed_form():
    # ln(bytes) = 0.2 x and 0.25 x - 1.6, over the common 30 to 36 dB: mean of 0.05 x - 1.6 at 33.
    line = lambda slope, shift, xs: [(float(np.exp(slope * x + shift)), float(x)) for x in xs]
    first, second = line(0.2, 0.0, [28, 31, 36]), line(0.25, -1.6, [30, 33, 40])
    assert bd_rate(first, second) == pytest.approx(100 * np.expm1(0.05 * 33 - 1.6))


def test_interpolation_is_scipys_pchip():
    interpolate = pytest.importorskip("scipy.interpolate")
    x = np.array([1.0, 2.0, 4.0, 4.5, 7.0])
    for y in ([1, 3, 2, 2, 5], [0, 1, 5, 6, 6.5], [3, 2, 1.5, -4, -4.1], [5, 0, 0, 0, 9]):
        expected = interpolate.PchipInterpolator(x, np.array(y, float)).derivative()(x)
        assert pchip_slopes(x, np.array(y, float)) == pytest.approx(expected)
    low, high = 30.0, 34.9
    integrals = [
        interpolate.PchipInterpolator([p for _, p in c], np.log([s for s, _ in c])).integrate(
            low, high
        )
        for c in (CURVE, OTHER)
    ]
    expected = 100 * np.expm1((integrals[1] - integrals[0]) / (high - low))
    assert bd_rate(CURVE, OTHER) == pytest.approx(expected)


def test_bytes_at_goes_through_the_points_and_stays_between_them():
    for size, psnr in CURVE:
        assert bytes_at(CURVE, psnr) == pytest.approx(size)
    assert 180 < bytes_at(CURVE, 33.0) < 420
    with pytest.raises(ValueError, match=r"from 30\.00 to 35\.00 dB, got 36"):
        bytes_at(CURVE, 36.0)


@pytest.mark.parametrize(
    ("curve", "complaint"),
    [
        ([(100.0, 31.0)], "two or more points"),
        ([(100.0, 31.0), (200.0, 31.0)], "different PSNR"),
        ([(0.0, 31.0), (200.0, 32.0)], "some bytes"),
        ([(100.0, 20.0), (200.0, 29.0)], "PSNR in common"),
    ],
)
def test_what_is_no_curve_is_refused(curve, complaint):
    with pytest.raises(ValueError, match=complaint):
        bd_rate(CURVE, curve)
