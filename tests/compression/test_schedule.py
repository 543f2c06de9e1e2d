"""Schedules are functions of the step: golden values, and nothing remembered."""

import pytest

from shacira_nerfstudio.compression.options import CompressionOptions
from shacira_nerfstudio.compression.schedule import MAX_ENTRIES_PER_REFRESH, TrainingSchedule
from shacira_nerfstudio.model.quantize import QuantizeSchedule, get_quantizer


def make_schedule(**changes):
    quantizer = QuantizeSchedule(
        get_quantizer("sga"), 1000, anneal_fraction=0.7, final_temperature=0.1
    )
    options = {"warmup_steps": 100, "decay_start": 0.5, "final_lr_factor": 0.01}
    return TrainingSchedule(1000, quantizer, **{**options, **changes})


def test_learning_rate_golden_values():
    schedule = make_schedule()
    expected = {
        0: 0.01,  # the first of 100 warm-up steps
        49: 0.5,
        99: 1.0,
        500: 1.0,
        625: 0.01**0.25,
        750: 0.1,
        1000: 0.01,
        5000: 0.01,  # a run that goes on after its end
    }
    found = {step: schedule.lr_factor(step) for step in expected}
    assert found == pytest.approx(expected)
    # Optimizer states with anything but plain numbers could not be loaded again.
    assert {type(value) for value in found.values()} == {float}


def test_learning_rate_rises_then_falls():
    factors = [make_schedule().lr_factor(step) for step in range(1001)]
    peak = factors[99:501]
    assert factors[:100] == sorted(factors[:100])
    assert set(peak) == {1.0}
    assert factors[500:] == sorted(factors[500:], reverse=True)
    assert len(set(factors[500:])) == 501


def test_warmup_and_decay_can_be_switched_off():
    assert make_schedule(warmup_steps=0).lr_factor(0) == 1.0
    flat = make_schedule(final_lr_factor=1.0)
    assert flat.lr_factor(999) == 1.0
    assert make_schedule(decay_start=1.0).lr_factor(999) == 1.0
    assert make_schedule(decay_start=0.0, warmup_steps=0).lr_factor(500) == pytest.approx(0.1)


def test_weights_are_quantised_towards_the_end():
    schedule = make_schedule(weight_qat_start=0.8)
    assert [schedule.quantizes_weights(step) for step in (0, 799, 800, 999)] == [
        *(False, False),
        *(True, True),
    ]
    assert make_schedule(weight_qat_start=0.0).quantizes_weights(0)
    assert not make_schedule(weight_qat_start=1.0).quantizes_weights(999)


def test_quantiser_is_that_of_its_schedule():
    schedule = make_schedule()
    for step in (0, 350, 699, 700, 999):
        assert schedule.quantizer_at(step) == schedule.quantizer.at(step)
    assert schedule.quantizer_at(350) == (get_quantizer("sga"), pytest.approx(0.1**0.5))
    assert schedule.quantizer_at(700) == (get_quantizer("straight_through"), 0.1)


def test_rates_are_refreshed_regularly_and_when_rounding_begins():
    schedule = make_schedule(rate_refresh_steps=250)
    refreshes = [step for step in range(1000) if schedule.refreshes_rates(step)]
    assert refreshes == [0, 15, 31, 62, 125, 250, 500, 700, 750]


def test_refreshes_do_not_grow_with_the_table():
    for num_entries, expected in ((1000, 250), (int(3.5 * MAX_ENTRIES_PER_REFRESH), 4 * 250)):
        schedule = TrainingSchedule.from_options(CompressionOptions(), 80, num_entries=num_entries)
        assert schedule.rate_refresh_steps == expected


def test_level_dropout_follows_from_step_and_seed():
    schedule = make_schedule(level_dropout=0.25)
    found = [schedule.num_levels_at(step, 5, seed=7) for step in range(4000)]
    counts = [found.count(levels) for levels in range(1, 6)]
    assert sum(counts) == 4000
    # Standard deviations are 15 and 28 steps.
    assert counts == pytest.approx([250, 250, 250, 250, 3000], abs=110)
    again = make_schedule(level_dropout=0.25)
    backwards = [again.num_levels_at(step, 5, seed=7) for step in range(3999, -1, -1)]
    assert backwards[::-1] == found
    assert [schedule.num_levels_at(step, 5, seed=8) for step in range(4000)] != found


def test_level_dropout_is_off_by_default_and_needs_levels():
    largest_seed = 2**64 - 1
    assert {make_schedule().num_levels_at(step, 16, seed=largest_seed) for step in range(99)} == {
        16
    }
    assert make_schedule(level_dropout=0.99).num_levels_at(0, 1, seed=0) == 1
    for probability in (-0.1, 1.0):
        with pytest.raises(ValueError, match="level_dropout"):
            make_schedule(level_dropout=probability)


def test_a_resumed_run_goes_on_where_it_was():
    steps = [0, 50, 99, 480, 650, 700, 850, 999]
    straight, resumed = make_schedule(), make_schedule()
    resumed.lr_factor(10), resumed.quantizer_at(900)
    for step in steps:
        assert straight.lr_factor(step) == resumed.lr_factor(step)
        assert straight.quantizer_at(step) == resumed.quantizer_at(step)


def test_the_rate_is_steered_from_a_fifth_until_latents_are_final():
    measured = [s for s in range(1000) if make_schedule(rdo_start=0.9).steers_rate(s)]
    assert measured == list(range(219, 880, 20))
    assert [s for s in range(1000) if make_schedule().steers_rate(s)][-1] == 979
    trimmed = make_schedule(first_trim=0.8)
    assert [s for s in range(1000) if trimmed.steers_rate(s)][-1] == 779
    assert trimmed.first_trim_step == 800 and make_schedule().first_trim_step == 1000
    # Short runs measure after every step, none more often than that.
    short = TrainingSchedule(10, make_schedule().quantizer)
    assert [s for s in range(10) if short.steers_rate(s)] == list(range(2, 9))
    assert short.steps_to_measure == 1 and make_schedule().steps_to_measure == 20


def test_latents_become_final_at_a_step_or_never():
    schedule = make_schedule(rdo_start=0.9)
    assert [schedule.freezes_latents(step) for step in (0, 899, 900, 999)] == [
        *(False, False),
        *(True, True),
    ]
    assert schedule.rdo_step == 900
    assert not any(make_schedule().freezes_latents(step) for step in range(1000))


def test_rays_are_watched_before_what_they_do_not_see_is_emptied():
    schedule = make_schedule(visibility_start=0.7)
    watched = [step for step in range(1000) if schedule.observes_weights(step)]
    emptied = [step for step in range(1000) if schedule.empties_invisible(step)]
    assert (watched[0], watched[-1]) == (450, 999) and len(watched) == 550
    assert (emptied[0], emptied[-1]) == (700, 999) and len(emptied) == 300
    never = make_schedule()
    assert not any(never.observes_weights(s) or never.empties_invisible(s) for s in range(1001))
