"""Arguments of each report over the real data sets. A new report needs arguments here and a function in oracles.py."""

from __future__ import annotations

from typing import Any

STATES = ("both tiers", "merged", "as of the first half")
"""Half of the events archived; all archived, compacted, and some people merged; as of a moment before."""
BUYERS = {"did": "Ordered", "at_least": 2}
RETURNED = {"sequence": ["Ordered", "Cancelled"], "start": "2010-12-02", "end": "2010-12-20"}
LATE = {"all": [{"first": "Ordered", "start": "2010-12-08"}, {"not": {"did": "Cancelled"}}]}
LARGE = {"did": "Ordered", "measure": "sum(revenue)", "above": 1_000}
STEPS = {"steps": ["Ordered", "Ordered", "Cancelled"], "within": "14d"}
DECEMBER = {"start": "2010-12-03T10:20Z", "end": "2010-12-17T15:40Z"}
ORDERS: dict[str, list[dict[str, Any]]] = {
    "funnel": [
        STEPS | DECEMBER | {"by": "country", "top": 3},
        STEPS | {"order": "any", "cohort": BUYERS},
    ],
    "funnel_people": [STEPS | {"outcome": "converted", "step": 2, "limit": 1_000}, STEPS | {"limit": 5}],
    "funnel_times": [{"steps": ["Ordered", "Ordered"], "within": "21d"}],
    "retention": [
        {"grain": "week", "periods": 4},
        {"start_event": "Ordered", "return_event": "Cancelled", "grain": "day", "mode": "recurring"} | DECEMBER,
    ],
    "lifecycle": [
        {"grain": "day", "end": "2010-12-24"},
        {"event": "Ordered", "grain": "week", "week_start": "sunday", "tz": "America/New_York"} | DECEMBER,
    ],
    "stickiness": [{"interval": "week", "event": "Ordered"}, {"grain": "day"} | DECEMBER],
    "sessions": [
        {"conversion": "Cancelled", "by": "country", "top": 3, "grain": "week", "tz": "Europe/London"} | DECEMBER,
        {"use": "session_id", "by": "exit", "grain": None, "cohort": RETURNED},
    ],
    "session_list": [
        {"timeout": "3d", "conversion": "Cancelled", "by": "country", "value": "Germany"} | DECEMBER,
        {"use": "session_id", "limit": 20},
    ],
    "segmentation": [
        {"events": ["Ordered", "Cancelled"]},
        {"events": ["Ordered", "Cancelled"], "measure": "sum(revenue)", "formula": "B - A * 2", "grain": "week"},
        {"measure": "people", "by": ["country", "event"], "top": 4} | DECEMBER,
        {"measure": "quantile(revenue, 0.9)", "grain": None, "cohort": BUYERS},
    ],
    "top": [{"people": False}, {"what": "country", "n": 5} | DECEMBER, {"what": "sku", "event": "Cancelled"}],
    "paths": [
        {"timeout": "21d", "before": "Cancelled", "steps": 3, "collapse": True},
        {"by": "country", "timeout": "7d", "after": "Ordered", "top": 2} | DECEMBER,
    ],
    "timeline": [{"person": "14911.0"}, {"person": "13081.0", "limit": 5} | DECEMBER],
    "anomalies": [
        {"start": "2010-12-20", "end": "2010-12-24", "seasonality": "day"},
        {"event": "Ordered", "grain": "day", "seasonality": "day", "history": 5, "sensitivity": 1.0} | DECEMBER,
    ],
    "cohort_people": [{"cohort": RETURNED}, {"cohort": LARGE, "after": "15"}],
    "cohort_size": [{"cohort": LATE}],
    "usage": [{"organization_id": "EIRE", "grain": "day"}, {"grain": None, "sku": "POST"} | DECEMBER],
}
"""Arguments over `real.orders`. A cohort is a definition here; the tests save it under a name."""

MAY = {"start": "2015-05-17T20:20Z", "end": "2015-05-19T01:40Z"}
REQUESTS: dict[str, list[dict[str, Any]]] = {
    "performance": [
        {"threshold_ms": 10_000},
        {"grain": None, "by": "section", "errors_from": 500},
        {"grain": "day", "by": ["status_code", "method"], "tz": "Asia/Kolkata"} | MAY,
    ],
    "errors": [{}, {"by": "section", "errors_from": 404, "limit": 5} | MAY],
    "sessions": [{"by": "section", "top": 5, "grain": "hour", "timeout": "5m"}],
    "paths": [{"by": "section", "top": 4, "collapse": True}],
    "segmentation": [{"by": "status_code", "grain": "day", "measure": "max(duration_ms)"}],
    "top": [{"what": "path", "n": 20}],
    "stickiness": [{"grain": "hour"} | MAY],
    "anomalies": [{"seasonality": "day", "history": 3, "start": "2015-05-18", "end": "2015-05-19T03:00Z"}],
}
"""Arguments over `real.requests`."""
