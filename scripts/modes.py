#!/usr/bin/env python3
"""The half of scripts/compare.sh that compares this server's accept modes with each other.

`churn-N`: one request a connection, N workers. `keep-alive`: 64 connections that stay, one worker;
the modes should be equal. Both as everywhere in compare.sh: the server's whole tree on CPU 0, wrk
on CPU 1, however many workers there are. CPU time is that of master and workers.

`mix-N`: heavy connections that stay and short, light ones, N workers. A worker has a CPU of its own
here (as far as there are), and two wrk go where the scheduler puts them. Both pause between
requests, so that the machine isn't full and latency is the server's doing. Latencies are those of
the light requests, from a request's first byte: wrk doesn't count the connecting. The spread over
workers is the busiest one's share by the average one's: 1.00 is even. `of CPU` is the one to look
at; connections count alike, heavy or light. All clients have one address, so that sticky sends
all of them to one worker.

Windows are interleaved (A B C A B C ...), and each begins with new connections. Enters are those
of the workers' rings, by /status; the master's aren't counted. Clients that close first leave their
ports behind for a second (tcp_tw_reuse on loopback): below 28,000 connections a second none lacks
one, and a connection that can't be made is reported.
"""

import argparse
import contextlib
import dataclasses
import json
import resource
import signal
import statistics
import sys
import tempfile
from pathlib import Path

from compare import (
    HELLO,
    LOAD_CPU,
    ROOT,
    SERVER_CPU,
    URING_POOL,
    WORKLOADS,
    Server,
    Workload,
    check_windows,
    enters_per_request,
    first_version,
    machine,
    median_of,
    observe,
    print_doubts,
    probe,
    wrk_command,
)

MODES = {mode: ["--accept", mode] for mode in ("shared", "dispatch", "steered")}
BALANCERS = ["round-robin", "weighted", "sticky", "p2c"]  # dispatch's own is least-connections
CPU_OF_SHARED_MAX = {"dispatch": 1.6, "steered": 1.05}  # one request a connection, one worker

HEAVY = Workload("/body/1048576", b"", "", connections=8)
HEAVY_PAUSE_MS_MAX = 10
LIGHT = Workload("/plaintext", HELLO, "plaintext", connections=16, close=True)
LIGHT_PAUSE_MS_MAX = 8


@dataclasses.dataclass
class Part:
    title: str
    workers: int
    workload: Workload
    is_mix: bool = False


CHURN = "one request a connection"
MIX = f"{HEAVY.connections} heavy connections, {LIGHT.connections} light ones of one request"
PARTS = {
    "churn-1": Part(CHURN, 1, WORKLOADS["churn"]),
    "churn-2": Part(CHURN, 2, WORKLOADS["churn"]),
    "keep-alive": Part("64 connections that stay", 1, WORKLOADS["plaintext"]),
    "mix-2": Part(MIX, 2, LIGHT, is_mix=True),
    "mix-4": Part(MIX, 4, LIGHT, is_mix=True),
}


class Mode(Server):
    """This server in one of its modes."""

    def __init__(self, name, flags, part, run):
        self.flags = [*flags, "--workers", str(part.workers)]
        self.cpus = f"{SERVER_CPU},{LOAD_CPU}" if part.is_mix else SERVER_CPU
        super().__init__(name, part.workload, run)

    def command(self, workload, run):
        return [*URING_POOL, *self.flags, "--listen", "127.0.0.1:0"], None


def window(server, part, seconds):
    if part.is_mix:
        light = paced(server, LIGHT, LIGHT_PAUSE_MS_MAX, seconds)
        heavy = paced(server, HEAVY, HEAVY_PAUSE_MS_MAX, seconds)
        return observe(server, [light, heavy], seconds)
    return observe(server, [wrk_command(server, part.workload, seconds)], seconds)


def paced(server, workload, pause_ms_max, seconds):
    """Without a CPU of its own."""
    *wrk, url = wrk_command(server, workload, seconds)[3:]
    return [*wrk, "-s", ROOT / "scripts/pace.lua", url, "--", str(pause_ms_max)]


