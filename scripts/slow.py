#!/usr/bin/env python3
"""What normal clients wait while slow ones are about, and what the slow ones cost in memory.

The machine may do other things meanwhile: each round measures quiet and not quiet in turn, and what
counts is the median of the ratios; beyond 1.5 the script ends with 1. Whoever attacks does so from other
machines, so here it runs when nobody else wants its core (SCHED_IDLE), which isn't the server's.
"""

import argparse
import json
import multiprocessing
import os
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
SECONDS = 5
RATIO_MAX = 1.5
DRIPPING = 5000
# What a connection may hold: a head of up to 16 KiB that isn't whole, or a response of up to 64 KiB
# that isn't taken (with a file's window less), and what is kept of it. For the drops that we send:
# some hundred bytes each, in a buffer of 1 KiB.
BYTES_A_CLIENT = 4096


def main():
    attacks = {
        "slowloris": lambda server: slowhttptest(server, "-H", "-i", "1"),
        "slow-body": lambda server: slowhttptest(server, "-B", "-i", "1", "-s", "8192"),
        "range": lambda server: slowhttptest(server, "-R"),
        "slow-read": lambda server: slowhttptest(
            server, "-X", "-w", "1", "-y", "64", "-n", "1", "-z", "16", path="/body/1000000"
        ),
        "drip": lambda server: Drip(server, DRIPPING),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True, help="the uring-pool binary")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("attacks", nargs="*", help=", ".join(attacks))
    arguments = parser.parse_args()
    chosen = arguments.attacks or list(attacks)
    is_fine = True
    print(f"{'slow clients':12} {'quiet p99':>10} {'with them':>10} {'ratio':>6} {'held':>9} {'RSS':>9}  {'':5}  each round")
    for name in chosen:
        quiet, loud, held, rss = [], [], 0, 0
        for _ in range(arguments.rounds):
            server = Server(arguments.server)
            quiet.append(server.p99())
            before = server.rss()
            attack = attacks[name](server)
            time.sleep(2)
            loud.append(server.p99())
            held = max(held, server.status()["memory_held"])
            rss = max(rss, server.rss() - before)
            attack.stop()
            server.stop()
        ratio = statistics.median(b / a for a, b in zip(quiet, loud))
        verdict = "ok" if ratio <= RATIO_MAX else "SLOW"
        if name == "drip" and held > DRIPPING * BYTES_A_CLIENT:
            verdict = "LARGE"
        is_fine &= verdict == "ok"
        pairs = "  ".join(f"{a:.2f}/{b:.2f}" for a, b in zip(quiet, loud))
        print(
            f"{name:12} {statistics.median(quiet):8.2f}ms {statistics.median(loud):8.2f}ms"
            f" {ratio:6.2f} {held / 1024:6.0f}KiB {rss / 1024:6.0f}KiB  {verdict:5}  {pairs}",
            flush=True,
        )
    sys.exit(0 if is_fine else 1)


class Server:
    def __init__(self, binary):
        command = [binary, "serve", "--listen", "127.0.0.1:0", "--workers", "1"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.port = int(re.search(r"127\.0\.0\.1:(\d+)", self.process.stdout.readline()).group(1))
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        self.worker = open(children).read().split()[0]

    def p99(self):
        """Milliseconds that 99 % of the requests of 16 unhurried clients don't exceed."""
        url = f"http://127.0.0.1:{self.port}/plaintext"
        pace = ["-s", os.path.join(HERE, "pace.lua"), url, "--", "10"]
        command = ["wrk", "-t1", "-c16", f"-d{SECONDS}s", "--latency", *pace]
        said = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=elsewhere).stdout
        number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", said).groups()
        return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]

    def rss(self):
        return int(open(f"/proc/{self.worker}/statm").read().split()[1]) * 4096

    def status(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=20) as answer:
            return json.load(answer)

    def stop(self):
        self.process.kill()
        self.process.wait()


def elsewhere():
    """Not on the first core, which is the server's."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:] or cores)


def patient():
    """Only while nobody else wants the core."""
    elsewhere()
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


class slowhttptest:
    def __init__(self, server, mode, *arguments, path="/echo"):
        verb = ["-t", "POST"] if mode == "-B" else []
        url = f"http://127.0.0.1:{server.port}{path}"
        command = ["slowhttptest", mode, "-c", "1000", "-r", "1000", "-l", "30", "-u", url, *verb, *arguments]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, preexec_fn=patient, **silent)

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Drip:
    """Clients that send a byte every two seconds, of a head or of a body, or that ask for much and read
    nothing. Whoever is cut off comes back."""

    def __init__(self, server, count):
        self.port, self.count = server.port, count
        ready = multiprocessing.Event()
        self.process = multiprocessing.Process(target=self.run, args=(ready,), daemon=True)
        self.process.start()
        ready.wait()

    def connect(self, number):
        client = socket.socket()
        if number % 3 == 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", self.port))
        client.setblocking(False)
        begin = [
            b"GET / HTTP/1.1\r\nHost: t\r\nA: ",
            b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n",
            b"GET /body/1000000 HTTP/1.1\r\nHost: t\r\n\r\n",
        ]
        client.send(begin[number % 3])
        return client

    def run(self, ready):
        self.clients = [self.connect(number) for number in range(self.count)]
        ready.set()
        patient()
        while True:
            for number, client in enumerate(self.clients):
                if number % 25 == 0:
                    time.sleep(2 * 25 / self.count)
                try:
                    if number % 3 < 2:
                        client.send(b"x")
                except BlockingIOError:
                    pass
                except OSError:
                    client.close()
                    self.clients[number] = self.connect(number)

    def stop(self):
        self.process.kill()
        self.process.join()


main()
