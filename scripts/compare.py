#!/usr/bin/env python3
"""The measuring half of scripts/compare.sh: starts servers on CPU 0, loads them from CPU 1.

The first figure is requests per second of server CPU: what a request costs, whether or not the
load generator can keep the server busy. CPU time is the run time of every thread of the server's
process tree, kernel helper threads included, in nanoseconds. (A kernel built with
IRQ_TIME_ACCOUNTING leaves the loopback's soft interrupts out of it.) Windows are interleaved
(A B C A B C ...) and ratios are taken within a round, so that a machine that drifts hits all
alike.
"""

import argparse
import contextlib
import dataclasses
import glob
import http.client
import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "target/peers/release"
URING_POOL = [ROOT / "target/release/uring-pool", "serve", "--demo"]
SERVER_CPU, LOAD_CPU = "0", "1"
START_SECONDS_MAX = 10
STOP_SECONDS_MAX = 5
FOREIGN_CPU_MAX = 0.10  # of one CPU; above it a window is marked as disturbed


@dataclasses.dataclass
class Workload:
    path: str
    body: bytes
    ceiling: str  # its --body
    connections: int = 64
    close: bool = False  # one request a connection
    pipelined: bool = False
    varied: bool = False  # no head repeats the one before
    file: int = 0  # bytes of the file that is asked for
    bytes_only: bool = False  # too few requests in a window: they are counted by their bytes


HELLO = b"Hello, World!"
MESSAGE = b'{"message":"Hello, World!"}'
WORKLOADS = {
    "plaintext": Workload("/plaintext", HELLO, "plaintext"),
    "json": Workload("/json", MESSAGE, "json"),
    "plaintext-256": Workload("/plaintext", HELLO, "plaintext", connections=256),
    "plaintext-1024": Workload("/plaintext", HELLO, "plaintext", connections=1024),
    "plaintext-1": Workload("/plaintext", HELLO, "plaintext", connections=1),
    "pipelined": Workload("/plaintext", HELLO, "plaintext", pipelined=True),
    "varied": Workload("/plaintext", HELLO, "plaintext", varied=True),
    "pipelined-varied": Workload("/plaintext", HELLO, "plaintext", pipelined=True, varied=True),
    "churn": Workload("/plaintext", HELLO, "plaintext", close=True),
    "body-10k": Workload("/body/10240", b"x" * 10240, "10240"),
    "body-100k": Workload("/body/102400", b"x" * 102400, "102400"),
}
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
for name, size, connections in (
    ("file-10k", 10 * KIB, 64),
    ("file-100k", 100 * KIB, 64),
    ("file-10m", 10 * MIB, 4),
    ("file-1g", GIB, 1),
):
    WORKLOADS[name] = Workload(
        f"/files/{name}", b"", "", connections, file=size, bytes_only=size > MIB
    )
DEFAULT_WORKLOADS = ["plaintext", "pipelined", "json"]
SERVERS = ["ceiling", "uring-pool", "nginx", "h2o", "hyper", "may"]
COMPLETE_PEERS = ["nginx", "h2o", "hyper", "may"]
FILE_SERVERS = ["uring-pool", "nginx", "h2o"]
EQUAL_HEADERS = {"content-type", "content-length", "date"}


class Unfit(Exception):
    """The server can't take part in this workload."""


