from __future__ import annotations

import pytest

from flowengine import Routed
from flowengine.testing import FlowError, make, message, process
from flowengine_nodes.run import Run


def test_the_message_goes_through_the_chain_and_comes_back() -> None:
    msg = message({"a": 1})
    (made,) = process(make(Run, "enrich"), msg)
    assert isinstance(made, Routed)
    assert (made.route.text, made.comes_back) == ("enrich", True)
    assert made.msg is msg


@pytest.mark.parametrize("end", ["drop", "dead", "next"])
def test_an_end_is_no_chain_to_run(end: str) -> None:
    with pytest.raises(FlowError, match=f"run: '{end}' is no chain"):
        make(Run, f"{{chain: {end}}}")
