"""Times of day by weekday, in a fixed offset from UTC. It has no clock: who asks says when it is."""

import re

DAY = 24 * 60
WEEK = 7 * DAY
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
# 1970-01-01 was a Thursday.
EPOCH = 3 * DAY


class Timetable:
    """Windows, each a range of minutes of the week. Those that meet are one, so that what is left is all of it."""

    def __init__(self, windows, offset):
        if not windows:
            raise ValueError("show the page never: `windows` is empty")
        self.offset = minutes_of_offset(offset)
        ranges = []
        for window in windows:
            begin, end = minutes_of_day(window["from"], "from"), minutes_of_day(window["to"], "to")
            length = (end - begin - 1) % DAY + 1
            for day in window.get("days") or DAYS:
                start = DAYS.index(day) * DAY + begin
                ranges.append((start, start + length))
        self.ranges = merged(ranges)

    def seconds_left(self, unix_seconds):
        """How long the page is still shown, or None if it is not. A table that never ends says a day."""
        second = (unix_seconds + (EPOCH + self.offset) * 60) % (WEEK * 60)
        for start, end in self.ranges:
            for now in (second, second + WEEK * 60):
                if start * 60 <= now < end * 60:
                    return min(end * 60 - now, DAY * 60)
        return None


def merged(ranges):
    result = []
    for start, end in sorted(ranges):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    first, last = result[0], result[-1]
    # What runs on from Sunday into Monday.
    if len(result) > 1 and last[1] - WEEK >= first[0]:
        result[-1] = (last[0], max(last[1], first[1] + WEEK))
    elif len(result) == 1 and last[1] - WEEK >= first[0]:
        return [(0, 2 * WEEK)]
    return result


def minutes_of_day(text, name):
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)", text, re.ASCII)
    if not found:
        raise ValueError(f"use `{text}` as `{name}`: write a time of day, as `22:00`")
    return int(found[1]) * 60 + int(found[2])


def minutes_of_offset(text):
    found = re.fullmatch(r"([+-])(0\d|1[0-4]):([0-5]\d)", text, re.ASCII)
    if not found:
        raise ValueError(f"use `{text}` as `offset`: write the difference from UTC, as `+01:00`")
    minutes = int(found[2]) * 60 + int(found[3])
    return -minutes if found[1] == "-" else minutes
