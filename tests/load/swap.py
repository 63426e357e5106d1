#!/usr/bin/env python3
"""A plugin file is swapped a thousand times under load, by renaming and in place in turns; each is compiled anew.

Fails if a request fails or is answered without the plugin's stamp, or if memory grows by more than 1 MiB.
"""

import time

from harness import TEXT, Connection, Load, Server, Weir, arguments, components, finish, settled, spread, wait_for

GUESTS = ["stamps", "stamps-again"]


def numbered(component, number):
    """The same component with a custom section, so that no cache knows it."""
    section = b"\x06number" + number.to_bytes(4, "little")
    return component + bytes([0, len(section)]) + section


def main():
    options = arguments(__doc__, swaps=1000, rate=120, warm_up=20)
    versions = components(*GUESTS)
    routes = """
http:
  routers:
    a: {{rule: "Host(`a.example`)", service: s, middlewares: [stamp]}}
  middlewares:
    stamp: {{plugin: {{stamp: {{}}}}}}
  services:
    s: {{loadBalancer: {{servers: [{{url: "{url}"}}]}}}}
"""
    with Server() as server:
        files = {"routing/a.yaml": routes.format(url=server.url), "plugins/stamp.wasm": versions[0]}
        with Weir(options.binary, files, options.keep) as weir:
            control = Connection(weir.address)
            stamp = lambda: control.get("a.example")[1].get("x-stamp")
            file = weir.folder / "plugins/stamp.wasm"

            def is_right(status, fields, body):
                return (status, body) == (200, TEXT) and "x-stamp" in fields

            def swap(number):
                old, content = stamp(), numbered(versions[number % 2], number)
                begun = time.monotonic()
                if number % 4 < 2:
                    weir.replace("plugins/stamp.wasm", content)
                else:
                    half = len(content) // 2
                    with file.open("wb", buffering=0) as writer:
                        writer.write(content[:half])
                        time.sleep(0.08)
                        writer.write(content[half:])
                wait_for(f"swap {number}", lambda: stamp() != old)
                return time.monotonic() - begun

            with Load(weir.address, options.rate, lambda _: ("a.example", "/"), is_right) as load:
                for number in range(1, options.warm_up + 1):
                    swap(number)
                before = settled(weir)
                applied = [swap(options.warm_up + number) for number in range(1, options.swaps + 1)]
                after = settled(weir)
    figures = {"swaps": options.swaps, **load.figures(), "rss_kib": [before, after], "rss_growth_kib": after - before}
    finish(figures | spread(applied), {"failed": 0, "closed": 0, "rss_growth_kib": 1024})


main()
