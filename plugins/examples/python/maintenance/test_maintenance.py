import calendar
import json
import time
import unittest
from unittest import mock

import maintenance
from componentize_py_types import Err
from maintenance import Description, Middleware
from timetable import Timetable
from wit_world.exports.middleware import RequestVerdict_Pass
from wit_world.imports.connection import Peer
from wit_world.imports.types import RequestHead


def at(text):
    """Seconds, of a time in UTC. 2026-01-05 is a Monday."""
    return calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M"))


def window(begin, end, *days):
    return {"from": begin, "to": end} | ({"days": list(days)} if days else {})


class TheTimetable(unittest.TestCase):
    def left(self, table, text):
        return table.seconds_left(at(text))

    def test_a_window_has_its_first_minute_and_not_its_last(self):
        table = Timetable([window("22:00", "23:30")], "+00:00")
        self.assertIsNone(self.left(table, "2026-01-05 21:59"))
        self.assertEqual(self.left(table, "2026-01-05 22:00"), 90 * 60)
        self.assertEqual(self.left(table, "2026-01-05 23:29"), 60)
        self.assertIsNone(self.left(table, "2026-01-05 23:30"))

    def test_one_over_midnight_belongs_to_the_day_it_begins_on(self):
        table = Timetable([window("23:00", "01:00", "sun")], "+00:00")
        self.assertEqual(self.left(table, "2026-01-04 23:00"), 2 * 3600)
        self.assertEqual(self.left(table, "2026-01-05 00:59"), 60)
        self.assertIsNone(self.left(table, "2026-01-05 23:30"))
        self.assertIsNone(self.left(table, "2026-01-04 00:30"))

    def test_the_offset_moves_the_day_too(self):
        table = Timetable([window("00:30", "01:30", "mon")], "+05:30")
        self.assertEqual(self.left(table, "2026-01-04 19:00"), 3600)
        west = Timetable([window("23:00", "23:30", "sun")], "-08:00")
        self.assertEqual(self.left(west, "2026-01-05 07:00"), 1800)

    def test_windows_that_meet_are_one(self):
        table = Timetable([window("10:00", "11:00"), window("11:00", "12:00"), window("10:30", "10:45")], "+00:00")
        self.assertEqual(self.left(table, "2026-01-05 10:30"), 90 * 60)
        over_sunday = Timetable([window("22:00", "00:00", "sun"), window("00:00", "02:00", "mon")], "+00:00")
        self.assertEqual(self.left(over_sunday, "2026-01-04 23:00"), 3 * 3600)
        self.assertEqual(self.left(over_sunday, "2026-01-05 01:00"), 3600)

    def test_one_of_all_day_and_every_day_never_ends(self):
        table = Timetable([window("00:00", "00:00")], "+00:00")
        for day in range(1, 8):
            self.assertEqual(self.left(table, f"2026-01-0{day} 12:34"), 24 * 3600)


class TheMiddleware(unittest.TestCase):
    CONFIG = {"windows": [window("22:00", "23:00")], "allow": ["192.0.2.0/24", "2001:db8::1"], "title": "<Closed> & öde"}

    def answer(self, address="198.51.100.7", now="2026-01-05 22:15", config=CONFIG):
        middleware = Middleware()
        middleware.init(json.dumps(config))
        head = RequestHead("GET", False, "/", [])
        with (
            mock.patch.object(maintenance.clock, "unix_ms", return_value=at(now) * 1000),
            mock.patch.object(maintenance.connection, "client", return_value=Peer(address, 50000)),
        ):
            verdict, state = middleware.on_request(head)
        self.assertEqual(state, b"")
        return verdict

    def test_the_page_says_when_to_come_back(self):
        reply = self.answer().value
        self.assertEqual(reply.status, 503)
        self.assertEqual(dict(reply.headers)["retry-after"], b"2700")
        self.assertIn("<h1>&lt;Closed&gt; &amp; öde</h1>", reply.body.decode())

    def test_at_other_times_all_goes_on(self):
        self.assertEqual(self.answer(now="2026-01-05 23:00"), RequestVerdict_Pass())

    def test_who_is_allowed_sees_no_page(self):
        for address in ["192.0.2.9", "::ffff:192.0.2.9", "2001:db8::1"]:
            self.assertEqual(self.answer(address), RequestVerdict_Pass(), address)
        self.assertEqual(self.answer("2001:db8::2").value.status, 503)

    def test_text_that_is_no_text_is_no_trap(self):
        config = self.CONFIG | {"text": "half \ud800"}
        self.assertIn(b"half ?", self.answer(config=config).value.body)

    def test_options_that_cannot_be_used_are_refused_by_name(self):
        for change, said in [
            ({"windows": []}, "`windows`"),
            ({"windows": [window("24:00", "01:00")]}, "`24:00`"),
            ({"windows": [window("1:00", "01:00")]}, "`1:00`"),
            ({"windows": [window("01:00", "２2:00")]}, "`to`"),
            ({"offset": "CET"}, "`CET`"),
            ({"allow": ["192.0.2.256"]}, "`192.0.2.256`"),
        ]:
            with self.assertRaises(Err) as refused:
                Middleware().init(json.dumps(self.CONFIG | change))
            self.assertIn(said, refused.exception.value.message)

    def test_it_says_what_it_is(self):
        schema = json.loads(Description().describe().config_schema)
        self.assertEqual(set(schema["properties"]), {"windows", "offset", "allow", "title", "text"})


if __name__ == "__main__":
    unittest.main()