class Server:
    """A running server, pinned; ended by its pid when the `with` block ends."""

    cpus = SERVER_CPU

    def __init__(self, name, workload, run):
        self.name = name
        self.log = run / f"{name}.log"
        command, port = self.command(workload, run)
        pinned = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", self.cpus, *command]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                pinned, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.seen = {self.process.pid}
        try:
            self.port = port or self.wait_for_port_line()
            self.wait_for_listener()
        except BaseException:
            self.stop()
            raise

    def command(self, workload, run):
        """What to run, and the port if it is known before."""
        listen = ["--listen", "127.0.0.1:0"]
        if workload.file and self.name not in FILE_SERVERS:
            raise Unfit("it serves no files")
        if self.name == "h2o" and not workload.file:
            raise Unfit("it is here for its files")
        if self.name == "h2o":
            port = free_port()
            return ["h2o", "-c", h2o_conf(run, port)], port
        if self.name == "nginx":
            port = free_port()
            return ["nginx", "-e", "stderr", "-p", run, "-c", nginx_conf(run, port)], port
        if self.name == "ceiling":
            churn = ["--churn"] if workload.close else []
            return [PEERS / "ceiling", *listen, "--body", workload.ceiling, *churn], None
        if self.name == "uring-pool":
            root = ["--root", run] if workload.file else []
            return [*URING_POOL, "--workers", "1", *root, *listen], None
        return [PEERS / f"peer-{self.name}", *listen], None

    def wait_for_port_line(self):
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := re.search(r"\b127\.0\.0\.1:(\d+)", self.log.read_text()):
                return int(found[1])
            time.sleep(0.02)
        raise self.did_not_start()

    def wait_for_listener(self):
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        raise self.did_not_start()

    def did_not_start(self):
        return SystemExit(f"compare: {self.name} did not start:\n{self.log.read_text()[-2000:]}")

    def pids(self):
        """The process tree, as it is now."""
        pids = [self.process.pid]
        for pid in pids:
            for children in glob.glob(f"/proc/{pid}/task/*/children"):
                with contextlib.suppress(OSError):
                    pids += map(int, Path(children).read_text().split())
        self.seen.update(pids)
        return pids

    def cpu_ns(self):
        """Run time of every thread of the tree, by process and thread."""
        by_thread = {}
        for pid in self.pids():
            for schedstat in glob.glob(f"/proc/{pid}/task/*/schedstat"):
                with contextlib.suppress(OSError):
                    thread = schedstat.split("/")[4]
                    by_thread[pid, thread] = int(Path(schedstat).read_text().split()[0])
        return by_thread

    def status(self):
        """What the server says of its workers, if it is one that does: their figures by pid."""
        if URING_POOL[0] not in self.process.args:
            return {}
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        client.request("GET", "/status", headers={"Connection": "close"})
        answer = json.load(client.getresponse())
        return {worker["pid"]: worker for worker in answer["workers"]}

    def stop(self):
        self.pids()
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            print(f"compare: {self.name} ignored SIGTERM, killed", file=sys.stderr)
            self.process.kill()
            self.process.wait()
        for pid in self.seen - {self.process.pid}:  # workers that outlived their master
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def nginx_conf(run, port):
    template = (ROOT / "benches/peers/nginx.conf.in").read_text()
    conf = run / "nginx.conf"
    for name, value in {"PORT": str(port), "RUN": str(run), "KIB": "x" * 1024}.items():
        template = template.replace(f"@{name}@", value)
    conf.write_text(template)
    (run / "body").mkdir(exist_ok=True)
    (run / "body/102400").write_bytes(b"x" * 102400)
    return conf


def h2o_conf(run, port):
    template = (ROOT / "benches/peers/h2o.conf.in").read_text()
    conf = run / "h2o.conf"
    conf.write_text(template.replace("@PORT@", str(port)).replace("@RUN@", str(run)))
    return conf


def make_file(workload, run):
    """The file of a workload; in the page cache, as it was just written."""
    path = run / workload.path.lstrip("/")
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        for _ in range(0, workload.file, MIB):
            file.write(b"x" * min(MIB, workload.file))
        file.truncate(workload.file)
    old = time.time() - 3600
    os.utime(path, (old, old))
    time.sleep(2)  # what has just changed isn't kept by uring-pool


def probe_file(server, workload):
    """The head alone, which has to tell the length."""
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=2)
    client.request("HEAD", workload.path, headers={"Connection": "close"})
    answer = client.getresponse()
    if answer.status != 200 or answer.getheader("Content-Length") != str(workload.file):
        raise Unfit(f"{workload.path} answers {answer.status}, {answer.getheader('Content-Length')} bytes")
    return {name.lower() for name in answer.headers.keys()} - {"connection"}


def probe(server, workload):
    """One request by hand: the expected answer? Returns the names of its headers."""
    if workload.file:
        return probe_file(server, workload)
    close = "Connection: close\r\n" if workload.close else ""
    request = f"GET {workload.path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n{close}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=2) as client:
        client.sendall(request.encode())
        answer, closed = b"", False
        while workload.close or not answer.endswith(b"\r\n\r\n" + workload.body):
            try:
                received = client.recv(1 << 20)
            except TimeoutError:
                break
            if not received:
                closed = True
                break
            answer += received
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *headers = head.decode("latin-1").split("\r\n")
    if not status.startswith("HTTP/1.1 200 "):
        raise Unfit(f"{workload.path} answers {status or 'nothing'!r}")
    if body != workload.body:
        raise Unfit(f"{workload.path} answers another body ({len(body)} bytes)")
    if workload.close and not closed:
        raise Unfit("keeps the connection open after `Connection: close`")
    return {header.partition(":")[0].lower() for header in headers}


