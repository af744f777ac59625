"""What a flow file may say, and what it then means: params, substitution, scalars, templates, routes, the engine's keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest

from flowengine import Condition, Duration, Meta, NodeOptions, Secret, Template, Topic, Tree, Url, plugins
from flowengine.flowfile.model import FlowDef
from flowengine.flowfile.problems import Problems, Source, lines_of
from flowengine.flowfile.project import Loaded
from flowengine.flowfile.reader import Reader
from flowengine.flowfile.substitute import Scope, Value
from flowengine.flowfile.tree import parse
from flowengine.testing import message
from tests.flowengine.flowfile.folder import HEAD, SHARED, load, said, short

TAIL = "    - log: a\n"


def flow(folder: Path, text: str, environ: dict[str, str] | None = None) -> FlowDef:
    """The flow that a text says; it must be good."""
    loaded = load(folder, {"a.yaml": text, "shared.yaml": SHARED}, environ)
    assert loaded.problems == [], [str(p) for p in loaded.problems]
    return loaded.project.flows[0]


def options(folder: Path, node: str, head: str = "", environ: dict[str, str] | None = None, at: int = 1) -> Any:
    """The options of one node of a good flow, with `head` (params) before its chains."""
    text = HEAD.replace("flow: a\n", "flow: a\n" + head) + node + ("" if "log" in node else TAIL)
    return flow(folder, text, environ).chains["c"].nodes[at].node.options


class Every(NodeOptions):
    """One option of each kind."""

    text: str = ""
    texts: list[str] = []  # noqa: RUF012 - msgspec copies it
    by_name: dict[str, str] = {}  # noqa: RUF012
    count: int = 0
    ratio: float = 0.0
    flag: bool = False
    anything: Any = None
    template: Template = Template("")
    topic: Topic = Topic("t")
    url: Url = Url("http://x")
    condition: Condition = Condition("true")
    tree: Tree = Tree(None)
    duration: Duration = Duration("1s")
    secret: Secret = Secret("")
    maybe: Annotated[str | None, Meta(description="May be null")] = None


def read(text: str, **params: Any) -> Every:
    """The options that a text gives, with these params."""
    problems = Problems(Source(Path("test.yaml"), lines_of(text)))
    tree = parse(text, problems)
    values = {
        name: Value(str(value).lower() if isinstance(value, bool) else str(value), value)
        for name, value in params.items()
    }
    found = Reader(problems, Scope(Path(), values, {"SET": "from {env}", "N": "7"})).read(tree, Every, (0, 0))
    assert found is not None and not problems.found, [str(p) for p in problems.found]
    return found


# Scalars are read by the option's type


def test_a_text_option_takes_the_source_text() -> None:
    got = read("{text: 0012, texts: [007, 1.0, true, null, 0x10], by_name: {01: 08}}")
    assert (got.text, got.texts, got.by_name) == ("0012", ["007", "1.0", "true", "null", "0x10"], {"01": "08"})


def test_elsewhere_scalars_are_what_yaml_1_2_says() -> None:
    got = read(
        "{count: 0x10, ratio: 1e3, flag: True, anything: [1, 1.5, yes, on, no, ~, null, '1', 12:30, 1_000, 0o17]}"
    )
    assert (got.count, got.ratio, got.flag) == (16, 1000.0, True)
    assert got.anything == [1, 1.5, "yes", "on", "no", None, None, "1", "12:30", "1_000", 15]


def test_null_stands_where_an_option_may_be_empty() -> None:
    assert read("{maybe: null}").maybe is None
    assert read("{maybe: }").maybe is None
    assert read("maybe: ''").maybe == ""


def test_a_block_text_is_a_text() -> None:
    assert read("text: |\n  one {two}\n  # three\n").text == "one {two}\n# three\n"


def test_route_keys_are_text(tmp_path: Path) -> None:
    filter_options = options(
        tmp_path, "    - cmd-filter: {routes: {0: drop, true: drop, 007: dead}, otherwise: next}\n"
    )
    assert list(filter_options.routes) == ["0", "true", "007"]


# Substitution: after parsing, in values only, once; what comes in is literal


def test_a_lone_param_keeps_its_type() -> None:
    got = read("{count: '${n}', flag: '${b}', ratio: '${r}', anything: ['${n}', '${b}', 'n ${n}']}", n=5, b=True, r=0.5)
    assert (got.count, got.flag, got.ratio, got.anything) == (5, True, 0.5, [5, True, "n 5"])


def test_what_the_environment_gives_is_read_by_the_options_type() -> None:
    got = read("{count: '${env:N}', text: '${env:N}', anything: '${env:N}', ratio: '${env:M:-1.5}'}")
    assert (got.count, got.text, got.anything, got.ratio) == (7, "7", "7", 1.5)


def test_an_unset_or_empty_variable_takes_the_default() -> None:
    got = read("texts: ['${env:GONE:-x}', '${env:GONE:-}', '${env:SET:-x}', 'a ${env:GONE:-b:-c} d']")
    assert got.texts == ["x", "", "from {env}", "a b:-c d"]


def test_what_comes_in_means_only_itself() -> None:
    got = read(
        "{template: '${v} {device}', topic: 'a/${v}', condition: 'payload.a == ${v}', tree: {a: '${v}'}, text: '${v}'}",
        v="{device} \"'\\ }",
    )
    msg = message({"a": "{device} \"'\\ }"}, device="7")
    assert got.template.render(msg) == "{device} \"'\\ } 7"
    assert got.topic.render(msg) == "a/{device} \"'\\ }"
    assert got.condition.test(msg)
    assert got.tree.build(msg) == {"a": "{device} \"'\\ }"}
    assert got.text == "{device} \"'\\ }"


def test_a_param_in_a_condition_is_a_value_and_no_code() -> None:
    assert not read("condition: payload.a == ${v}", v='x" or "1" == "1').condition.test(message({"a": "y"}))
    assert read("condition: payload.a == ${v}", v=5).condition.test(message({"a": "5"}))
    assert read("condition: \"payload.a == 'x${v}y'\"", v="'").condition.test(message({"a": "x'y"}))


def test_substitution_is_done_once_and_not_in_keys() -> None:
    got = read("{text: '${v}', by_name: {'${v}': a}, texts: ['$${v}', '$v', '$', '$$', 'a$${b} ${v}']}", v="${w}")
    assert got.text == "${w}"
    assert got.by_name == {"${v}": "a"}
    assert got.texts == ["${v}", "$v", "$", "$$", "a${b} ${w}"]


def test_a_secret_file_is_read_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "token").write_text("s3cret\r\n")
    text = "flow: a\nconnections:\n  own: {http-listener: {listen: '127.0.0.1:1', token: '${file:secrets/token}'}}\n"
    found = flow(tmp_path, text + "chains:\n  c: [http-in: {connection: own}, log: a]\n")
    token = found.connections["own"].connection.options.token
    assert token.value == "s3cret"
    assert "s3cret" not in repr(token) + str(token)


# Params


@pytest.mark.parametrize(
    ("param", "environ", "value"),
    [
        ("{default: 0012}", {}, "0012"),
        ("{default: 12}", {}, 12),
        ("{default: '12'}", {}, "12"),
        ("{default: 12, type: text}", {}, "12"),
        ("{default: 1.5}", {}, 1.5),
        ("{default: true}", {}, True),
        ("{default: 5s, type: duration}", {}, "5s"),
        ("{default: a, env: P}", {"P": "b"}, "b"),
        ("{default: a, env: P}", {"P": ""}, "a"),
        ("{default: 1, env: P}", {"P": "2"}, 2),
        ("{type: int, env: P}", {"P": "-3"}, -3),
        ("{type: number, env: P}", {"P": "3"}, 3),
        ("{type: bool, env: P}", {"P": "FALSE"}, False),
        ("{default: '${env:P:-x}'}", {"P": "y"}, "y"),
        ("{default: '', about: nothing}", {}, ""),
        ("{default: '{\"a\": 1}'}", {}, '{"a": 1}'),
    ],
)
def test_a_param_has_the_type_of_its_default_and_the_value_of_the_environment(
    tmp_path: Path, param: str, environ: dict[str, str], value: Any
) -> None:
    node = "    - mqtt-out: {connection: gate, topic: a, payload: ['${p}']}\n"
    built = options(tmp_path, node, f"params:\n  p: {param}\n", environ).payload.build(message())
    assert built == [value]
    assert type(built[0]) is type(value)


PARAM_ERRORS = [
    ("{type: int, default: ¦x}", {}, "the default is 'x', expected a whole number"),
    ("{type: number, default: ¦012}", {}, "the default is '012', expected a number"),
    ("{type: bool, default: ¦yes}", {}, "the default is 'yes', expected true or false"),
    (
        "{type: duration, default: ¦5x}",
        {},
        "the default is '5x', expected a length of time such as 50ms, 10s, 5m, 72h or 7d",
    ),
    ("{default: ¦[a]}", {}, "a default is one text, number or true/false"),
    (
        "{type: ¦txt}",
        {},
        "'type': expected one of 'bool', 'duration', 'int', 'number', 'secret', 'text', found 'txt', "
        "did you mean 'text'?",
    ),
    ("{defualt: 1}", {}, "unknown option 'defualt', did you mean 'default'?"),
    ("¦x", {}, "expected options as 'name: value', found the text 'x'"),
    ("{default: ¦'${q}'}", {}, "'q': a param's own options name no param"),
    (
        "{default: ¦'${env:GONE}'}",
        {},
        "the environment variable GONE is not set; set it, or write ${env:GONE:-default}",
    ),
    ("{}", {}, "'p' has no value: give a default, or env"),
    ("{default: null}", {}, "'p' has no value: give a default, or env"),
    ("{env: GONE}", {}, "'p' has no value; set the environment variable GONE, or give a default"),
    ("{env: P, default: 1}", {"P": "x"}, "the environment variable P is 'x', expected a whole number"),
]


@pytest.mark.parametrize(("param", "environ", "words"), PARAM_ERRORS, ids=[w[:40] for _p, _e, w in PARAM_ERRORS])
def test_a_wrong_param_is_said_once_where_it_is_declared(
    tmp_path: Path, param: str, environ: dict[str, str], words: str
) -> None:
    clean = param.replace("¦", "")
    column = 6 + (param.index("¦") if "¦" in param else 0)
    if "¦" not in param:
        column = 7 if "defualt" in param else 3
    text = (
        HEAD.replace("flow: a\n", f"flow: a\nparams:\n  p: {clean}\n")
        + "    - log: ${p}\n    - log: ${p}\n      name: two\n"
    )
    assert [short(tmp_path, p) for p in said(tmp_path, text, environ)] == [f"a.yaml:3:{column}: params.p: {words}"]


# Templates

TEMPLATE = """\
template: gate
params:
  device: {about: The terminal}
  several: {type: int, default: 3}
  backend: {env: BACKEND}
