"""References, templates and the types made of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowengine import Missing, OptionError, Reference, Reject, Template, Topic, Tree, Url, check_name
from flowengine.testing import message

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3),
    max_leaves=6,
)


@given(st.text())
def test_a_text_made_literal_renders_as_itself(text: str) -> None:
    template = Template(Template.literal(text, ""))
    assert template.constant == text
    assert template.render(message()) == text


@example("100% %s {", "%d", "%%")
@given(st.text(), st.text(), st.text())
def test_a_value_is_never_read_as_a_template(before: str, value: str, after: str) -> None:
    template = Template(Template.literal(before, "") + "{payload}" + Template.literal(after, ""))
    assert template.render(message(value)) == before + value + after


@given(st.text(max_size=40))
def test_any_text_is_a_template_or_an_option_error_inside_it(text: str) -> None:
    try:
        Template(text)
    except OptionError as error:
        assert error.offset is not None
        assert 0 <= error.offset <= len(text)


@given(st.text())
def test_a_value_in_a_url_stays_one_piece(value: str) -> None:
    url = Url("http://host/a/{payload}?b=c").render(message(value))
    assert url.startswith("http://host/a/")
    assert unquote(url.removeprefix("http://host/a/").removesuffix("?b=c")) == value
    assert not set(url.removeprefix("http://host/a/").removesuffix("?b=c")) & set("/?#& ")


@given(st.text(min_size=1))
def test_a_value_never_changes_the_levels_of_a_topic(value: str) -> None:
    topic = Topic("a/{payload}/b")
    try:
        assert topic.render(message(value)).split("/") == ["a", value, "b"]
    except Reject:
        assert any(c in "/+#" or c < " " or "\x7f" <= c < "\xa0" for c in value)


@given(json_values)
def test_a_tree_with_one_lone_reference_keeps_the_values_type(value: Any) -> None:
    built = Tree({"a": ["{payload}", 1, None], "b": "x{payload}"}).build(message(value))
    assert built["a"] == [value, 1, None]
    assert built["b"].startswith("x")


def test_braces_are_written_twice() -> None:
    assert Template("{{{payload.a}}} }}").render(message({"a": 1})) == "{1} }"


def test_a_message_tells_its_id_and_time() -> None:
    msg = message()
    assert Template("{message.id}").render(msg) == msg.id
    assert Template("{message.time:%Y}").render(msg).startswith("20")


def test_what_is_not_there_is_a_reject_that_names_it() -> None:
    with pytest.raises(Missing, match=r"'a\.b' is missing: 'a' is a text"):
        Template("{payload.a.b}").render(message({"a": "x"}))
    with pytest.raises(Reject, match="this message has no 'device'"):
        Template("{device}").render(message())
    with pytest.raises(Missing):
        Template("{result.status}").render(message())
    assert Reference("payload.a.b").find(message({"a": "x"})) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "'' is not a reference"),
        ("{设备}", "is not a reference: write {device} or {payload.name}"),
        ("{payload.}", "'payload.' ends in a dot"),
        ("{result}", "'result' is unknown: result has result.status, result.headers, result.body"),
        ("{device:%Y}", "only message.time takes a format after a colon, not 'device'"),
        ("{payload.a", "a brace is opened and not closed"),
        ("a}", "a brace is closed and was not opened"),
    ],
)
def test_what_is_no_reference_is_refused(text: str, words: str) -> None:
    with pytest.raises(OptionError) as caught:
        Template(text)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["payload", "result", "and", "exists", "null", "a.b", "1a", "", "a-b"])
def test_metadata_cannot_take_a_name_that_means_something(name: str) -> None:
    with pytest.raises(OptionError):
        check_name(name)


@pytest.mark.parametrize(
    "url", ["", "host", "host:80/x", "/x", "http://", "http://h:0/", "http://h:99999", "http://a b/"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(OptionError, match="not a URL"):
        Url(url)


def test_a_host_may_come_from_the_message() -> None:
    assert Url("http://{device}:80/x").render(message(device="d1")) == "http://d1:80/x"


class Own(dict[str, Any]):
    """An object that is not of JSON."""

    def __missing__(self, key: str) -> int:
        return 0


@pytest.mark.parametrize("payload", [Own(), {}, [], "text", None, b"bytes"], ids=type)
def test_a_name_that_leads_nowhere_is_missing_in_whatever_payload(payload: Any) -> None:
    with pytest.raises(Missing):
        Reference("payload.a").get(message(payload))
