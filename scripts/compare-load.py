#!/usr/bin/env python3
"""The measuring half of scripts/compare-load.sh: a server on CPU 0, each generator on CPU 1 in turn.

The figure is requests per second of the generator's CPU: user and system time of its process, by
wait4(2), start and end included. Windows are interleaved (A B C A B C ...), ratios are taken to wrk
within a round, and their median is reported. Each generator holds the same connections and asks
for the same path; what it sends beyond `GET` and `Host` is its own choice.
"""

import argparse
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
        return ["oha", "--no-tui", "-z", f"{seconds}s", "-c", str(connections), "-j", url]
    sys.exit(f"compare-load: there is no load {load}: use uring-pool, wrk, h2load or oha")


def answers(load, output):
    if load == "uring-pool":
        return json.loads(output)["counts"]["ok"]
    if load == "oha":
        return sum(json.loads(output)["statusCodeDistribution"].values())
    pattern = r"(\d+) requests in" if load == "wrk" else r"(\d+) succeeded"
    return int(re.search(pattern, output).group(1))


def window(load, *rest):
    """Requests per second of the generator's CPU, and per second."""
    with tempfile.TemporaryFile("w+") as output:
        command = ["taskset", "-c", LOAD_CPU, *command_of(load, *rest)]
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
        took = time.monotonic() - began
        output.seek(0)
        count = answers(load, output.read())
    return count / (used.ru_utime + used.ru_stime), count / took


def main():
    parser = argparse.ArgumentParser(prog="scripts/compare-load.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    default = "uring-pool,wrk,h2load" + (",oha" if shutil.which("oha") else "")
    parser.add_argument("--loads", default=default, help=f"generators (default: {default})")
    parser.add_argument("--servers", default="ceiling,nginx")
    parser.add_argument("--depths", default="1,16", help="requests in flight on a connection")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    loads = options.loads.split(",")
    with tempfile.TemporaryDirectory() as directory:
        lua = Path(directory) / "pipeline.lua"
        lua.write_text(PIPELINE_LUA)
        print(f"{'server':<10} {'depth':>5} {'load':<12} {'per CPU second':>15} {'per second':>12} {'of wrk':>8}")
        for server in options.servers.split(","):
            for depth in map(int, options.depths.split(",")):
                # oha doesn't pipeline.
                able = [load for load in loads if depth == 1 or load != "oha"]
                process, url = start(server, directory)
                try:
                    rounds = [
                        {load: window(load, url, options.seconds, options.connections, depth, lua)
                         for load in able}
                        for _ in range(options.rounds)
                    ]
                finally:
                    process.terminate()
                    process.wait()
                for load in able:
                    cpu = statistics.median(it[load][0] for it in rounds)
                    rate = statistics.median(it[load][1] for it in rounds)
                    ratio = ""
                    if "wrk" in able:
                        ratio = f"{statistics.median(it[load][0] / it['wrk'][0] for it in rounds):.2f}"
                    print(f"{server:<10} {depth:>5} {load:<12} {cpu:>15,.0f} {rate:>12,.0f} {ratio:>8}",
                          flush=True)


if __name__ == "__main__":
    main()
