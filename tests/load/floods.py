#!/usr/bin/env python3
"""Floods a proxy over HTTP/2 in each known way, on a few connections each, and measures what that costs it.

Each connection may cost 512 KiB of memory and 0.05 s of processor time at most, and somebody else's request must be
answered afterwards. Frames are written by hand; prior knowledge, in clear text.
"""

import time

from attack import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    WINDOW_UPDATE,
    Backend,
    Proxy,
    ask,
    end,
    field,
    frame,
    request,
    settings,
)
from harness import arguments

CONNECTIONS = 16
MEMORY = 512
# Those that hold streams open, each for 30 s at most.
HOLDING = ["few_crumbs", "zero_window"]
SECONDS = 0.05
CANCEL = (8).to_bytes(4, "big")


def stream_ids():
    return range(1, 1 << 20, 2)


def rapid_reset():
    head = request()
    for number in list(stream_ids())[:10_000]:
        yield frame(HEADERS, END_STREAM | END_HEADERS, number, head) + frame(RST_STREAM, 0, number, CANCEL)


def rapid_reset_apart():
    """With time for the request to begin in between."""
    head = request()
    numbers = list(stream_ids())
    for batch in range(100):
        mine = numbers[batch * 50 : batch * 50 + 50]
        yield b"".join(frame(HEADERS, END_STREAM | END_HEADERS, number, head) for number in mine)
        time.sleep(0.005)
        yield b"".join(frame(RST_STREAM, 0, number, CANCEL) for number in mine)


def made_you_reset():
    """A window that grows by nothing is an error of its stream, which we must reset."""
    head = request()
    for number in list(stream_ids())[:10_000]:
        yield frame(HEADERS, END_STREAM | END_HEADERS, number, head) + frame(WINDOW_UPDATE, 0, number, bytes(4))


def made_you_reset_by_data():
    head = request("POST") + field("content-length", "1")
    for number in list(stream_ids())[:10_000]:
        yield frame(HEADERS, END_HEADERS, number, head) + frame(DATA, 0, number, b"too much")


def continuation():
    yield frame(HEADERS, 0, 1, request())
    for _ in range(20_000):
        yield frame(CONTINUATION, 0, 1, field("x-a", "b"))


def empty_continuation():
    yield frame(HEADERS, 0, 1, request())
    for _ in range(100_000):
        yield frame(CONTINUATION, 0, 1)


def hpack_bomb():
    """A field of 4 KiB, and then a byte for each copy of it."""
    yield frame(HEADERS, END_STREAM | END_HEADERS, 1, request() + field("x", "y" * 4000, first=0x40))
    for number in list(stream_ids())[1:100]:
        yield frame(HEADERS, END_STREAM | END_HEADERS, number, request() + b"\xbe" * 16_000)


def tiny_fields():
    """A byte for each copy of a field of a byte, in many streams that are never read."""
    yield frame(HEADERS, END_STREAM | END_HEADERS, 1, request() + field("a", "", first=0x40))
    for number in list(stream_ids())[1:100]:
        yield frame(HEADERS, END_STREAM | END_HEADERS, number, request() + b"\xbe" * 16_000)


def cookie_crumbs():
    yield frame(HEADERS, END_STREAM | END_HEADERS, 1, request() + field("cookie", "a=b", first=0x40))
    for number in list(stream_ids())[1:100]:
        yield frame(HEADERS, END_STREAM | END_HEADERS, number, request() + b"\xbe" * 4_000)


def few_crumbs():
    """As many as browsers send, in as many streams as there may be, and none is read."""
    yield settings(window=0)
    yield frame(HEADERS, END_STREAM | END_HEADERS, 1, request() + field("cookie", "a=b", first=0x40))
    for number in list(stream_ids())[1:250]:
        yield frame(HEADERS, END_STREAM | END_HEADERS, number, request() + b"\xbe" * 90)


def empty_data():
    yield frame(HEADERS, END_HEADERS, 1, request("POST"))
    for _ in range(100_000):
        yield frame(DATA, 0, 1)


def padded_data():
    yield frame(HEADERS, END_HEADERS, 1, request("POST"))
    for _ in range(50_000):
        yield frame(DATA, 8, 1, b"\x01\x00")


def small_data():
    yield frame(HEADERS, END_HEADERS, 1, request("POST"))
    for _ in range(50_000):
        yield frame(DATA, 0, 1, b"x")


def settings_flood():
    for count in range(50_000):
        yield settings(window=65_535 + count % 2)


def settings_of_many_streams():
    """Each change of the window changes that of every stream."""
    yield settings(window=0)
    for number in list(stream_ids())[:200]:
        yield frame(HEADERS, END_STREAM | END_HEADERS, number, request())
    for count in range(10_000):
        yield settings(window=count % 2)


