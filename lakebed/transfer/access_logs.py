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
    """The event of a line of an access log, in Segment's names.

    The anonymous id of a visitor is a hash of address and user agent, as log analysers count people: all visitors
    behind one address with the same browser count as one. No part of a line is lost: the rest is in the properties.

    Raises:
        ValueError: the line has another format.
    """
    match = _LINE.fullmatch(line.rstrip("\r\n "))
    if match is None:
        raise ValueError("is not a line of an access log in the common or combined format")
    fields = {name: None if value in ("-", "") else value for name, value in match.groupdict().items()}
    method, _, rest = (fields["request"] or "").partition(" ")
    path, _, protocol = rest.rpartition(" ") if " " in rest else (rest, "", "")
    moment = datetime.strptime(match["time"], _TIME)  # noqa: DTZ007 - the format has the zone
    context = {"ip": fields["ip"], "userAgent": fields["agent"], "page": {"path": path, "referrer": fields["referrer"]}}
    return {
        "timestamp": moment.isoformat(),
        "userId": fields["user"],
        "anonymousId": hashlib.sha256(f"{fields['ip']} {fields['agent']}".encode()).hexdigest()[:24],
        "context": {name: value for name, value in context.items() if value},
        "properties": {
            "method": method,
            "path": path,
            "protocol": protocol,
            "status_code": int(match["status"]),
            "bytes": int(fields["bytes"] or 0),
            **({"referrer": fields["referrer"]} if fields["referrer"] else {}),
        },
    }
