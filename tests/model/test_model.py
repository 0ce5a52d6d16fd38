"""The object against a plain list. Failures replay: hypothesis is derandomised, and prints the steps."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.state_machine import Sides

_COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}


def test_object_equals_a_plain_list():
    """Whatever is done in whatever order, every answer is that of a list of dicts, and remembered ones never change."""
    options = settings(max_examples=4, stateful_step_count=25, derandomize=True, database=None, **_COMMON)
    run_state_machine_as_test(Sides, settings=options)


@pytest.mark.slow
def test_object_equals_a_plain_list_at_length():
    """The same, longer and with new steps each time; hypothesis remembers what failed."""
    # No shrinking: that takes an hour, and the steps are printed as they are.
    phases = (Phase.explicit, Phase.reuse, Phase.generate)
    run_state_machine_as_test(
        Sides, settings=settings(max_examples=150, stateful_step_count=60, phases=phases, **_COMMON)
    )
