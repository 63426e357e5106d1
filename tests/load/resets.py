#!/usr/bin/env python3
"""Resets thousands of connections and streams at each phase of a request: nothing may be left of them.

What is left is counted in file descriptors of the proxy, in connections at the server, and in memory.
"""

import socket
import struct
import time

from attack import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    RST_STREAM,
    Backend,
    Proxy,
    ask,
    end,
    frame,
    request,
    settings,
)
from harness import arguments

MEMORY = 16 * 1024
GET = b"GET /%s HTTP/1.1\r\nHost: a.example\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100\r\n\r\nabc"

# What is sent, and whether some of the answer is waited for.
PHASES = {
    "before a head": (b"", False),
    "in a head": (GET[:20], False),
    "in a body": (POST, False),
    "while the server thinks": (GET % b"?wait=30", False),
    "in a response": (GET % b"large", True),
}


def reset(stream):
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


def one(proxy, sent, waits):
    stream = proxy.connect()
    stream.sendall(sent)
    if waits:
        stream.recv(1000)
    return stream


def streams(proxy, count):
    """Resets of streams whose server thinks; a connection has 50 of them."""
    head = request(path="/?wait=30")
    for _ in range(count // 50):
        stream = proxy.connect()
        numbers = range(1, 100, 2)
        stream.sendall(
            PREFACE
            + settings()
            + b"".join(frame(HEADERS, END_STREAM | END_HEADERS, number, head) for number in numbers)
        )
        time.sleep(0.01)
        stream.sendall(b"".join(frame(RST_STREAM, 0, number, (8).to_bytes(4, "big")) for number in numbers))
        time.sleep(0.005)
        stream.close()


def settle(proxy, backend, base, memory):
    """What is left after a while: descriptors, connections at the server, KiB. The allocator gives back late."""
    deadline = time.time() + 20
    while True:
        left = (proxy.descriptors() - base, backend.open, proxy.rss() - memory)
        # Idle connections to the server are there to be used again.
        if left[0] <= left[1] + 2 and left[2] <= MEMORY or time.time() > deadline:
            return left
        time.sleep(0.1)
        ask(proxy)


def main():
    options = arguments(__doc__, resets=10_000)
    backend = Backend()
    failures, results = [], {}
    with Proxy(options, backend) as proxy:
        ask(proxy)
        base = proxy.descriptors() - backend.open
        for phase in [*PHASES, "in a stream"]:
            before, begun = proxy.rss(), time.time()
            if phase == "in a stream":
                streams(proxy, options.resets)
            else:
                for _ in range(options.resets // 50):
                    batch = [one(proxy, *PHASES[phase]) for _ in range(50)]
                    time.sleep(0.002)
                    for stream in batch:
                        reset(stream)
            seconds = time.time() - begun
            descriptors, connections, kib = settle(proxy, backend, base, before)
            status = ask(proxy)
            results[phase] = {
                "seconds": round(seconds, 1),
                "descriptors_left": descriptors,
                "connections_at_the_server": connections,
                "kib_more": kib,
                "status_afterwards": status,
            }
            if descriptors > connections + 2:
                failures.append(f"{phase}: {descriptors} descriptors are left")
            if status != 200:
                failures.append(f"{phase}: answered {status} afterwards")
            if kib > MEMORY:
                failures.append(f"{phase}: {kib} KiB are left")
    end(results, failures)


if __name__ == "__main__":
    main()
