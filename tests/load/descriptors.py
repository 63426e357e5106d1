#!/usr/bin/env python3
"""Has 400 clients ask a proxy that may have 256 file descriptors.

It must not be busy while it is full, clients that are in must go on being served, new ones must be let in within a second
of others leaving, and it must let go of everything in the end.
"""

import time

from attack import Backend, Proxy, ask, end
from harness import arguments

CLIENTS = 400
DESCRIPTORS = 256


def answered(streams, seconds):
    """Which of the connections that have asked are answered within that time."""
    done = set()
    deadline = time.time() + seconds
    for stream in streams:
        stream.settimeout(0)
    while len(done) < len(streams) and time.time() < deadline:
        for stream in streams:
            if stream in done:
                continue
            try:
                if stream.recv(65536):
                    done.add(stream)
            except OSError:
                pass
        time.sleep(0.005)
    return done


def main():
    options = arguments(__doc__)
    failures, results = [], {}
    backend = Backend()
    with Proxy(options, backend, under=["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"]) as proxy:
        ask(proxy)
        # Idle connections to the server are there to be used again.
        base = proxy.descriptors() - backend.open
        streams = [proxy.connect() for _ in range(CLIENTS)]
        for stream in streams:
            stream.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        inside = answered(streams, 3)
        results["clients_inside"] = len(inside)
        results["descriptors_when_full"] = proxy.descriptors()
        if len(inside) < 50:
            failures.append(f"{len(inside)} clients were let in")

        cpu, begun = proxy.cpu(), time.time()
        time.sleep(3)
        results["cpu_percent_when_full"] = round(100 * (proxy.cpu() - cpu) / (time.time() - begun), 1)
        if results["cpu_percent_when_full"] >= 5:
            failures.append("busy while it is full")

        statuses = []
        for stream in list(inside):
            stream.settimeout(10)
            try:
                statuses.append(ask(proxy, stream=stream))
            except OSError:
                statuses.append(None)
        # A connection may have been told that it ends, since room is short: it counts if it was answered.
        served = sum(status == 200 for status in statuses)
        results["clients_inside_served_again"] = served
        if any(status not in (200, None) for status in statuses):
            failures.append(f"clients inside were answered {sorted(set(map(str, statuses)))}")

        begun = time.time()
        for stream in inside:
            stream.close()
        outside = [stream for stream in streams if stream not in inside]
        first = answered(outside, 0.0) or set()
        while not first and time.time() - begun < 10:
            first = answered(outside, 0.05)
        results["seconds_until_the_next_is_let_in"] = round(time.time() - begun, 3)
        if results["seconds_until_the_next_is_let_in"] > 1:
            failures.append("nobody was let in within a second")
        for stream in streams:
            stream.close()
        deadline = time.time() + 10
        while proxy.descriptors() - backend.open > base + 4 and time.time() < deadline:
            time.sleep(0.05)
        results["descriptors_before_and_after"] = [base, proxy.descriptors() - backend.open]
        if proxy.descriptors() - backend.open > base + 4:
            failures.append("descriptors were not given back")
        results["status_afterwards"] = ask(proxy)
        if results["status_afterwards"] != 200:
            failures.append("no service afterwards")
        results["log_lines"] = len(proxy.printed().splitlines())
        if results["log_lines"] > 50:
            failures.append("the log was flooded")
    end(results, failures)


if __name__ == "__main__":
    main()
