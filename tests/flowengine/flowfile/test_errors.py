"""Every mistake in a flow file is said with its place and in words that a person can use.

In the texts below, `¦` marks where the caret of each error must stand.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from tests.flowengine.flowfile.folder import HEAD, marked, said, short

QUOTES = "a text that begins with { stands in quotes (without them it is a list or an object)"
NAME = "a name begins with a letter or digit, and has letters, digits, - and _"
NO_FLOW = "this is no flow: a flow begins with 'flow: NAME'"
EMPTY = "the file is empty: a flow begins with 'flow: NAME'"
COLON = "'：' is a full-width colon: write ': ', or put the text in quotes"
FAR = "'{}' is at the wrong indentation: it belongs under '{}:', further to the {}"

# Each case: the text with its marks, and what is said at each of them, in their order.
YAML = [
    (HEAD + "    - log: ¦[a\n    - log: b\n", "'[' is not closed, or a comma is missing before line 6"),
    (HEAD + '    - log: ¦"a\n    - log: b\n', "this quote is not closed"),
    (HEAD + "    - log: 'it'¦s'\n", "the quote was closed before this: put the whole text in one pair of quotes"),
    (HEAD + "    - log: ¦%Y\n", "a text that begins with % stands in quotes"),
    (
        HEAD + '    - log: "C:\\¦d"\n',
        "a backslash in double quotes begins an escape: write it twice, or use single quotes",
    ),
    ("flow: a\nchains: c¦: x\n", "a text with ': ' in it stands in quotes; a new key begins on a line of its own"),
    (
        "flow: a\n¦chains\n  c:\n    - log: a\n",
        "'chains': a colon is missing after this key, or it is text that needs quotes",
    ),
    (HEAD + "¦\t- log: a\n", "a tab cannot indent in YAML: use spaces"),
    (HEAD + "    - log:\n¦\t\ttext: a\n", "a tab cannot indent in YAML: use spaces"),
    (HEAD + "    - log: {text: ¦{device} went}\n", QUOTES),
    (HEAD + "    - log: ¦{device} went\n", QUOTES),
    (HEAD + "    - log: ¦{device}: {payload}\n", QUOTES),
    (HEAD + "    - log: ¦[{device}] went\n", QUOTES.replace("{", "[")),
    (HEAD + "    - log: {text: to_¦{device}_x}\n", "a text that holds { stands in quotes here"),
    (HEAD + "    - log: {text: a, ¦text: b}\n", "'text' stands twice; the first is in line 5"),
    (HEAD + "    - log: a\n  ¦c:\n    - log: b\n", "'c' stands twice; the first is in line 3"),
    (HEAD + "    - log: ¦!!str a\n", "YAML tags are not used here: remove '!!str'"),
    (HEAD + "    - log: ¦!python/object a\n", "YAML tags are not used here: remove '!python/object'"),
    (HEAD + "    - log: ¦*a\n", "'*a' is not defined above; a text that begins with * stands in quotes"),
    (
        HEAD + "    - log: {¦<<: {a: b}, text: a}\n",
        "merge keys (<<) are not used here: write the keys out, or make a template",
    ),
    (HEAD + "    - log: a\n¦---\nflow: b\n", "one file is one document: put what follows '---' into a file of its own"),
    ("¦", EMPTY),
    ("¦# nothing yet\n", EMPTY),
    ("¦---\n", EMPTY),
    ("¦hello\n", NO_FLOW),
    ("¦- log: a\n", NO_FLOW),
    ("¦chains:\n  c:\n    - log: b\n", NO_FLOW),
    ("¦flwo: a\nchains: {}\n", NO_FLOW + ", did you mean 'flow'?"),
    ("flow: a\n¦\x07\n", "the character U+0007 is not allowed in YAML"),
]

INDENTATION = [
    (
        HEAD + "    - http-post:\n      ¦url: http://x/\n",
        "chains.c[1] http-post: option 'url' is at the wrong indentation: "
        "it belongs under 'http-post:', further to the right",
    ),
    (
        HEAD + "    - http-post:\n    ¦url: http://x/\n",
        "'url' is at the wrong indentation: it stands in line with the '-' of a node, and belongs to the right",
    ),
    (
        HEAD + "    - http-post:\n        url: http://x/\n        ¦when: payload.a\n",
        "chains.c[1] http-post: 'when' is at the wrong indentation: it stands beside 'http-post:', not among its options",
    ),
    (
        HEAD + "    - http-post: {url: 'http://x/'}\n     ¦when: payload.a\n",
        "'when' is at the wrong indentation: it stands in line with none of the lines above",
    ),
    (
        HEAD + "    - log: a\n        ¦when: payload.a\n",
        "'when' is at the wrong indentation: further to the right than the line above allows",
    ),
    (HEAD + "   ¦- log: a\n", "this '-' is at the wrong indentation: it stands in line with none of those above it"),
    (
        HEAD + "    - field-map:\n        fields:\n        ¦user_id: num\n        name: name\n",
        "chains.c[1] field-map: " + FAR.format("user_id", "fields", "right"),
    ),
    (HEAD + "    - run: d\n    - log: a\n¦d:\n    - json-parse\n", FAR.format("d", "chains", "right")),
    (
        HEAD + "    - run: d\n    - log: a\n      ¦d:\n        - json-parse\n",
        "chains.c[2] log: " + FAR.format("d", "chains", "left"),
    ),
]

KEYBOARD = [
    ("flow¦：a\nchains:\n  c:\n    - log: a\n", COLON),
    ("flow: a\nchains¦：\n  c:\n    - log: a\n", COLON),
    (HEAD + "    - log¦：a\n", COLON),
    (HEAD + "    - http-post:\n        url¦： http://x\n", COLON),
    (HEAD + "    - http-post: {url¦： http://x}\n", COLON),
    (HEAD + "    - log: ¦“to {device}”\n", '“ is no quote in YAML: write " for it, or around the whole text'),
    (HEAD + "    - log: {text: ¦“{device}”}\n", '“ is no quote in YAML: write " for it, or around the whole text'),
    (
        HEAD + "    - http-post: {url: http://x¦，timeout: 5s}\n",
        "'，' is a full-width comma: write ', ', or put the text in quotes",
    ),
    (HEAD + "   ¦\u00a0- log: a\n", "this is no plain space (U+00A0): delete it and press the space bar"),
    (HEAD + "    - log:¦\u00a0a\n", "this is no plain space (U+00A0): delete it and press the space bar"),
    (HEAD + "    -¦\u3000log: a\n", "this is no plain space (U+3000): delete it and press the space bar"),
    (HEAD + "    -¦log: a\n", "a space is missing after '-'"),
    (HEAD + "    - ¦log:a\n", "chains.c[1]: a space is missing after 'log:'"),
    (HEAD + "    - http-post:\n        ¦url:http://x\n", "chains.c[1] http-post: a space is missing after 'url:'"),
]

HASH = "' #' begins a comment here: put the text in quotes, or a space behind the # of a comment"
REFERENCE = "known here: device, qos, retained, topic; a field of the payload is written payload.{0}"
NODES = [
    (HEAD + "    - log: door ¦#1\n", f"chains.c[1] log: {HASH}"),
    (
        HEAD + "    - mqtt-out: {connection: gate, topic: a, payload: {b: door ¦#1\n      }}\n",
        f"chains.c[1] mqtt-out: {HASH}",
    ),
    (HEAD + "    - ¦lgo: a\n", "chains.c[1]: unknown node 'lgo', did you mean 'log'?"),
    (
        HEAD + "    - ¦HTTP_post: {url: 'http://x'}\n",
        "chains.c[1]: unknown node 'HTTP_post', did you mean 'http-post'?",
    ),
    (HEAD + "    - ¦zzz: a\n", "chains.c[1]: unknown node 'zzz'; 'flowengine nodes' lists those there are"),
    (HEAD + "    - ¦when: payload.a\n", "chains.c[1]: a node needs its type: 'when' stands beside it"),
    (
        HEAD + "    - log: a\n      ¦json-parse:\n",
        "chains.c[1]: two nodes in one item: each node begins with its own '- '",
    ),
    (HEAD + "    - ¦[log]\n", "chains.c[1]: expected a node: '- TYPE', '- TYPE: {options}' or '- TYPE: VALUE'"),
    (
        HEAD + "    - http-post: {¦ulr: 'http://x'}\n",
        "chains.c[1] http-post: unknown option 'ulr', did you mean 'url'?",
    ),
    (
        HEAD + "    - log: a\n      ¦onerror: b\n",
        "chains.c[1] log: unknown key 'onerror' beside log, did you mean 'on_error'?",
    ),
    (HEAD + "    - log: a\n      ¦retry: 3\n", "chains.c[1] log: 'retry' is reserved for later"),
    (HEAD + "    - ¦http-post: {}\n", "chains.c[1] http-post: option 'url' is missing"),
    (HEAD + "    - ¦http-post:\n", "chains.c[1] http-post: option 'url' is missing"),
    (HEAD + "    - ¦cmd-filter: {routes: {a: drop}}\n", "chains.c[1] cmd-filter: option 'otherwise' is missing"),
    (HEAD + "    - http-post:\n        url:¦\n", "chains.c[1] http-post: option 'url' has no value"),
    (HEAD + "    - http-post: {url: ¦[a]}\n", "chains.c[1] http-post: 'url': expected a text, found a list"),
    (
        HEAD + "    - log: ¦{device}\n",
        "chains.c[1] log: 'text': expected a text, found an object; a text that begins with { stands in quotes",
    ),
    (
        HEAD + "    - cmd-filter: ¦cmd\n",
        "chains.c[1] cmd-filter: expected options as 'name: value', found the text 'cmd'",
    ),
    (
        HEAD + "    - log: a\n      disabled: ¦yes\n",
        "chains.c[1] log: 'disabled': expected true or false, found 'yes', did you mean 'true'?",
    ),
    (
        HEAD + "    - log: a\n      delivery: {concurrency: ¦0}\n",
        "chains.c[1] log: 'concurrency': 0 is too small: at least 1",
    ),
    (
        HEAD + "    - log: a\n      delivery: {concurrency: ¦2000}\n",
        "chains.c[1] log: 'concurrency': 2000 is too large: at most 1024",
    ),
    (
        HEAD + "    - log: a\n      delivery: {concurrency: ¦many}\n",
        "chains.c[1] log: 'concurrency': expected a whole number, found 'many'",
    ),
    (
        HEAD + "    - log: a\n      delivery: {¦concurency: 2}\n",
        "chains.c[1] log: unknown option 'concurency', did you mean 'concurrency'?",
    ),
    (
        HEAD + "    - log: a\n      delivery: {concurrency: ¦08}\n",
        "chains.c[1] log: a number does not begin with 0; if '08' is a text, put it in quotes",
    ),
    (
        HEAD + "    - mqtt-out: {connection: gate, topic: a, payload: {id: ¦0012}}\n",
        "chains.c[1] mqtt-out: a number does not begin with 0; if '0012' is a text, put it in quotes",
    ),
    (
        HEAD + "    - json-parse:\n      ¦delivery: {}\n    - log: a\n",
        "chains.c[1] json-parse: only an action takes 'delivery', and json-parse is none",
    ),
    (HEAD + "    - log: a\n      name: ¦a.b\n", f"chains.c[1] log: {NAME}"),
    (
        HEAD + "    - log: a\n    - ¦log: b\n",
        "chains.c[2] log: two nodes of this chain are named 'log': give one a name of its own with 'name:'",
    ),
    (HEAD + "    - log: '{¦devce}'\n", "chains.c[1] log: unknown reference 'devce', did you mean 'device'?"),
    (HEAD + "    - log: '门禁 {¦zzz}'\n", "chains.c[1] log: unknown reference 'zzz'; " + REFERENCE.format("zzz")),
    (
        HEAD + "    - log: '{¦result.status}'\n",
        "chains.c[1] log: 'result.status' is unknown here: no action stands before this node",
    ),
    (
        HEAD + "    - log: '{¦error.reason}'\n",
        "chains.c[1] log: 'error.reason' is unknown here: it is known only where on_error leads",
    ),
    (
        HEAD + "    - log: 'a {¦message.tme}'\n",
        "chains.c[1] log: 'message.tme' is unknown: message has message.id, message.time, message.part",
    ),
    (
        HEAD + "    - log: 'a ¦{device'\n",
        "chains.c[1] log: a brace is opened and not closed; a brace itself is written {{",
    ),
    (
        HEAD + "    - log: 'a device¦}'\n",
        "chains.c[1] log: a brace is closed and was not opened; a brace itself is written }}",
    ),
    (
        HEAD
        + "    - mqtt-out:\n        connection: gate\n        topic: a\n        payload: {a: ['{device}', '¦{x']}\n",
        "chains.c[1] mqtt-out: a brace is opened and not closed; a brace itself is written {{",
    ),
    (
        HEAD + "    - filter: payload.a ¦= 1\n    - log: a\n",
        "chains.c[1] filter: '=' has no meaning here; write == to compare",
    ),
    (
        HEAD + "    - filter: payload.a ¦&& payload.b\n    - log: a\n",
        "chains.c[1] filter: '&' has no meaning here; write and",
    ),
    (
        HEAD + "    - filter: payload.a == ¦01\n    - log: a\n",
        "chains.c[1] filter: '01' is not a number; a text stands in quotes",
    ),
    (
        HEAD + "    - filter: payload.a ==¦\n    - log: a\n",
        "chains.c[1] filter: expected a reference, a number or a text in quotes at the end",
    ),
    (HEAD + '    - filter: "payload.a == ¦\'x"\n    - log: a\n', "chains.c[1] filter: this quote is not closed"),
    (HEAD + "    - filter: payload.a == ¦“x”\n    - log: a\n", "chains.c[1] filter: '“' has no meaning here; write \""),
    (
        HEAD + "    - filter: payload.a > 1 ¦> 2\n    - log: a\n",
        "chains.c[1] filter: comparisons do not chain: join them with 'and' before '>'",
    ),
    (
        HEAD + "    - filter: '¦{payload.a} == 1'\n    - log: a\n",
        "chains.c[1] filter: references stand without braces in a condition: payload.a == 1",
    ),
    (
        HEAD + "    - log: a\n      when: payload.a == ¦devce\n",
        "chains.c[1] log: unknown reference 'devce', did you mean 'device'?",
    ),
    (
        HEAD + "    - http-post: {url: ¦'localhost:80/a'}\n",
        "chains.c[1] http-post: not a URL: write it as http://host:port/path",
    ),
    (
        HEAD + "    - http-post: {url: ¦'http://x:99999/'}\n",
        "chains.c[1] http-post: not a URL: write it as http://host:port/path",
    ),
    (
        HEAD + "    - http-post: {url: ¦'ftp://x'}\n",
        "chains.c[1] http-post: only http and https are spoken here, not 'ftp'",
    ),
    (
        HEAD + "    - split: {path: data.¦.x}\n    - log: a\n",
        "chains.c[1] split: not a path: write keys and list places with dots between, as in data.0.num",
    ),
    (HEAD + "    - log: ¦${x}\n", "chains.c[1] log: unknown param 'x'; params are declared under 'params:'"),
    (
        HEAD + '    - log: "to ¦${env:NOPE}"\n',
        "chains.c[1] log: the environment variable NOPE is not set; set it, or write ${env:NOPE:-default}",
    ),
    (
        HEAD + '    - log: "to ¦${device"\n',
        "chains.c[1] log: '${' is opened and not closed; the text '${' itself is written '$${'",
    ),
]

MQTT = [
    (
        HEAD.replace('"t/{device}"', "¦a/#/b") + "    - log: a\n",
        "chains.c[0] mqtt-in: Topic filter 'a/#/b': # must be the last level.",
    ),
    (
        HEAD.replace('"t/{device}"', "¦a+/b") + "    - log: a\n",
        "chains.c[0] mqtt-in: Topic filter 'a+/b': + and # must be a whole level of their own.",
    ),
    (
        HEAD.replace('"t/{device}"', '¦"a/{d}/{d}"') + "    - log: a\n",
        "chains.c[0] mqtt-in: Topic pattern 'a/{d}/{d}' captures 'd' twice.",
    ),
    (
        HEAD.replace('"t/{device}"', '¦"{payload}"') + "    - log: a\n",
        "chains.c[0] mqtt-in: Topic pattern '{payload}' must not capture 'payload', which is taken; choose another name.",
    ),
    (
        HEAD.replace('"t/{device}"', '¦"t/{and}"') + "    - log: a\n",
        "chains.c[0] mqtt-in: 'and' has a meaning of its own: choose another name",
    ),
    (
        HEAD.replace('"t/{device}"', "t, qos: ¦2") + "    - log: a\n",
        "chains.c[0] mqtt-in: QoS 2 is not used: write 1, which delivers at least once, and tell repeats by the Idempotency-Key",
    ),
    (HEAD.replace('"t/{device}"', "t, qos: ¦5") + "    - log: a\n", "chains.c[0] mqtt-in: a QoS is 0 or 1, not '5'"),
    (
        HEAD + "    - mqtt-out: {connection: ¦gaet, topic: a}\n",
        "chains.c[1] mqtt-out: unknown connection 'gaet', did you mean 'gate'?",
    ),
    (
        HEAD + "    - mqtt-out: {connection: ¦zzz, topic: a}\n",
        "chains.c[1] mqtt-out: unknown connection 'zzz'; connections are declared under 'connections:'",
    ),
    (
        HEAD + "    - mqtt-out: {connection: ¦web, topic: a}\n",
        "chains.c[1] mqtt-out: connection 'web' is of type http-listener, this node needs mqtt",
    ),
    (
        HEAD + "    - mqtt-out: {connection: gate, topic: ¦a/#}\n",
        "chains.c[1] mqtt-out: a topic to publish to has no wildcard: '+' and '#' are not allowed here",
    ),
]

GRAPH = [
    (HEAD + "    - run: ¦nowhere\n    - log: a\n", "chains.c[1] run: unknown chain 'nowhere'; chains of this flow: c"),
    (
        HEAD + "    - run: ¦recrods\n    - log: a\n  records:\n    - json-parse\n",
        "chains.c[1] run: unknown chain 'recrods', did you mean 'records'?",
    ),
    (
        HEAD + "    - run: d\n    - log: a\n  d:\n    - run: e\n  e:\n    - run: ¦d\n",
        "chains.e[0] run: goes in a circle: d → e → d",
    ),
    (
        HEAD + "    - log: a\n      on_error: d\n  d:\n    - log: a\n      on_error: ¦d\n",
        "chains.d[0] log: goes in a circle: d → d",
    ),
    (
        HEAD + "    - run: ¦c\n    - log: a\n",
        "chains.c[1] run: chain 'c' begins with a source: messages enter it there and nowhere else",
    ),
    (
        HEAD + "    - log: a\n  ¦d:\n    - log: '{device}'\n",
        "chains.d: nobody enters this chain: begin it with a source, or name it in a route, run, copy-to or on_error",
    ),
    (
        HEAD + "    - ¦mqtt-in: {connection: gate, topic: y}\n    - log: a\n",
        "chains.c[1] mqtt-in: a source stands first in a chain of its own",
    ),
    (
        HEAD + "    - cmd-filter: {routes: {}, otherwise: [¦mqtt-in: {connection: gate, topic: y}, log: a]}\n",
        "chains.c[1] cmd-filter.otherwise[0] mqtt-in: a source stands first in a chain of its own",
    ),
    (
        HEAD + "    - cmd-filter: {routes: {a: drop}, otherwise: drop}\n    - ¦log: a\n",
        "chains.c[2] log: is never reached: cmd-filter before it passes nothing on",
    ),
    (
        HEAD.replace("  c:", "  ¦c:") + "    - json-parse\n",
        "warning: chains.c: whatever comes in here is dropped: no action and no log on any way",
    ),
    (
        HEAD + "    - run: d\n      disabled: true\n    - log: a\n  ¦d:\n    - json-parse\n",
        "warning: chains.d: only a disabled node enters this chain",
    ),
    (HEAD + "    - log: a\n  d: ¦x\n", "chains.d: a chain is a list of nodes, each on a line with '- '"),
    ("¦flow: a\n", "a flow has chains: 'chains:' and below it a name and a list of nodes"),
    ("flow: ¦a.b\nchains:\n  c:\n    - mqtt-in: {connection: gate, topic: t}\n    - log: a\n", f"flow: {NAME}"),
    (HEAD + "    - log: a\n¦defaults: {}\n", "'defaults' is reserved for later"),
    (HEAD + "    - log: a\nformat: ¦2\n", "this format is not known: this version of flowengine reads format 1"),
    (HEAD + "    - log: a\n¦abuot: x\n", "unknown key 'abuot', did you mean 'about'?"),
    (
        "flow: a\nchains:\n  c: [http-in: {connection: web, path: /}, log: a]\n"
        "  d: [¦http-in: {connection: web, path: /}, log: a]\n",
        "chains.d[0] http-in: POST / on connection web is taken already, in a.yaml:3",
    ),
    (
        "flow: a\nconnections:\n  b: {mqtt: {url: 'mqtt://x', client_id: me}}\n  c: {¦mqtt: {url: 'mqtt://x', client_id: me}}\n"
        "chains:\n  c: [mqtt-in: {connection: b, topic: t}, log: a]\n",
        "connections.c mqtt: client id 'me' at x:1883 is taken already, in a.yaml:3",
    ),
    (
        "flow: a\nconnections:\n  b: {¦mqttt: {}}\nchains:\n  c: [mqtt-in: {connection: b, topic: t}, log: a]\n",
        "connections.b: unknown connection type 'mqttt', did you mean 'mqtt'?",
    ),
]
CASES = [*YAML, *INDENTATION, *KEYBOARD, *NODES, *MQTT, *GRAPH]


@pytest.mark.parametrize(("text", "words"), CASES, ids=[words[:60] for _text, words in CASES])
def test_a_mistake_is_said_once_at_its_place(tmp_path: Path, text: str, words: str) -> None:
    clean, [(line, column)] = marked(text)
    problems = said(tmp_path, clean)
    assert [short(tmp_path, p) for p in problems] == [f"a.yaml:{line}:{column}: {words}".replace("a.yaml: ", "")]


@pytest.mark.parametrize(("text", "words"), CASES, ids=[words[:60] for _text, words in CASES])
def test_the_caret_stands_under_the_mistake(tmp_path: Path, text: str, words: str) -> None:
    clean, [(line, column)] = marked(text)
    (problem,) = said(tmp_path, clean)
    source = clean.split("\n")[line - 1]
    if not source.strip():
        return
    _head, shown, caret = str(problem).split("\n")
    assert caret.endswith("^")
    before = shown[: shown.index("…")] if "…" in shown else shown
    assert width(caret[:-1]) == width(before[: 4 + column - 1])


def width(text: str) -> int:
    """The columns that a text takes on a terminal; a tab counts as itself on both lines."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)
