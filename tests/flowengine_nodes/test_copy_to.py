from __future__ import annotations

import pytest

from flowengine import Message, Routed
from flowengine.testing import FlowError, make, message, process
from flowengine_nodes.copy_to import CopyTo


def test_the_copy_goes_first_and_the_message_goes_on() -> None:
    msg = message({"img": "x" * 300_000}, device="d1")
    copy, kept = process(make(CopyTo, "archive"), msg)
    assert isinstance(copy, Routed) and isinstance(kept, Message)
    assert (copy.route.text, copy.comes_back) == ("archive", False)
    assert kept is msg


def test_copy_and_message_share_the_payload() -> None:
    msg = message({"img": "x" * 300_000})
    copy, _kept = process(make(CopyTo, "{chain: archive}"), msg)
    assert isinstance(copy, Routed)
    assert copy.msg.payload is msg.payload


@pytest.mark.parametrize("end", ["drop", "dead", "next"])
def test_an_end_is_no_chain_to_copy_to(end: str) -> None:
    with pytest.raises(FlowError, match=f"copy-to: '{end}' is no chain"):
        make(CopyTo, end)