connections:
  own: {mqtt: {url: "mqtt://broker"}}
chains:
  c:
    - mqtt-in: {connection: own, topic: "a/${device}"}
    - http-post: {url: "${backend}"}
      delivery: {concurrency: "${several}"}
"""


def instance(folder: Path, given: str, template: str = TEMPLATE, **more: str) -> Loaded:
    """What an instance of the template gives, and other files beside it."""
    text = f"flow: gate-one\nuse: templates/gate.yaml\nwith: {given}\n"
    return load(folder, {"one.yaml": text, "templates/gate.yaml": template, **more})


def test_an_instance_gives_its_template_values_of_the_params_types(tmp_path: Path) -> None:
    loaded = instance(tmp_path, '{device: 0012, several: 5, backend: "http://b"}')
    assert loaded.problems == []
    (made,) = loaded.project.flows
    source, post = made.chains["c"].nodes
    assert made.name == "gate-one"
    assert source.node.options.topic.text == "a/0012"
    assert post.keys.delivery is not None
    assert post.keys.delivery.concurrency == 5
    assert post.node.context.identity == "gate-one/c/http-post"


def test_a_template_by_itself_is_checked_and_runs_nothing(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"templates/gate.yaml": TEMPLATE})
    assert loaded.problems == []
    assert loaded.project.flows == []
    wrong = load(tmp_path, {"templates/gate.yaml": TEMPLATE.replace("http-post:", "http-pots:")})
    assert [short(tmp_path, p) for p in wrong.problems] == [
        "templates/gate.yaml:11:7: chains.c[1]: unknown node 'http-pots', did you mean 'http-post'?"
    ]


WANTS = "one.yaml:2:6: use: the template wants a value for '{}': give it under 'with:'"
BACKEND = ", or set the environment variable BACKEND"
GIVEN = [
    ("{device: a}", [WANTS.format("backend") + BACKEND]),
    ("{backend: 'http://b'}", [WANTS.format("device")]),
    (
        "{device: a, backend: 'http://b', devise: b}",
        ["one.yaml:3:40: with.devise: the template has no param 'devise', did you mean 'device'?"],
    ),
    (
        "{device: a, backend: 'http://b', several: x}",
        ["one.yaml:3:49: with.several: the value given is 'x', expected a whole number"],
    ),
    (
        "{device: a, backend: 'http://b', several: 08}",
        ["one.yaml:3:49: with.several: the value given is '08', expected a whole number"],
    ),
    ("{device: [a], backend: 'http://b'}", ["one.yaml:3:16: with.device: a value is one text, number or true/false"]),
    (
        "{device: '${env:GONE}', backend: 'http://b'}",
        ["one.yaml:3:16: with.device: the environment variable GONE is not set; set it, or write ${env:GONE:-default}"],
    ),
    (
        "[a]",
        [
            WANTS.format("device"),
            WANTS.format("backend") + BACKEND,
            "one.yaml:3:7: with: 'with' gives values by name: {device: \"0012\"}",
        ],
    ),
    (
        "{device: a, backend: nope}",
        [
            "templates/gate.yaml:11:24: chains.c[1] http-post: not a URL: write it as http://host:port/path "
            "(as flow 'gate-one' uses it)"
        ],
    ),
]


@pytest.mark.parametrize(("given", "errors"), GIVEN, ids=[given for given, _errors in GIVEN])
def test_what_an_instance_gives_wrong_is_said_where_it_can_be_mended(
    tmp_path: Path, given: str, errors: list[str]
) -> None:
    found = [short(tmp_path, p) for p in instance(tmp_path, given).problems]
    assert sorted(found) == sorted(errors)


def test_a_mistake_in_a_template_is_said_once_and_names_a_flow_that_uses_it(tmp_path: Path) -> None:
    two = "flow: gate-two\nuse: ./templates/../templates/gate.yaml\nwith: {device: b, backend: 'http://b'}\n"
    wrong = TEMPLATE.replace("concurrency", "concurency")
    loaded = instance(tmp_path, "{device: a, backend: 'http://b'}", wrong, **{"two.yaml": two})
    assert [short(tmp_path, p) for p in loaded.problems] == [
        "templates/gate.yaml:12:18: chains.c[1] http-post: unknown option 'concurency', did you mean 'concurrency'? "
        "(as flow 'gate-one' uses it)"
    ]


def test_two_instances_that_want_one_client_id_are_both_named(tmp_path: Path) -> None:
    two = "flow: gate-two\nuse: templates/gate.yaml\nwith: {device: b, backend: 'http://b'}\n"
    template = TEMPLATE.replace('broker"', 'broker", client_id: me')
    (problem,) = instance(tmp_path, "{device: a, backend: 'http://b'}", template, **{"two.yaml": two}).problems
    assert short(tmp_path, problem).replace(f"{tmp_path}/", "") == (
        "templates/gate.yaml:7:9: connections.own mqtt: client id 'me' at broker:1883 is taken already, "
        "in flow gate-one, templates/gate.yaml:7 (as flow 'gate-two' uses it)"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "flow: a\nuse: templates/gaet.yaml\n",
            "2:6: use: there is no template {}/templates/gaet.yaml, did you mean 'templates/gate.yaml'?",
        ),
        ("flow: a\nuse: shared.yaml\n", "2:6: use: {}/shared.yaml is not a template: it begins with 'connections:'"),
        ("flow: a\nuse: [x]\n", "2:6: use: 'use' names the file of a template"),
        ("flow: a\nwith: {x: y}\n" + HEAD[8:] + TAIL, "2:7: with: 'with' goes with 'use: TEMPLATE'"),
        ("flow: a\ntemplate: b\n" + HEAD[8:] + TAIL, "2:1: 'template' cannot stand in a file that begins with 'flow:'"),
        ("template: a\nuse: b\n" + HEAD[8:] + TAIL, "2:1: 'use' cannot stand in a file that begins with 'template:'"),
    ],
)
def test_what_stands_wrong_around_a_template_is_said(tmp_path: Path, text: str, words: str) -> None:
    files = {"a.yaml": text, "shared.yaml": SHARED, "templates/gate.yaml": TEMPLATE}
    (problem,) = load(tmp_path, files).problems
    assert short(tmp_path, problem) == "a.yaml:" + words.format(tmp_path.as_posix()).replace(
        f"{tmp_path.as_posix()}/", ""
    )


def test_an_instance_has_no_chains_of_its_own(tmp_path: Path) -> None:
    text = "flow: a\nuse: templates/gate.yaml\nwith: {device: a, backend: 'http://b'}\nchains: {}\nparams: {}\nconnections: {}\n"
    found = load(tmp_path, {"a.yaml": text, "templates/gate.yaml": TEMPLATE}).problems
    assert [short(tmp_path, p) for p in found] == [
        f"a.yaml:{line}: {key}: '{key}' belongs into the template: an instance has 'use' and 'with'"
        for line, key in (("4:9", "chains"), ("5:9", "params"), ("6:14", "connections"))
    ]


# The top of a file


def test_format_x_keys_and_about_may_stand_at_the_top(tmp_path: Path) -> None:
    text = (
        "format: 1\n"
        + HEAD.replace("flow: a\n", "flow: a\nabout: 门禁\nx-ours: {anything: [1]}\n")
        + "    - log: a\n      x-y: 1\n"
    )
    assert flow(tmp_path, text).about == "门禁"


def test_aliases_may_be_used(tmp_path: Path) -> None:
    text = HEAD.replace("flow: a\n", 'flow: a\nx-topic: &t "out/{device}"\n')
    found = flow(tmp_path, text + "    - mqtt-out: {connection: gate, topic: *t}\n")
    assert found.chains["c"].nodes[1].node.options.topic.text == "out/{device}"


def test_names_may_have_chinese_letters(tmp_path: Path) -> None:
    text = (
        HEAD.replace("flow: a", "flow: 门禁")
        + "    - run: 记录\n    - log: '{payload.姓名}'\n      name: 日志\n  记录:\n    - json-parse\n"
    )
    found = flow(tmp_path, text)
    assert found.chains["c"].nodes[2].node.context.identity == "门禁/c/日志"


def test_connections_of_one_file_are_shared_by_the_folder(tmp_path: Path) -> None:
    found = flow(tmp_path, HEAD + TAIL)
    assert found.uses == {"gate"}
    assert found.connections == {}


# Nodes, routes, the engine's keys


def test_a_node_stands_alone_with_options_or_with_one_bare_value(tmp_path: Path) -> None:
    found = flow(tmp_path, HEAD + "    - json-parse\n    - filter: payload.a == 1\n    - log: {text: b}\n")
    assert [n.name for n in found.chains["c"].nodes] == ["mqtt-in", "json-parse", "filter", "log"]


def test_routes_are_chains_ends_and_lists_on_the_spot(tmp_path: Path) -> None:
    found = flow(
        tmp_path,
        HEAD
        + "    - cmd-filter:\n        routes:\n          a: d\n          b: drop\n          c: dead\n          e: next\n"
        + "          f:\n            - json-parse\n            - cmd-filter: {routes: {g: [log: '{device}']}, otherwise: drop}\n"
        + "        otherwise: [log: other]\n    - log: a\n      on_error: [log: '{error.reason}']\n  d:\n    - log: '{device}'\n",
    )
    assert {name for name, chain in found.chains.items() if chain.inline} == {
        "c.cmd-filter.routes.f",
        "c.cmd-filter.routes.f.cmd-filter.routes.g",
        "c.cmd-filter.otherwise",
        "c.log.on_error",
    }


def test_an_inline_nodes_identity_does_not_change_when_nodes_are_added_before_it(tmp_path: Path) -> None:
    node = "    - cmd-filter: {routes: {a: [log: b]}, otherwise: drop}\n"
    before = flow(tmp_path, HEAD + node)
    after = flow(tmp_path, HEAD + "    - json-parse\n" + node)
    inside = [f.chains["c.cmd-filter.routes.a"].nodes[0].node.context.identity for f in (before, after)]
    assert inside == ["a/c.cmd-filter.routes.a/log"] * 2


def test_a_disabled_node_is_left_out_but_must_be_right(tmp_path: Path) -> None:
    found = flow(tmp_path, HEAD + "    - filter: payload.a == 1\n      disabled: true\n    - log: a\n")
    assert [n.name for n in found.chains["c"].nodes] == ["mqtt-in", "log"]
    (problem,) = said(tmp_path, HEAD + "    - filter: payload.a = 1\n      disabled: true\n    - log: a\n")
    assert problem.mark == (4, 24)


def test_a_node_that_may_be_passed_by_makes_nothing_unreached(tmp_path: Path) -> None:
    node = "    - cmd-filter: {routes: {}, otherwise: drop}\n      when: exists(payload.cmd)\n"
    assert len(flow(tmp_path, HEAD + node + TAIL).chains["c"].nodes) == 3


def test_result_is_known_behind_an_action_and_error_where_on_error_leads(tmp_path: Path) -> None:
    flow(
        tmp_path,
        HEAD + "    - http-post: {url: 'http://x'}\n      on_error: failed\n    - log: '{result.status} {device}'\n"
        "  failed:\n    - log: '{error.reason} {error.attempts} {device}'\n",
    )


def test_what_a_called_chain_learnt_is_known_behind_the_call(tmp_path: Path) -> None:
    flow(tmp_path, HEAD + "    - run: learn\n    - log: '{who}'\n  learn:\n    - keep: {fields: {who: payload.name}}\n")


def test_broken_plugins_do_not_keep_others_from_being_read(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "bad.py").write_text("1 / 0\n")
    (tmp_path / "plugins" / "good.py").write_text(
        "from flowengine import Step\nclass Good(Step):\n    type = 'good'\n    def process(self, msg):\n        return msg\n"
    )
    registry = plugins.load([tmp_path / "plugins"])
    loaded = load(tmp_path / "flows", {"a.yaml": HEAD + "    - good\n" + TAIL, "s.yaml": SHARED}, registry=registry)
    assert loaded.problems == []
