"""What an installation without extras says. `make wheel` runs this file against the installed wheel as well."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys

import pytest

from lakebed.interface.extras import require_extra

pytestmark = pytest.mark.integration

# The parts that need an extra: a module, the extra, one of its packages, and a call that needs it.
PARTS = [
    ("lakebed.api", "server", "starlette"),
    ("lakebed.mcp", "mcp", "mcp"),
]


def test_a_missing_extra_is_named_with_the_command_that_installs_it():
    """The error names the part, the packages and what to type."""
    with pytest.raises(ImportError, match=r"lakebed.x needs no_such_a and no_such_b: pip install 'lakebed\[x\]'"):
        require_extra("lakebed.x", "x", "no_such_a", "sys", "no_such_b")


@pytest.mark.parametrize(("module", "extra", "package"), PARTS)
def test_parts_without_their_extra_say_so(module, extra, package):
    """With the extra a part can be imported; without it the error says which one to install."""
    if importlib.util.find_spec(package) is not None:
        importlib.import_module(module)
        return
    with pytest.raises(ImportError, match=rf"pip install 'lakebed\[{extra}\]'"):
        importlib.import_module(module)


def test_the_command_without_its_extra_says_so():
    """`lakebed` runs, or exits with 2 and the command to type."""
    done = subprocess.run([sys.executable, "-m", "lakebed", "--help"], capture_output=True, text=True, check=False)
    if importlib.util.find_spec("typer") is not None:
        assert done.returncode == 0, done.stderr
    else:
        assert (done.returncode, "pip install 'lakebed[cli]'" in done.stderr) == (2, True)


async def test_the_core_needs_no_extra(tmp_path):
    """An event is stored, counted and archived with nothing but the core's own dependencies."""
    from lakebed import Analytics

    async with Analytics("shop", root=tmp_path) as shop:
        await shop.track("Order Completed", {"revenue": 99.9}, user_id="alice")
        await shop.archive()
        assert (await shop.dau(days=1))[0].dau == 1
        assert (await shop.query("SELECT count(*) AS n FROM events"))[0].n == 1
        assert await shop.check() == []


def test_a_remote_namespace_without_its_extra_says_so():
    """The client of a server needs httpx and websockets."""
    from lakebed.objects.remote_namespace import RemoteNamespace

    if importlib.util.find_spec("httpx") is None:
        with pytest.raises(ImportError, match=r"pip install 'lakebed\[client\]'"):
            RemoteNamespace("http://127.0.0.1:1")
    else:
        assert RemoteNamespace("http://127.0.0.1:1").url.startswith("http://127.0.0.1:1")
