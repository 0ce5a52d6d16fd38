"""Access logs of Apache and nginx: the combined format, and the common one, which lacks its last two fields."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Any

__all__ = ["parse"]

_LINE = re.compile(
    r"(?P<ip>\S+) \S+ (?P<user>.+?) \[(?P<time>[^\]]+)\] "
    r'"(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) (?P<bytes>\d+|-)'
    r'(?: "(?P<referrer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)")?'
)
_TIME = "%d/%b/%Y:%H:%M:%S %z"


def parse(line: str) -> dict[str, Any]:
    """The event, in Segment's names, that a line of an access log is.

    A visitor without a login is a hash of address and user agent, as log analysers count people: everybody behind one
    address with the same browser is one. Nothing of a line is lost: what has no field of its own is in the properties.

    Raises:
        ValueError: it is no such line.
    """
    found = _LINE.fullmatch(line.rstrip("\r\n "))
    if found is None:
        raise ValueError("is not a line of an access log in the common or combined format")
    said = {name: None if value in ("-", "") else value for name, value in found.groupdict().items()}
    method, _, rest = (said["request"] or "").partition(" ")
    path, _, protocol = rest.rpartition(" ") if " " in rest else (rest, "", "")
    at = datetime.strptime(found["time"], _TIME)  # noqa: DTZ007 - the format has the zone
    context = {"ip": said["ip"], "userAgent": said["agent"], "page": {"path": path, "referrer": said["referrer"]}}
    return {
        "timestamp": at.isoformat(),
        "userId": said["user"],
        "anonymousId": hashlib.sha256(f"{said['ip']} {said['agent']}".encode()).hexdigest()[:24],
        "context": {name: value for name, value in context.items() if value},
        "properties": {
            "method": method,
            "path": path,
            "protocol": protocol,
            "status_code": int(found["status"]),
            "bytes": int(said["bytes"] or 0),
            **({"referrer": said["referrer"]} if said["referrer"] else {}),
        },
    }
