import pytest

from flowengine import Reject, Reply
from flowengine.testing import FlowError, deliver, make, message
from flowengine_http import HttpReply


async def test_it_says_what_the_request_is_answered_with() -> None:
    node = make(HttpReply, "{status: 201, body: {id: '{payload.id}'}, headers: {Location: '/r/{device}'}}")
    msg = message({"id": 7}, device="0012")
    assert await deliver(node, msg) is None
    assert msg.outcome.reply == Reply(201, {"id": 7}, {"Location": "/r/0012"})


async def test_without_options_the_answer_is_an_empty_200() -> None:
    msg = message()
    await deliver(make(HttpReply), msg)
    assert msg.outcome.reply == Reply(200, None, {})


async def test_the_last_one_counts() -> None:
    msg = message()
    for text in ("first", "second"):
        await deliver(make(HttpReply, f"{{body: {text}}}"), msg)
    assert msg.outcome.reply is not None and msg.outcome.reply.body == "second"


def test_it_confirms_nothing_and_needs_no_thread() -> None:
    node = make(HttpReply)
    assert not node.confirming
    assert node.inline


async def test_a_value_cannot_forge_a_header() -> None:
    msg = message("a\r\nSet-Cookie: b")
    with pytest.raises(Reject, match="X-A would hold a control character"):
        await deliver(make(HttpReply, "{headers: {X-A: '{payload}'}}"), msg)
    assert msg.outcome.reply is None


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ("{'a b': c}", "not a header name"),
        ("{Content-Length: 7}", "Content-Length cannot be set here"),
        ("{transfer-encoding: chunked}", "cannot be set here"),
        ("{X-A: a, x-a: b}", "stands here twice"),
    ],
)
def test_headers_that_cannot_be_are_errors(headers: str, says: str) -> None:
    with pytest.raises(FlowError, match=says):
        make(HttpReply, f"{{headers: {headers}}}")


@pytest.mark.parametrize("status", ["199", "600", "ok"])
def test_a_status_is_one_that_ends_a_request(status: str) -> None:
    with pytest.raises(FlowError):
        make(HttpReply, f"{{status: {status}}}")
