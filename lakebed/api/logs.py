"""configure_logs(): the logs of a server on standard error, as JSON."""

from __future__ import annotations

import logging
import logging.config
from datetime import UTC, datetime
from typing import Any

import msgspec

__all__ = ["JsonFormatter", "configure_logs"]


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
