"""Torture: objects are killed, starved of disk, and asked about everything, until the time is up or a promise breaks.

    python -m tests.crash.torture --minutes 30                    # what `make torture` runs
    python -m tests.crash.torture --seed 7 --round 12             # one round again, as a failure says it

Exit code 0 when every promise held, 1 when one did not. docs/testing.md describes it.
"""

import argparse
import contextlib
import json
import queue
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.crash.broken_promises import KINDS
from tests.crash.resource_limits import DISK, MOST, Peak
from tests.crash.torture_process import Lane

_REPORT_S = 10.0
_SILENCE_S = 1500.0  # a lane that prints nothing for so long counts as hung
_PROGRAM = "tests.crash.torture"


def main(arguments=None):
    options = _parser().parse_args(arguments)
    options.directory = Path(options.directory or tempfile.mkdtemp(prefix="lakebed-torture-"))
    if options.lane is not None:
        with contextlib.closing(_lane(options, _write)) as lane:
            lane.rounds(options.lane, options.cores)
        return 0
    conductor = Conductor(options)
    return conductor.run() if options.round is None else conductor.again()


def _parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long it may take (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9), help="of all that is drawn")
    parser.add_argument("--round", type=int, help="run this round of that seed, and no other")
    parser.add_argument("--times", type=int, default=1, help="with --round: so many times, or until it fails")
    parser.add_argument("--cores", type=int, default=2, help="lanes that work side by side (default: %(default)s)")
    parser.add_argument("--directory", help="where objects lie; those that fail are kept (default: a new one)")
    parser.add_argument("--sabotage", choices=sorted(KINDS), help="break a promise on purpose: the run must fail")
    parser.add_argument("--only", choices=["kill", "life", "model"], help="rounds of this kind only")
    parser.add_argument("--lane", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    return parser


def _lane(options, say):
    extra = "".join(f" --{name} {getattr(options, name)}" for name in ("sabotage", "only") if getattr(options, name))

    def replay(number):
        return f"python -m {_PROGRAM} --seed {options.seed} --round {number}{extra}"

    more = {"until": options.until, "sabotage": options.sabotage, "only": options.only, "replay": replay}
    return Lane(options.seed, options.directory, say, **more)


def _write(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class Conductor:
    """Starts the lanes, reads their messages, and prints the progress."""

    def __init__(self, options):
        self.asked = options
        self.began = time.monotonic()
        self.counts = dict.fromkeys(("kills", "sessions", "faulty", "audits", "operations", "kill", "life", "model"), 0)
        self.peak, self.lanes_peak = Peak(), Peak()
        self.failures = []
        self.lives = []

    def run(self):
        self._print(f"seed {self.asked.seed}, {self.asked.minutes:g} minutes, objects in {self.asked.directory}")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        lanes = [self._start(number) for number in range(self.asked.cores)]
        try:
            self._listen(lanes)
        except KeyboardInterrupt:
            self._print("interrupted: what was under way is not judged")
        finally:
            for lane in lanes:
                lane.terminate()
                lane.wait()
        return self._sum_up()

    def again(self):
        """Run one round in this process."""
        self._print(f"seed {self.asked.seed}, round {self.asked.round}, objects in {self.asked.directory}")
        with contextlib.closing(_lane(self.asked, lambda line: self._take(0, line))) as lane:
            for _ in range(self.asked.times):
                lane.round(self.asked.round)
                if self.failures:
                    break
        return self._sum_up()

    def _start(self, number):
        options = self.asked
        program = [sys.executable, "-m", _PROGRAM, "--lane", str(number), "--cores", str(options.cores)]
        program += ["--seed", str(options.seed), "--directory", str(options.directory)]
        program += ["--until", str(self.began + options.minutes * 60)]  # all processes share CLOCK_MONOTONIC
        program += [f"--{name}={getattr(options, name)}" for name in ("sabotage", "only") if getattr(options, name)]
        return subprocess.Popen(program, stdout=subprocess.PIPE)

    def _listen(self, lanes):
        lines = queue.SimpleQueue()
        for number, lane in enumerate(lanes):
            threading.Thread(target=_pour, args=(number, lane.stdout, lines), daemon=True).start()
        heard = dict.fromkeys(range(len(lanes)), time.monotonic())
        reported = self.began
        while heard:
            with contextlib.suppress(queue.Empty):
                number, line = lines.get(timeout=1.0)
                heard[number] = time.monotonic()
                if line:
                    self._take(number, json.loads(line))
                elif self._ended(number, lanes[number]):
                    del heard[number]
            if time.monotonic() - reported >= _REPORT_S:
                reported = time.monotonic()
                self._progress()
            for number in [key for key, last in heard.items() if time.monotonic() - last > _SILENCE_S]:
                self._fail(f"lane {number} said nothing for {_SILENCE_S:.0f} s", "", "", self.asked.directory)
                del heard[number]

    def _ended(self, number, lane):
        if lane.wait() != 0:
            self._fail(f"lane {number} ended with {lane.returncode}", "", "", self.asked.directory)
        return True

    def _take(self, number, line):
        kind = line["kind"]
        if kind == "session":
            self.counts["sessions"] += 1
            self.counts["kills"] += line["killed"]
            self.counts["faulty"] += line["faults"]
        elif kind == "audit":
            self.counts["audits"] += 1
            self.lanes_peak.see(**line["quiet"])
        elif kind == "life":
            self.counts["operations"] += line["operations"]
            self.lives.append(line["samples"])
        elif kind == "ends":
            self.counts[line["what"]] += 1
        elif kind == "failed":
            self._fail(f"round {line['round']} of lane {number}", line["trace"], line["replay"], line["kept"])
        self.peak.see(**line.get("peak", {}))

    def _fail(self, what, trace, replay, kept):
        self.failures.append((what, replay, kept))
        self._print(f"FAILED: {what}\n{trace}\n  kept in {kept}\n  replay: {replay or self._whole()}")

    def _whole(self):
        return f"python -m tests.crash.torture --seed {self.asked.seed} --minutes {self.asked.minutes:g}"

    def _progress(self):
        elapsed, kills = self._minutes(), self.counts["kills"]
        rss, rate = self.peak.most.get("rss", 0) / 2**20, kills / elapsed
        self._print(
            f"{elapsed:5.1f} min  {kills} kills, {rate:.0f}/min  max RSS {rss:.0f} MB  "
            f"{len(self.failures)} failures  seed {self.asked.seed}"
        )

    def _minutes(self):
        return max(time.monotonic() - self.began, 0.01) / 60

    def _print(self, text):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def _sum_up(self):
        for line in report(self):
            sys.stdout.write(line + "\n")
        with contextlib.suppress(OSError):  # not empty: it has the files of failed rounds
            self.asked.directory.rmdir()
        return 1 if self.failures else 0


def report(done):
    """The summary, line by line: the work done, the peak resources, and their limits."""
    counts, peak = done.counts, done.peak.most
    minutes = done._minutes()
    yield f"seed {done.asked.seed}, {minutes:.1f} minutes on {done.asked.cores} lanes"
    yield (
        f"{counts['kills']} kills ({counts['kills'] / minutes:.0f}/min) in {counts['sessions']} sessions, "
        f"{counts['faulty']} of them with disk faults; {counts['audits']} audits"
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    yield f"{cpu:.0f} s of processor time, {cpu / max(counts['kills'], 1):.1f} s a kill with all that goes with it"
    yield (
        f"rounds that held: {counts['kill']} of deaths, {counts['model']} of the model, {counts['life']} long lives "
        f"({counts['operations']} operations)"
    )
    for name, bound in MOST.items():
        yield f"a session held at most {_shown(name, peak.get(name, 0))} {name}; {_shown(name, bound)} are allowed"
    for name in DISK:
        share = peak.get(f"{name}_share", 0)
        yield f"{name}: at most {_shown(name, peak.get(name, 0))}, and {share} % of what its events may take"
    for samples in done.lives:
        grown = {name: f"{_shown(name, samples[0][name])} to {_shown(name, samples[-1][name])}" for name in samples[0]}
        yield f"a long life: {', '.join(f'{name} {change}' for name, change in grown.items())}"
    yield f"the auditors themselves: {', '.join(f'{n} {_shown(n, v)}' for n, v in done.lanes_peak.most.items())}"
    for what, replay, kept in done.failures:
        yield f"FAILED: {what}, kept in {kept}, replay: {replay}"
    yield "every promise held" if not done.failures else f"{len(done.failures)} failures"


def _shown(name, value):
    return str(value) if name in ("descriptors", "threads") else f"{value / 2**20:.1f} MB"


def _pour(number, stream, lines):
    for line in stream:
        lines.put((number, line))
    lines.put((number, b""))


if __name__ == "__main__":
    sys.exit(main())
