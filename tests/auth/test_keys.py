"""Keys: their stored form, and the cache of a running server, which sees changes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakebed import FormatTooNew, InvalidName, KeysUnavailable, ManualClock, UnknownKey
from lakebed.auth.keys import FILE_NAME, KeyCache, Keys, Limits, digest, id_in


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def keys(tmp_path, clock):
    return Keys(tmp_path, clock)


@pytest.fixture
def cache(keys, clock):
    return KeyCache(keys, clock)


def test_a_key_is_shown_once(keys, tmp_path):
    """The token has its scope and id; only its SHA-256 is stored, in the bytes of the file too."""
    seen = set()
    for scope, prefix in (("write", "lbw"), ("read", "lbr"), ("admin", "lba")):
        key, token = keys.create("shop", scope, "for the site")
        assert (key.object, key.scope, key.note, key.revoked_us) == ("shop", scope, "for the site", None)
        assert token.startswith(f"{prefix}_{key.id}_")
        assert ":" not in token
        secret = token.rpartition("_")[2]
        assert len(bytes.fromhex(secret)) >= 16
        assert id_in(token) == key.id
        stored = (tmp_path / FILE_NAME).read_bytes()
        assert secret.encode() not in stored
        assert bytes.fromhex(secret) not in stored
        assert digest(token) in stored
        assert secret not in repr(keys.list())
        seen.add(secret)
    assert len(seen) == 3


def test_only_the_owner_may_read_the_file(keys, tmp_path):
    """Other users of the machine cannot read hashes and names of objects."""
    keys.create("shop", "write")
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_list_has_times_and_revoked_keys(keys, clock):
    """Oldest first, of one object or of all, with the times of creation, rotation and revocation."""
    first, _ = keys.create("shop", "write")
    clock.advance(1)
    second, _ = keys.create("other", "read")
    clock.advance(1)
    rotated, _ = keys.rotate(first.id)
    clock.advance(1)
    revoked = keys.revoke(second.id)
    assert rotated.rotated_us == first.created_us + 2_000_000
    assert revoked.revoked_us == first.created_us + 3_000_000
    assert keys.list() == [rotated, revoked]
    assert keys.list("shop") == [rotated]
    clock.advance(1)
    assert keys.revoke(second.id) == revoked, "it ended when it ended first"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("../etc", "write"), InvalidName),
        (("shop", "owner"), ValueError),
        (("shop", "write", "x" * 201), InvalidName),
        (("shop", "write", "", Limits(events_per_s=0)), ValueError),
        (("shop", "write", "", Limits(burst_s=float("inf"))), ValueError),
    ],
)
def test_invalid_keys_are_refused(keys, tmp_path, arguments, error):
    """They are refused before anything is written: a server that needs no keys still needs none."""
    with pytest.raises(error):
        keys.create(*arguments)
    assert not (tmp_path / FILE_NAME).exists()


def test_unknown_keys(keys):
    """An unknown or revoked key cannot be rotated; and there is no grace in the past."""
    for act in (keys.rotate, keys.revoke):
        with pytest.raises(UnknownKey):
            act("0" * 12)
    key, _ = keys.create("shop", "write")
    with pytest.raises(ValueError, match="0 or more"):
        keys.rotate(key.id, -1)
    keys.revoke(key.id)
    for act in (lambda: keys.rotate(key.id), lambda: keys.limit(key.id, Limits()), lambda: keys.revoke("0" * 12)):
        with pytest.raises(UnknownKey):
            act()


def test_limits_are_stored_with_the_key(keys, cache, clock):
    """Limits of a key can be set and removed; a server sees them."""
    key, token = keys.create("shop", "write", limits=Limits(events_per_s=5))
    assert cache.find(token).limits == Limits(events_per_s=5)
    keys.limit(key.id, Limits(requests_per_s=2.5, max_body_bytes=10))
    clock.advance(1)
    assert cache.find(token).limits == Limits(requests_per_s=2.5, max_body_bytes=10)
    with pytest.raises(ValueError, match="above 0"):
        keys.limit(key.id, Limits(max_body_bytes=-1))


# The cache


def test_a_cache_finds_exact_tokens(keys, cache):
    """It finds a key by its token, and by no text that is almost the token."""
    key, token = keys.create("shop", "write")
    assert cache.find(token) == key
    other = ("0" if token[-1] != "0" else "1", token[:-1])
    for wrong in (
        other[1] + other[0],
        token[:-1],
        token + "0",
        token.upper(),
        "lba" + token[3:],
        key.id,
        "",
        "\ud800",
        "é",
    ):
        assert cache.find(wrong) is None


def test_keys_are_required_for_ever(keys, cache, clock):
    """Before the first key none is required; afterwards always, revoked or not, also for a new process."""
    assert not cache.required
    key, token = keys.create("shop", "write")
    clock.advance(1)
    assert cache.required
    keys.revoke(key.id)
    clock.advance(1)
    assert cache.required
    assert cache.find(token) is None
    assert KeyCache(keys, clock).required


def test_changes_are_seen_within_a_second(keys, cache, clock):
    """A running server sees create, rotate and revoke; between checks it answers from memory."""
    key, token = keys.create("shop", "write")
    assert cache.find(token) == key
    keys.revoke(key.id)
    clock.advance(0.99)
    assert cache.find(token) == key
    clock.advance(0.01)
    assert cache.find(token) is None
    clock.advance(3600)
    new, token = keys.create("shop", "read")
    assert cache.find(token) == new, "after an idle hour the first question looks"


@pytest.mark.integration
def test_changes_of_another_process(keys, cache, clock, tmp_path):
    """Changes by the CLI, which is another process, are seen too."""
    key, token = keys.create("shop", "write")
    assert cache.find(token) is not None
    code = f"from lakebed.auth.keys import Keys; Keys({str(tmp_path)!r}).revoke({key.id!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
    clock.advance(1)
    assert cache.find(token) is None


def test_rotation(keys, cache, clock):
    """The new secret is valid at once, the old one for its grace; a second rotation never lengthens that."""
    key, first = keys.create("shop", "write")
    _, second = keys.rotate(key.id, grace_s=60)
    assert cache.find(first).id == cache.find(second).id == key.id
    clock.advance(59)
    assert cache.find(first) is not None
    _, third = keys.rotate(key.id, grace_s=3600)
    clock.advance(1)
    assert [cache.find(token) is not None for token in (first, second, third)] == [False, True, True]
    _, fourth = keys.rotate(key.id)
    clock.advance(1)
    assert [cache.find(token) is not None for token in (second, third, fourth)] == [False, False, True]


def test_unknown_tokens_take_no_memory(keys, cache):
    """However many are tried, the cache holds only the keys that exist."""
    keys.create("shop", "write")
    for number in range(1000):
        assert cache.find(f"lbw_{number:012x}_{number:040x}") is None
    assert len(cache.ids) == 1


def test_a_cache_while_another_process_commits(keys, cache, clock, tmp_path):
    """A writer in the middle of its commit blocks no reader, which sees the earlier state until then."""
    key, token = keys.create("shop", "write")
    assert cache.find(token) == key
    writer = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    writer.execute("UPDATE keys SET note = 'x'")
    clock.advance(1)
    assert cache.find(token) == key
    writer.execute("COMMIT")
    writer.close()
    clock.advance(1)
    assert cache.find(token).note == "x"


def test_an_unreadable_file_refuses_every_request(keys, clock, tmp_path):
    """Damage, and a file of a newer Lakebed, are errors at every call until they are repaired."""
    _, token = keys.create("shop", "write")
    path = tmp_path / FILE_NAME
    sound = path.read_bytes()
    cache = KeyCache(keys, clock)
    path.write_bytes(b"x" * 8192)
    for _ in range(3):
        with pytest.raises(KeysUnavailable):
            _ = cache.required
        with pytest.raises(KeysUnavailable):
            cache.find(token)
        clock.advance(0.3)
    path.write_bytes(sound)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    clock.advance(1)
    for _ in range(3):
        with pytest.raises(FormatTooNew):
            _ = cache.required
        clock.advance(0.01)
    with pytest.raises(FormatTooNew):
        keys.create("shop", "write")
    path.write_bytes(sound)
    clock.advance(1)
    assert cache.find(token) is not None


def test_a_missing_file_refuses_every_request(keys, cache, clock, tmp_path):
    """A running server refuses requests when its keys are gone, and reads a file that is put back."""
    _, token = keys.create("shop", "write")
    sound = (tmp_path / FILE_NAME).read_bytes()
    assert cache.required
    (tmp_path / FILE_NAME).unlink()
    clock.advance(1)
    assert cache.required
    assert cache.find(token) is None
    (tmp_path / FILE_NAME).write_bytes(sound)
    clock.advance(1)
    assert cache.find(token) is not None


def test_an_empty_file_has_no_keys(keys, cache, clock, tmp_path):
    """A crash between creating and writing the file leaves a root without keys, where one can be created."""
    (tmp_path / FILE_NAME).touch()
    assert not cache.required
    assert keys.list() == []
    _, token = keys.create("shop", "write")
    clock.advance(1)
    assert cache.find(token) is not None


def test_many_threads_create_keys_at_once(keys):
    """Each of twenty threads gets a valid key."""
    made = []
    threads = [threading.Thread(target=lambda: made.append(keys.create("shop", "write"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ever, live = keys.live()
    assert ever
    assert live.keys() == {key.id for key, _ in made}
    assert len(live) == 20


# A plain model


_ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.sampled_from(["tom", "sam"]), st.sampled_from(["write", "read", "admin"])),
        st.tuples(st.just("rotate"), st.integers(0, 5), st.sampled_from([0.0, 5.0, 60.0])),
        st.tuples(st.just("revoke"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 4.0, 30.0])),
    ),
    max_size=15,
)


@settings(max_examples=40)
@given(_ACTS)
def test_keys_agree_with_a_dict(tmp_path_factory, acts):
    """Whatever is created, rotated and revoked, a token is valid exactly as long as in a dict of tokens."""
    clock = ManualClock()
    keys = Keys(tmp_path_factory.mktemp("keys"), clock)
    cache = KeyCache(keys, clock)
    created, tokens, revoked = [], {}, set()  # ids of keys; token -> (key id, end); ids of revoked keys
    for act in [*acts, ("wait", 1.0)]:
        match act:
            case ("create", name, scope):
                key, token = keys.create(name, scope)
                created.append(key.id)
                tokens[token] = (key.id, float("inf"))
            case ("wait", seconds):
                clock.advance(seconds)
            case (verb, number, *arguments) if number < len(created):
                chosen_id, now = created[number], clock.monotonic()
                if verb == "revoke":
                    keys.revoke(chosen_id)
                    revoked.add(chosen_id)
                elif chosen_id in revoked:
                    with pytest.raises(UnknownKey):
                        keys.rotate(chosen_id, *arguments)
                else:
                    until = {
                        token: min(end, now + arguments[0])
                        for token, (key_id, end) in tokens.items()
                        if key_id == chosen_id
                    }
                    tokens |= {token: (chosen_id, end) for token, end in until.items()}
                    tokens[keys.rotate(chosen_id, *arguments)[1]] = (chosen_id, float("inf"))
        if act[0] == "wait":
            for token, (key_id, end) in tokens.items():
                cached = cache.find(token)
                assert (cached.id if cached else None) == (
                    key_id if key_id not in revoked and clock.monotonic() < end else None
                )
            assert cache.required == bool(created)
    assert {key.id for key in keys.list() if key.revoked_us is None} == set(created) - revoked