def busy_seconds():
    """All CPUs' time that wasn't idle, what the hypervisor took included."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    )
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def load_cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def wrk_command(server, workload, seconds):
    wrk = ["taskset", "-c", LOAD_CPU, "wrk", "--latency", "-t", "1", "-d", f"{seconds}s"]
    wrk += ["-c", str(workload.connections)]
    if workload.close:
        wrk += ["-H", "Connection: close"]
    script = "vary" if workload.varied else "pipeline"
    if workload.varied or workload.pipelined:
        wrk += ["-s", ROOT / f"scripts/{script}.lua"]
    wrk.append(f"http://127.0.0.1:{server.port}{workload.path}")
    if workload.varied or workload.pipelined:
        wrk += ["--", "16" if workload.pipelined else "1"]
    return wrk


def window(server, workload, seconds):
    """Loads one server for some seconds; everything known about that window."""
    return observe(server, [wrk_command(server, workload, seconds)], seconds, workload)


def observe(server, commands, seconds, workload=None):
    """Runs these wrk at once. Requests are those of all; latencies those of the first."""
    tree, status, cpu = set(server.pids()), server.status(), server.cpu_ns()
    busy, load, began = busy_seconds(), load_cpu_seconds(), time.monotonic()
    running = [subprocess.Popen(wrk, stdout=subprocess.PIPE, text=True) for wrk in commands]
    outputs = [wrk.communicate(timeout=seconds + 30)[0] for wrk in running]
    time.sleep(0.05)  # the server sees the clients leave
    took, load = time.monotonic() - began, load_cpu_seconds() - load
    busy, cpu_after = busy_seconds() - busy, server.cpu_ns()
    by_pid = {}
    for (pid, thread), ns in cpu_after.items():  # a kernel helper that has left had nothing to do
        by_pid[pid] = by_pid.get(pid, 0.0) + (ns - cpu.get((pid, thread), 0)) / 1e9
    cpu = sum(by_pid.values())

    if any(wrk.returncode != 0 for wrk in running):
        raise SystemExit(f"compare: wrk failed: {''.join(outputs)}")
    wrks = [wrk_figures(output) for output in outputs]
    if workload is not None and workload.bytes_only:
        for wrk in wrks:
            wrk["requests"] = wrk["bytes"] / workload.file
            wrk["errors"] = []  # a response that outlasts the window is cut off
    requests, wrk_seconds = sum(wrk["requests"] for wrk in wrks), wrks[0]["seconds"]
    errors = [error for wrk in wrks for error in wrk["errors"]]
    if not tree <= set(server.pids()):
        errors.append("a process of the server ended during the window: its CPU time is missing")
    workers = worker_figures(status, server.status(), by_pid)
    return {
        "requests": requests,
        "seconds": wrk_seconds,
        "server_cpu_seconds": cpu,
        "requests_per_second": requests / wrk_seconds,
        "requests_per_cpu_second": requests / max(cpu, 1e-9),
        "server_cpu_share": cpu / wrk_seconds,
        "load_cpu_share": load / wrk_seconds,
        "foreign_cpu_share": max(0.0, (busy - cpu - load) / took),
        "p50_us": wrks[0]["p50_us"],
        "p99_us": wrks[0]["p99_us"],
        "workers": workers,
        "errors": errors,
    }


def wrk_figures(output):
    requests, seconds, read = re.search(
        r"(\d+) requests in ([\d.]+\w+), ([\d.]+\w+) read", output
    ).groups()
    p50, p99 = (re.search(rf"^ +{p}% +(\S+)$", output, re.M) for p in (50, 99))
    errors = [line.strip() for line in re.findall(r"^ *(?:Non-2xx|Socket err).*", output, re.M)]
    if requests == "0":
        errors.append("no request was answered")
    return {
        "requests": int(requests),
        "bytes": byte_count(read),
        "seconds": microseconds(seconds) / 1e6,
        "p50_us": microseconds(p50[1]) if p50 else 0.0,  # not one response was whole
        "p99_us": microseconds(p99[1]) if p99 else 0.0,
        "errors": errors,
    }


def worker_figures(before, after, cpu_seconds):
    """What each worker did meanwhile, by its own account."""
    counters = {"connections": "total_connections", "requests": "total_requests", "enters": "turns"}
    return [
        {name: worker[key] - before[pid][key] for name, key in counters.items()}
        | {"cpu_seconds": cpu_seconds.get(pid, 0.0)}
        for pid, worker in after.items()
        if pid in before
    ]


def enters_per_request(windows):
    """Of the workers' rings (median), if the server counts them."""
    figures = [
        sum(worker["enters"] for worker in w["workers"])
        / max(1, sum(worker["requests"] for worker in w["workers"]))
        for w in windows
    ]
    return f"{statistics.median(figures):.3f}" if windows[0]["workers"] else "-"


