#!/usr/bin/env python3
"""Asks nginx and Node's llhttp what they make of thousands of broken requests, and compares.

Nothing that one of them refuses may be accepted here, and nothing may be understood as another
number of requests or another body, unless a rule below says why that is right. Ends with 1 at any
difference that no rule explains. Loopback only; takes about a minute.

    cargo build --release && scripts/differential.py [--list]
"""

import argparse
import collections
import concurrent.futures
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

GET = b"GET /inspect HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n"
LENGTH = b"POST /inspect HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /inspect HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;a=b\r\nhello\r\n0\r\nT: u\r\n\r\n"
)
BYTES = [b"\0", b"\t", b"\n", b"\r", b"\r\n", b" ", b'"', b",", b":", b";", b"\x0b", b"\x7f", b"\x80", b"0", b"x"]

FIELDS = [
    b"Content-Length: 5\r\nContent-Length: 5", b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: 5, 5", b"Content-Length: +5", b"Content-Length: -5", b"Content-Length: 0x5",
    b"Content-Length: 5 5", b"Content-Length: 5_0", b"Content-Length:", b"Content-Length: ",
    b"Content-Length : 5", b"Content-Length\t: 5", b" Content-Length: 5", b"Content-Length: 5\x0b",
    b"Content-Length: 18446744073709551621", b"Content-Length: 00005", b"Content-Length:\t5",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, gzip",
    b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunkedx",
    b"Transfer-Encoding: CHUNKED", b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: \"chunked\"",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"Transfer-Encoding:", b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked;a=b", b"Transfer-Encoding\r\n: chunked", b"Transfer-Encoding: chunked\r\n foo",
    b"Transfer-Encoding : chunked", b"Transfer_Encoding: chunked", b"X: y\r\n Transfer-Encoding: chunked",
    b"Connection: close, x", b"Connection: keep-alive, close", b"Expect: 100-continue", b"Expect: x",
    b"Upgrade: websocket\r\nConnection: upgrade", b"Host: h", b"Host: i", b"A:", b":", b"A", b"A B: c", b"(: b",
    b"A: \xff", b"A: b\0", b"A: b\rc", b"A: b\nc: d",
]
LINES = [
    b"GET  /inspect HTTP/1.1", b"GET /inspect  HTTP/1.1", b"GET\t/inspect HTTP/1.1", b" GET /inspect HTTP/1.1",
    b"GET /inspect HTTP/1.1 ", b"GET /inspect", b"GET /inspect HTTP/1.0", b"GET /inspect HTTP/0.9",
    b"GET /inspect HTTP/1.2", b"GET /inspect HTTP/2.0", b"GET /inspect HTTP/1.10", b"GET /inspect http/1.1",
    b"GET /inspect HTTP/1,1", b"GET /inspect HTTPS/1.1", b"GET inspect HTTP/1.1", b"GET * HTTP/1.1",
    b"OPTIONS * HTTP/1.1", b"GET http://h/inspect HTTP/1.1", b"GET http://other/inspect HTTP/1.1",
    b"GET http:/inspect HTTP/1.1", b"GET h:80 HTTP/1.1", b"CONNECT h:80 HTTP/1.1", b"CONNECT /inspect HTTP/1.1",
    b"TRACE /inspect HTTP/1.1", b"get /inspect HTTP/1.1", b"G(T /inspect HTTP/1.1", b"GET /inspect#a HTTP/1.1",
    b"GET /inspect?a#b HTTP/1.1", b"GET /\xc3\xa9 HTTP/1.1", b"GET /%00 HTTP/1.1", b"GET /../inspect HTTP/1.1",
    b"GET \\inspect HTTP/1.1", b"GET /inspect\x00 HTTP/1.1", b"PRI * HTTP/2.0",
]
HOSTS = [
    b"", b"h", b"h:80", b"h:", b"h:65536", b"h:-1", b"h:a", b"h:80:80", b":80", b"[::1]", b"[::1]:80", b"[::1", b"::1",
    b"[h]", b"h, i", b"h i", b"h/i", b"http://h", b"u@h", b"h?i", b"h#i", b"h\\i", b"h\"", b"h%20", b"h%", b"\xc3\xa9",
    b"h..", b"..", b".", b"h_i", b"h;i", b"h'i",
]
BODIES = [
    b"5\r\nhello\r\n0\r\n\r\n", b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n",
    b"05\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n",
    b" 5\r\nhello\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b"5\t\r\nhello\r\n0\r\n\r\n", b"5 ;a\r\nhello\r\n0\r\n\r\n",
    b"5;\r\nhello\r\n0\r\n\r\n", b"5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n", b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    b"5;\xff\r\nhello\r\n0\r\n\r\n", b"5;a=b c\r\nhello\r\n0\r\n\r\n", b"5,a\r\nhello\r\n0\r\n\r\n", b"\r\nhello\r\n0\r\n\r\n",
    b"10000000000000005\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffff\r\nhello", b"5\r\nhello\r\n0\r\nA: b\r\n\r\n",
    b"5\r\nhello\r\n0\r\nA : b\r\n\r\n", b"5\r\nhello\r\n0\r\nA\r\n\r\n", b"5\r\nhello\r\n0\r\n b\r\n\r\n",
    b"5\r\nhello\r\n0\r\nA: b\nC: d\r\n\r\n", b"5\r\nhello\r\n0\r\n\n", b"5\r\nhello\r\n0\n\r\n", b"5\rhello\r\n0\r\n\r\n",
    b"5\r\nhello\r0\r\n\r\n", b"5\r\nhello!\r\n0\r\n\r\n", b"0\r\nContent-Length: 3\r\n\r\n", b"0\r\nHost: i\r\n\r\n",
    b"00000000000000005\r\nhello\r\n0\r\n\r\n", b"5_0\r\nhello\r\n0\r\n\r\n", b"g\r\nhello\r\n0\r\n\r\n",
]


