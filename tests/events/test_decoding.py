import json
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakebed.errors import InvalidEvent
from lakebed.events.decoding import Rejected, decode_items, decode_mappings
from lakebed.events.event import Event
from lakebed.events.validation import from_call, validate
from tests.tiers.pipeline.logs import NOW

GOOD = b'{"event":"good","messageId":"g"}'
# Requests that Segment's own libraries sent to a local server.
CAPTURES = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "segment_requests.jsonl").read_text().splitlines()
]
BAD = {
    "lone surrogate": (b'{"event":"b","properties":{"a":"\\ud800"}}', "a lone surrogate"),
    "low surrogate": (b'{"event":"\\udc00x"}', "a lone surrogate"),
    "bad UTF-8": (b'{"event":"b","properties":{"a":"\xff"}}', "not valid UTF-8: invalid start byte at byte 32"),
    "overlong UTF-8": (b'{"event":"\xc0\xaf"}', "not valid UTF-8"),
    "encoded surrogate": (b'{"event":"\xed\xa0\x80"}', "not valid UTF-8"),
    "NaN": (b'{"event":"b","properties":{"a":NaN}}', "not valid JSON"),
    "Infinity": (b'{"event":"b","properties":{"a":-Infinity}}', "not valid JSON"),
    "too large a number": (b'{"event":"b","properties":{"a":1e999}}', "Number out of range"),
    "5,000 digits": (b'{"event":"b","properties":{"a":' + b"1" * 5000 + b"}}", "Integer value out of range"),
    "depth 33": (b'{"event":"b","properties":{"a":' + b"[" * 32 + b"]" * 32 + b"}}", "nested 33 deep"),
    "depth 5,000": (b'{"event":"b","x":' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deep"),
    "depth 100,000": (
        b'{"event":"b","properties":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        "the limit is 32768",
    ),
    "objects without end": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "the limit is 32768"),
    "control character": (b'{"event":"a\x01b"}', "not valid JSON"),
    "no comma": (b'{"event":"b" "userId":"u"}', "not valid JSON"),
    "unquoted": (b"{event:1}", "not valid JSON"),
    "a number": (b"5", "wrong type"),
    "a text": (b'"event"', "wrong type"),
    "null": (b"null", "wrong type"),
    "an array": (b'[{"event":"b"}]', "wrong type"),
    "wrong type": (b'{"event":7,"messageId":"m"}', "wrong type: Expected `str | null`, got `int` - at `$.event`"),
    "wrong id": (b'{"event":"b","userId":1.5}', "wrong type"),
    "wrong time": (b'{"event":"b","timestamp":true}', "wrong type"),
    "beyond a limit": (b'{"event":""}', "event name is empty"),
}


def summary(items):
    return [item.reason if isinstance(item, Rejected) else item.event for item in items]


def bodies(items):
    """The same items in each form that a body may have."""
    yield b"[" + b",".join(items) + b"]"
    yield b" [\n  " + b" ,\n  ".join(items) + b"\n] "
    yield b'{"batch":[' + b",".join(items) + b'],"writeKey":"k"}'
    yield b'{\n"sentAt": "2026-01-01T00:00:00Z",\n"batch": [\n' + b",\n".join(items) + b"\n]\n}"
    yield b'{"batch":[\n' + b",\n".join(items) + b"]}"


def lines(items):
    yield b"\n".join(items)
    yield b"\r\n".join(items) + b"\r\n\r\n"


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_bad_item_does_not_affect_the_others(name, place):
    """In an array, an envelope or NDJSON, first, middle or last: an invalid item gets its reason, others are valid."""
    bad, reason = BAD[name]
    items = [GOOD, GOOD]
    items.insert(place, bad)
    forms = [*bodies(items), *(lines(items) if bad[:1] != b"[" else ())]
    for body in forms:
        outcomes = summary(decode_items(body, NOW))
        assert len(outcomes) == 3
        assert reason in outcomes.pop(place)
        assert outcomes == ["good", "good"]


@pytest.mark.parametrize("name", [name for name, (body, _) in BAD.items() if body[:1] == b"{"])
def test_a_bad_single_object_gets_its_reason(name):
    """One object on one line is one item, with any errors in it."""
    body, reason = BAD[name]
    (rejected,) = decode_items(body, NOW)
    assert reason in rejected.reason


@pytest.mark.parametrize("body", [*bodies([GOOD] * 3), *lines([GOOD] * 3)])
def test_every_form_gives_the_same_events(body):
    """An array, an envelope and NDJSON, with or without white space, give the same three events in order."""
    assert summary(decode_items(body, NOW)) == ["good"] * 3