def measure(part, options, run):
    """All rounds of one part: windows by mode."""
    modes = dict(MODES)
    if part.is_mix:
        modes |= {f"  {b}": [*MODES["dispatch"], "--balance", b] for b in BALANCERS}
    with contextlib.ExitStack() as running:
        servers = [
            running.enter_context(Mode(name, flags, part, run)) for name, flags in modes.items()
        ]
        for server in servers:
            probe(server, part.workload)
            window(server, part, 1)  # warm-up
        windows = {server.name: [] for server in servers}
        for _ in range(options.rounds):
            for server in servers:
                windows[server.name].append(window(server, part, options.seconds))
    return windows


def print_cost(windows, part):
    print(
        f"  {'mode':<10}{'requests/s':>11}{'per CPU-second (min to max)':>38}{'us each':>9}"
        f"{'master':>8}{'CPU of shared (min to max)':>28}{'target':>8}{'CPU 0':>7}{'p99':>10}"
        f"{'enters/request':>16}"
    )
    for mode, mine in windows.items():
        figures = [w["requests_per_cpu_second"] for w in mine]
        ratios = [
            base["requests_per_cpu_second"] / w["requests_per_cpu_second"]
            for w, base in zip(mine, windows["shared"])
        ]
        spread = f"({min(figures):,.0f} to {max(figures):,.0f})"
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        each = statistics.median(w["server_cpu_seconds"] / w["requests"] * 1e6 for w in mine)
        master = statistics.median(
            (w["server_cpu_seconds"] - sum(worker["cpu_seconds"] for worker in w["workers"]))
            / w["requests"]
            * 1e6
            for w in mine
        )
        limit = CPU_OF_SHARED_MAX.get(mode) if part.workload.close else None
        print(
            f"  {mode:<10}{median_of(mine, 'requests_per_second'):>11,.0f}"
            f"{statistics.median(figures):>14,.0f} {spread:>23}{each:>9.1f}{master:>8.1f}"
            f"{ratio:>28}{f'<= {limit}' if limit else '-':>8}"
            f"{median_of(mine, 'server_cpu_share'):>7.0%}{median_of(mine, 'p99_us'):>7,.0f} us"
            f"{enters_per_request(mine):>16}"
        )


def print_spread(windows):
    print(
        f"  {'mode':<14}{'requests/s':>11}{'server CPU':>12}{'p50':>10}{'p99 (min to max)':>33}"
        f"{'max / mean: connections':>25}{'of requests':>20}{'of CPU':>20}"
    )
    for mode, mine in windows.items():
        p99s = [w["p99_us"] for w in mine]
        p99 = f"{statistics.median(p99s):,.0f} us ({min(p99s):,.0f} to {max(p99s):,.0f})"
        print(
            f"  {mode:<14}{median_of(mine, 'requests_per_second'):>11,.0f}"
            f"{median_of(mine, 'server_cpu_share'):>12.0%}{median_of(mine, 'p50_us'):>7,.0f} us"
            f"{p99:>33}{imbalance(mine, 'connections'):>25}{imbalance(mine, 'requests'):>20}"
            f"{imbalance(mine, 'cpu_seconds'):>20}"
        )


def imbalance(windows, what):
    """The busiest worker's share by the average one's: the median, and from where to where."""
    shares = [[worker[what] for worker in w["workers"]] for w in windows]
    ratios = [max(each) / max(statistics.mean(each), 1e-9) for each in shares]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/compare.sh modes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="windows a mode (%(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="length of a window (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write every window's raw figures there")
    options = parser.parse_args()
    options.parts = options.parts or list(PARTS)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(PARTS)}")
    check_windows(parser, options)
    return options


def main():
    options = arguments()
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, lambda *_: sys.exit("compare: stopped"))  # unwinds, so servers end
    _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    results = {"machine": machine() | {"wrk": first_version(["wrk", "-v"])}}
    results |= {"rounds": options.rounds, "seconds": options.seconds, "parts": {}}
    print(", ".join(f"{key} {value}" for key, value in results["machine"].items()))
    failed = False
    with tempfile.TemporaryDirectory(prefix="compare-") as run:
        for name in options.parts:
            part = PARTS[name]
            print(
                f"\n{name}: {part.title}, {part.workers} worker{'s' * (part.workers > 1)}, "
                f"{options.rounds} rounds of {options.seconds} s",
                flush=True,
            )
            windows = measure(part, options, Path(run))
            if part.is_mix:
                print_spread(windows)
            else:
                print_cost(windows, part)
            failed |= print_doubts(windows)
            results["parts"][name] = windows
            if options.json:
                Path(options.json).write_text(json.dumps(results, indent=1) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