def cases():
    yield from (GET, LENGTH, CHUNKED)
    for base in (GET, LENGTH, CHUNKED):
        for at in range(len(base) + 1):
            for byte in BYTES:
                yield base[:at] + byte + base[at:]
                yield base[:at] + byte + base[at + 1 :]
            yield base[:at] + base[at + 1 :]
    for field in FIELDS:
        for body in (b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n"):
            yield b"POST /inspect HTTP/1.1\r\nHost: h\r\n" + field + b"\r\n\r\n" + body
    for line in LINES:
        yield line + b"\r\nHost: h\r\n\r\n"
        yield line + b"\r\n\r\n"
    for host in HOSTS:
        yield b"GET /inspect HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
        yield b"GET http://" + host + b"/inspect HTTP/1.1\r\nHost: h\r\n\r\n"
    for body in BODIES:
        yield b"POST /inspect HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + body


# Why it is right to accept what an oracle refuses: (name, who refuses, what the request looks like, why).
METHOD = rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
RULES = [
    ("extension method", "any", rb"\A(\r\n)*(?!(GET|POST|OPTIONS) )" + METHOD + rb" ",
     "RFC 9110 section 9.1: any token is a method. llhttp has a list, nginx wants capitals; nothing about the "
     "framing depends on it, and the handler says 404 or 405."),
    ("empty line first", "any", rb"\A(\r\n)+(GET|POST) ",
     "RFC 9112 section 2.2: empty lines before a request line are to be ignored."),
    ("empty Host", "any", rb"\r\nHost:[ \t]*\r\n",
     "RFC 9110 section 7.2: Host is empty when the target has no authority; handlers get an empty text."),
    ("a tab as whitespace", "any", rb"\r\n(Host|Content-Length|Transfer-Encoding):[ \t]*\t|\r\n(Host|Content-Length|Transfer-Encoding):[^\r\n]*\t\r\n",
     "RFC 9110 section 5.6.3: whitespace around a value is spaces and tabs."),
    ("asterisk form", "nginx", rb"\AOPTIONS \* ",
     "RFC 9112 section 3.2.4."),
    ("target out of the root", "nginx", rb"\A[A-Z]+ (http://[^/]*)?/\.\.|%00",
     "What a path means is for the handler: here it is never normalised, and `Files` refuses these."),
    ("host as a name", "nginx", rb"(Host:[ \t]*|http://)[^\r\n/]*[^A-Za-z0-9.:\r\n/ \t-]|Host:[ \t]*[^\r\n]*\.\.|Host: \.|http://\.|http://[^/]*\.\./",
     "RFC 3986 section 3.2.2: a registered name may have sub-delims and percent-encoded bytes; nginx checks "
     "for a name of the DNS. Ports, brackets, userinfo and control bytes are refused here as well."),
    ("odd names of fields", "llhttp", rb"\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]*[^A-Za-z0-9\r\n:-][^\r\n:]*:",
     "RFC 9110 section 5.6.2: these are tokens."),
    ("bytes above 0x7f in a value", "any", rb"\r\n[A-Za-z-]+:[^\r\n]*[\x80-\xff]",
     "RFC 9110 section 5.5: obs-text, opaque."),
    ("whitespace in a chunk's extension", "llhttp", rb"\r\n\r\n5[ \t]*;[ \t]*[a-z]*[ \t]*(=[ \t]*[^ \t\r\n]*[ \t]*)?(;|\r\n)",
     "RFC 9112 section 7.1.1: BWS, which a recipient must parse and remove."),
    ("leading zeros of a chunk's size", "any", rb"\r\n\r\n0[0-9a-fA-F]",
     "RFC 9112 section 7.1: 1*HEXDIG, counted within 16 digits."),
    ("trailers", "any", rb"\r\n0+[^\r\n]*\r\n[^\r\n]+:",
     "RFC 9110 section 6.5: kept apart from the head, whatever their names."),
]

PIPELINED = ("another message behind", None, None,
    "RFC 9112 section 9.3.2: the first message is whole, is accepted by the oracle as well when it comes alone, and "
    "is answered here before what follows is refused (or waited for, and cut off). The oracle looks at both first.")

REFUSALS = {400, 405, 408, 411, 413, 414, 417, 421, 431, 494, 501, 505}


class Server:
    def __init__(self, name, command, port, directory):
        self.name, self.port = name, port
        self.log = open(os.path.join(directory, name + ".log"), "w+")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        give_up = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if time.monotonic() > give_up or self.process.poll() is not None:
                    self.log.seek(0)
                    sys.exit(f"{name} does not start:\n{self.log.read()}")
                time.sleep(0.02)

    def ask(self, request):
        """Sends it, ends the sending side, and returns the responses: status and body each."""
        heard = b""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 10) as client:
                client.sendall(request)
                client.shutdown(socket.SHUT_WR)
                while piece := client.recv(65536):
                    heard += piece
        except (ConnectionResetError, BrokenPipeError, OSError):
            pass
        return responses(heard)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


