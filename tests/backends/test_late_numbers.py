"""Numbers of a device come back when nobody has to wait for them."""

import torch

from shacira_nerfstudio.backends.late_numbers import LAG, LateNumbers


def test_numbers_come_two_steps_later():
    late, found = LateNumbers(), []
    number = torch.zeros(1, dtype=torch.long)
    for step in range(6):
        found.append(late.take())
        number += 1  # in place: what was put in stays what it was
        late.put(number, note=step)
    assert LAG == 2
    assert found == [None, None, *(([step + 1], step) for step in range(4))]


def test_nothing_is_handed_over_twice():
    late = LateNumbers()
    for step in range(2):
        late.put(torch.tensor([step]))
    assert late.take() == ([0], None)
    assert late.take() is None
