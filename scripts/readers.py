#!/usr/bin/env python3
"""What readers of a large file cost: memory of the kernel and of the worker for those that hardly
read, and the rate and the CPU time for one that reads as fast as it can.

    scripts/readers.py [--server PATH] [--readers N] [--mebibytes N]

Builds the server unless it is told where one is. The file lies in memory, so it needs that much.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TICKS = os.sysconf("SC_CLK_TCK")
HEAD = b"GET /large HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", help="the uring-pool binary")
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    binary = arguments.server
    if not binary:
        subprocess.run(["cargo", "build", "--quiet", "--locked", "--release"], cwd=ROOT, check=True)
        binary = os.path.join(ROOT, "target/release/uring-pool")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        with open(os.path.join(directory, "large"), "wb") as file:
            for _ in range(arguments.mebibytes):
                file.write(os.urandom(4096) * 256)
        server = Server(binary, directory)
        try:
            fast(server, arguments)
            slow(server, arguments)
        finally:
            server.stop()


def fast(server, arguments):
    rates, costs = [], []
    for _ in range(arguments.rounds):
        begin, before = time.monotonic(), server.ticks()
        client = connect(server)
        client.sendall(HEAD)
        count, buffer = 0, bytearray(1 << 20)
        while received := client.recv_into(buffer):
            count += received
        assert count > arguments.mebibytes << 20, count
        rates.append(arguments.mebibytes / (time.monotonic() - begin))
        costs.append(arguments.mebibytes / max((server.ticks() - before) / TICKS, 1 / TICKS))
    rates.sort()
    costs.sort()
    middle = len(rates) // 2
    print(f"one fast reader: {rates[middle]:.0f} MiB/s, {costs[middle]:.0f} MiB a CPU-second of the server")


def slow(server, arguments):
    before = server.rss()
    clients = []
    for _ in range(arguments.readers):
        client = connect(server, 4096)
        client.sendall(HEAD)
        clients.append(client)
    most = {"queued": 0, "rss": 0, "held": 0}
    for _ in range(10):
        time.sleep(0.5)
        for client in clients:
            client.recv(1024)
        most["queued"] = max(most["queued"], queued(server.port))
        most["rss"] = max(most["rss"], server.rss() - before)
        most["held"] = max(most["held"], server.held())
    for client in clients:
        client.close()
    each = most["queued"] / arguments.readers
    print(
        f"{arguments.readers} slow readers: {most['queued'] / 1024:.0f} KiB in the kernel's send buffers"
        f" ({each / 1024:.0f} KiB each), worker's RSS +{most['rss'] / 1024:.0f} KiB,"
        f" memory_held {most['held'] / 1024:.0f} KiB"
    )


def connect(server, buffer=None):
    client = socket.socket()
    if buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.connect(("127.0.0.1", server.port))
    return client


def queued(port):
    """Bytes of memory that the kernel has for what the server's sockets are to send."""
    said = subprocess.run(["ss", "-tmnH", f"sport = :{port}"], capture_output=True, text=True, check=True)
    return sum(int(number) for number in re.findall(r"skmem:\(.*?,w(\d+),", said.stdout))


class Server:
    def __init__(self, binary, directory):
        command = [binary, "serve", "--listen", "127.0.0.1:0", "--workers", "1", "--root", directory, "--demo"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.port = int(re.search(r"127\.0\.0\.1:(\d+)", self.process.stdout.readline()).group(1))
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        self.worker = open(children).read().split()[0]

    def ticks(self):
        fields = open(f"/proc/{self.worker}/stat").read().rsplit(") ", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    def rss(self):
        """Without the pages of files."""
        text = open(f"/proc/{self.worker}/status").read()
        return int(re.search(r"RssAnon:\s+(\d+)", text).group(1)) * 1024

    def held(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=20) as answer:
            return json.load(answer)["memory_held"]

    def stop(self):
        self.process.kill()
        self.process.wait()


main()