@pytest.mark.parametrize(
    "body",
    [
        GOOD,
        b" " + GOOD + b"\n",
        b'{\n  "event": "good",\n  "properties": {\n    "a": [\n      {"b": 1}\n    ]\n  }\n}',
        b'{"event": "good", "properties": {"batch": [1, 2]}}',
        b'{"event": "good",\n"properties": {"x": "y\\n{}"}}',
    ],
)
def test_a_single_object_is_one_event(body):
    """One object on one line or several is one event, also with a property named batch."""
    assert summary(decode_items(body, NOW)) == ["good"]


@pytest.mark.parametrize("body", [b"[]", b" [ ] ", b'{"batch":[]}'])
def test_an_empty_batch_is_an_empty_list(body):
    """An empty batch gives an empty list."""
    assert decode_items(body, NOW) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"5",
        b"null",
        b'"x"',
        b"[" + GOOD,
        GOOD[:-1].join([b"[", b"]"]),
        b"[" + GOOD + b"] x",
        b"[" + GOOD + b"]]",
        b"\xef\xbb\xbf[]",
        b'{"batch":5}',
        b'{"batch":null}',
        b'{"batch":[' + GOOD + b"}",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 99_999,
        b"]",
        b"data=%7B%22event%22%3A%22ev%22%7D",
        bytes(range(256)),
    ],
    ids=range(18),
)
def test_a_body_whose_items_cannot_be_separated_is_refused(body):
    """A body that cannot be split into items raises InvalidEvent; no event of it is accepted."""
    try:
        items = decode_items(body, NOW)
    except InvalidEvent as error:
        assert "Nothing was stored" in str(error)  # noqa: PT017 - some are told apart, and rejected one by one
    else:
        assert items
        assert all(isinstance(item, Rejected) for item in items)


def test_the_envelope_has_the_defaults_of_its_items():
    """sentAt and context of the batch apply to each item; members of an item's own context override them."""
    envelope = {
        "sentAt": "2026-01-01T00:00:10Z",
        "context": {"ip": "1.1.1.1", "library": {"name": "shared"}},
        "batch": [
            {"event": "a", "timestamp": "2026-01-01T00:00:00Z"},
            {"event": "b", "timestamp": "2026-01-01T00:00:00Z", "sentAt": "2026-01-01T00:00:01Z"},
            {"event": "c", "context": {"library": {"name": "own"}, "page": 1}},
            {"event": "d", "context": None},
        ],
    }
    a, b, c, d = decode_items(json.dumps(envelope).encode(), NOW)
    assert (a.timestamp, b.timestamp) == (NOW - 10_000_000, NOW - 1_000_000)
    assert msgspec.json.decode(a.context) == msgspec.json.decode(d.context) == envelope["context"]
    assert msgspec.json.decode(c.context) == {"ip": "1.1.1.1", "library": {"name": "own"}, "page": 1}


@pytest.mark.parametrize("context", [b"null", b"{}"])
def test_an_empty_context_of_the_batch_changes_nothing(context):
    """The context of a batch may be null or empty."""
    (event,) = decode_items(b'{"batch":[{"event":"e","context":{"a":1}}],"context":' + context + b"}", NOW)
    assert bytes(event.context) == b'{"a":1}'


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        (b"[1]", "context must be a JSON object"),
        (b"5", "context must be a JSON object"),
        (b'{"a":1e999}', "context cannot be read"),
        (b'{"a":"\xff"}', "context cannot be read"),
        (b'{"a":' + b"1" * 5000 + b"}", "context cannot be read"),
        (b'{"a":"' + b"x" * 40_000 + b'"}', "context has 40008 bytes, the limit of an event is 32768"),
    ],
)
def test_an_invalid_context_of_the_batch_rejects_each_item(context, reason):
    """A shared field that cannot be decoded rejects each item with that reason and its message id."""
    items = decode_items(b'{"batch":[' + GOOD + b"," + GOOD + b'],"context":' + context + b"}", NOW)
    assert [(item.message_id, item.reason.startswith(reason)) for item in items] == [("g", True)] * 2


@pytest.mark.parametrize(
    "rest", [b'"context":{"a":"\\ud800"}', b'"sentAt":[1]', b'"context":' + b"[" * 5000 + b"]" * 5000]
)
def test_an_undecodable_envelope_is_refused(rest):
    """If the envelope cannot be decoded, none of its events is accepted, and the reason names the envelope."""
    with pytest.raises(InvalidEvent, match="sentAt or context of the batch cannot be read"):
        decode_items(b'{"batch":[' + GOOD + b"]," + rest + b"}", NOW)


def test_a_merged_context_has_the_events_limit():
    """The limits of size and depth include the members that the context of the batch added."""
    half = b'{"a":"' + b"x" * 20_000 + b'"}'
    body = b'{"batch":[{"event":"e","context":%s}],"context":%s}' % (half.replace(b"a", b"b", 1), half)
    assert "the limit is 32768" in decode_items(body, NOW)[0].reason


