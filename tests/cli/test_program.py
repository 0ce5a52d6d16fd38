"""The program as a whole: help, exit codes, variables, pipes, signals."""

from __future__ import annotations

import os
import re
import resource
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from docs.generate.cli import commands, options
from lakebed import Settings, connect
from lakebed.cli import main
from lakebed.reports.reports import REPORTS
from tests.cli.program import COMMAND, ROOT, environment, lakebed, started

pytestmark = pytest.mark.integration

EXTRA = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == sys.argv[1] else find(name, *rest)
from lakebed.cli import main
from lakebed.reports.reports import REPORTS
sys.exit(main(sys.argv[2:]))
"""


def test_the_commands():
    """The verbs of the program."""
    promised = (
        "init serve track import export query stats dau people rollup archive compact expire snapshots keys"
        " deadletters objects check mcp cohorts datasets template invoice invoices price-books quotas"
    )
    reports = {name.replace("_", "-") for name in REPORTS}
    assert {name.split()[0] for name, _ in commands()} == {*promised.split(), *reports}


def test_every_option_has_a_variable_of_its_own():
    """No two options that mean different things share one, and none is the name of a setting."""
    settings = {f"LAKEBED_{name.upper()}" for name in Settings.__struct_fields__}
    variables = [variable.strip("`") for _, variable, _, _ in options()]
    assert len(variables) == len(set(variables))
    assert all(re.fullmatch(r"LAKEBED(_[A-Z]+)+", variable) for variable in variables)
    assert not settings & set(variables)


def test_commands_that_delete_have_a_dry_run():
    """Each command that deletes has --dry-run, which shows what it would delete."""
    for name, command in commands():
        if name.split()[-1] in ("expire", "revoke", "purge", "replay"):
            options = {option for parameter in command.params for option in parameter.opts}
            assert "--dry-run" in options, name


def test_every_command_that_answers_has_json():
    """All but `serve` and `mcp`, which answer only their clients."""
    without = [
        name for name, command in commands() if not any("--json" in parameter.opts for parameter in command.params)
    ]
    assert sorted(without) == ["mcp", "serve"]


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--help"], 0), (["--version"], 0), (["keys", "--help"], 0)])
def test_help(run, arguments, code):
    """Help is on stdout; without a command it is shown, and the code says that nothing was done."""
    output = run(*arguments)
    assert output.code == code
    assert "lakebed" in (output.out + output.err).lower()


def test_a_typo_is_pointed_out(run):
    """An unknown command or option is code 2, with the nearest one that there is."""
    assert "Did you mean 'query'" in run("qerry", "SELECT 1").err
    assert run("query", "SELECT 1", "--lmit", "3").code == 2


def test_an_option_comes_from_its_variable(run, monkeypatch):
    """A shared one, a command's own, a flag; the command line goes before them."""
    run("track", "A", "--root", "elsewhere", "--object", "shop")
    for name, value in {"ROOT": "elsewhere", "OBJECT": "shop", "JSON": "1", "QUERY_PARAMS": '["A"]'}.items():
        monkeypatch.setenv(f"LAKEBED_{name}", value)
    sql = "SELECT count(*) AS n FROM events WHERE event = ?"
    assert run("query", sql).json == [{"n": 1}]
    assert run("query", sql, "--params", '["B"]').json == [{"n": 0}]


def test_help_is_quick():
    """`lakebed --help` takes at most twice the processor time of `import lakebed`: no command's libraries are there."""

    def spent(code):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *code], env=environment(), check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    rounds = [(spent(["-c", "import lakebed"]), spent(["-m", "lakebed", "--help"])) for _ in range(3)][1:]
    library, program = map(statistics.median, zip(*rounds, strict=True))
    assert program <= 2 * library, f"{program:.3f} s against {library:.3f} s"


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("typer", ["check"], "lakebed: the commands need typer: pip install 'lakebed[cli]'"),
        ("uvicorn", ["serve"], "lakebed: serve needs uvicorn. pip install 'lakebed[server]'"),
        ("httpx", ["stats", "--url", "http://x"], "lakebed: --url needs httpx. pip install 'lakebed[cli]'"),
    ],
)
def test_without_an_extra_it_says_what_to_install(module, arguments, message):
    """No traceback, code 2, the name of the extra."""
    command = [sys.executable, "-c", EXTRA, module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (2, "", message)


def test_a_closed_pipe_is_not_an_error(tmp_path):
    """`lakebed export - | head -1`: one line, nothing on stderr, the code of a closed pipe."""
    with connect(tmp_path, "default") as shop:
        shop.batch(b'{"event":"E"}\n' * 20_000)
    process = started("export", "-", "--root", tmp_path)
    assert process.stdout.readline().startswith(b'{"seq":0,')
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), err) == (141, b"")


def test_a_closed_pipe_with_buffered_output(tmp_path):
    """The same for what was printed and is still in a buffer when the command ends."""
    with connect(tmp_path, "default") as shop:
        shop.track("Seen")
    command = [*COMMAND, "query", "SELECT range, repeat('x', 500) FROM range(20000)", "--root", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (141, b"")


def test_serve_and_ctrl_c(tmp_path):
    """The server ends well on Ctrl-C, and says nothing that looks like an error."""
    process = started("serve", "--root", tmp_path, "--port", "0")
    output = b""
    while b"running on" not in output:
        line = process.stderr.readline()
        assert line, output
        output += line
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode in (0, 130), err
    assert b"Traceback" not in output + err


def test_an_object_that_is_open_elsewhere(run, tmp_path):
    """Code 3, the owner's pid, and how to query the owner; `objects` shows the owner."""
    with connect(tmp_path, "default") as shop:
        shop.track("Seen")
        completed = lakebed("stats", "--root", tmp_path)
        assert (completed.returncode, completed.stdout) == (3, "")
        assert str(os.getpid()) in completed.stderr
        assert "--url" in completed.stderr
        rows = run("objects", "--root", tmp_path, "--json").json
        assert [(row["object"], row["class"], row["owner"]) for row in rows] == [("default", "Analytics", os.getpid())]
        assert rows[0]["bytes"] >= rows[0]["log_bytes"] > 0
    rows = run("objects", "--root", tmp_path, "--json").json
    assert rows[0]["owner"] is None


def test_completion():
    """A shell learns the commands and their options."""
    variables = {"_LAKEBED_COMPLETE": "complete_bash", "COMP_WORDS": "lakebed sn", "COMP_CWORD": "1"}
    assert lakebed(**variables).stdout.split() == ["snapshots"]
    variables |= {"COMP_WORDS": "lakebed dau --da", "COMP_CWORD": "2"}
    assert lakebed(**variables).stdout.split() == ["--days"]


def test_it_is_installed_as_a_script():
    """What pyproject.toml calls `lakebed` is this."""
    import tomllib

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert scripts == {"lakebed": "lakebed.cli:main"}
    assert callable(main)


def test_reading_commands_do_not_make_an_object(run, tmp_path):
    """Reading, checking, archiving what is not there is code 2, and leaves nothing behind."""
    for command in ("stats", "dau", "query SELECT", "rollup", "archive", "compact", "expire", "snapshots", "export x"):
        assert run(*command.split()).code == 2, command
    assert run("check", "tom").code == 2
    assert run("stats", "--object", "No Name").code == 2
    assert run("keys", "list").code == 0
    assert run("objects").code == 0
    assert list(Path(tmp_path).iterdir()) == []
