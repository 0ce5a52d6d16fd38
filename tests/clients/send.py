"""Calls the Python clients: python send.py MODULE WRITE_KEY URL OPTIONS < CALLS. Prints what the client gave up."""

from __future__ import annotations

import importlib
import json
import sys
from datetime import datetime

NAMES = {
    "userId": "user_id",
    "anonymousId": "anonymous_id",
    "groupId": "group_id",
    "previousId": "previous_id",
}


def arguments(call):
    """A call in Segment's names as the keywords of these clients."""
    keywords = {NAMES.get(name, name): value for name, value in call.items() if name != "type"}
    if "timestamp" in keywords:
        keywords["timestamp"] = datetime.fromisoformat(keywords["timestamp"])
    return keywords


def main():
    """Make all calls, and wait until they are delivered or given up."""
    module, key, url, options = sys.argv[1:]
    lost = []
    client = importlib.import_module(module).Client(
        key, host=url, on_error=lambda error, _batch: lost.append(repr(error)), **json.loads(options)
    )
    for call in json.load(sys.stdin):
        getattr(client, call["type"])(**arguments(call))
    client.flush()
    client.join()
    sys.stdout.write(json.dumps(lost))


main()
