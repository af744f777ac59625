"""An option that names a time zone."""

from __future__ import annotations

from difflib import get_close_matches
from zoneinfo import ZoneInfo, available_timezones

from flowengine import OptionError, OptionType, _


class TimeZone(OptionType):
    """A time zone by its IANA name, `Asia/Shanghai`. `.zone` is the zone."""

    def __init__(self, value: str) -> None:
        super().__init__(value)
        try:
            self.zone = ZoneInfo(value)
        except (KeyError, ValueError, OSError):  # not there; no such name possible; a folder of the database
            raise OptionError(_unknown(value)) from None


def _unknown(value: str) -> str:
    known = available_timezones()
    if not known:
        return _("this machine has no time zones: install the Python package 'tzdata', or leave the time zone out")
    text = _("no time zone is called '{name}': write an IANA name such as Asia/Shanghai").format(name=value)
    close = _closest(value, known)
    return text if close is None else _("{text}; did you mean '{close}'?").format(text=text, close=close)


def _closest(value: str, known: set[str]) -> str | None:
    """A name that is nearly the same, or whose city is the one written."""
    by_text = {name.lower(): name for name in sorted(known)}
    by_city = {name.rpartition("/")[2].lower(): name for name in sorted(known, reverse=True)}
    wanted = value.lower().replace(" ", "_")
    if wanted in by_city:
        return by_city[wanted]
    close = get_close_matches(wanted, by_text, n=1, cutoff=0.85)
    return by_text[close[0]] if close else None