def responses(heard):
    found = []
    while heard.startswith(b"HTTP/1."):
        head, _, rest = heard.partition(b"\r\n\r\n")
        status = int(head[9:12])
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
        if re.search(rb"\r\ntransfer-encoding: *chunked", head, re.I):
            body, _, heard = rest.partition(b"\r\n0\r\n\r\n")
            body = body.partition(b"\r\n")[2]
        else:
            count = 0 if status in (204, 304) or status < 200 else int(length[1]) if length else len(rest)
            body, heard = rest[:count], rest[count:]
        if status >= 200:
            found.append((status, body))
    return found


def is_accepted(found):
    return bool(found) and found[0][0] not in REFUSALS


def understood(found):
    """Path and body of each request that was answered with what was understood."""
    said = []
    for status, body in found:
        try:
            said.append(json.loads(body)) if status == 200 else None
        except ValueError:
            pass
    return [(it.get("method"), it.get("body")) for it in said if isinstance(it, dict)]


def first_message(ours, request, mine):
    """The shortest begin of `request` that is answered as its first message is."""
    for end in range(request.find(b"\r\n\r\n") + 4, len(request)):
        if ours.ask(request[:end]) == mine[:1]:
            return request[:end]
    return request


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


NGINX = """
daemon off; master_process off; worker_processes 1; error_log stderr crit; pid {directory}/nginx.pid;
events {{ worker_connections 1000; }}
http {{
    access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
    server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; proxy_ignore_client_abort on; }} }}
}}
"""

