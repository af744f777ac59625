"""The regression gate: what a message of each work costs, counted (see `counting`) and compared with the committed figures.

    python -m benchmarks.gate                      compare; the exit status is 1 where a figure is off
    python -m benchmarks.gate --write              commit to what it costs now, with this minor version of Python
    python -m benchmarks.gate --where records      the functions in which a message's instructions are executed

Why bytecode and not machine instructions by callgrind: those depend on how Python, OpenSSL and libc were built, so figures would
hold on one machine only; a dict that is copied for each message is lost in their noise; and Valgrind slows the replay some
fifty times. Why not allocations: Python keeps freed dicts, lists and tuples for the next use, so a needless copy allocates
nothing. Bytecode is the same wherever the minor version of Python is, so that one call more for a message, one dict, one task
shows as just that. What it cannot see, the time inside C functions, is what `make bench` measures.

A count that fell must be committed, too: else it may rise again unseen.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.counting import Count
from benchmarks.replay import WORKS, replay

FIGURES = Path(__file__).with_suffix(".json")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
INSTRUCTIONS_WITHIN = 0.03
"""The share by which instructions may differ: libraries, the standard one too, change a little from release to release."""
OPERATIONS_WITHIN = 0.5
"""By how many a message the calls and objects of flowengine's own code may differ: by none, but for what many messages share."""
_SHOWN = 30


def committed(python: str = PYTHON) -> dict[str, Count] | None:
    """The figure of each work with this minor version of Python, or None where there are none."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8")).get(python)
    return None if figures is None else {work: Count(**figure) for work, figure in figures.items()}


def differences(figures: Mapping[str, Count], counts: Mapping[str, Count]) -> Iterator[str]:
    """A sentence for each count that is not what it should be."""
    for work, count in counts.items():
        figure = figures.get(work)
        if figure is None:
            yield f"{work}: there is no figure"
            continue
        allowed = Count(figure.instructions * INSTRUCTIONS_WITHIN, OPERATIONS_WITHIN, OPERATIONS_WITHIN)
        for name, was, now, within in zip(Count._fields, figure, count, allowed, strict=True):
            if abs(now - was) > within:
                yield f"{work}: {now:.2f} {name} for a message, {'more' if now > was else 'less'} than {was:.2f}"


def write(counts: Mapping[str, Count]) -> None:
    """Make these the figures for this minor version of Python."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    figures[PYTHON] = {
        work: {name: round(value, 2) for name, value in count._asdict().items()} for work, count in counts.items()
    }
    FIGURES.write_text(json.dumps(dict(sorted(figures.items())), indent=2) + "\n", encoding="utf-8")


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description="What a message costs, in counts")
    parser.add_argument("--write", action="store_true", help="make what it costs now the figures to compare with")
    parser.add_argument("--where", metavar="WORK", choices=WORKS, help="show in which functions: " + "; ".join(WORKS))
    options = parser.parse_args()
    if options.where:
        _count, places = replay(options.where)
        for place, instructions in places[:_SHOWN]:
            print(f"{instructions:9.1f}  {place}")
        return 0
    counts = {work: replay(work)[0] for work in WORKS}
    for work, count in counts.items():
        print(f"{work:16} " + "".join(f"{value:11.2f} {name}" for name, value in count._asdict().items()))
    if options.write:
        write(counts)
        return 0
    figures = committed()
    if figures is None:
        print(f"there are no figures for Python {PYTHON}: python -m benchmarks.gate --write")
        return 1
    found = list(differences(figures, counts))
    print("\n".join(found) or "as committed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
