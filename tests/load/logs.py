#!/usr/bin/env python3
"""Sends thousands of hostile requests, and reads the access log in each format: every line must have all its fields.

No secret of a client may be in any log, with the log at its most talkative.
"""

import base64
import json
import random
import re
import time

from attack import Backend, Proxy, ask, end
from harness import arguments

SECRET = "canary-7f3a9c"
BASIC = base64.b64encode(f"user:{SECRET}".encode()).decode()

COMMON = re.compile(
    r"^(?P<host>[^ ]+) - (?P<user>[^ ]+) \[(?P<time>\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "
    r'"(?P<method>[^ "]+) (?P<target>(?:[^"\\]|\\.)*) (?P<protocol>HTTP/\d\.\d)" (?P<status>\d{3}) (?P<size>\d+) '
    r'"(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)" (?P<count>\d+) "(?P<router>(?:[^"\\]|\\.)*)" '
    r'"(?P<server>(?:[^"\\]|\\.)*)" (?P<duration>\d+)ms$'
)

NASTY = [
    b'"',
    b"\\",
    b'\\"',
    b'" 200 5 "-" "-" 1 "a@file" "http://x" 1ms',
    b'", "DownstreamStatus": 999, "x": "',
    b"\x1b[31mred\x1b[0m",
    b"\t",
    b"\xff\xfe",
    b"\xe2\x80\xa8",
    b"\xe2\x80\xae",
    b"\xc2\x85",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x92\xa9",
    b"%0d%0a",
    b"\\x0a",
    b"${jndi:ldap://x}",
    b"{{.}}",
    b"",
    b"x" * 8000,
]


def hostile(rng):
    """A request that some parser stumbles over; well-formed enough to be answered, mostly."""
    nasty = lambda: rng.choice(NASTY)
    target = b"/" + rng.choice([b"a", b"%22", b"'", b"?q=%5c%22", b"?a=b;c", b"%e2%80%a8", b"x" * 4000, b"[]{}|^`"])
    method = rng.choice([b"GET", b"POST", b"G'ET", b"M-SEARCH", b"GET", b"DELETE"])
    lines = [b"Host: " + rng.choice([b"a.example", b"a.example", b"b.example", b"a.example:80", b"[::1]", b"a_b.example"])]
    lines += [
        b"User-Agent: " + nasty(),
        b"Referer: " + nasty(),
        b"X-Forwarded-For: " + nasty(),
        b"Cookie: session=" + SECRET.encode(),
        rng.choice([b"Authorization: Bearer " + SECRET.encode(), b"Authorization: Basic " + BASIC.encode()]),
        b"Proxy-Authorization: Basic " + BASIC.encode(),
        b"X-Api-Key: " + SECRET.encode(),
    ]
    if rng.random() < 0.2:
        rng.shuffle(lines)
    if rng.random() < 0.1:
        user = base64.b64encode(nasty() + b":" + SECRET.encode())
        lines = [line for line in lines if not line.startswith(b"Authorization")] + [b"Authorization: Basic " + user]
    if method == b"POST":
        lines.append(b"Content-Length: 0")
    return method + b" " + target + b" HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n"


def send(proxy, count):
    """How many requests were answered, and how many of these were no requests at all: they have no line, as in Traefik."""
    rng = random.Random(7)
    answered = unparsed = 0
    stream = None
    for _ in range(count):
        stream = stream or proxy.connect()
        try:
            stream.sendall(hostile(rng))
            answer = b""
            while b"\r\n\r\n" not in answer:
                piece = stream.recv(65536)
                if not piece:
                    break
                answer += piece
            if not answer:
                raise OSError
            answered += 1
            head, body = answer.split(b"\r\n\r\n", 1)
            length = re.search(rb"(?i)content-length: (\d+)", head)
            left = int(length.group(1)) - len(body) if length else 0
            unparsed += bool(head.startswith(b"HTTP/1.1 400 ") and length and length.group(1) == b"0")
            while left > 0:
                piece = stream.recv(left)
                if not piece:
                    raise OSError
                left -= len(piece)
            if b"connection: close" in head.lower():
                raise OSError
        except OSError:
            stream.close()
            stream = None
    return answered, unparsed


def lines_of(proxy, count):
    path = proxy.folder / "access.log"
    deadline = time.time() + 10
    while time.time() < deadline:
        text = path.read_bytes() if path.exists() else b""
        if text.count(b"\n") >= count:
            break
        time.sleep(0.1)
    return text.split(b"\n")[:-1]


def broken_json(lines):
    broken = []
    for line in lines:
        try:
            entry = json.loads(line.decode())
            good = 100 <= entry["DownstreamStatus"] < 600 and entry["RequestMethod"] and entry["time"]
        except (ValueError, KeyError, TypeError):
            good = False
        if not good or re.search(rb"[\x00-\x1f]", line):
            broken.append(line)
    return broken


def broken_common(lines):
    broken = []
    for line in lines:
        try:
            text = line.decode()
        except UnicodeDecodeError:
            broken.append(line)
            continue
        if not COMMON.match(text) or any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text):
            broken.append(line)
    return broken


def main():
    options = arguments(__doc__, requests=10_000)
    failures, results = [], {}
    # What an operator keeps is kept: these are dropped or made unreadable by name.
    secret = "Cookie: drop, Authorization: redact, Proxy-Authorization: drop, X-Api-Key: drop"
    headers = f"fields: {{headers: {{defaultMode: keep, names: {{{secret}}}}}}}"
    for name, shape, broken_lines in [
        ("json", f"format: json, {headers}", broken_json),
        ("common", "fields: {headers: {names: {User-Agent: keep, Referer: keep}}}", broken_common),
    ]:
        install = f"log: {{level: TRACE}}\naccessLog: {{filePath: access.log, {shape}}}\n"
        with Proxy(options, Backend(), install) as proxy:
            answered, unparsed = send(proxy, options.requests)
            lines = lines_of(proxy, answered - unparsed)
            broken = broken_lines(lines)
            log = proxy.printed()
            in_log = [line for line in log.splitlines() if SECRET in line or BASIC in line]
            in_access_log = [line for line in lines if SECRET.encode() in line or BASIC.encode() in line]
            results[name] = {
                "answered": answered,
                "unparsed": unparsed,
                "lines": len(lines),
                "broken": len(broken),
                "secrets": len(in_log) + len(in_access_log),
                "log_lines": len(log.splitlines()),
                "status_afterwards": ask(proxy),
            }
            if broken:
                failures.append(f"{name}: {broken[0][:500]}")
            if len(lines) < answered - unparsed:
                failures.append(f"{name}: {answered} answers, {unparsed} of them to no request, {len(lines)} lines")
            if in_log or in_access_log:
                failures.append(f"{name}: {(in_log or in_access_log)[0][:500]}")
    end(results, failures)


if __name__ == "__main__":
    main()
