"""Puts a header of its own on every request: `x-plugin-name`, with the text of the configuration."""

import json

import weir

SCHEMA = """{
  "type": "object",
  "properties": {"text": {"type": "string", "description": "what the header says"}},
  "required": ["text"],
  "additionalProperties": false
}"""


class Description:
    def describe(self):
        return weir.about("pluginName", "0.1.0", "Puts a header on every request", SCHEMA)


class Middleware:
    """One configured middleware, called for one request at a time. There is a new object for each call: what lasts from
    `init` on belongs to the class."""

    def init(self, config):
        text = json.loads(config)["text"]
        if not weir.is_header_value(text):
            raise weir.invalid_config("use `text` as a header: it has a line break or control character")
        Middleware.text = text.encode()
        return weir.plan()

    def on_request(self, head):
        return weir.go_on_with({"x-plugin-name": self.text})

    def on_response(self, state, head):
        raise NotImplementedError("the plan does not ask for it")
