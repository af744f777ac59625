"""What to say of text that is not the YAML that was meant: PyYAML's findings in plain words, and slips of the keyboard.

A Chinese input method types `：` for `:`, `“` for `"` and a wide space for a plain one. YAML takes these for letters, so what it
says of such a file is far from the slip; here the slip itself is said, at its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from flowengine.flowfile.problems import Mark
from flowengine.i18n import _

_SPACE = "[\u00a0\u2000-\u200b\u202f\u3000\ufeff]"
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^']|'')*'")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_MATCHING = {"}": "{", "]": "["}
_LINE = re.compile(
    rf"""^\s*?(?P<space>{_SPACE})
    | ^\ *-(?P<glued>[^\s-])
    | (?:^\s*(?:-\ +)*|[{{,]\s*)[\w-]+(?P<colon>：)
    | (?::|-|,)[ ]*(?P<gap>{_SPACE})
    | (?:[:：,-]\s*|[\[{{]\s*)(?P<quote>[“‘])
    | (?P<comma>，)\s*[\w-]+\s*[:：]
    | ^\ *(?:-\ +)*[\w-]+:(?P<close>[^\s/])
    """,
    re.VERBOSE,
)


def _said(kind: str, char: str) -> str:
    """The sentence for one kind of slip."""
    if kind in ("space", "gap"):
        return _("this is no plain space (U+{code:04X}): delete it and press the space bar").format(code=ord(char))
    if kind == "colon":
        return _("'：' is a full-width colon: write ': ', or put the text in quotes")
    if kind == "quote":
        return _('{char} is no quote in YAML: write " for it, or around the whole text').format(char=char)
    if kind == "comma":
        return _("'，' is a full-width comma: write ', ', or put the text in quotes")
    if kind == "glued":
        return _("a space is missing after '-'")
    return _("a space is missing after ':'")


def slips(lines: list[str]) -> Iterator[tuple[Mark, str]]:
    """The slips in a file that is not YAML, each with its place. Of lines that are good they may take some for slips."""
    for number, line in enumerate(lines):
        code = _COMMENT.sub("", _QUOTED.sub(lambda q: "_" * len(q[0]), line))
        for found in _LINE.finditer(code):
            kind = found.lastgroup or ""
            yield (number, found.start(kind)), _said(kind, found[kind])


def slip(text: str, *, key: bool, first: bool) -> tuple[int, str] | None:
    """The slip in a text that stands without quotes: its offset and what to say. first: it is the first in its line."""
    found = re.match(rf"-?(?P<space>{_SPACE})|[\w-]+:(?P<gap>{_SPACE})", text)
    if found is None and (key or first):
        found = re.match(r"[^：]*(?P<colon>：)" if key else r"[A-Za-z_][\w-]*(?P<colon>：)", text)
    if found is None and text[-1:] in ("”", "’"):
        found = re.match("(?P<quote>[“‘])", text)
    if found is None:
        return None
    kind = found.lastgroup or ""
    return found.start(kind), _said(kind, found[kind])


def comment_glued(mark: Mark, text: str, lines: list[str]) -> Mark | None:
    """Where a text without quotes is cut by a hash that was probably meant as text: one space before it, none after."""
    line, column = mark
    end = column + len(text)
    if line >= len(lines) or lines[line][column:end] != text:
        return None
    found = re.match(r" #(?=[^\s#])", lines[line][end:])
    return (line, end + 1) if found else None


def explained(error: yaml.MarkedYAMLError, lines: list[str]) -> list[tuple[Mark, str]]:
    """What to say of a file that PyYAML refuses: the slips, if one stands no lower than it stumbled, else that place."""
    stumbled = _place(error.problem_mark or error.context_mark)
    found = list(slips(lines))
    return found if found and found[0][0][0] <= stumbled[0] else [_explain(error, lines)]


def _explain(error: yaml.MarkedYAMLError, lines: list[str]) -> tuple[Mark, str]:
    """Where the mistake is that PyYAML stumbled over, and for the common ones what to do."""
    problem = error.problem or str(error)
    context = error.context or ""
    at = _place(error.problem_mark or error.context_mark)
    opened = _place(error.context_mark or error.problem_mark)
    line = lines[at[0]] if at[0] < len(lines) else ""
    if "\\t" in problem or line[at[1] : at[1] + 1] == "\t":
        return at, _("a tab cannot indent in YAML: use spaces")
    if "cannot start any token" in problem:
        return at, _("a text that begins with {char} stands in quotes").format(char=line[at[1] : at[1] + 1])
    if "could not find expected ':'" in problem:
        word = lines[opened[0]][opened[1] :].strip() if opened[0] < len(lines) else ""
        return opened, _("'{word}': a colon is missing after this key, or it is text that needs quotes").format(
            word=word[:40]
        )
    if "end of stream" in problem and "quoted scalar" in context:
        return opened, _("this quote is not closed")
    if "escape character" in problem or "escape sequence" in problem:
        return at, _("a backslash in double quotes begins an escape: write it twice, or use single quotes")
    said = _braces(problem, at, line) or _indentation(problem, context, at, line)
    if said is not None:
        return said
    if "expected ',' or" in problem or "expected the node content" in problem:
        if opened[0] < at[0] or not line:
            char = lines[opened[0]][opened[1] : opened[1] + 1] if opened[0] < len(lines) else ""
            return opened, _("'{char}' is not closed, or a comma is missing before line {line}").format(
                char=char, line=at[0] + 1
            )
        return at, _("a comma is missing before this, or a text with one of , : [ ] {{ }} in it needs quotes").format()
    return at, _("not YAML: {problem}").format(problem=problem)


def _place(mark: yaml.Mark | None) -> Mark:
    return (mark.line, mark.column) if mark is not None else (0, 0)


def _braces(problem: str, at: Mark, line: str) -> tuple[Mark, str] | None:
    """A text with a brace (or a quote inside) that stands without quotes around it all."""
    if not any(p in problem for p in ("expected ',' or", "<block end>", "mapping values")):
        return None
    before = line[: at[1]].rstrip()
    if before[-1:] in _MATCHING:
        start = _opening(before)
        text = _("a text that begins with {char} stands in quotes (without them it is a list or an object)")
        return (at[0], start), text.format(char=before[start])
    if line[at[1] : at[1] + 1] in ("{", "["):
        text = _("a text that holds {char} stands in quotes here")
        return at, text.format(char=line[at[1]])
    if before[-1:] in ('"', "'") and "<scalar>" in problem:
        return at, _("the quote was closed before this: put the whole text in one pair of quotes")
    return None


def _opening(before: str) -> int:
    """Where the bracket opens that closes at the end of `before`."""
    close = before[-1]
    depth = 0
    for place in range(len(before) - 1, -1, -1):
        depth += (before[place] == close) - (before[place] == _MATCHING[close])
        if depth == 0:
            return place
    return len(before) - 1


def _indentation(problem: str, context: str, at: Mark, line: str) -> tuple[Mark, str] | None:
    head = re.match(r"\s*(?:- +)?([\w-]*)", line)
    word = head[1] if head else ""
    first = not line[: at[1]].strip() or line[: at[1]].strip() == word
    if "mapping values are not allowed" in problem:
        if first and word:
            at = (at[0], line.index(word))
            text = _("'{key}' is at the wrong indentation: further to the right than the line above allows")
            return at, text.format(key=word)
        return at, _("a text with ': ' in it stands in quotes; a new key begins on a line of its own")
    if "<block end>" not in problem:
        return None
    if line[at[1] : at[1] + 1] == "-":
        return at, _("this '-' is at the wrong indentation: it stands in line with none of those above it")
    if "block collection" in context and "'?'" in problem:
        text = _(
            "'{key}' is at the wrong indentation: it stands in line with the '-' of a node, and belongs to the right"
        )
        return at, text.format(key=word)
    return at, _("'{key}' is at the wrong indentation: it stands in line with none of the lines above").format(
        key=word or line.strip()[:20]
    )