def microseconds(text):
    """wrk's way to write a duration: 431.00us, 1.28ms, 3.01s, 1.05m."""
    value, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(value) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}[unit]


def byte_count(text):
    """wrk's way to write a size: 12.34KB, 1.05GB (of 1,024 each)."""
    value, unit = re.fullmatch(r"([\d.]+)([KMGT]?)B", text).groups()
    return float(value) * 1024 ** " KMGT".index(unit or " ")


def measure(name, options, run):
    """All rounds of one workload. Returns windows by server, and who is left out and why."""
    workload = WORKLOADS[name]
    windows, unfit = {}, {}
    with contextlib.ExitStack() as running:
        servers = []
        if workload.file:
            make_file(workload, run)
        for server_name in options.servers:
            try:
                server = running.enter_context(Server(server_name, workload, run))
                report_headers(server_name, probe(server, workload), workload)
            except Unfit as reason:
                unfit[server_name] = str(reason)
                print(f"  {server_name} is skipped: {reason}")
                continue
            servers.append(server)
            windows[server_name] = []
        for round_ in range(options.rounds):
            for server in servers:
                if round_ == 0:
                    window(server, workload, 1)  # warm-up
                windows[server.name].append(window(server, workload, options.seconds))
    return windows, unfit


def report_headers(server, headers, workload):
    expected = EQUAL_HEADERS | ({"connection"} if workload.close else set())
    if workload.file:
        expected = expected | {"etag", "last-modified", "accept-ranges"}
    more, less = sorted(headers - expected), sorted(expected - headers)
    if more or less:
        words = (["also sends " + ", ".join(more)] if more else []) + (
            ["doesn't send " + ", ".join(less)] if less else []
        )
        print(f"  {server} {' and '.join(words)}")


def median_of(windows, key):
    return statistics.median(w[key] for w in windows)


def ratio(windows, base):
    """Median over the rounds of this server's figure by the base's in the same round."""
    if not base:
        return "-"
    key = "requests_per_cpu_second"
    return f"{statistics.median(w[key] / b[key] for w, b in zip(windows, base)):.2f}"


def print_table(windows):
    peers = [windows[p] for p in COMPLETE_PEERS if p in windows]
    best = max(peers, key=lambda p: median_of(p, "requests_per_cpu_second"), default=None)
    print(
        f"  {'server':<11}{'requests/s':>11}{'per CPU-second (min to max)':>38}"
        f"{'of ceiling':>12}{'of best peer':>14}{'CPU 0':>7}{'p99':>10}{'enters/request':>16}"
    )
    for server, mine in windows.items():
        figures = [w["requests_per_cpu_second"] for w in mine]
        p99 = median_of(mine, "p99_us")
        p99 = f"{p99:,.0f} us" if p99 else "-"  # wrk knows none when it pipelines
        spread = f"({min(figures):,.0f} to {max(figures):,.0f})"
        print(
            f"  {server:<11}{median_of(mine, 'requests_per_second'):>11,.0f}"
            f"{statistics.median(figures):>14,.0f} {spread:>23}"
            f"{ratio(mine, windows.get('ceiling')):>12}{ratio(mine, best):>14}"
            f"{median_of(mine, 'server_cpu_share'):>7.0%}{p99:>10}{enters_per_request(mine):>16}"
        )
    return print_doubts(windows)


