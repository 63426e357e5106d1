"""What makes a plugin in Python short: the records of wit/weir-plugin.wit with their defaults filled in."""

from componentize_py_types import Err
from wit_world.exports.description import About
from wit_world.exports.middleware import (
    BodyMode_None_,
    Phases,
    Plan,
    RequestVerdict_Edit,
    RequestVerdict_Pass,
    RequestVerdict_Reply,
    ResponseVerdict_Edit,
)
from wit_world.imports.types import (
    Error,
    ErrorKind,
    HeaderEdit_Set,
    Reply,
    RequestEdit,
    ResponseEdit,
)


def about(name, version, summary, schema, **wishes):
    """What `describe` answers; `wishes` are files, addresses, variables and the like: `urls=["/url"]`, `guards=True`."""
    nothing = {"files": [], "urls": [], "variables": [], "origins": [], "guards": False}
    return About(name, version, summary, schema, **(nothing | wishes))


def plan(request_headers=(), **wishes):
    """Asks for `on_request`, with these headers at hand in `head.headers`, in that order, and for what `wishes` say:
    `phases=Phases.REQUEST | Phases.RESPONSE, response_headers=["content-type"]`."""
    nothing = {"phases": Phases.REQUEST, "request_edits": [], "response_edits": [], "response_headers": []}
    no_bodies = {"request_body": BodyMode_None_(), "response_body": BodyMode_None_()}
    return Plan(request_headers=list(request_headers), **(nothing | no_bodies | wishes))


def invalid_config(message):
    """For `raise` in `init`. Lower case, no full stop, and what to write instead; it reads after "failed to"."""
    return Err(Error(ErrorKind.INVALID_CONFIG, message, None))


def go_on(state=b""):
    """The request goes on as it is. `state` comes back in `on_response`."""
    return RequestVerdict_Pass(), state


def go_on_with(headers, state=b"", **more):
    """The request goes on with these headers set, and with what `more` says: `delay_ms=100`. Names are lower case, values
    are bytes."""
    nothing = {"method": None, "authority": None, "path_with_query": None, "body": None, "filter": None, "delay_ms": 0}
    return RequestVerdict_Edit(RequestEdit(**(nothing | {"headers": set_all(headers)} | more))), state


def go_back_with(headers, **more):
    """The response goes back with these headers set, and with what `more` says: `status=404`, `body=b"not here"`."""
    nothing = {"status": None, "body": None, "filter": None}
    return ResponseVerdict_Edit(ResponseEdit(**(nothing | {"headers": set_all(headers)} | more)))


def set_all(headers):
    return [HeaderEdit_Set((name, value)) for name, value in headers.items()]


def answer(status, headers, body):
    """The request ends here. The host adds `Date` and `Content-Length`."""
    return RequestVerdict_Reply(Reply(status, list(headers.items()), body)), b""


def is_header_value(text):
    """Whether HTTP allows it as the value of a header: no control characters but the tab."""
    return all(character == "\t" or " " <= character != "\x7f" for character in text)
