"""Signatures: read from functions, reduced to the arguments that are open, bound to what a caller sends. Casing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import pytest

from lakebed.interface.json_schema import body_of
from lakebed.interface.signature import Signature, camel, camel_keys, kebab, pascal, snake
from lakebed.interface.verbs import VERBS


async def sample(
    context: object,
    name: str,
    days: int = 7,
    *,
    grain: Literal["hour", "day"] | None = "hour",
    by: str | Sequence[str] | None = None,
    properties: Mapping[str, Any] | None = None,
    inner: bool = False,
) -> None:
    """A sample.

    Args:
        name: the name, with a
            second line.
        days: days back.

    Raises:
        ValueError: never.
    """


OPEN = ("name", "days", "grain", "by", "properties")
SIGNATURE = Signature.of("sample", sample, only=OPEN)


def test_only_what_is_open_is_there():
    """An argument that is not listed is not part of the signature, with or without a default."""
    assert tuple(SIGNATURE.types) == OPEN
    assert SIGNATURE.positional == ("name", "days")
    assert SIGNATURE.required == {"name"}
    assert SIGNATURE.about == {"name": "the name, with a second line.", "days": "days back."}
    for closed in ("inner", "context"):
        with pytest.raises(TypeError, match=f"does not take '{closed}'"):
            SIGNATURE.bind(["x"], {closed: True})


@pytest.mark.parametrize(
    ("arguments", "named", "bound"),
    [
        (["x"], {}, {"name": "x"}),
        (["x", 3], {"by": ["a"]}, {"name": "x", "days": 3, "by": ["a"]}),
        (["x", {"grain": "day"}], {}, {"name": "x", "grain": "day"}),
        ([{"name": "x", "days": None}], {}, {"name": "x"}),
        (["x"], {"grain": None}, {"name": "x", "grain": None}),
        (["x"], {"by": None}, {"name": "x"}),
    ],
)
def test_bind(arguments, named, bound):
    """By position, by name, or in one object; None counts as left out unless it means something else."""
    assert SIGNATURE.bind(arguments, named) == bound


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        ([], {}, "needs name"),
        (["x", 1, 2], {}, "takes at most 2 arguments"),
        (["x", "1"], {}, "days must be int, not str"),
        (["x", True], {}, "days must be int, not bool"),
        (["x"], {"by": [1]}, "by must be str or Sequence, not list"),
        (["x"], {"grain": "week"}, "grain must be 'hour' or 'day', not str"),
        (["x"], {"name": "y"}, "does not take 'name' twice"),
    ],
)
def test_wrong_arguments_name_the_argument(arguments, named, message):
    """A TypeError that says what is wrong and what is allowed."""
    with pytest.raises(TypeError, match=message):
        SIGNATURE.bind(arguments, named)


def test_a_number_out_of_range():
    """A ValueError with the range."""
    with pytest.raises(ValueError, match="days must be from 0 to 36600"):
        SIGNATURE.bind(["x", 10**6], {})


def test_json_schema():
    """The schema has the open arguments, their types as JSON has them, and the docstring's words about each."""
    _, parts = msgspec.json.schema_components([body_of(SIGNATURE)])
    schema = parts["SampleBody"]
    assert set(schema["properties"]) == set(OPEN)
    assert schema["required"] == ["name"]
    assert schema["properties"]["name"] == {"type": "string", "description": "the name, with a second line."}
    assert schema["properties"]["properties"]["anyOf"] == [{"type": "object"}, {"type": "null"}]


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
