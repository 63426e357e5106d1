#!/usr/bin/env python3
"""Reloads under load: a thousand changes of a routing file while requests come on new and on kept-alive connections.

Fails if a request fails, if a kept-alive connection is closed, or if more than 2 MiB of memory are gone at the end.
"""

import time

from harness import TEXT, Connection, Server, Weir, arguments, finish, reloads, wait_for


def routes(url, version):
    """What stays, and what each version has for itself: a router, a middleware and, now and then, another server."""
    weight = 1 + version % 2
    return f"""
http:
  routers:
    same: {{rule: "Host(`a.example`)", service: same, middlewares: [same]}}
    changing: {{rule: "Host(`a.example`) && PathPrefix(`/changing`)", service: changing, middlewares: [changing]}}
    version: {{rule: "Host(`version.example`) && Path(`/{version}`)", service: same}}
  middlewares:
    same: {{headers: {{customResponseHeaders: {{X-Same: "yes"}}}}}}
    changing: {{headers: {{customResponseHeaders: {{X-Version: "{version}"}}}}}}
  services:
    same: {{loadBalancer: {{servers: [{{url: "{url}"}}]}}}}
    changing: {{loadBalancer: {{servers: [{{url: "{url}", weight: {weight}}}]}}}}
""".encode()


def main():
    options = arguments(__doc__, reloads=1000, rate=120, warm_up=100)
    paths = ["/", "/changing"]
    with Server() as server, Weir(options.binary, {"routing/a.yaml": routes(server.url, 0)}, options.keep) as weir:
        control = Connection(weir.address)

        def reload(version):
            begun = time.monotonic()
            weir.replace("routing/a.yaml", routes(server.url, version))
            wait_for(f"version {version}", lambda: control.get("version.example", f"/{version}")[0] == 200)
            return time.monotonic() - begun

        def is_right(status, fields, body):
            return (status, body) == (200, TEXT) and ("x-same" in fields or "x-version" in fields)

        figures = reloads(weir, options, lambda number: ("a.example", paths[number % 2]), is_right, reload)
    finish(figures, {"failed": 0, "closed": 0, "rss_growth_kib": 2048})


main()