NODE = """
const http = require('http');
http.createServer({ requireHostHeader: true }, (request, response) => {
  const pieces = [];
  request.on('data', piece => pieces.push(piece));
  request.on('end', () => {
    const body = Buffer.concat(pieces).toString();
    const said = JSON.stringify({ method: request.method, path: request.url, body });
    response.writeHead(200, { 'Content-Length': Buffer.byteLength(said) });
    response.end(said);
  });
}).listen(+process.argv[1], '127.0.0.1');
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--list", action="store_true", help="every difference, not only how many")
    arguments = parser.parse_args()
    binary = os.environ.get("URING_POOL", os.path.join(ROOT, "target/release/uring-pool"))
    for program, how in [("nginx", "apt-get install nginx-light"), ("node", "apt-get install nodejs")]:
        if not shutil.which(program):
            sys.exit(f"differential.py: {program} is missing (Debian: {how})")
    if not os.path.exists(binary):
        sys.exit(f"differential.py: no {binary} (cargo build --release)")
    with tempfile.TemporaryDirectory() as directory:
        ports = [free_port() for _ in range(3)]
        with open(os.path.join(directory, "nginx.conf"), "w") as file:
            file.write(NGINX.format(directory=directory, port=ports[2], upstream=ports[1]))
        servers = [
            Server("ours", [binary, "serve", "--listen", f"127.0.0.1:{ports[0]}", "--workers", "1"], ports[0], directory),
            Server("llhttp", ["node", "-e", NODE, str(ports[1])], ports[1], directory),
            Server("nginx", ["nginx", "-p", directory, "-e", "stderr", "-c", f"{directory}/nginx.conf"], ports[2], directory),
        ]
        try:
            return compare(servers, list(dict.fromkeys(cases())), arguments.list)
        finally:
            for server in servers:
                server.stop()


def compare(servers, requests, is_listed):
    ours, *oracles = servers
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        heard = {server.name: list(pool.map(server.ask, requests)) for server in servers}
    explained, unexplained, stricter = collections.defaultdict(list), [], collections.Counter()
    for at, request in enumerate(requests):
        mine = heard[ours.name][at]
        for oracle in oracles:
            theirs = heard[oracle.name][at]
            if is_accepted(theirs) and not is_accepted(mine):
                stricter[oracle.name] += 1
            if is_accepted(mine) and not is_accepted(theirs):
                fits = lambda rule: rule[1] in ("any", oracle.name) and re.search(rule[2], request)
                first = first_message(ours, request, mine)
                if first != request and is_accepted(oracle.ask(first)):
                    rule = PIPELINED
                else:
                    rule = next(filter(fits, RULES), None)
                found = (oracle.name, request, mine, theirs)
                explained[rule].append(found) if rule else unexplained.append(("accepted", *found))
            elif is_accepted(mine) and oracle.name == "llhttp":
                a, b = understood(mine), understood(theirs)
                if a and b and a[0] != b[0]:
                    unexplained.append(("understood otherwise", oracle.name, request, a, b))
    print(f"{len(requests)} requests; ours accepted {sum(map(is_accepted, heard[ours.name]))}")
    for oracle in oracles:
        accepted = sum(map(is_accepted, heard[oracle.name]))
        print(f"{oracle.name} accepted {accepted}, of which ours refused {stricter[oracle.name]}")
    for rule, found in explained.items():
        name, _, _, why = rule
        by = collections.Counter(oracle for oracle, *_ in found)
        who = ", ".join(f"{count} by {oracle}" for oracle, count in by.items())
        print(f"\naccepted here, refused elsewhere: {name} ({who})\n    {why}")
        for oracle, request, _, theirs in found if is_listed else found[:2]:
            print(f"    {oracle} {[status for status, _ in theirs]}: {request!r}")
    for kind, oracle, request, mine, theirs in unexplained:
        print(f"\nNO RULE: {kind}, {oracle}: {request!r}\n    ours {mine}\n    {oracle} {theirs}")
    print(f"\n{len(unexplained)} differences without a rule")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
