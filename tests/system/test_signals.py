"""SIGUSR1 prints the books, which balance at every moment."""

from __future__ import annotations

from pathlib import Path

from flowengine_simulate import Faults, Terminals
from flowengine_simulate.terminals import device_ids
from tests.support.broker import MosquittoBroker
from tests.support.engine import until
from tests.support.facegate import FaceGate


async def test_sigusr1_prints_books_that_balance_at_every_moment(tmp_path: Path) -> None:
    with MosquittoBroker() as broker:
        gate = FaceGate(tmp_path, broker.url)
        async with gate.backend, gate.engine() as engine:
            books = await engine.ask_books()
            assert (books.received, books.pending) == (0, 0)
            async with Terminals(broker.url, device_ids(5), rate=40, mix={"heartbeat": 1, "record": 1}) as terminals:
                for faults in (Faults(), Faults(fail=503), Faults(hang=True), Faults()):
                    gate.backend.faults = faults
                    before = terminals.counts.sent
                    pending = []
                    while terminals.counts.sent < before + 50:
                        books = await engine.ask_books()
                        assert books.balanced
                        pending.append(books.pending)
                    if faults.hang:
                        assert max(pending) > 10
            sides = terminals.counts
            received = 2 * sides.heartbeats + sides.records
            await engine.until_books(lambda books: (books.received, books.pending) == (received, 0), "all is settled")
            await until(lambda: gate.backend.counts.distinct == sides.records, "all records")
