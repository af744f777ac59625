"""Text that a person reads, in their language (GNU gettext, domain ``flowengine``).

The msgid is the English text. The language is taken from LANGUAGE, LC_ALL, LC_MESSAGES and LANG, in that order, as gettext does.
"""

from __future__ import annotations

import gettext
from functools import lru_cache
from pathlib import Path

DOMAIN = "flowengine"
LOCALE_DIR = Path(__file__).with_name("locale")


@lru_cache(maxsize=1)
def _catalogue() -> gettext.NullTranslations:
    return gettext.translation(DOMAIN, LOCALE_DIR, fallback=True)


def _(text: str) -> str:
    """Return `text` in the reader's language, or unchanged where the catalogue has no entry."""
    return _catalogue().gettext(text) if text else text


def N_(text: str) -> str:
    """Mark `text` for the catalogue; it is translated where it is shown (log events, class attributes)."""
    return text


def install() -> None:
    """Let libraries that use gettext's default domain (click) speak from our catalogue too."""
    gettext.bindtextdomain(DOMAIN, str(LOCALE_DIR))
    gettext.textdomain(DOMAIN)
    _catalogue.cache_clear()
