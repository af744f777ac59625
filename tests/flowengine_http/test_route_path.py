from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowengine import OptionError, Reply
from flowengine_http.answers import Refused
from flowengine_http.route_path import RoutePath
from flowengine_http.routes import Request, Route, Routes


async def _never(_request: Request) -> Reply:
    raise AssertionError


def _table(*paths: str, method: str = "POST") -> Routes:
    table = Routes()
    for path in paths:
        table.add(Route(method, RoutePath(path), _never))
    return table


@given(st.text(min_size=1).filter(lambda t: t.isprintable() or True), st.text(min_size=1))
def test_whatever_text_a_client_encodes_into_a_segment_is_what_is_captured(one: str, two: str) -> None:
    raw = f"/a/{quote(one, safe='')}/b-{quote(two, safe='')}.json"
    _route, captures = _table("/a/{one}/b-{two}.json").find("POST", raw)
    assert captures == {"one": one, "two": two}


@pytest.mark.parametrize("raw", ["/设备/1", "/%E8%AE%BE%E5%A4%87/1", "/%e8%ae%be%E5%A4%87/%31"])
def test_plain_text_is_compared_decoded(raw: str) -> None:
    assert _table("/设备/{n}").find("POST", raw)[1] == {"n": "1"}
    assert _table("/%E8%AE%BE%E5%A4%87/{n}").find("POST", raw)[1] == {"n": "1"}


@pytest.mark.parametrize("raw", ["/a", "/a/", "/a//c", "/a/b/c/", "//a/b/c", "/A/b/c", "a/b/c", "*", ""])
def test_only_whole_paths_match_and_a_capture_is_never_empty(raw: str) -> None:
    with pytest.raises(Refused) as refused:
        _table("/a/{b}/c").find("POST", raw)
    assert refused.value.reply.status == 404


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("raw", "wins"),
    [("/d/all", "/d/all"), ("/d/gate-7", "/d/gate-{n}"), ("/d/x", "/d/{n}"), ("/d/gate-", "/d/{n}")],
)
def test_the_most_specific_path_wins_in_whatever_order_they_came(order: int, raw: str, wins: str) -> None:
    table = _table(*["/d/{n}", "/d/gate-{n}", "/d/all"][::order])
    assert table.find("POST", raw)[0].path.text == wins


def test_a_less_specific_path_answers_the_methods_that_the_more_specific_one_does_not() -> None:
    table = Routes()
    table.add(Route("GET", RoutePath("/d/all"), _never))
    table.add(Route("POST", RoutePath("/d/{n}"), _never))
    assert table.find("POST", "/d/all")[1] == {"n": "all"}
    with pytest.raises(Refused) as refused:
        table.find("PUT", "/d/all")
    assert (refused.value.reply.status, refused.value.reply.headers["Allow"]) == (405, "GET, POST")


def test_a_path_that_is_not_utf8_is_a_bad_request() -> None:
    with pytest.raises(Refused) as refused:
        _table("/{a}").find("POST", "/%ff")
    assert refused.value.reply.status == 400


@pytest.mark.parametrize(
    ("text", "says", "offset"),
    [
        ("", "begins with '/'", 0),
        ("a/b", "begins with '/'", 0),
        ("/a?b=1", "'\\?' cannot stand", 2),
        ("/a b", "' ' cannot stand", 2),
        ("/{a", "not closed", 1),
        ("/a}", "not opened", 2),
        ("/{a}{b}", "only one capture", 4),
        ("/x/{}", "'' is not a name", 4),
        ("/{a-b}", "'a-b' is not a name", 2),
        ("/{1a}", "'1a' is not a name", 2),
        ("/{payload}", "'payload' is a reserved name", 2),
        ("/{message}", "'message' is a reserved name", 2),
        ("/{query}", "'query' is a reserved name", 2),
        ("/{not}", "'not' is a reserved name", 2),
        ("/{a}/b/{a}", "'a' is captured twice", 7),
    ],
)
def test_what_is_no_path_is_an_error_at_its_place(text: str, says: str, offset: int) -> None:
    with pytest.raises(OptionError, match=says) as error:
        RoutePath(text)
    assert error.value.offset == offset


def test_a_substituted_value_captures_nothing() -> None:
    path = RoutePath("/" + RoutePath.literal("{a}", "/") + "/{b}")
    assert path.captures == ("b",)
    assert path.match(["{a}", "1"]) == {"b": "1"}


def test_paths_that_match_the_same_have_one_shape() -> None:
    assert RoutePath("/a/{x}").shape == RoutePath("/a/{y}").shape
    assert RoutePath("/%61/{x}").shape == RoutePath("/a/{x}").shape
    assert RoutePath("/a/{x}").shape != RoutePath("/a/x").shape
    assert RoutePath("/a/b{x}").shape != RoutePath("/a/{x}b").shape