def test_numbers_keep_their_digits():
    """Integers beyond 64 bits and floats are stored as they were sent; a merged context keeps their values."""
    text = b'{"big":1180591620717411303424,"float":0.1,"e":1e308,"minus":-0.0}'
    (plain,) = decode_items(b'{"event":"e","properties":%s}' % text, NOW)
    assert bytes(plain.properties) == text
    (mapped,) = decode_mappings([{"event": "e", "properties": {"big": 2**70}}], NOW)
    assert bytes(mapped.properties) == b'{"big":1180591620717411303424}'


def test_of_duplicate_keys_the_last_one_counts():
    """Of an event's duplicate fields the last counts; duplicate keys in properties are kept as they were sent."""
    body = b'{"event":"a","event":"b","properties":{"x":1},"properties":{"x":2,"x":3}}'
    (event,) = decode_items(body, NOW)
    assert (event.event, bytes(event.properties)) == ("b", b'{"x":2,"x":3}')


def test_unknown_fields_are_ignored():
    """Unknown fields are ignored: integrations, version, writeKey, channel and others that libraries send."""
    body = b'{"event":"good","integrations":{"All":true},"version":2,"_metadata":{"x":[1]},"channel":"server"}'
    assert summary(decode_items(body, NOW)) == ["good"]


def test_the_source_of_the_event_overrides_that_of_the_call():
    """The source of the call is used for items without one of their own."""
    events = decode_items(b'[{"event":"a"},{"event":"b","source":"own"}]', NOW, source="http")
    assert [event.source for event in events] == ["http", "own"]


def test_rejected_items_keep_their_message_id():
    """A rejection has the message id of its item if it can be read, so that the sender can identify the item."""
    rejections = decode_items(b'[{"event":"","messageId":"a"},{"event":7,"messageId":"b"},{"messageId":5},7]', NOW)
    assert [rejection.message_id for rejection in rejections] == ["a", "b", None, None]


def test_mappings_may_be_camel_case_or_snake_case():
    """Segment's camelCase and our snake_case name the same fields."""
    camel = {"event": "e", "userId": "u", "anonymousId": "a", "messageId": "m", "properties": {"a": 1}}
    snake = {"event": "e", "user_id": "u", "anonymous_id": "a", "message_id": "m", "properties": {"a": 1}}
    first, second = decode_mappings([camel, snake], NOW)
    assert msgspec.json.encode(first) == msgspec.json.encode(second)


def test_a_python_call_equals_the_same_event_as_json():
    """The arguments of `track` and the same event as JSON give equal events, for times of any Python type."""
    zone = timezone(timedelta(hours=2))
    for moment in (
        datetime(2025, 1, 1, tzinfo=UTC),
        datetime(2025, 1, 1, 2, tzinfo=zone),
        date(2025, 1, 1),
        1_735_689_600,
    ):
        made = from_call("track", {"a": 1}, {"ip": "x"}, moment, event="e", user_id=5, message_id="m")
        validate(made, NOW)
        body = b'{"event":"e","userId":5,"messageId":"m","timestamp":"2025-01-01","properties":{"a":1},"context":%s}'
        body %= b'{"ip":"x"}'
        (sent,) = decode_items(body, NOW, source="python")
        assert msgspec.json.encode(made) == msgspec.json.encode(sent)
    traits = from_call("identify", {"a": 1}, user_id="u")
    validate(traits, NOW)
    assert bytes(traits.properties) == b'{"a":1}'


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"event": 5}, "event must be text, not int"),
        ({"event": None}, "event name is missing"),
        ({"event": "e", "user_id": 1.5}, "user_id must be text, not float"),
        ({"event": "e", "message_id": 7}, "message_id must be text, not int"),
        ({"event": "e", "user_id": "\ud800"}, "user_id holds a lone surrogate"),
        ({"event": "e", "timestamp": True}, "timestamp must be a time, text or a number, not bool"),
        ({"event": "e", "timestamp": float("nan")}, "is not a number of seconds"),
        ({"event": "e", "properties": [1]}, "must be a JSON object"),
        ({"event": "e", "context": 5}, "must be a JSON object"),
        ({"event": "e", "properties": {"a": float("inf")}}, "non-finite"),
    ],
)
def test_a_python_call_with_a_wrong_value_is_refused(arguments, reason):
    """A value of a wrong type is InvalidEvent with one reason."""
    with pytest.raises(InvalidEvent) as caught:
        validate(from_call("track", **({"properties": None} | arguments)), NOW)
    assert reason in caught.value.reason


@pytest.mark.parametrize("item", [None, 5, "event", [1], ("event", "e"), b"{}", object()])
def test_an_item_that_is_not_a_mapping_is_rejected(item):
    """An item of any other type is rejected with the name of its type; the others are accepted."""
    bad, good = decode_mappings([item, {"event": "good"}], NOW)
    assert bad.reason == f"an event must be a mapping, not {type(item).__name__}"
    assert good.event == "good"


