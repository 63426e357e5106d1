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
)
from wit_world.imports.types import (
    Error,
    ErrorKind,
    HeaderEdit_Set,
    Reply,
    RequestEdit,
)


def about(name, version, summary, schema):
    """What `describe` answers, for a plugin that asks for no files, addresses or variables."""
    return About(name, version, summary, schema, files=[], urls=[], variables=[], origins=[], guards=False)


def plan(request_headers=()):
    """Asks for `on_request`, with these headers at hand in `head.headers`, in that order."""
    nothing = BodyMode_None_()
    return Plan(Phases.REQUEST, [], [], list(request_headers), [], nothing, nothing)


def invalid_config(message):
    """For `raise` in `init`. Lower case, no full stop, and what to write instead; it reads after "failed to"."""
    return Err(Error(ErrorKind.INVALID_CONFIG, message, None))


def go_on(state=b""):
    """The request goes on as it is. `state` comes back in `on_response`."""
    return RequestVerdict_Pass(), state


def go_on_with(headers, state=b""):
    """The request goes on with these headers set. Names are lower case, values are bytes."""
    edits = [HeaderEdit_Set((name, value)) for name, value in headers.items()]
    edit = RequestEdit(None, None, None, edits, body=None, filter=None, delay_ms=0)
    return RequestVerdict_Edit(edit), state


def answer(status, headers, body):
    """The request ends here. The host adds `Date` and `Content-Length`."""
    return RequestVerdict_Reply(Reply(status, list(headers.items()), body)), b""


def is_header_value(text):
    """Whether HTTP allows it as the value of a header: no control characters but the tab."""
    return all(character == "\t" or " " <= character != "\x7f" for character in text)
