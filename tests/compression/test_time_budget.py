"""Training that ends when the time is over, whatever steps take."""

import pytest

from shacira_nerfstudio.compression.time_budget import TimeBudget


class Clock:
    """Stands still unless it is told to go on."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def run(max_seconds, seconds_of, *, num_steps=1000, budget=None, clock=None, begin=0, end=10**6):
    """Runs steps; returns the budget and, per step, the plan that was in force."""
    clock = clock or Clock()
    budget = budget or TimeBudget(max_seconds, clock=clock)
    plans = []
    for step in range(begin, end):
        budget.begin_step()
        num_steps = budget.plan(step, num_steps)
        clock.now += seconds_of(step)
        is_over = budget.is_over
        plans.append(step + 1 if is_over else num_steps)
        budget.end_step()
        clock.now += 0.3  # a viewer
        if is_over or step + 1 >= num_steps:
            break
    return budget, plans


CASES = {
    "even": lambda step: 0.1,
    "compiles first": lambda step: 20.0 if step == 0 else 0.1,
    "slower later": lambda step: 0.05 if step < 300 else 0.1,
    "faster later": lambda step: 0.1 if step < 300 else 0.05,
    "now and then long": lambda step: 2.0 if step % 100 == 99 else 0.1,
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("first_plan", [50, 1000, 100_000])
def test_a_run_ends_in_time_and_never_goes_back(name, first_plan):
    budget, plans = run(100.0, CASES[name], num_steps=first_plan)
    assert 97.0 <= budget.seconds <= 101.0
    done = [(step + 1) / plan for step, plan in enumerate(plans)]
    assert done[-1] == 1.0
    # The last step may jump: the clock decides.
    before = [step / plan for step, plan in enumerate(plans)]
    assert all(a <= b + 1e-12 for a, b in zip(before, before[1:], strict=False))


def test_the_fraction_that_is_done_follows_the_clock():
    _, plans = run(100.0, CASES["even"], num_steps=4600)
    assert len(plans) == pytest.approx(1000, rel=0.02)
    assert plans[500] == pytest.approx(1000, rel=0.02)
    assert len(set(plans[100:])) < 10  # a plan stays


def test_time_is_kept_for_what_comes_after():
    clock = Clock()
    budget = TimeBudget(100.0, clock=clock)
    budget.reserved_seconds = 10.0
    budget, _ = run(100.0, CASES["even"], budget=budget, clock=clock)
    assert 87.0 <= budget.seconds <= 90.1


def test_a_resumed_run_has_what_is_left():
    first, plans = run(100.0, CASES["even"], end=400)
    second = TimeBudget(100.0, clock=(clock := Clock()))
    second.resume(first.seconds)
    second, more = run(
        100.0, CASES["even"], budget=second, clock=clock, begin=400, num_steps=plans[-1]
    )
    assert 97.0 <= second.seconds <= 101.0
    assert len(plans) + len(more) == pytest.approx(1000, rel=0.02)


def test_a_run_that_is_given_more_minutes_goes_on():
    budget = TimeBudget(200.0)
    budget.resume(100.0)
    assert budget.plan_again(1000, 1000) == 2000  # it had ended
    assert budget.plan_again(1000, 2050) == 2050  # it was interrupted
    budget.max_seconds = 90.0
    assert budget.plan_again(1000, 1200) == 1001


def test_without_a_limit_steps_count():
    budget, plans = run(0.0, CASES["even"], num_steps=30)
    assert plans == [30] * 30 and not budget.is_limited
    assert budget.seconds == pytest.approx(3.0)


def test_too_little_time_for_a_plan_still_ends():
    _, plans = run(0.25, CASES["even"])
    assert len(plans) in (2, 3) and plans[-1] == len(plans)
