"""What a process holds in memory, as the kernel says."""

from __future__ import annotations

from pathlib import Path


def _field(name: str, pid: int | str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1_024
    raise LookupError(name)


def resident_bytes(pid: int | str = "self") -> int:
    """Now; of this process, or of another."""
    return _field("VmRSS", pid)


def peak_bytes() -> int:
    """At the most since the process began. (`ru_maxrss` would begin with its parent's.)"""
    return _field("VmHWM", "self")
