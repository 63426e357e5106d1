#!/usr/bin/env python3
"""Reloads of fifty routers with a plugin each: every one gives all fifty middlewares other options, so that all are made anew.

Fails if a request fails or is answered without the plugin's stamp, or if more than 1 MiB of memory is gone at the end.
"""

import time

from harness import TEXT, Connection, Server, Weir, arguments, components, finish, reloads, wait_for


def routes(url, routers, version):
    """The options of each middleware have the version. The plugin takes any."""
    rows = lambda row: "".join(f"    {row.format(number, version)}\n" for number in range(routers))
    named = rows('r{0}: {{rule: "Host(`r{0}.example`)", service: s, middlewares: [m{0}]}}')
    configured = rows("m{0}: {{plugin: {{stamps: {{number: {0}, version: {1}}}}}}}")
    return f"""
http:
  routers:
    version: {{rule: "Host(`version.example`) && Path(`/{version}`)", service: s}}
{named}
  middlewares:
{configured}
  services:
    s: {{loadBalancer: {{servers: [{{url: "{url}"}}]}}}}
""".encode()


def main():
    options = arguments(__doc__, reloads=1400, routers=50, rate=30, warm_up=100, growth_kib=1024)
    [stamps] = components("stamps")
    with Server() as server:
        files = {"routing/a.yaml": routes(server.url, options.routers, 0), "plugins/stamps.wasm": stamps}
        with Weir(options.binary, files, options.keep) as weir:
            control = Connection(weir.address)

            def reload(version):
                begun = time.monotonic()
                weir.replace("routing/a.yaml", routes(server.url, options.routers, version))
                wait_for(f"version {version}", lambda: control.get("version.example", f"/{version}")[0] == 200)
                return time.monotonic() - begun

            def is_right(status, fields, body):
                return (status, body) == (200, TEXT) and "x-stamp" in fields

            figures = reloads(weir, options, lambda number: (f"r{number % options.routers}.example", "/"), is_right, reload)
    finish(figures, {"failed": 0, "closed": 0, "rss_growth_kib": options.growth_kib})


main()
