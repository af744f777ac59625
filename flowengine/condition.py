"""Conditions: `payload.personType == "1" and not exists(payload.error)`, compiled at load to a plain function.

References stand without braces; literals are JSON's, and texts also in single quotes; the operators are `== != < <= > >= in`,
`not in`, `and or not`, `exists(payload.x)` and parentheses. What leads nowhere reads as null. Devices send numbers as texts and
the other way round, so a text that reads as a JSON number equals, and compares with, that number. What cannot be compared is not
less, not equal and not greater.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

from flowengine.errors import OptionError
from flowengine.i18n import _
from flowengine.message import Message
from flowengine.options import OptionType
from flowengine.template import WORDS, Reference

Eval = Callable[[Message], Any]

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<name>[A-Za-z_]\w*(?:\.(?:[\w-]+|"[^"]+"))*)
    | (?P<op>==|!=|<=|>=|[<>()\[\],])
    )""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_LONGEST = 300
"""A text of more characters is not taken for a number: no device sends one, and int() refuses to read it."""
_DEEPEST = 50
_MEANT = {
    "&": "and", "|": "or", "!": "not", "“": '"', "”": '"', "‘": "'", "’": "'", "（": "(", "）": ")", "，": ",",
}  # fmt: skip
_CONSTANTS = {"true": True, "false": False, "null": None}
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def as_number(value: Any) -> Any:
    """A text that reads as a JSON number (RFC 8259 section 6) as that number; anything else unchanged."""
    if type(value) is str and len(value) <= _LONGEST and _NUMBER.fullmatch(value):
        return float(value) if any(c in value for c in ".eE") else int(value)
    return value


def equal(a: Any, b: Any) -> bool:
    """Whether two values are the same to a condition: texts that read as numbers equal those; true is not 1."""
    if type(a) is type(b):
        return bool(a == b)
    if isinstance(a, bool) or isinstance(b, bool):
        return False
    return bool(as_number(a) == as_number(b))


class Condition(OptionType):
    """A condition on a message; `test(msg)` is True or False and never raises."""

    def __init__(self, value: str) -> None:
        super().__init__(value)
        parser = _Parser(value)
        run = parser.whole()
        self.references = tuple(parser.references)
        self.test: Callable[[Message], bool] = lambda msg: bool(run(msg))

    @staticmethod
    def literal(value: str, before: str) -> str:
        quote = ""
        at = 0
        while at < len(before):
            char = before[at]
            if quote and char == "\\":
                at += 1
            elif char == quote:
                quote = ""
            elif not quote and char in "\"'":
                quote = char
            at += 1
        escaped = value.replace("\\", "\\\\")
        if quote:
            return escaped.replace(quote, "\\" + quote)
        if value in _CONSTANTS or _NUMBER.fullmatch(value):
            return value
        return '"' + escaped.replace('"', '\\"') + '"'


class _Parser:
    """Recursive descent: or < and < not < comparison < operand. Each rule returns a function of the message."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.references: list[Reference] = []
        self.tokens: list[tuple[str, str, int]] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                at += len(text[at:]) - len(text[at:].lstrip())
                raise OptionError(_meaningless(text[at]), at)
            kind = found.lastgroup or ""
            self.tokens.append((kind, found[kind], found.start(kind)))
            at = found.end()
        self.tokens.append(("end", "", len(text)))
        self.at = 0
        self.depth = 0

    def peek(self, *words: str) -> bool:
        kind, word, _at = self.tokens[self.at]
        return kind in ("op", "name") and word in words

    def take(self, *words: str) -> bool:
        if self.peek(*words):
            self.at += 1
            return True
        return False

    def expect(self, word: str) -> None:
        if not self.take(word):
            raise self.wrong(_("expected '{word}'").format(word=word))

    def wrong(self, text: str) -> OptionError:
        kind, word, at = self.tokens[self.at]
        here = _("at the end") if kind == "end" else _("before '{word}'").format(word=word)
        return OptionError(_("{problem} {place}").format(problem=text, place=here), at)

    def whole(self) -> Eval:
        run = self.either()
        if self.tokens[self.at][0] != "end":
            raise self.wrong(_("expected 'and', 'or' or a comparison"))
        return run

    def either(self) -> Eval:
        runs = [self.both()]
        while self.take("or"):
            runs.append(self.both())
        return runs[0] if len(runs) == 1 else _any(runs)

    def both(self) -> Eval:
        runs = [self.negated()]
        while self.take("and"):
            runs.append(self.negated())
        return runs[0] if len(runs) == 1 else _all(runs)

    def negated(self) -> Eval:
        if self.take("not"):
            self.deeper()
            run = self.negated()
            self.depth -= 1
            return lambda msg: not run(msg)
        return self.comparison()

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise OptionError(_("nested more than {n} levels deep").format(n=_DEEPEST), self.tokens[self.at][2])

    def comparison(self) -> Eval:
        run = self.compared()
        if self.peek("==", "!=", "in", *_ORDER):
            raise self.wrong(_("comparisons do not chain: join them with 'and'"))
        return run

    def compared(self) -> Eval:
        left = self.operand()
        if self.take("=="):
            right = self.operand()
            return lambda msg: equal(left(msg), right(msg))
        if self.take("!="):
            right = self.operand()
            return lambda msg: not equal(left(msg), right(msg))
        if self.peek(*_ORDER):
            compare = _ORDER[self.tokens[self.at][1]]
            self.at += 1
            return _ordered(compare, left, self.operand())
        if self.take("in"):
            return _contained(left, self.operand())
        if self.peek("not") and self.tokens[self.at + 1][1] == "in":
            self.at += 2
            inside = _contained(left, self.operand())
            return lambda msg: not inside(msg)
        return left

    def operand(self) -> Eval:
        kind, word, at = self.tokens[self.at]
        if kind == "number":
            self.at += 1
            number = as_number(word)
            if number == word:
                raise OptionError(_("'{word}' is not a number; a text stands in quotes").format(word=word), at)
            return lambda msg: number
        if kind == "text":
            self.at += 1
            text = re.sub(r"\\(.)", r"\1", word[1:-1])
            return lambda msg: text
        if self.take("("):
            self.deeper()
            run = self.either()
            self.depth -= 1
            self.expect(")")
            return run
        if self.take("["):
            self.deeper()
            run = self.listed()
            self.depth -= 1
            return run
        if self.take("exists"):
            self.expect("(")
            reference = self.reference()
            self.expect(")")
            return lambda msg: reference.find(msg) is not None
        if kind == "name" and word in _CONSTANTS:
            self.at += 1
            constant = _CONSTANTS[word]
            return lambda msg: constant
        return self.reference().find

    def listed(self) -> Eval:
        items: list[Eval] = []
        while not self.peek("]"):
            items.append(self.operand())
            if not self.take(","):
                break
        self.expect("]")
        return lambda msg: [item(msg) for item in items]

    def reference(self) -> Reference:
        kind, word, at = self.tokens[self.at]
        if kind != "name" or word in WORDS:
            raise self.wrong(_("expected a reference, a number or a text in quotes"))
        self.at += 1
        try:
            reference = Reference(word)
        except OptionError as error:
            raise OptionError(str(error), at) from None
        self.references.append(reference)
        return reference