def print_doubts(windows):
    """What makes these figures worth less. True if something failed."""
    failed = False
    for server, mine in windows.items():
        for round_, w in enumerate(mine, 1):
            for error in w["errors"]:
                failed = True
                print(f"  !!! {server}, round {round_}: {error}")
    foreign = [w["foreign_cpu_share"] for mine in windows.values() for w in mine]
    if disturbed := [share for share in foreign if share > FOREIGN_CPU_MAX]:
        print(
            f"  !!! other processes (or the hypervisor) took up to {max(disturbed):.0%} of a CPU "
            f"in {len(disturbed)} of {len(foreign)} windows: trust the ratios less, the absolute "
            "figures not at all"
        )
    return failed


def check_windows(parser, options):
    """Ends with words for people if these can't be measured here."""
    if options.rounds < 1 or options.seconds < 1:
        parser.error("at least one round and one second")
    if not {int(SERVER_CPU), int(LOAD_CPU)} <= os.sched_getaffinity(0):
        parser.error(f"needs CPU {SERVER_CPU} for the server and CPU {LOAD_CPU} for the load")


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/compare.sh",
        description="Compares HTTP servers by requests per second of server CPU, on loopback. "
        "`modes` instead of workloads compares this server's accept modes (modes --help), "
        "`features` tells what its protections and its log cost (features --help).",
    )
    parser.add_argument(
        "workloads",
        nargs="*",
        metavar="WORKLOAD",
        help=f"{', '.join(WORKLOADS)}; or all (default: {' '.join(DEFAULT_WORKLOADS)})",
    )
    every = ",".join(SERVERS)
    parser.add_argument("--servers", default=every, metavar="A,B,...", help="which (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="windows a server (%(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="length of a window (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write every window's raw figures there")
    options = parser.parse_args()
    options.servers = [s for s in options.servers.split(",") if s]
    options.workloads = options.workloads or DEFAULT_WORKLOADS
    if options.workloads == ["all"]:
        options.workloads = list(WORKLOADS)
    for given, known in ((options.servers, SERVERS), (options.workloads, WORKLOADS)):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    if not options.servers:
        parser.error("at least one server")
    check_windows(parser, options)
    return options


def machine():
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    return {
        "CPU": model[1] if model else platform.machine(),
        "CPUs": os.cpu_count(),
        "kernel": platform.release(),
        "TCP": congestion.read_text().strip(),
    }


def versions(servers):
    """What is compared, and by what: names with versions."""
    found = {"wrk": first_version(["wrk", "-v"])}
    for server, package in (("hyper", "hyper"), ("may", "may_minihttp")):
        if server in servers:
            lock = (ROOT / f"benches/peers/{server}/Cargo.lock").read_text()
            found[package] = re.search(rf'name = "{package}"\nversion = "(.+)"', lock)[1]
    if "nginx" in servers:
        found["nginx"] = first_version(["nginx", "-v"])
    if "h2o" in servers:
        found["h2o"] = first_version(["h2o", "-v"])
    return found


def first_version(command):
    ran = subprocess.run(command, capture_output=True, text=True)
    version = re.search(r"\d+\.\d+\S*", ran.stdout + ran.stderr)
    return version[0] if version else "of unknown version"


def main():
    options = arguments()
    os.environ["PATH"] += ":/usr/sbin"
    for tool in ("wrk", "taskset", "setpriv"):
        if not shutil.which(tool):
            sys.exit(f"compare: {tool} is missing")
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, lambda *_: sys.exit("compare: stopped"))  # unwinds, so servers end
    _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    results = {"machine": machine(), "versions": versions(options.servers)}
    results |= {"rounds": options.rounds, "seconds": options.seconds, "workloads": {}}
    for facts in (results["machine"], results["versions"]):
        print(", ".join(f"{key} {value}" for key, value in facts.items()))
    failed = False
    with tempfile.TemporaryDirectory(prefix="compare-") as run:
        os.chmod(run, 0o755)  # nginx's worker isn't root and reads the bodies there
        for name in options.workloads:
            workload = WORKLOADS[name]
            print(
                f"\n{name}: GET {workload.path}, {workload.connections} connections"
                f"{', 16 requests at once' * workload.pipelined}{', each different' * workload.varied}"
                f"{', one request each' * workload.close}, "
                f"{options.rounds} rounds of {options.seconds} s",
                flush=True,
            )
            windows, unfit = measure(name, options, Path(run))
            failed |= print_table(windows)
            results["workloads"][name] = {"windows": windows, "skipped": unfit}
            if options.json:
                Path(options.json).write_text(json.dumps(results, indent=1) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
