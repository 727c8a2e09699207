#!/usr/bin/env python3
"""The measuring half of scripts/compare-load.sh: a server on CPU 0, each generator on CPU 1 in turn.

The figure is requests per second of the generator's CPU: user and system time of its process, by
wait4(2), start and end included. Windows are interleaved (A B C A B C ...), ratios are taken to wrk
within a round, and their median is reported with the least and the most of them. Each generator
holds the same connections and asks for the same path; what it sends beyond `GET` and `Host` is its
own choice. A window in which others than the two sides took more than a tenth of a CPU is marked.
"""

import argparse
import dataclasses
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVER_CPU, LOAD_CPU = "0", "1"
FOREIGN_CPU_MAX = 0.10  # of one CPU
PIPELINE_LUA = """
init = function(args)
    local requests = {}
    for i = 1, tonumber(args[1]) do requests[i] = wrk.format() end
    all = table.concat(requests)
end
request = function() return all end
"""
NGINX = """
daemon off; master_process off; worker_processes 1; pid {dir}/pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {dir}; proxy_temp_path {dir};
fastcgi_temp_path {dir}; uwsgi_temp_path {dir}; scgi_temp_path {dir};
server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ default_type text/plain; return 200 "Hello, World!"; }} }} }}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(name, directory):
    port = free_port()
    if name == "ceiling":
        command = [ROOT / "target/peers/release/ceiling", "--listen", f"127.0.0.1:{port}"]
    elif name == "nginx":
        config = Path(directory) / "nginx.conf"
        config.write_text(NGINX.format(dir=directory, port=port))
        nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        command = [nginx, "-c", config]
    else:
        sys.exit(f"compare-load: there is no server {name}: use ceiling or nginx")
    process = subprocess.Popen(["taskset", "-c", SERVER_CPU, *command], stdout=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process, f"http://127.0.0.1:{port}/"
        except OSError:
            time.sleep(0.05)
    sys.exit(f"compare-load: {name} does not listen")


def command_of(load, url, seconds, connections, depth, lua):
    if load == "uring-pool":
        return [ROOT / "target/release/uring-pool", "bench", url, f"-z{seconds}s", f"-c{connections}",
                f"-P{depth}", "-t1", "--pin", LOAD_CPU, "--warmup", "0s", "-o", "json", "--no-tui"]
    if load == "wrk":
        script = ["-s", lua, url, "--", str(depth)] if depth > 1 else [url]
        return ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *script]
    if load == "h2load":
        return ["h2load", "--h1", "-t1", f"-c{connections}", f"-m{depth}", f"-D{seconds}", url]
    if load == "oha":
        # It has more threads than one; taskset gives them one core.
        oha = shutil.which("oha") or ROOT / "target/peers/bin/oha"
        return [oha, "--no-tui", "--disable-compression", "-z", f"{seconds}s", f"-c{connections}",
                "--output-format", "json", url]
    sys.exit(f"compare-load: there is no load {load}: use uring-pool, wrk, h2load or oha")


def answers(load, output):
    if load == "uring-pool":
        return json.loads(output)["counts"]["ok"]
    if load == "oha":
        return sum(json.loads(output)["statusCodeDistribution"].values())
    pattern = r"(\d+) requests in" if load == "wrk" else r"(\d+) succeeded"
    return int(re.search(pattern, output).group(1))


def machine_busy():
    """CPU seconds of all that runs on this machine."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def cpu_of(process):
    """CPU seconds of a process with its threads."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass
class Window:
    per_cpu: float  # requests per second of the generator's CPU
    rate: float  # requests per second
    is_disturbed: bool


def window(load, server, *rest):
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        command = ["taskset", "-c", LOAD_CPU, *command_of(load, *rest)]
        began = time.monotonic()
        busy, server_cpu = machine_busy(), cpu_of(server)
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        took = time.monotonic() - began
        cpu = used.ru_utime + used.ru_stime
        foreign = (machine_busy() - busy - (cpu_of(server) - server_cpu) - cpu) / took
        output.seek(0)
        text = output.read()
        try:
            count = answers(load, text)
        except (AttributeError, KeyError, ValueError):
            errors.seek(0)
            sys.exit(f"compare-load: {load} ended with {process.returncode} and told no figure: "
                     f"{(errors.read() or text)[:500]}")
    return Window(count / cpu, count / took, foreign > FOREIGN_CPU_MAX)


def main():
    parser = argparse.ArgumentParser(prog="scripts/compare-load.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    default = "uring-pool,wrk,h2load,oha"
    parser.add_argument("--loads", default=default, help=f"generators (default: {default})")
    parser.add_argument("--servers", default="ceiling,nginx")
    parser.add_argument("--depths", default="1,16", help="requests in flight on a connection")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    if os.cpu_count() < 2:
        sys.exit("compare-load: needs two CPUs, one for each side")
    loads = options.loads.split(",")
    for load in loads:
        command_of(load, "", 1, 1, 1, "")  # a name that isn't known is refused at once
    with tempfile.TemporaryDirectory() as directory:
        lua = Path(directory) / "pipeline.lua"
        lua.write_text(PIPELINE_LUA)
        print(f"{'server':<10} {'depth':>5} {'load':<12} {'per CPU second':>15} {'per second':>12} {'of wrk':>8} {'least to most':>15}")
        for server in options.servers.split(","):
            for depth in map(int, options.depths.split(",")):
                # oha doesn't pipeline.
                able = [load for load in loads if depth == 1 or load != "oha"]
                process, url = start(server, directory)
                try:
                    rounds = [
                        {load: window(load, process, url, options.seconds, options.connections, depth, lua)
                         for load in able}
                        for _ in range(options.rounds)
                    ]
                finally:
                    process.terminate()
                    process.wait()
                for load in able:
                    cpu = statistics.median(it[load].per_cpu for it in rounds)
                    rate = statistics.median(it[load].rate for it in rounds)
                    ratio = spread = ""
                    if "wrk" in able:
                        ratios = [it[load].per_cpu / it["wrk"].per_cpu for it in rounds]
                        ratio = f"{statistics.median(ratios):.2f}"
                        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
                    disturbed = sum(it[load].is_disturbed for it in rounds)
                    note = f"  {disturbed} of {len(rounds)} disturbed" if disturbed else ""
                    print(f"{server:<10} {depth:>5} {load:<12} {cpu:>15,.0f} {rate:>12,.0f} {ratio:>8} "
                          f"{spread:>15}{note}", flush=True)


if __name__ == "__main__":
    main()
