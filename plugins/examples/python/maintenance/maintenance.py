"""A maintenance page by time table: at the times of the configuration all but the addresses allowed get a 503."""

import ipaddress
import json

import weir
from timetable import Timetable
from wit_world.imports import clock, connection

SCHEMA = """{
  "type": "object",
  "properties": {
    "windows": {
      "type": "array",
      "description": "when the page is shown",
      "items": {
        "type": "object",
        "properties": {
          "from": {"type": "string", "description": "time of day, as 22:00"},
          "to": {"type": "string", "description": "time of day; one that is not later is that of the next day"},
          "days": {
            "type": "array",
            "items": {"type": "string", "enum": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]},
            "description": "days on which it begins, by default all"
          }
        },
        "required": ["from", "to"],
        "additionalProperties": false
      }
    },
    "offset": {"type": "string", "default": "+00:00", "description": "of the times from UTC"},
    "allow": {
      "type": "array",
      "items": {"type": "string"},
      "description": "addresses and networks that get through all the same"
    },
    "title": {"type": "string", "default": "We are at work"},
    "text": {"type": "string", "default": "Please come back in a while."}
  },
  "required": ["windows"],
  "additionalProperties": false
}"""

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<h1>{title}</h1>
<p>{text}</p>
</html>
"""

HEADERS = {"content-type": b"text/html; charset=utf-8", "cache-control": b"no-store"}


class Description:
    def describe(self):
        return weir.about("maintenance", "0.1.0", "Shows a maintenance page by time table", SCHEMA)


class Middleware:
    """One configured middleware. There is a new object for each call: what lasts from `init` on belongs to the class."""

    def init(self, config):
        options = json.loads(config)
        try:
            Middleware.timetable = Timetable(options["windows"], options.get("offset", "+00:00"))
            Middleware.allowed = [network(text) for text in options.get("allow", [])]
        except ValueError as problem:
            raise weir.invalid_config(str(problem)) from None
        title = options.get("title", "We are at work")
        text = options.get("text", "Please come back in a while.")
        Middleware.page = PAGE.format(title=escaped(title), text=escaped(text)).encode()
        return weir.plan()

    def on_request(self, head):
        seconds = self.timetable.seconds_left(clock.unix_ms() // 1000)
        if seconds is None or self.is_allowed(connection.client().address):
            return weir.go_on()
        return weir.answer(503, HEADERS | {"retry-after": str(seconds).encode()}, self.page)

    def on_response(self, state, head):
        raise NotImplementedError("the plan does not ask for it")

    def is_allowed(self, client):
        address = ipaddress.ip_address(client)
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self.allowed)


def network(text):
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"use `{text}` in `allow`: write an address or a network, as `192.0.2.0/24`") from None


def escaped(text):
    """Text as HTML. JSON may have halves of surrogate pairs, which are no text."""
    text = text.encode(errors="replace").decode()
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
