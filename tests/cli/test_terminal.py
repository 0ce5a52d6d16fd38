"""On a terminal: tables, bars and questions; off it, none of them."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess

import pytest

from lakebed import connect
from lakebed.auth.keys import Keys
from tests.cli.program import COMMAND, environment

pytestmark = pytest.mark.integration

_SETTINGS = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def on_terminal(*arguments, typed=b"", **variables):
    """A run whose streams are a pseudo-terminal; its exit code, and all that was shown."""
    controller, terminal = pty.openpty()
    command = [*COMMAND, *map(str, arguments)]
    environ = environment(**_SETTINGS | variables)
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environ) as process:
        os.close(terminal)
        os.write(controller, typed)
        shown = b""
        while True:
            ready, _, _ = select.select([controller], [], [], 60)
            assert ready, shown
            try:
                piece = os.read(controller, 65536)
            except OSError:  # Linux: the last of its users closed it
                break
            shown += piece
    os.close(controller)
    return process.returncode, shown.decode()


def test_a_table_on_a_terminal(tmp_path):
    """Lines and alignment; digits in groups; where the answer came from; markup and control characters as text."""
    with connect(tmp_path, "default") as shop:
        shop.track("[bold]x[/]\x1b[2J")
    sql = "SELECT event, 1234567 AS n FROM events"
    code, shown = on_terminal("query", sql, "--root", tmp_path)
    plain = _COLOUR.sub("", shown)
    assert code == 0
    assert "1,234,567" in plain
    assert "[bold]x[/]\ufffd[2J" in plain
    assert "─" in plain
    assert "1 row from L1" in plain
    assert "\x1b[2J" not in shown
    _, shown = on_terminal("query", sql, "--root", tmp_path, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown)


def test_a_progress_bar_while_importing(tmp_path):
    """Per cent and rows a second on a terminal. In a pipe there is not a byte of it: test_import.py."""
    file = tmp_path / "a.ndjson"
    file.write_bytes(b"".join(b'{"event":"E","properties":{"n":%d}}\n' % n for n in range(30_000)))
    code, shown = on_terminal("import", file, "--root", tmp_path / "one")
    assert code == 0
    assert "rows/s" in shown
    assert re.search(r"\d+%", shown)


@pytest.mark.parametrize(("typed", "code"), [(b"n\n", 1), (b"y\n", 0)])
def test_a_confirmation_before_a_deletion(tmp_path, typed, code):
    """No means no and changes nothing; yes goes on."""
    keys = Keys(tmp_path)
    key, _ = keys.create("shop", "read")
    done, shown = on_terminal("keys", "revoke", key.id, "--root", tmp_path, typed=typed)
    assert (done, "Revoke the read key" in shown) == (code, True)
    assert (keys.list()[0].revoked_us is None) == (typed == b"n\n")