def _meaningless(char: str) -> str:
    """What to say of a character that no condition has."""
    if char in "\"'":
        return _("this quote is not closed")
    if char in "{}":
        return _("references stand without braces in a condition: payload.a == 1")
    if char == "=":
        return _("'=' has no meaning here; write == to compare")
    if char in _MEANT:
        return _("'{char}' has no meaning here; write {meant}").format(char=char, meant=_MEANT[char])
    return _("'{char}' has no meaning here").format(char=char)


def _any(runs: list[Eval]) -> Eval:
    """The first value that counts as true, else the last. A loop: as many as there are must not nest calls."""

    def run(msg: Message) -> Any:
        value = None
        for each in runs:
            value = each(msg)
            if value:
                break
        return value

    return run


def _all(runs: list[Eval]) -> Eval:
    def run(msg: Message) -> Any:
        value = None
        for each in runs:
            value = each(msg)
            if not value:
                break
        return value

    return run


def _ordered(compare: Callable[[Any, Any], Any], left: Eval, right: Eval) -> Eval:
    def run(msg: Message) -> bool:
        a, b = as_number(left(msg)), as_number(right(msg))
        if a is None or b is None or isinstance(a, bool) or isinstance(b, bool):
            return False
        try:
            return bool(compare(a, b))
        except TypeError:
            return False

    return run


def _contained(left: Eval, right: Eval) -> Eval:
    def run(msg: Message) -> bool:
        a, b = left(msg), right(msg)
        if isinstance(b, str):
            return isinstance(a, str) and a in b
        return isinstance(b, list | tuple | dict) and any(equal(a, item) for item in b)

    return run
