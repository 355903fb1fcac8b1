"""Mapping templates of API Gateway: what they reach, and how they write values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.ministack.apigateway import templates

BODY = '{"list": ["a", 1, null], "map": {"k": "v"}, "true": true, "null": null}'
PARAMETERS = {"path": {"p": "1"}, "querystring": {"p": "2", "q": "a b"}, "header": {"Content-Type": "text/x"}}


def render(template: str, body: str = BODY, context: dict[str, Any] | None = None) -> str:
    return templates.render(template, body, PARAMETERS, context or {"stage": "prod"}, {"v": "x"})[0]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("$input.body", BODY),
        ("$input.json('$.map')", '{"k":"v"}'),
        ("$input.json('$')", BODY.replace(", ", ",").replace(": ", ":")),
        ("$input.path('$.map') $input.path('$.list') $input.path('$.true')", '{k=v} ["a",1,null] true'),
        ("[$input.path('$.null')$input.path('$.none')$input.json('$.none')]", "[]"),
        ("$input.params('p') $input.params('q') $input.params('content-type')$input.params('none')", "1 a b text/x"),
        ("#foreach($k in $input.params().keySet())$k #end", "path querystring header "),
        ("$context.stage $stageVariables.v $esc.newline", "prod x \n"),
        ("$util.escapeJavaScript(\"a'b\") $util.urlEncode('a b')", "a\\'b a+b"),
        ("$util.base64Decode($util.base64Encode('h\u00e9'))", "h\u00e9"),
        ("#set($o = $util.parseJson('{\"a\": [1]}'))$o.a.size()$o.a[0]", "11"),
        ("#set($t = 'a,b,,')#foreach($i in $t.split(','))$i#if($foreach.hasNext);#end#end", "a;b"),
        ("#if($input.path('$.true') == true)yes#{else}no#end", "yes"),
    ],
)
def test_variables_are_those_of_api_gateway(template: str, text: str) -> None:
    assert render(template) == text


def test_what_a_template_overrides_comes_with_its_text() -> None:
    template = (
        '#set($context.responseOverride.status = 418)#set($context.responseOverride.header.a = "b")#set($context.b = 1)'
    )
    context: dict[str, Any] = {"responseOverride": {"header": {}}, "stage": "prod"}
    overrides = {"responseOverride": {"status": 418, "header": {"a": "b"}}}
    assert templates.render(template, "", PARAMETERS, context, {}) == ("", overrides)


NAMES = ["__class__", "__globals__", "__init__", "__self__", "_parameters", "format", "format_map", "mro", "encode"]


@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4), st.sampled_from(["", "()", '("{0.__class__}")']))
def test_templates_reach_nothing_of_python(names: list[str], call: str) -> None:
    for root in ("input", "input.json", "util", "util.parseJson", "context", "context.stage", "esc", "input.params()"):
        template = f"${root}.{'.'.join(names)}{call}"
        assert render(template) == template


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("#foreach($i in [1..2000000000])x#end", "1000 times"),
        ("#foreach($i in $util.parseJson('[" + "1," * 1000 + "1]'))x#end", "1000 times"),
        ("#set($t = 'a' * 2000000000)", "numbers only"),
        ('#set($t = "abcdefghijkl")#foreach($i in [1..20])#set($t = "$t$t")#end$t', "characters at most"),
        ("#include('/etc/passwd')", "loader"),
        ("#parse('/etc/passwd')", "loader"),
        ("#macro(m)#m()#end#m()", "recursion"),
        ("$input.path('$..a')", "JSONPath"),
    ],
)
def test_what_a_template_may_not_do_is_an_error(template: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        render(template)


def test_what_is_no_template_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Invalid mapping template.*#end"):
        templates.check("#if(true)")
