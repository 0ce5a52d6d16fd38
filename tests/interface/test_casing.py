"""Names in snake_case and in camelCase."""

from __future__ import annotations

import pytest

from lakebed.interface.casing import camel, camel_keys, kebab, pascal, snake
from lakebed.interface.verbs import VERBS

PAIRS = [("elapsed_ms", "elapsedMs"), ("dau", "dau"), ("received_at", "receivedAt"), ("a_b_c", "aBC")]


@pytest.mark.parametrize(("snake_case", "camel_case"), PAIRS)
def test_both_ways(snake_case, camel_case):
    """Each name has one spelling in each case, and each spelling leads back to the other."""
    assert camel(snake_case) == camel_case
    assert snake(camel_case) == snake_case


@pytest.mark.parametrize(("snake_case", "camel_case"), PAIRS)
def test_a_name_in_the_right_case_stays(snake_case, camel_case):
    """A second change does nothing."""
    assert (snake(snake_case), camel(camel_case)) == (snake_case, camel_case)


def test_every_name_of_the_catalogue_can_be_changed_and_changed_back():
    """No two verbs, and no two arguments of one verb, have the same name in camelCase."""
    for verb in VERBS.values():
        assert snake(camel(verb.name)) == verb.name
        assert len({camel(argument) for argument in verb.arguments}) == len(verb.arguments)
        assert [snake(camel(argument)) for argument in verb.arguments] == list(verb.arguments)
    assert len({camel(name) for name in VERBS}) == len(VERBS)


def test_names_of_commands_and_types():
    """A command is in kebab-case, a type in PascalCase."""
    assert (kebab("session_list"), pascal("session_list")) == ("session-list", "SessionList")


def test_keys_of_a_record_and_not_those_inside():
    """Only the keys of the record itself are names of fields."""
    assert camel_keys({"message_id": 1, "body": {"own_key": 2}}) == {"messageId": 1, "body": {"own_key": 2}}
