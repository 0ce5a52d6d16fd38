"""Settings, read from lakebed.toml, LAKEBED_* variables and arguments; later sources override earlier ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from lakebed.clock import DAY_S, HOUR_S
from lakebed.errors import InvalidSettings

__all__ = ["FILE_NAME", "Settings"]

FILE_NAME = "lakebed.toml"
_PREFIX = "LAKEBED_"

Positive = Annotated[int, Meta(gt=0)]
NotNegative = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]

_MIB = 1 << 20
_GIB = 1 << 30


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The values that may differ between two deployments. Descriptions say what a bad value causes.

    Attributes:
        durability: "disk" acknowledges after fdatasync. "os" acknowledges after write: A POWER LOSS THEN LOSES
            ACKNOWLEDGED EVENTS (a crash of the process alone does not).
        dedupe_window_s: seconds for which a `message_id` is remembered. A retry after that is stored a second time.
        dedupe_max_ids: maximum number of remembered ids, about 5 bytes each. Beyond it the oldest segment's ids are
            forgotten before their window is over.
        segment_bytes: size at which a log segment is sealed to Parquet. Larger means slower reopening after a crash.
        segment_events: number of events at which a log segment is sealed.
        segment_age_s: age in seconds at which a segment is sealed. Checked when events arrive and by the hourly rollup.
        tail_bytes: maximum size in memory of events that are not sealed yet; beyond it `track` waits for sealing.
        pending_events: maximum number of events that wait for a commit; beyond it `track` fails with `Backpressure`.
        pending_bytes: approximate maximum size in memory of these events. It is reached if the disk hangs.
        retention_s: seconds for which sealed segments stay after they were archived. The last hour always stays,
            because opening an object reads the live counters from it. Queries do not need these segments.
        archive_window_s: age in seconds up to which the Sunday archive leaves events in the log.
        log_bytes: size of sealed events that are not archived, beyond which archiving starts, at most once a minute.
            The log still grows while the archive is down.
        headroom_bytes: free disk space below which tracking is refused. TOO SMALL AND RECOVERY ITSELF FAILS.
        counters_max_keys: maximum number of live counters; beyond it the key that expires soonest is evicted.
        active_ttl_s: seconds for which a person counts as active after an event.
        query_memory_bytes: DuckDB's memory for one object's queries. Scalar functions may exceed it for a moment.
        query_spill_bytes: disk space, in the object's directory, for queries that are larger than their memory.
        query_threads: DuckDB's threads for one object's queries; 0 means one less than the cores, at least one. ON
            ALL CORES, A HEAVY QUERY DELAYS `track`.
        query_timeout_s: maximum duration of a query.
        query_max_rows: maximum number of rows of a result.
        untrusted_queries: maximum number of untrusted queries (`query_untrusted`, POST /query) that one object runs at
            a time, each in a process of its own. Further queries are refused.
        untrusted_memory_bytes: memory of the process of an untrusted query.
        untrusted_timeout_s: seconds after which that process is killed.
        untrusted_max_rows: maximum number of rows of an untrusted query's result.
        untrusted_max_bytes: maximum size of an untrusted query's result, in bytes of Arrow.
        catalog: properties of a pyiceberg catalog; empty means SQLite in the object's directory.
        warehouse: location of the archive's files; empty means the object's directory. MOVING IT LOSES THE OLD FILES.
        namespace: Iceberg namespace of an external catalog; the table has the name of the object.
        archive_rows: maximum number of rows of one Iceberg commit; bounds the memory of archiving.
        compact_below_bytes: size below which compaction merges a data file.
        compact_target_bytes: size at which compaction starts a new file.
        snapshots_keep: least number of Iceberg snapshots that expiry keeps. More of them slow down appending.
        snapshots_age_s: age below which expiry keeps an Iceberg snapshot, seconds.
        garbage_grace_s: age below which an unreferenced archive file is never deleted, seconds. MUST BE LONGER THAN THE
            LONGEST QUERY AND COMMIT.
        rollup_max_groups: maximum number of groups in a bucket of a rollup; further ones count in the overflow row.
        identity_email: whether equal emails link identities. A FAMILY'S SHARED MAILBOX THEN JOINS ITS ANONYMOUS VISITS.
            Changing this or another `identity_` setting computes the graph again from the whole history.
        identity_phone: whether equal phone numbers link identities.
        identity_devices: whether device signals link anonymous ids. THIS IS GUESSING: two known users are never joined.
        identity_device_confidence: least confidence, of 1, with which a device links.
        identity_user_limit: number of known users that emails and phone numbers may join in one person. MORE THAN 1
            JOINS ACCOUNTS THAT SHARE A MAILBOX.
        identity_anonymous_limit: maximum number of anonymous ids of a person; the earliest count.
        dead_letters_max: maximum number of rejected events that are kept; beyond it the oldest are dropped.
        dead_letters_max_bytes: maximum size of these events, in bytes as sent; beyond it the oldest are dropped.
        schedule_timezone: IANA zone of `every.day.at("3am")`.
        idle_s: seconds without a call after which a namespace puts an object to sleep.
    """

    durability: Literal["disk", "os"] = "disk"
    dedupe_window_s: Seconds = 24.0 * HOUR_S
    dedupe_max_ids: NotNegative = 20_000_000
    segment_bytes: Positive = 64 * _MIB
    segment_events: Positive = 250_000
    segment_age_s: Seconds = float(HOUR_S)
    tail_bytes: Positive = 512 * _MIB
    pending_events: Positive = 100_000
    pending_bytes: Positive = 256 * _MIB
    retention_s: Annotated[float, Meta(ge=0)] = 7.0 * DAY_S
    archive_window_s: Annotated[float, Meta(ge=0)] = 7.0 * DAY_S
    log_bytes: Positive = 8 * _GIB
    headroom_bytes: NotNegative = 256 * _MIB
    counters_max_keys: Positive = 2_000_000
    active_ttl_s: Seconds = 300.0
    query_memory_bytes: Positive = 2 * _GIB
    query_spill_bytes: NotNegative = 4 * _GIB
    query_threads: NotNegative = 0
    query_timeout_s: Seconds = 60.0
    query_max_rows: Positive = 1_000_000
    untrusted_queries: Positive = 2
    untrusted_memory_bytes: Positive = 512 * _MIB
    untrusted_timeout_s: Seconds = 30.0
    untrusted_max_rows: Positive = 100_000
    untrusted_max_bytes: Positive = 64 * _MIB
    catalog: dict[str, str] = {}
    warehouse: str = ""
    namespace: str = "lakebed"
    archive_rows: Positive = 1_000_000
    compact_below_bytes: Positive = 16 * _MIB
    compact_target_bytes: Positive = 128 * _MIB
    snapshots_keep: Positive = 20
    snapshots_age_s: Annotated[float, Meta(ge=0)] = 7.0 * DAY_S
    garbage_grace_s: Annotated[float, Meta(ge=0)] = 24.0 * HOUR_S
    rollup_max_groups: Positive = 10_000
    identity_email: bool = False
    identity_phone: bool = False
    identity_devices: bool = False
    identity_device_confidence: Annotated[float, Meta(gt=0, le=1)] = 0.9
    identity_user_limit: Positive = 1
    identity_anonymous_limit: Positive = 100
    dead_letters_max: Positive = 10_000
    dead_letters_max_bytes: Positive = 64 * _MIB
    schedule_timezone: str = "UTC"
    idle_s: Seconds = 300.0

    @classmethod
    def load(cls, root: Path | None = None, *, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Settings from `root/lakebed.toml`, the environment and `overrides`; later sources override earlier ones.

        Raises:
            InvalidSettings: a name is unknown or a value is out of range; the message says where it was found.
        """
        values: dict[str, Any] = {}
        if root is not None and (path := root / FILE_NAME).is_file():
            values |= _checked(_read_toml(path), str(path), strict=True)
        env = os.environ if environ is None else environ
        named = {
            key.removeprefix(_PREFIX).lower(): _parse(value) for key, value in env.items() if key.startswith(_PREFIX)
        }
        # Server and CLI have LAKEBED_* variables of their own, so names that are no settings are ignored here.
        values |= _checked({k: v for k, v in named.items() if k in cls.__struct_fields__}, "environment", strict=False)
        values |= _checked(overrides, "arguments", strict=True)
        return msgspec.convert(values, cls, strict=False)


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib  # most objects have no file of settings

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{path} cannot be read: {error}", hint="Correct the file", path=path) from error


def _parse(text: str) -> Any:
    """A value of the environment: decoded JSON if it is an object (catalog), otherwise text that msgspec converts."""
    if text.startswith("{"):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            return text
    return text


def _checked(values: dict[str, Any], source: str, *, strict: bool) -> dict[str, Any]:
    try:
        checked = msgspec.convert(values, Settings, strict=strict)
    except msgspec.ValidationError as error:
        names = ", ".join(Settings.__struct_fields__)
        raise InvalidSettings(f"{source}: {error}", hint=f"Known settings: {names}", source=source) from error
    return {name: getattr(checked, name) for name in values}