def test_events_are_validated_as_copies():
    """An Event is copied and checked completely: it may be passed twice; an invalid one is rejected with a reason."""
    event = Event(event="e", timestamp="2025-01-01T00:00:00Z", user_id=5)
    for _ in range(2):
        first, second = decode_mappings([event, event], NOW)
        assert first.timestamp == second.timestamp == 1_735_689_600_000_000
    assert (event.timestamp, event.user_id) == ("2025-01-01T00:00:00Z", 5)
    bad = [
        Event(event="\ud800"),
        Event(event="e", properties=msgspec.Raw(b"{no")),
        Event(event="e", context=msgspec.Raw(b'{"a":"\xff"}')),
        Event(event="e", timestamp=float("nan")),
        Event(event=7),
    ]
    assert all(isinstance(result, Rejected) for result in decode_mappings(bad, NOW))


@pytest.mark.parametrize("capture", CAPTURES, ids=[f"{capture['path']} {capture['agent']}" for capture in CAPTURES])
def test_requests_of_segments_libraries_are_accepted(capture):
    """Requests recorded from Segment's Python, Node and browser libraries decode without one rejection."""
    sent = json.loads(capture["body"])
    items = sent.get("batch", [sent])
    received = 1_795_319_700_000_000  # a little after the recording
    decoded = decode_items(capture["body"].encode(), received, source="http")
    assert [answer for answer in decoded if isinstance(answer, Rejected)] == []
    assert len(decoded) == len(items)
    for event, item in zip(decoded, items, strict=True):
        assert (event.type, event.message_id) == (item["type"], item["messageId"])
        assert event.user_id == item.get("userId")
        assert event.anonymous_id == item.get("anonymousId")
        assert event.event == item.get("event", item.get("name"))
        assert abs(event.timestamp - received) < 120_000_000, "the client's clock was corrected"
        properties = msgspec.json.decode(event.properties)
        assert properties.items() >= (item.get("traits") or item.get("properties") or {}).items()
        assert msgspec.json.decode(event.context)["library"] == item["context"]["library"]


@pytest.mark.parametrize(
    "body",
    [
        b'["' + b'\\"' * 200_000,
        b'{"batch":["' + b'\\"' * 200_000 + b"\\",
        b"[" + b'"\\ud800' * 50_000,
        b"[" + b" " * 500_000 + b'"',
    ],
    ids=["escaped quotes", "in an envelope", "surrogates", "spaces"],
)
def test_an_unterminated_string_is_refused_in_linear_time(body):
    """A hostile body is rejected in time proportional to its size: these took hours when each quote was tried again."""
    with pytest.raises(InvalidEvent, match="truncated or its brackets do not balance"):
        decode_items(body, NOW)


# Other tests send the largest ones, each by itself.
ITEMS = st.lists(
    st.sampled_from(["good", *(name for name, (raw, _) in BAD.items() if len(raw) < 100_000)]), max_size=12
)


@pytest.mark.integration
@settings(max_examples=60)
@given(names=ITEMS, form=st.integers(0, 6))
def test_any_mix_of_items_is_decoded_in_order(names, form):
    """Random mixes of valid and invalid items in any form give one answer an item, in order, with its own reason."""
    raw = [GOOD if name == "good" else BAD[name][0] for name in names]
    if form >= 5 and (len(raw) < 2 or not all(item[:1] == b"{" for item in raw)):
        form = 0
    body = [*bodies(raw), *lines(raw)][form]
    answers = decode_items(body, NOW)
    assert len(answers) == len(names)
    for name, answer in zip(names, answers, strict=True):
        assert isinstance(answer, Event) if name == "good" else BAD[name][1] in answer.reason


@settings(max_examples=200)
@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:\\ntrue1e\ud800\n "batch"', max_size=60))
def test_any_bytes_are_decoded_or_refused(body):
    """Any bytes give events, rejections with a reason, or InvalidEvent, and no other exception."""
    data = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    try:
        answers = decode_items(data, NOW)
    except InvalidEvent:
        return
    assert all(isinstance(answer, Event) or answer.reason for answer in answers)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 20), st.binary(max_size=6)), min_size=1, max_size=3))
def test_events_of_a_damaged_batch_obey_the_limits(changes):
    """A real batch with bytes changed anywhere is decoded or rejected, and accepted events are within every limit."""
    body = CAPTURES[0]["body"].encode()
    for start, length, new in changes:
        body = body[:start] + new + body[start + length :]
    try:
        answers = decode_items(body, NOW)
    except InvalidEvent:
        return
    for answer in answers:
        if isinstance(answer, Event):
            assert all(isinstance(msgspec.json.decode(raw), dict) for raw in (answer.properties, answer.context))
