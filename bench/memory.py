"""What a process holds in memory, as the kernel says."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")


def _field(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1_024
    raise LookupError(name)


def resident_bytes() -> int:
    """Now."""
    return _field("VmRSS")


def peak_bytes() -> int:
    """At the most since the process began. (`ru_maxrss` would begin with its parent's.)"""
    return _field("VmHWM")