def ping():
    for _ in range(100_000):
        yield frame(PING, 0, 0, bytes(8))


def unasked_pong():
    for _ in range(100_000):
        yield frame(PING, ACK, 0, bytes(8))


def priority():
    for number in range(100_000):
        yield frame(PRIORITY, 0, 1 + 2 * (number % 1000), bytes(4) + b"\x10")


def window_update():
    yield frame(HEADERS, END_HEADERS, 1, request("POST"))
    for _ in range(100_000):
        yield frame(WINDOW_UPDATE, 0, 0, (1).to_bytes(4, "big"))


def unknown():
    for _ in range(100_000):
        yield frame(0xFA, 0, 0, b"")


def zero_window():
    """Responses that are never read."""
    yield settings(window=0)
    for number in list(stream_ids())[:250]:
        yield frame(HEADERS, END_STREAM | END_HEADERS, number, request(path="/large"))


def refused_streams():
    """More than there may be at a time."""
    for number in list(stream_ids())[:10_000]:
        yield frame(HEADERS, END_HEADERS, number, request("POST"))


FLOODS = [
    rapid_reset,
    rapid_reset_apart,
    made_you_reset,
    made_you_reset_by_data,
    continuation,
    empty_continuation,
    hpack_bomb,
    tiny_fields,
    cookie_crumbs,
    few_crumbs,
    empty_data,
    padded_data,
    small_data,
    settings_flood,
    settings_of_many_streams,
    ping,
    unasked_pong,
    priority,
    window_update,
    unknown,
    zero_window,
    refused_streams,
]


def drain(stream):
    """Whether the connection goes on; what it says is thrown away."""
    stream.settimeout(0)
    try:
        while True:
            if not stream.recv(1 << 16):
                return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def run(proxy, flood):
    """How many bytes were sent on a connection, and whether it was ended."""
    stream = proxy.connect()
    stream.sendall(PREFACE + settings())
    sent, pending = 0, b""
    is_open = True
    for piece in flood():
        pending += piece
        # Two pieces that are apart on purpose are not put together.
        if len(pending) < 8192 and flood is not rapid_reset_apart:
            continue
        is_open, count = push(stream, pending)
        sent, pending = sent + count, b""
        if not is_open:
            break
    if is_open:
        is_open, count = push(stream, pending)
        sent += count
    time.sleep(0.2)
    return stream, sent, not (is_open and drain(stream))


def push(stream, pending):
    sent = 0
    deadline = time.time() + 5
    while pending:
        if not drain(stream):
            return False, sent
        try:
            count = stream.send(pending)
        except BlockingIOError:
            if time.time() > deadline:
                return False, sent
            time.sleep(0.001)
            continue
        except OSError:
            return False, sent
        sent, pending = sent + count, pending[count:]
    return True, sent


def main():
    options = arguments(__doc__, kind="")
    results, failures = {}, []
    wanted = [flood for flood in FLOODS if options.kind in ("", flood.__name__)]
    with Proxy(options, Backend()) as proxy:
        for _ in range(200):
            ask(proxy)
        for flood in wanted:
            # What is kept for the next connection of anybody is no cost of the second one.
            for stream, _, _ in [run(proxy, flood) for _ in range(2)]:
                stream.close()
            memory, cpu = proxy.rss(), proxy.cpu()
            # A server of a few lines of Python has its limits too.
            connections = 4 if flood.__name__ in HOLDING else CONNECTIONS
            runs = [run(proxy, flood) for _ in range(connections)]
            kib = (proxy.rss() - memory) / connections
            seconds = (proxy.cpu() - cpu) / connections
            answer = ask(proxy)
            results[flood.__name__] = {
                "kib": round(kib),
                "cpu_seconds": round(seconds, 4),
                "bytes_sent": sum(sent for _, sent, _ in runs) // connections,
                "ended": all(ended for _, _, ended in runs),
            }
            if kib > MEMORY:
                failures.append(f"{flood.__name__}: {kib:.0f} KiB a connection")
            if seconds > SECONDS:
                failures.append(f"{flood.__name__}: {seconds:.3f} s a connection")
            if answer != 200:
                failures.append(f"{flood.__name__}: somebody else is answered {answer}")
            for stream, _, _ in runs:
                stream.close()
            time.sleep(0.1)
        if not proxy.is_alive():
            failures.append("the proxy has ended")
        results["log_lines"] = len(proxy.printed().splitlines())
        if results["log_lines"] > 500:
            failures.append("the log was flooded too")
    end(results, failures)


if __name__ == "__main__":
    main()
