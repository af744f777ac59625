"""Trees know where everything stands, and scalars mean what YAML 1.2 says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowengine.flowfile.problems import Problems, Source, lines_of
from flowengine.flowfile.substitute import Scope, Unset, Value
from flowengine.flowfile.tree import Mapping, Scalar, Sequence, Tree, core_value, parse, scalars


def read(text: str) -> tuple[Tree | None, Problems]:
    problems = Problems(Source(Path("test.yaml"), lines_of(text)))
    return parse(text, problems), problems


words = st.from_regex(r"[a-z门禁😀][a-z0-9门禁 ]{0,6}[a-z门]", fullmatch=True)
quoted = words.map(lambda w: f'"{w}"') | words.map(lambda w: f"'{w}'")
flow_values = st.recursive(
    words | quoted,
    lambda v: (
        st.lists(v, max_size=3).map(lambda items: "[" + ", ".join(items) + "]")
        | st.dictionaries(words, v, max_size=3).map(lambda d: "{" + ", ".join(f"{k}: {i}" for k, i in d.items()) + "}")
    ),
    max_leaves=6,
)


def block(entries: dict[str, Any], indent: int = 0) -> str:
    """A mapping in block style."""
    text = ""
    for key, value in entries.items():
        lead = " " * indent + f"{key}:"
        if isinstance(value, dict) and value:
            text += lead + "\n" + block(value, indent + 2)
        elif isinstance(value, list) and value:
            text += lead + "\n" + "".join(" " * indent + f"  - {item}\n" for item in value)
        else:
            text += f"{lead} {value or '[]'}\n"
    return text


blocks = st.recursive(
    flow_values | st.lists(flow_values, max_size=3),
    lambda v: st.dictionaries(words, v, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(words, blocks, min_size=1, max_size=4), st.sampled_from(["\n", "\r\n"]))
def test_every_scalars_mark_points_at_its_text(entries: dict[str, Any], end: str) -> None:
    text = block(entries).replace("\n", end)
    tree, problems = read(text)
    assert tree is not None, [str(p) for p in problems.found]
    rows = lines_of(text)
    for scalar in everything(tree):
        line, column = scalar.mark
        start = column if scalar.plain else column + 1
        assert rows[line][start : start + len(scalar.text)] == scalar.text


def everything(tree: Tree) -> list[Scalar]:
    """All scalars, keys too."""
    if isinstance(tree, Mapping):
        return [s for key, value in tree.items for s in (key, *everything(value))]
    if isinstance(tree, Sequence):
        return [s for item in tree.items for s in everything(item)]
    return [tree]


@given(st.text(max_size=60))
def test_any_text_is_a_tree_or_problems_inside_it(text: str) -> None:
    tree, problems = read(text)
    rows = lines_of(text)
    assert tree is None or list(scalars(tree)) is not None
    for problem in problems.found:
        line, column = problem.mark
        assert line < len(rows)
        assert column <= len(rows[line])
        assert str(problem)


@given(st.text(alphabet="ab:-{}[],#\"'&*!|> \n\t：“", max_size=60))
def test_any_heap_of_yaml_signs_is_a_tree_or_problems_inside_it(text: str) -> None:
    test_any_text_is_a_tree_or_problems_inside_it.hypothesis.inner_test(text)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # YAML 1.2.2 section 10.3.2, table "tag resolution", and its examples
        ("", None), ("null", None), ("Null", None), ("NULL", None), ("~", None), ("nUll", "nUll"),
        ("true", True), ("True", True), ("TRUE", True), ("false", False), ("tRue", "tRue"),
        ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"),
        ("0", 0), ("-19", -19), ("+12", 12), ("0o7", 7), ("0x3A", 58), ("0b1", "0b1"), ("1_000", "1_000"),
        ("0.", 0.0), ("-0.0", -0.0), (".5", 0.5), ("+12e03", 12000.0), ("-2E+05", -200000.0), ("1e3", 1000.0),
        (".inf", math.inf), ("-.inf", -math.inf), ("+.inf", math.inf), (".Inf", ".Inf"),
        ("12:30:45", "12:30:45"), ("2001-12-14", "2001-12-14"), ("1.2.3", "1.2.3"), ("0x", "0x"), (".", "."), ("e3", "e3"),
    ],
)  # fmt: skip
def test_a_plain_scalar_means_what_yaml_1_2_says(text: str, value: Any) -> None:
    assert core_value(text) == value
    assert type(core_value(text)) is type(value)


def test_nan_is_not_a_number() -> None:
    assert math.isnan(core_value(".nan"))


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_what_json_writes_is_read_as_the_same_number(value: float) -> None:
    assert core_value(repr(value)) == value


@pytest.mark.parametrize("text", ["0012", "-01", "+00", "00.5", "01e3"])
def test_a_leading_zero_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=f"a number does not begin with 0; if '.?{text[1:]}' is a text"):
        core_value(text)


# Substitution


@given(st.text(), st.text(), st.text())
def test_what_is_substituted_is_not_looked_at_again(before: str, value: str, after: str) -> None:
    before, after = before.replace("$", ""), after.replace("$", "")
    scope = Scope(Path(), {"v": Value(value, value)}, {})
    assert scope.substitute(f"{before}${{v}}{after}") == before + value + after
    assert scope.substitute(f"{before}$${{v}}{after}") == before + "${v}" + after


@given(st.text(max_size=30))
def test_any_text_is_substituted_or_unset(text: str) -> None:
    try:
        done = Scope(Path("/nowhere"), {}, {}).substitute(text)
    except Unset as unset:
        assert "${" in text[unset.offset :]
    else:
        assert done == text.replace("$${", "${")


@given(st.integers() | st.booleans() | st.text())
def test_a_lone_param_is_the_value_itself(value: Any) -> None:
    found = Scope(Path(), {"v": Value(str(value), value)}, {}).lone("${v}")
    assert found is not None
    assert found.value is value
