"""The access log: a line for each request; and the configuration of all logs of a server as JSON."""

from __future__ import annotations

import logging
import logging.config
from datetime import UTC, datetime
from typing import Any

import msgspec

from lakebed.api.middleware import Exchange

__all__ = ["configure_logs", "log_exchange", "route_of"]

_log = logging.getLogger("lakebed.access")


def log_exchange(exchange: Exchange, seconds: float) -> None:
    """A line on the logger `lakebed.access`: what was asked, and how it went. No key, no body, no query string.

    Its facts are in the record's `facts` too: `method`, `route`, `status`, `ms`, `bytes_in`, `bytes_out`, and `object`
    and `key` (its id) where a auth admitted the request.
    """
    if not _log.isEnabledFor(logging.INFO):
        return
    scope = exchange.scope
    caller = scope.get("lakebed.caller")
    facts: dict[str, Any] = {
        "method": scope["method"],
        "route": route_of(exchange),
        "status": exchange.status,
        "ms": round(seconds * 1000, 2),
        "bytes_in": exchange.received_bytes,
        "bytes_out": exchange.sent_bytes,
    }
    if caller is not None:
        facts |= {"object": caller.object, "key": caller.key}
    text = "%s %s %d %.1f ms"
    _log.info(text, facts["method"], facts["route"], facts["status"], facts["ms"], extra={"facts": facts})


def route_of(exchange: Exchange) -> str:
    """The path of the route, with placeholders: their number is bounded, whatever clients send."""
    return getattr(exchange.scope.get("route"), "path", None) or "none"


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, the record's `facts`, a traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def configure_logs(*, plain: bool = False, level: str = "INFO") -> None:
    """Send all logs of the server to standard error: as JSON, or as `plain` text."""
    formatter = {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"} if plain else {"()": JsonFormatter}
    logger = {"handlers": ["stderr"], "level": level.upper(), "propagate": False}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": formatter},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "loggers": {"uvicorn": logger, "lakebed": logger},
        }
    )
