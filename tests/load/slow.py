#!/usr/bin/env python3
"""Opens fourteen kinds of slow connection to a proxy with its defaults, and measures after how many seconds each is closed.

Takes about three minutes. Fails where a kind lives longer than it may.
"""

import socket
import threading
import time

from attack import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    RST_STREAM,
    WINDOW_UPDATE,
    Backend,
    Proxy,
    ask,
    end,
    frame,
    request,
    settings,
)
from harness import arguments

HEAD = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n"
GET = b"GET /%s HTTP/1.1\r\nHost: a.example\r\n\r\n"

# Kind: what is sent at once, then what is sent every so many seconds, and the most seconds that it may live.
KINDS = {
    "no bytes": (b"", None, 10),
    "part of the request line": (b"GET / HT", None, 10),
    "a byte of a head each 3 s": (b"GET / HTTP/1.1\r\nHost: a.example\r\nX: ", (b"x", 3), 10),
    "a head that stalls": (b"GET / HTTP/1.1\r\nHost: a.example\r\nX: x", None, 10),
    "a byte of a body each 3 s": (HEAD + b"x", (b"x", 3), 30),
    "a body that stalls": (HEAD + b"xyz", None, 10),
    "idle after an answer": (GET % b"", None, 75),
    "idle in HTTP/2": (PREFACE + settings(), None, 180),
    "part of a TLS handshake": ("tls", None, 10),
    "part of the preface of HTTP/2": (PREFACE[:10], None, 10),
    "part of a head in HTTP/2": (PREFACE + settings() + frame(HEADERS, END_STREAM, 1, request()), None, 10),
    "a response that nobody reads": (GET % b"large", None, 32),
    "a stream without a window": (
        PREFACE + settings(window=0) + frame(HEADERS, END_STREAM | END_HEADERS, 1, request()),
        None,
        30,
    ),
    "a window that opens by a byte each 3 s": (
        PREFACE + settings(window=0) + frame(HEADERS, END_STREAM | END_HEADERS, 1, request(path="/some")),
        (frame(WINDOW_UPDATE, 0, 1, (1).to_bytes(4, "big")), 3),
        30,
    ),
}
GRACE = 3


def lives(proxy, kind, results):
    first, then, limit = KINDS[kind]
    reads = kind != "a response that nobody reads"
    entry_point = "websecure" if first == "tls" else "web"
    stream = proxy.connect(entry_point, receive_buffer=None if reads else 4096)
    begun = time.time()
    stream.sendall(b"\x16\x03\x01" if first == "tls" else first)
    stream.settimeout(0.1)
    sent = begun
    while time.time() - begun < limit + 30:
        try:
            if not reads:
                time.sleep(0.1)
                # The error of a socket that was reset is all that a client sees which does not read.
                if stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    break
            else:
                answer = stream.recv(65536)
                # The connection goes on without the stream.
                if not answer or kind == "a stream without a window" and frame(RST_STREAM, 0, 1)[3:] in answer:
                    break
        except TimeoutError:
            pass
        except OSError:
            break
        if then and time.time() - sent >= then[1]:
            sent = time.time()
            try:
                stream.sendall(then[0])
            except OSError:
                break
    results[kind] = round(time.time() - begun, 1)
    stream.close()


def steady(proxy, results):
    """Somebody who is slow with a reason: the server thinks for 45 s."""
    stream = proxy.connect()
    stream.settimeout(60)
    results["a server that takes 45 s"] = ask(proxy, "/?wait=45", stream)
    stream.close()


def main():
    options = arguments(__doc__)
    results, failures = {}, []
    with Proxy(options, Backend()) as proxy:
        threads = [threading.Thread(target=lives, args=(proxy, kind, results)) for kind in KINDS]
        threads.append(threading.Thread(target=steady, args=(proxy, results)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for kind, (_, _, limit) in KINDS.items():
            if results[kind] > limit + GRACE:
                failures.append(f"{kind}: {results[kind]} s, at most {limit} s")
        if results["a server that takes 45 s"] != 200:
            failures.append("a client whose server is slow was let go")
    end(results, failures)


if __name__ == "__main__":
    main()
