"""Sample arguments of each report, for tests that call every report in every way. A new report needs an entry here."""

from __future__ import annotations

from typing import Any

SAMPLES: dict[str, dict[str, Any]] = {
    "funnel": {"steps": ["Seen", {"event": "Bought", "where": "user_id <> 'x'"}], "within": "1d"},
    "funnel_people": {"steps": ["Seen", "Bought"], "within": "1d", "outcome": "converted"},
    "funnel_times": {"steps": ["Seen", "Bought"], "within": "1d", "bins": 5},
    "retention": {"start_event": "Seen", "return_event": "Bought", "grain": "day", "periods": 5},
    "lifecycle": {"event": "Bought", "grain": "day", "end": "2026-01-08"},
    "sessions": {"timeout": "2h", "by": "exit", "conversion": "Bought"},
    "session_list": {"timeout": "2h", "by": "exit", "value": "Bought", "limit": 3},
    "segmentation": {"events": ["Seen", "Bought"], "by": "plan", "formula": "B / A * 100", "measure": "people"},
    "top": {"what": "plan", "n": 1},
    "timeline": {"person": "a", "limit": 3},
    "paths": {"after": "Seen", "steps": 2, "timeout": "3h"},
    "anomalies": {"grain": "day", "seasonality": "day", "history": 3, "start": "2026-01-05", "end": "2026-01-09"},
    "performance": {"grain": "day", "by": "path", "threshold_ms": 100},
    "errors": {"by": ["status_code", "error"]},
    "cohort_people": {"cohort": "buyers", "limit": 3},
    "cohort_size": {"cohort": "buyers"},
    "usage": {"organization_id": "acme", "grain": "day"},
    "stickiness": {"event": "Bought", "start": "2026-01-01", "end": "2026-01-08"},
}
"""Arguments over events `Seen` and `Bought` of some people, January 2026."""
COHORTS = {"buyers": {"did": "Bought", "at_least": 2}}
"""Cohorts that the samples name: saved before a sample is run."""
EVENTS = [
    {
        "event": event,
        "userId": person,
        "timestamp": f"2026-01-0{day}T{hour:02}:00:00Z",
        "messageId": f"{person}{day}{hour}{event}",
        "properties": {"plan": "pro" if person < "c" else "free", "revenue": day * hour / 2}
        | {"path": f"/{event}", "duration_ms": day * hour, "status_code": 500 if hour == 9 else 200}
        | ({"organization_id": "acme", "sku": "calls", "quantity": "0.1", "unit": "call"} if hour == 9 else {}),
    }
    for person in "abcde"
    for day in range(1, 8)
    for hour, event in ((8, "Seen"), (9, "Seen"), (11, "Bought"))
    if (ord(person) + day) % 3 or event == "Seen"
]
"""Events over which every sample has rows."""
