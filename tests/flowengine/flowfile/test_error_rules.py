"""What holds for errors as a whole: all at once, each once, none that follows from another, no secret, never a traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from flowengine import plugins
from flowengine.flowfile import project
from flowengine.flowfile.problems import Problem, Problems, Source, nearest, ordered, suggestion
from tests.flowengine.cli.commands import flowengine
from tests.flowengine.flowfile.folder import HEAD, REGISTRY, SHARED, load, said, short

FACEGATE = Path(__file__).parents[3] / "flows" / "facegate.yaml"


def lines(folder: Path, problems: list[Problem]) -> list[str]:
    return [short(folder, p) for p in problems]


def test_every_error_of_every_file_is_said_at_once_and_in_order(tmp_path: Path) -> None:
    files = {
        "b.yaml": "flow: b\nchains:\n  c:\n    - log: [a\n",
        "a.yaml": HEAD
        + "    - lgo: x\n    - http-post: {ulr: x}\n    - log: '{zzz}'\n      delivery: {concurrency: 0, id_from: '{'}\n"
        "    - run: nowhere\n    - log: b\n      name: two\n      on_error: d\n"
        "  d:\n    - log: '{error.reson}'\n      on_error: d\n",
        "shared.yaml": SHARED.replace("url", "ulr"),
        "sub/c.yaml": "flow: c.d\nchains: {}\n",
    }
    found = load(tmp_path, files).problems
    assert lines(tmp_path, found) == [
        "a.yaml:5:7: chains.c[1]: unknown node 'lgo', did you mean 'log'?",
        "a.yaml:6:19: chains.c[2] http-post: unknown option 'ulr', did you mean 'url'?",
        "a.yaml:8:31: chains.c[3] log: 'concurrency': 0 is too small: at least 1",
        "a.yaml:8:44: chains.c[3] log: a brace is opened and not closed; a brace itself is written {{",
        "a.yaml:9:12: chains.c[4] run: unknown chain 'nowhere'; chains of this flow: c, d",
        "a.yaml:14:14: chains.d[0] log: 'error.reson' is unknown: "
        "error has error.node, error.reason, error.status, error.attempts",
        "a.yaml:15:17: chains.d[0] log: goes in a circle: d → d",
        "b.yaml:4:12: '[' is not closed, or a comma is missing before line 5",
        "shared.yaml:2:17: connections.gate mqtt: unknown option 'ulr', did you mean 'url'?",
        "sub/c.yaml:1:7: flow: a name begins with a letter or digit, and has letters, digits, - and _",
        "sub/c.yaml:2:9: a flow has chains: 'chains:' and below it a name and a list of nodes",
    ]


# One mistake each: what follows from it is not said.
SINGLE = {
    "an unknown node hides what it would have known and where it would have led": (
        "    - cmd-fliter: {routes: {a: d, b: [run: e, log: a]}, otherwise: drop}\n    - log: '{whatever} {result.status}'\n"
        "  d:\n    - log: '{whatever} {device}'\n  e:\n    - json-parse\n",
        "a.yaml:5:7: chains.c[1]: unknown node 'cmd-fliter', did you mean 'cmd-filter'?",
    ),
    "a node with a wrong option still enters its chains": (
        "    - cmd-filter: {feild: a, routes: {a: d}, otherwise: d}\n  d:\n    - log: '{device}'\n",
        "a.yaml:5:20: chains.c[1] cmd-filter: unknown option 'feild', did you mean 'field'?",
    ),
    "a chain that a misspelt route meant is not unreached, and knows what it would": (
        "    - cmd-filter: {routes: {a: recrods}, otherwise: drop}\n  records:\n    - log: '{device}'\n",
        "a.yaml:5:32: chains.c[1] cmd-filter: unknown chain 'recrods', did you mean 'records'?",
    ),
    "an unknown chain is said once": (
        "    - cmd-filter: {routes: {a: zzz, b: zzz}, otherwise: zzz}\n",
        "a.yaml:5:32: chains.c[1] cmd-filter: unknown chain 'zzz'; chains of this flow: c",
    ),
    "an unknown param is said once": (
        "    - log: ${p}\n    - log: ${p}\n      name: again\n",
        "a.yaml:5:12: chains.c[1] log: unknown param 'p'; params are declared under 'params:'",
    ),
    "a chain whose name is wrong is not also unknown": (
        "    - run: recordes\n    - log: a\n  record'es:\n    - json-parse\n",
        "a.yaml:7:3: chains.record'es: a name begins with a letter or digit, and has letters, digits, - and _",
    ),
    "a chain that could not be read is neither empty nor unknown": (
        "    - run: d\n    - log: '{x}'\n  d: json-parse\n",
        "a.yaml:7:6: chains.d: a chain is a list of nodes, each on a line with '- '",
    ),
    "an error in an inline chain is said for its node only": (
        "    - cmd-filter: {routes: {a: [lgo: x]}, otherwise: drop}\n",
        "a.yaml:5:33: chains.c[1] cmd-filter.routes.a[0]: unknown node 'lgo', did you mean 'log'?",
    ),
    "a second source on the same path is one mistake": (
        "    - log: a\n"
        "  d:\n    - http-in: {connection: web, path: /}\n    - http-in: {connection: web, path: /}\n    - log: a\n",
        "a.yaml:8:7: chains.d[1] http-in: a source stands first in a chain of its own",
    ),
}


@pytest.mark.parametrize("what", SINGLE)
def test_one_mistake_is_one_error(tmp_path: Path, what: str) -> None:
    body, words = SINGLE[what]
    assert lines(tmp_path, said(tmp_path, HEAD + body)) == [words]


def test_a_source_that_could_not_be_read_makes_no_chain_unreached(tmp_path: Path) -> None:
    found = said(tmp_path, HEAD.replace("topic", "topik") + "    - log: '{device} {anything}'\n")
    assert lines(tmp_path, found) == ["a.yaml:4:35: chains.c[0] mqtt-in: unknown option 'topik', did you mean 'topic'?"]


def test_a_misspelt_section_is_read_as_the_one_that_was_meant(tmp_path: Path) -> None:
    text = (
        "flow: a\nparmas:\n  p: {default: x}\nconections:\n  own: {mqtt: {url: 'mqtt://x'}}\nchians:\n  c:\n"
        "    - mqtt-in: {connection: own, topic: t}\n    - lgo: ${p}\n"
    )
    assert lines(tmp_path, said(tmp_path, text)) == [
        "a.yaml:2:1: unknown key 'parmas', did you mean 'params'?",
        "a.yaml:4:1: unknown key 'conections', did you mean 'connections'?",
        "a.yaml:6:1: unknown key 'chians', did you mean 'chains'?",
        "a.yaml:9:7: chains.c[1]: unknown node 'lgo', did you mean 'log'?",
    ]


def test_a_shared_connection_that_is_wrong_is_not_unknown_where_it_is_used(tmp_path: Path) -> None:
    found = load(tmp_path, {"a.yaml": HEAD + "    - log: a\n", "s.yaml": SHARED.replace("mqtt: {url", "mqtt: {ulr")})
    assert lines(tmp_path, found.problems) == [
        "s.yaml:2:17: connections.gate mqtt: unknown option 'ulr', did you mean 'url'?"
    ]


def test_connections_without_the_line_chains_are_one_mistake(tmp_path: Path) -> None:
    text = "flow: a\nconnections:\n  c:\n    - log: a\n  d:\n    - log: a\n"
    assert lines(tmp_path, said(tmp_path, text)) == [
        "a.yaml:3:3: connections.c: a list of nodes is a chain, and stands under 'chains:'"
    ]


def test_two_flows_want_one_path_of_a_shared_listener(tmp_path: Path) -> None:
    flow = "flow: {}\nchains:\n  c: [http-in: {{connection: web, path: /}}, log: a]\n"
    found = load(tmp_path, {"a.yaml": flow.format("a"), "b.yaml": flow.format("b"), "s.yaml": SHARED}).problems
    assert [p.text for p in found] == [
        f"POST / on connection web is taken already, in flow a, {tmp_path.as_posix()}/a.yaml:3"
    ]
    assert found[0].source.path.name == "b.yaml"


def test_two_flows_have_one_name(tmp_path: Path) -> None:
    found = load(
        tmp_path, {"a.yaml": HEAD + "    - log: a\n", "b.yaml": HEAD + "    - log: a\n", "s.yaml": SHARED}
    ).problems
    assert [(p.source.path.name, p.mark) for p in found] == [("b.yaml", (0, 6))]
    assert found[0].text.startswith("the name 'a' is taken already, in ")


def test_a_connection_of_the_folder_is_not_declared_again(tmp_path: Path) -> None:
    text = "flow: a\nconnections:\n  gate: {mqtt: {url: 'mqtt://y'}}\n" + HEAD[8:] + "    - log: a\n"
    (problem,) = said(tmp_path, text)
    assert problem.text == f"connection 'gate' is in {tmp_path.as_posix()}/shared.yaml already"
    assert problem.mark == (2, 9)


@pytest.mark.parametrize(
    ("raw", "place", "words"),
    [
        (
            "flow: a\nabout: 门禁\n".encode("gbk"),
            "2:8",
            "not UTF-8 but probably GBK: save the file as UTF-8 (in Notepad: Save as, Encoding)",
        ),
        (b"flow: a\nabout: \xff\xfe\xff\n", "2:8", "not UTF-8: save the file as UTF-8"),
        ("flow: a\n".encode("utf-16"), "1:1", "this is UTF-16 (Windows calls it Unicode): save the file as UTF-8"),
    ],
)
def test_a_file_that_is_not_utf_8_is_refused_at_the_first_wrong_byte(
    tmp_path: Path, raw: bytes, place: str, words: str
) -> None:
    assert lines(tmp_path, said(tmp_path, raw)) == [f"a.yaml:{place}: {words}"]


def test_a_byte_order_mark_and_windows_line_ends_are_welcome(tmp_path: Path) -> None:
    text = (HEAD + "    - lgo: a\n").replace("\n", "\r\n")
    found = said(tmp_path, b"\xef\xbb\xbf" + text.encode())
    assert lines(tmp_path, found) == ["a.yaml:5:7: chains.c[1]: unknown node 'lgo', did you mean 'log'?"]
    assert str(found[0]).split("\n")[1:] == ["        - lgo: a", "          ^"]


def test_chinese_punctuation_in_a_text_is_no_slip(tmp_path: Path) -> None:
    text = HEAD.replace("flow: a\n", "flow: a\nabout: 注意：这里，用“引号”来\n")
    text += '    - log: "门：“{device}”"\n      about: |\n        说明：一\n        “二”，三：\n'
    assert said(tmp_path, text) == []
    assert [p.mark for p in said(tmp_path, text.replace("flow: a\n", "flow: [a\n", 1))] == [(0, 6)]


def test_all_slips_of_a_file_are_said_at_once(tmp_path: Path) -> None:
    text = HEAD.replace("chains:", "chains：") + "    - log： a\n    - http-post: {url： http://x}\n"
    assert [p.mark for p in said(tmp_path, text)] == [(1, 6), (4, 9), (5, 21)]


def test_an_alias_bomb_is_refused(tmp_path: Path) -> None:
    bomb = "flow: a\nx-0: &a0 [1]\n" + "".join(
        f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    (problem,) = said(tmp_path, bomb)
    assert problem.text == "aliases unfold to more than 100000 nodes: refused"
    assert problem.mark[0] == 6


def test_depth_without_end_is_refused(tmp_path: Path) -> None:
    (problem,) = said(tmp_path, "flow: a\nx-deep: " + "[" * 5000 + "]" * 5000 + "\n")
    assert (problem.text, problem.mark) == ("nested more than 60 levels deep", (1, 68))


def test_the_caret_stands_under_the_place_behind_chinese_letters(tmp_path: Path) -> None:
    (problem,) = said(tmp_path, HEAD + "    - log: {text: 门禁上线, txet: a}\n")
    assert str(problem).split("\n")[1:] == ["        - log: {text: 门禁上线, txet: a}", " " * 32 + "^"]
    assert problem.mark == (4, 24)


def test_of_a_long_line_what_is_around_the_mistake_is_shown(tmp_path: Path) -> None:
    (problem,) = said(tmp_path, HEAD + f"    - log: {{text: {'长' * 200}, txet: a, level: {' ' * 200} info}}\n")
    shown, caret = str(problem).split("\n")[1:]
    assert len(shown) <= 124
    assert shown[len(caret) - 1 - sum(c == "长" for c in shown) :].startswith("txet")


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere.yaml")
    (problem,) = project.load([tmp_path / "gone.yaml"], REGISTRY, environ={}).problems
    assert problem.text == "cannot be read: No such file or directory"


def test_a_folder_without_flows_says_how_to_begin(tmp_path: Path) -> None:
    (problem,) = load(tmp_path, {}).problems
    assert problem.text.endswith("'flowengine new project NAME' makes one")


# Plugins

BROKEN = "import no_such_module\ntype = 'plate-reader'\n"


def test_a_broken_plugin_is_an_error_where_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(BROKEN)
    registry = plugins.load([tmp_path])
    (problem,) = said(tmp_path, HEAD + "    - plate-reader: {}\n    - log: a\n", registry=registry)
    assert short(tmp_path, problem) == (
        "a.yaml:5:7: chains.c[1]: 'plate-reader' is not there: its plugin own.py could not be loaded: "
        "own.py:1: ModuleNotFoundError: No module named 'no_such_module'"
    )


def test_a_broken_plugin_that_nobody_uses_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "own.py").write_text(BROKEN)
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "a.yaml").write_text(HEAD + "    - log: a\n")
    (tmp_path / "flows" / "s.yaml").write_text(SHARED)
    result = flowengine("check", "flows", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == (
        "warning: the plugin own (plugins/own.py) could not be loaded: "
        "own.py:1: ModuleNotFoundError: No module named 'no_such_module'\n"
    )


@pytest.mark.parametrize("method", ["setup", "check", "claims", "metadata"])
def test_a_node_that_dies_while_it_is_asked_is_an_error_at_its_place(tmp_path: Path, method: str) -> None:
    (tmp_path / "own.py").write_text(
        f"from flowengine import Step\nclass Own(Step):\n    type = 'own'\n    def {method}(self):\n        return 1 / 0\n"
    )
    found = said(tmp_path, HEAD + "    - own\n    - log: '{anything}'\n", registry=plugins.load([tmp_path]))
    assert [p.mark for p in found] == [(4, 6)]
    assert found[0].text.endswith(f"failed in {method}(): ZeroDivisionError: division by zero")


def test_options_that_cannot_be_told_make_the_plugin_broken(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from typing import Annotated\nfrom flowengine import NodeOptions, Path, Step, Url\nclass Own(Step):\n    type = 'own'\n"
        "    class Options(NodeOptions):\n        both: Path | Url\n"
    )
    registry = plugins.load([tmp_path])
    assert [p.name for p in registry.broken] == ["own"]
    assert "own" not in registry.nodes
    assert registry.broken_for("own") is registry.broken[0]


# Secrets


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    text = (
        "flow: a\nparams:\n  p: {type: secret, default: hunter22, abuot: x}\n  q: {type: secret, env: Q}\n"
        "  r: {type: secret, default: hunter33}\n"
        "connections:\n"
        "  own: {mqtt: {url: 'mqtt://me:hunter44@x:bad'}}\n"
        "  two: {mqtt: {url: '${q}'}}\n"
        "  web2: {http-listener: {listen: ':1', token: hunter55, tokn: a}}\n"
        "  web3: {http-listener: {listen: '${file:token}', tokn: a}}\n"
        "chains:\n  c:\n    - mqtt-in: {connection: gate, topic: '${r}/#/x'}\n    - log: a\n"
    )
    (tmp_path / "token").write_text("hunter66\n")
    found = said(tmp_path, text, {"Q": "hunter77"})
    assert {p.mark[0] for p in found} >= {2, 6, 8, 9, 12}
    everything = "\n".join(str(p) for p in found)
    assert "hunter" not in everything
    assert "***" in everything


def test_check_json_shows_no_secret(tmp_path: Path) -> None:
    flow = HEAD.replace("flow: a", "flow: a\nparams: {q: {type: secret, env: Q}}").replace("t/{device}", "${q}/#/x")
    (tmp_path / "a.yaml").write_text(flow + "    - log: a\n")
    (tmp_path / "s.yaml").write_text(SHARED)
    result = flowengine("check", "--json", ".", cwd=tmp_path, Q="hunter77")
    assert result.returncode == 1
    assert "***/#/x" in result.stdout
    assert "hunter" not in result.stdout + result.stderr


def test_a_secret_that_cannot_be_read_is_said_with_its_path(tmp_path: Path) -> None:
    text = (
        "flow: a\nconnections:\n  w: {http-listener: {listen: '127.0.0.1:1', token: \"${file:gone}\"}}\n"
        "chains:\n  c: [http-in: {connection: w}, log: a]\n"
    )
    (problem,) = said(tmp_path, text)
    assert short(tmp_path, problem) == (
        f"a.yaml:3:54: connections.w http-listener: cannot read the secret {tmp_path}/gone: No such file or directory"
    ).replace(f"{tmp_path}/", "")


def test_a_secret_that_is_no_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"\xff\xff")
    (problem,) = said(tmp_path, HEAD + '    - log: "${file:raw}"\n')
    assert problem.text == f"the secret {tmp_path}/raw is not UTF-8 text"


# The sentences' parts


def test_a_suggestion_overlooks_case_and_dashes() -> None:
    assert suggestion("Http_Post", ["http-post", "log"]) == ", did you mean 'http-post'?"
    assert suggestion("zzz", ["http-post"]) == ""
    assert nearest("ON_ERROR", ["on_error"]) == "on_error"


def test_problems_are_ordered_by_place_and_each_is_said_once() -> None:
    found: list[Problem] = []
    second, first = Problems(Source(Path("b")), found), Problems(Source(Path("a")), found, flow="one")
    second.error((0, 0), "x")
    first.error((2, 0), "y")
    first.error((1, 4), "z")
    Problems(Source(Path("a")), found, flow="two").error((1, 4), "z")
    first.hide((0, 0))
    assert [p.headline for p in ordered(found)] == [
        "a:2:5: z (as flow 'one' uses it)",
        "a:3:1: y (as flow 'one' uses it)",
        "b:1:1: x",
    ]


# No mistake is a traceback

SLIPS = "：“”，\u3000\u00a0\t{}[]:,#\"'&*!|>%@`-x0"


def mistyped(text: str, chance: random.Random) -> str:
    """The text with one slip: a character gone, wrong or swapped, a line gone, doubled or moved."""
    rows = text.split("\n")
    number = chance.choice([n for n, row in enumerate(rows) if row.strip() and not row.startswith("#")])
    row = rows[number]
    at = chance.randrange(len(row))
    kind = chance.choice(["delete", "insert", "swap", "indent", "dedent", "drop", "double"])
    if kind == "drop":
        del rows[number]
    elif kind == "double":
        rows.insert(number, row)
    else:
        rows[number] = {
            "delete": row[:at] + row[at + 1 :],
            "insert": row[:at] + chance.choice(SLIPS) + row[at:],
            "swap": row[:at] + row[at : at + 2][::-1] + row[at + 2 :],
            "indent": " " * chance.choice([1, 2, 4]) + row,
            "dedent": row[chance.choice([1, 2]) :] if row.startswith("  ") else row,
        }[kind]
    return "\n".join(rows)


@pytest.mark.parametrize("seed", range(10))
def test_a_slip_in_facegate_is_an_error_inside_the_file_or_none(tmp_path: Path, seed: int) -> None:
    text = FACEGATE.read_text(encoding="utf-8")
    single = 0
    for number in range(30):
        wrong = mistyped(text, random.Random(seed * 1000 + number))
        loaded = load(tmp_path, {"facegate.yaml": wrong})
        rows = wrong.split("\n")
        for problem in loaded.problems:
            line, column = problem.mark
            assert line < len(rows) and column <= len(rows[line]), problem
            assert problem.text and "Traceback" not in problem.text
            assert str(problem)
        single += len(loaded.errors) <= 1
    assert single >= 25, "most slips are one error, not many"
