#!/usr/bin/env python3
"""The half of scripts/compare.sh that tells what this server's protections and its log cost.

Each is switched on alone, and then all of them, on the small request of `plaintext` from 64 connections
that stay: what costs something for each request is seen best where that costs nearly nothing. As
everywhere in compare.sh, one worker on CPU 0, wrk on CPU 1, windows interleaved (A B C A B C ...), and
the figure is requests per second of server CPU. Logs go to a file of the directory for temporary
files.
"""

import argparse
import contextlib
import signal
import statistics
import sys
import tempfile
from pathlib import Path

from compare import (
    URING_POOL,
    WORKLOADS,
    Server,
    check_windows,
    first_version,
    machine,
    median_of,
    print_doubts,
    probe,
    window,
)

ALL = "all of them"
OF_PLAIN_MIN = 0.90
LIMITS = """
[limits]
connections_max = 10000
connections_per_client = 10000
requests_per_connection = 4000000000
memory_bytes_max = "512MiB"
[timeouts]
request = "30s"
connection = "1d"
"""
RATE = '[rate_limit]\nenabled = true\nrequests = 1000000\nwindow = "1s"\nheaders = false\n'
LOG = '[access_log]\npath = "{log}"\n'
PLAIN = "nothing"
FEATURES = {
    PLAIN: "",
    "limits of everything": LIMITS,
    "rate limit": RATE,
    "rate limit, told": RATE.replace("false", "true"),
    "access log": LOG,
    "access log, JSON": LOG + 'format = "json"\n',
    "request ids, told": "[access_log]\nrequest_id_header = true\n",
    ALL: LIMITS + RATE + LOG,
}


class Featured(Server):
    """This server with a configuration."""

    def __init__(self, name, run):
        config = FEATURES[name].format(log=run / f"{name}.access")
        self.config = run / f"{name}.toml"
        self.config.write_text(config)
        super().__init__(name, WORKLOADS["plaintext"], run)

    def command(self, workload, run):
        return [*URING_POOL, "-c", self.config, "--workers", "1", "--listen", "127.0.0.1:0"], None


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/compare.sh features",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="windows each (%(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="length of a window (%(default)s)")
    options = parser.parse_args()
    check_windows(parser, options)
    return options


def main():
    options = arguments()
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, lambda *_: sys.exit("compare: stopped"))  # unwinds, so servers end
    facts = machine() | {"wrk": first_version(["wrk", "-v"])}
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print(f"\nplaintext, {options.rounds} rounds of {options.seconds} s", flush=True)
    workload = WORKLOADS["plaintext"]
    with tempfile.TemporaryDirectory(prefix="compare-") as run, contextlib.ExitStack() as running:
        servers = [running.enter_context(Featured(name, Path(run))) for name in FEATURES]
        for server in servers:
            probe(server, workload)
            window(server, workload, 1)  # warm-up
        windows = {server.name: [] for server in servers}
        for _ in range(options.rounds):
            for server in servers:
                windows[server.name].append(window(server, workload, options.seconds))
    print_costs(windows)
    return print_doubts(windows)


def print_costs(windows):
    print(f"  {'switched on':<22}{'per CPU-second':>15}{'of nothing (min to max)':>28}{'p99':>10}")
    for name, mine in windows.items():
        ratios = [
            w["requests_per_cpu_second"] / base["requests_per_cpu_second"]
            for w, base in zip(mine, windows[PLAIN])
        ]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(
            f"  {name:<22}{median_of(mine, 'requests_per_cpu_second'):>15,.0f}{ratio:>28}"
            f"{median_of(mine, 'p99_us'):>7,.0f} us"
            f"{f'   target >= {OF_PLAIN_MIN:.2f}' if name == ALL else ''}"
        )


if __name__ == "__main__":
    sys.exit(main())
