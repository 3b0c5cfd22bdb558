#!/usr/bin/env python3
"""Write expected.json: what Jinja2, set up as Hugging Face's apply_chat_template does, makes of the templates here
and of the snippets below. Needs Jinja2 3.1. Long results are kept as their SHA-256 (`--show FILE CONVERSATION` prints one)."""
import datetime
import glob
import hashlib
import json
import os
import sys

from jinja2 import __version__
from jinja2.exceptions import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

here = os.path.dirname(os.path.abspath(__file__))
NOW = datetime.datetime(2026, 2, 3, 4, 5, 6)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise TemplateError(message)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


env = environment()


def user(c):
    return {"role": "user", "content": c}


def asst(c, **more):
    return {"role": "assistant", "content": c, **more}


def system(c):
    return {"role": "system", "content": c}


def call(name, args, id="abc123XYZ", **more):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": args}, **more}


weather = {"type": "function", "function": {"name": "get_weather", "description": "Weather at a place \u2013 now.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "City & country, e.g. \"Oslo, Norway\""},
                                     "unit": {"type": "string", "enum": ["c", "f"], "default": "c"}, "days": {"type": "integer", "description": "How many", "default": 3}},
    "required": ["city"]}}}
deep = {"type": "function", "function": {"name": "plan_trip", "description": "Plans.", "parameters": {"type": "object", "properties": {
    "stops": {"type": "array", "description": "where", "items": {"type": "object", "properties": {"name": {"type": "string", "description": "n"}, "nights": {"type": "number"}}, "required": ["name"]}},
    "tags": {"type": "array", "items": {"type": "string"}}, "ids": {"type": "array", "items": {"type": "integer"}}, "raw": {"type": "array", "description": "anything"},
    "who": {"type": "object", "description": "person", "properties": {"age": {"type": "integer", "nullable": True, "description": "years"}}, "required": ["age"]},
    "limit": {"oneOf": [{"type": "number", "description": "a number"}, {"type": "string", "default": "all"}], "description": "either"},
    "kind": {"type": ["string", "null"], "description": "maybe"}, "ok": {"type": "boolean", "description": "yes <or> no", "default": True}}, "required": ["stops", "who"]},
    "return": {"type": "object", "description": "the plan"}}}
bare = {"type": "function", "function": {"name": "now", "description": "Time.", "parameters": {"type": "object", "properties": {}}}}
with_response = {"type": "function", "function": {"name": "ping", "description": "Pings.", "parameters": {"type": "object", "properties": {"host": {"type": "string", "description": "h"}}, "required": ["host"]},
                                                  "response": {"type": "object", "description": "answer"}}}
docs = [{"title": "A", "text": "First \u00e9."}, {"doc_id": 7, "title": "B", "text": "Second.", "score": 0.5}]
parts = [{"type": "text", "text": "look at "}, {"type": "text", "text": "this"}]
image = [{"type": "text", "text": "what is it?"}, {"type": "image", "image": "x.png"}]
image_first = [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "what is it?"}]
quoted = "Name a \u201cquote\u201d: \u00e9\U0001f642 <b>&amp;</b> 'x' \"y\" \u4f60\u597d \u202e \\n"

conversations = {
    "one": dict(messages=[user("Hello!")]),
    "system": dict(messages=[system("You are terse. "), user(" What is 2+2?\n")]),
    "turns": dict(messages=[system("Be kind."), user("Hi"), asst("Hello, how can I help?"), user(quoted)]),
    "no system": dict(messages=[user("a"), asst("<think>\nhm\n</think>\n\nb"), user("c"), asst("d")]),
    "wrong order": dict(messages=[asst("first")]),
    "two users": dict(messages=[user("a"), user("b")]),
    "empty content": dict(messages=[user("")]),
    "no messages": dict(messages=[]),
    "developer": dict(messages=[{"role": "developer", "content": "Rules."}, user("a")]),
    "unknown role": dict(messages=[user("a"), {"role": "observer", "content": "b"}]),
    "none content": dict(messages=[user("a"), asst(None), user("b")]),
    "no content": dict(messages=[user("a"), {"role": "assistant"}, user("b")]),
    "number content": dict(messages=[user(3.5), asst(12), user(True)]),
    "parts": dict(messages=[system([{"type": "text", "text": "Sys."}]), user(parts), asst([{"type": "text", "text": "I see"}]), user("ok")]),
    "image": dict(messages=[user(image), asst("A cat."), user(image_first)]),
    "thinking parts": dict(messages=[user("q"), asst([{"type": "thinking", "thinking": "let me"}, {"type": "text", "text": "so"}]), user("r")]),
    "reasoning": dict(messages=[user("q"), asst("four", reasoning_content="two and two"), user("and 3?"), asst("six", reasoning_content="three\n and three ")]),
    "reasoning none": dict(messages=[user("q"), asst("four", reasoning_content=None, tool_calls=None), user("and 3?")]),
    "gpt thinking": dict(messages=[user("q"), asst("four", thinking="two and two"), user("and 3?"), asst("x", thinking="y")]),
    "channel": dict(messages=[user("q"), asst("<|channel|>analysis<|message|>hm"), user("r")]),
    "gemma channel": dict(messages=[user("q"), asst("<|channel>thought\nhm<channel|> answer "), user("r")]),
    "think off": dict(messages=[system("S /no_think"), user("q")], vars={"enable_thinking": False}),
    "think on": dict(messages=[system("S"), user("q"), asst("<think>a</think>b"), user("r")], vars={"enable_thinking": True}),
    "effort": dict(messages=[user("q")], vars={"reasoning_effort": "high", "model_identity": "You are X.", "builtin_tools": ["browser", "python"], "date_string": "1 Jan 2030"}),
    "tools": dict(messages=[user("Weather in Oslo?")], tools=[weather]),
    "tools system": dict(messages=[system("Sys."), user("Weather?")], tools=[weather, deep]),
    "tools deep": dict(messages=[user("Plan")], tools=[deep, bare, with_response]),
    "tools empty": dict(messages=[user("Plan")], tools=[]),
    "tools flat": dict(messages=[user("Plan")], tools=[weather["function"]]),
    "tools in system": dict(messages=[system("Sys."), user("Weather?")], tools=[weather], vars={"tools_in_user_message": False}),
    "call": dict(messages=[user("Weather?"), asst("", tool_calls=[call("get_weather", {"city": "Oslo", "days": 2, "opts": {"a": [1, 2.5, None], "b": True}})])], tools=[weather]),
    "call result": dict(messages=[user("Weather?"), asst(None, tool_calls=[call("get_weather", {"city": "\u00c5l", "deep": {"z": 1, "A": [True, None]}})]),
                                  {"role": "tool", "tool_call_id": "abc123XYZ", "name": "get_weather", "content": "{\"t\": -3}"}, asst("Cold."), user("And <tomorrow>?")], tools=[weather]),
    "call no content": dict(messages=[user("W?"), {"role": "assistant", "tool_calls": [call("get_weather", {"city": "Oslo"})]},
                                      {"role": "tool", "tool_call_id": "abc123XYZ", "content": "cold"}], tools=[weather]),
    "call string": dict(messages=[user("W?"), asst("", tool_calls=[call("get_weather", "{\"city\": \"O's <x>\"}")]), {"role": "tool", "tool_call_id": "abc123XYZ", "content": "cold"}], tools=[weather]),
    "calls": dict(messages=[user("W?"), asst("Let me see.", reasoning_content="two places", tool_calls=[call("get_weather", {"city": "Oslo"}), call("now", {}, "def456XYZ")]),
                            {"role": "tool", "tool_call_id": "abc123XYZ", "name": "get_weather", "content": "cold"},
                            {"role": "tool", "tool_call_id": "def456XYZ", "content": [{"type": "text", "text": "noon"}]}], tools=[weather, bare]),
    "call thinking": dict(messages=[user("W?"), asst("", thinking="need weather", tool_calls=[call("get_weather", {"city": "Oslo"})]),
                                    {"role": "tool", "tool_call_id": "abc123XYZ", "name": "get_weather", "content": {"t": -3, "list": [1, "a"]}}, asst("Cold")], tools=[weather]),
    "call bad id": dict(messages=[user("W?"), asst("", tool_calls=[call("get_weather", {"city": "Oslo"}, "short")]), {"role": "tool", "content": "cold"}], tools=[weather]),
    "tool responses": dict(messages=[user("W?"), asst("", tool_calls=[call("get_weather", {"city": "Oslo"})], tool_responses=[{"name": "get_weather", "response": {"t": -3, "note": "a\"b"}}]), asst("Cold.")],
                           tools=[weather]),
    "ipython": dict(messages=[user("W?"), asst("", tool_calls=[call("brave", {"query": "oslo & co"})]), {"role": "ipython", "content": {"a": 1}}, user("x")], vars={"builtin_tools": ["brave", "code_interpreter"]}),
    "documents": dict(messages=[system("Sys."), user("q")], documents=docs),
    "documents tools": dict(messages=[user("q")], documents=docs, tools=[weather]),
}
snippets = [
    "a {{ 1 + 2 * 3 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 1e3 }} {{ 0.1 + 0.2 }} {{ 1.5e20 }} {{ 2.0 * 3 }}",
    "{{ 'a' ~ 1 ~ none ~ true ~ 1.0 }} {{ 'ab' * 3 }} {{ [1, 'x', none, true, {'k': [1.5]}] }} {{ (1, 2) | list }} {{ {'a': 1, 'b': 'it\\'s'} }}",
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}:{{ m.role }}\n{% endfor %}end\n",
    "{%- for m in messages if m.role != 'system' -%}\n  [{{ m['content'] | trim | length }}]\n{%- else -%} none {%- endfor -%}\n\n x",
    "{% if messages | length > 2 and not messages[0].tool_calls %}many{% elif messages %}few{% else %}none{% endif %}",
    "{% set x = 1 %}{% for m in messages %}{{ x }}{% set x = x + 1 %}{{ x }},{% endfor %}{{ x }}",
    "{% set ns = namespace(n=0, s='') %}{% for m in messages %}{% set ns.n = ns.n + m.content | length %}{% set ns.s = ns.s + m.role[0] %}{% endfor %}{{ ns.n }} {{ ns.s }}",
    "{{ 'Hello World' | upper }} {{ 'HeLLo' | lower }} {{ 'heLLo wORLD' | capitalize }} {{ 'hello big-world' | title }} {{ '  x ' | trim }}| {{ 'abcabc' | replace('b', 'XX') }} {{ 'abc' | replace('', '-') }}",
    "{{ [1, 2, 3] | join(', ') }} {{ 'abc' | first }} {{ [1, 2] | last }} {{ [] | first | default('none') }} {{ undefined_thing | default('d') }} {{ '' | default('e', true) }} {{ 'abc' | reverse | list if false else [3, 2] | reverse | list }}",
    "{{ messages | tojson }} {{ {'a': [1, 2.5, none, true, 'q\"\\n\\t\\\\'], 'b': {}} | tojson }} {{ [] | tojson(indent=2) }}\n{{ {'a': [1, {'b': 2}]} | tojson(indent=4) }}",
    "{{ 'x' is defined }} {{ y is defined }} {{ y is undefined }} {{ none is none }} {{ 'a' is string }} {{ 1 is number }} {{ 1 is integer }} {{ 1.0 is float }} {{ {} is mapping }} {{ [] is iterable }} {{ [] is sequence }} {{ true is boolean }} {{ true is true }} {{ 3 is odd }} {{ 4 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(4) }} {{ 1 is not none }}",
    "{{ 'a' in 'abc' }} {{ 'z' not in 'abc' }} {{ 'role' in messages[0] }} {{ 2 in [1, 2] }} {{ not 'a' in ['a'] }} {{ 1 < 2 }} {{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 'a' <= 'b' }} {{ 1 == 1.0 }} {{ true == 1 }} {{ [1, 'a'] == [1, 'a'] }} {{ none != false }}",
    "{{ messages[-1].content }} {{ messages[1:] | length }} {{ messages[:1][0].role }} {{ 'h\u00e9llo'[1:3] }} {{ 'h\u00e9llo'[-2:] }} {{ [1, 2, 3, 4][::2] }} {{ [1, 2, 3][::-1] }} {{ 'abc'[1] }} {{ [1, 2][5] is defined }} {{ 'h\u00e9llo' | length }}",
    "{{ ' a b '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ ' a'.lstrip() }}|{{ 'a\\n\\n'.rstrip('\\n') }}|{{ 'a,b,,c'.split(',') }}|{{ ' a  b '.split() }}|{{ 'a b c'.split(' ', 1) }}|{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith('bc') }}|{{ 'abc'.upper() }}|{{ '-'.join(['a', 'b']) }}|{{ 'a</think>b'.split('</think>')[-1] }}|{{ 'aXbX'.replace('X', '') }}",
    "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{{ {'a': 1}.get('b', 'no') }}{{ {'a': 1}.get('a') }}{{ {'a': 1, 'b': 2} | items | list | length }}{% for k in {'x': 1} %}{{ k }}{% endfor %}",
    "{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %} {{ range(2, 10, 3) | list }}",
    "x\n  {% if true %}\n  y\n  {% endif %}\nz\n   {# note #}\n  w {# in line #} v\n{{ 'a' }}\n\n  {%+ if true %}kept{% endif +%}\n!\n",
    "a  {{- ' b ' -}}  c\n{%- if true %}\n\n d{% endif %}\n",
    "{{ 'one' 'two' }} {{ \"\\u00e9\\x41\\n\\q\" }} {{ 'a' if false }}{{ 'b' if 1 else 'c' }}{{ 'x' if 0 else 'y' if 0 else 'z' }}",
    "{{ undefined_thing }}[{% for x in undefined_thing %}x{% endfor %}]{{ undefined_thing is defined and undefined_thing.x }}{% if undefined_thing == none %}n{% endif %}{{ none or 'o' }}{{ '' and 'p' }}",
    "{% for a in [1, 2] %}{% for b in [3, 4] %}{{ loop.index }}{{ a }}{{ b }} {% endfor %}{{ loop.index }};{% endfor %}{{ loop is defined }}",
    "{% set a = [1] + [2] %}{{ a }}{% set t = 1, 2 %}{{ t[1] }}{{ '5' | int + 1 }}{{ 'x' | int(7) }}{{ -3 | abs }}{{ 3 | string + 'a' }}",
    "{% macro m(a, b=1, c=a) %}[{{ a }},{{ b }},{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, c=2) }}{{ m(b='x', a=none) }}{{ m() }}{{ m(1, 2, 3) | length }}",
    "{% macro fact(n) %}{% if n < 2 %}1{% else %}{{ n * (fact(n - 1) | int) }}{% endif %}{% endmacro %}{{ fact(6) }}{% set y = 5 %}{% macro g() %}{{ y }}{% set y = 6 %}{{ y }}{% endmacro %}{{ g() }}{{ y }}{% set y = 7 %}{{ g() }}",
    "{% for m in messages %}{% set inner = loop.index %}{% macro loc(x) %}{{ x }}{% endmacro %}{{ loc(inner) }}{% endfor %}{% macro top() %}{{ inner is defined }}{% endmacro %}{% for inner in [1] %}{{ top() }}{% endfor %}",
    "{% set x %}a {{ 1 + 1 }} <b>{% endset %}{{ x | upper }}{% set y | trim | replace('a', 'b') %}  aa  {% endset %}[{{ y }}]{% filter upper | replace('X', 'y') %}x {{ x }}{% endfilter %}{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}",
    "{% raw %}{{ not }} {% this %}{% endraw %}|{%- raw -%}  {{ x }}  {%- endraw -%}  |\n  {% raw %}\n a{% endraw %}\nb",
    "{% set a, b = 1, [2] %}{{ a }}{{ b }}{{ 1, 2 }}{{ (1,) }}{{ () }}{{ [(1, 'a')] }}{% for i, j in [(1, 2), [3, 4]] %}{{ i }}{{ j }}{% endfor %}{% for x in 1, 2 %}{{ x }}{% endfor %}{{ (1, 2) == [1, 2] }}{{ (1, 2) | tojson }}",
    "{{ messages | map(attribute='role') | join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', '==', 'user') | map(attribute='content') | list }} {{ [1, 2, 3, 4] | select('odd') | list }} {{ [0, 1, '', 'a'] | select | list }} {{ ['a', 'B'] | map('upper') | list }} {{ [1, none] | reject('none') | list }} {{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A', 'c'] | sort(case_sensitive=true, reverse=true) }} {{ [3, 1, 2] | sort | last }} {{ [{'a': 2}, {'a': 1}] | sort(attribute='a') }}",
    "{{ {'b': 1, 'A': 2, 'c': 0} | dictsort }} {{ {'b': 1, 'a': 2} | dictsort(by='value', reverse=true) }} {{ [1, 2, 1, 'A', 'a'] | unique | list }} {{ [3, 1] | min }}{{ [3, 1] | max }}{{ [1, 2.5] | sum }}{{ [] | max is defined }} {{ 2.5 | round }} {{ 3.14159 | round(2) }} {{ 2.1 | round(0, 'ceil') }} {{ 7 | round }} {{ '3.7' | int }} {{ '1_0' | int }} {{ '2.5' | float }} {{ 'x' | float }} {{ [1, 2, 3] | batch(2, 'f') | list }}",
    "{{ 'a,b c' | title }} {{ 'x\ny\n\nz' | indent(2) }} {{ 'x\ny' | indent(2, true) }} {{ '<a b=\"c\">' | escape }} {{ '<a>' | safe + '<b>' }} {{ ('<a>' | safe) ~ '<b>' }} {{ 'b<' + ('<i>' | safe) + '\\'&' }}",
    "{{ 'a b c'.rsplit(' ', 1) }} {{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }} {{ 'ab\ncd\r\n'.splitlines() }} {{ 'hello'.find('l') }}{{ 'hello'.rfind('l') }}{{ 'hello'.find('z') }}{{ 'hello'.count('l') }} {{ 'abc'.removeprefix('a') }} {{ '7'.zfill(3) }} {{ 'abc'.isalpha() }}{{ '12'.isdigit() }}{{ '1a'.isalnum() }}{{ ' '.isspace() }} {{ 'they\\'re bill'.title() }} {{ 'abc'.startswith(('x', 'a')) }} {{ [1, 2, 1].count(1) }}{{ [1, 2].index(2) }} {{ ' a  b c '.split(none, 1) }} {{ ' a  b '.rsplit() }}",
    "{{ 2 ** 10 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 2 ** -1 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 1e16 }} {{ 12345678901234567.0 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }} {{ 1.0e-7 }} {{ 123456.789 }} {{ -0.0 }} {{ 5e-324 }} {{ 1.7976931348623157e308 }} {{ 100.0 }} {{ 1 / 3 }}",
    "{{ {'a': none, 'b': [1.0, 1e100, -0.5]} | tojson }} {{ 'hé🙂' | tojson(ensure_ascii=true) }} {{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }} {{ {'a': []} | tojson(indent=0) }} {{ '\u2028\x00' | tojson }} {{ [' ​🙂͸'] }}",
    "{% set d = {'items': 1, 'x': 2} %}{{ d['items'] }} {{ d.items is callable }} {{ d['keys'] is callable }} {{ d.x }} {{ d.pop is defined }} {{ {}['items'] is defined }} {{ d.items() | list }} {{ d.keys() | list }} {{ d.values() | list }} {{ d | items | list }} {{ d.items() | length }} {{ d.keys() }}",
    "{{ loop is defined }}{% for x in [1, 2, 3] %}{{ loop.cycle('a', 'b') }}{{ loop.previtem }}{{ loop.nextitem is defined }}{{ loop.depth }}{% else %}no{% endfor %}{% for x in [] %}{% else %}{% set q = 1 %}none{% endfor %}{{ q is defined }}",
    "{{ strftime_now('%Y-%m-%d %H:%M:%S %d %b %B %A %a %j %y %I %p %-d %e %%') }} {{ dict(a=1, b=2) }} {{ namespace(a=1).a }} {{ [0] * 3 }} {{ 'abc'[::-1] }} {{ 'abcdef'[1:5:2] }} {{ 'abc' | reverse }} {{ [1, [2]] < [1, [3]] }} {{ 'A' is upper }}{{ 3 is gt 2 }}{{ 1 is sameas 1 }}{{ (1, 2) is sequence }}{{ {}.items() is sequence }}{{ range(3) is iterable }}",
    "{{ not true == false }} {{ 1 if none }} {{ 'a' in ['a'] and 'b' }} {{ [] or {} or 0 or 'z' }} {{ 1 < 2 == true }} {{ 'x' ~ 1.5 ~ [none] }} {{ '%s' ~ '}}' }} {{ {'a': {'b': [10, 20]}}.a.b[-1] }} {{ 'caf\u00e9' == 'café' }} {{ \"it's\" }} {{ ['it\\'s', '\"', '\\'\"'] }}",
    "{{ [1, 2] | map('nosuch') | list }}",
    "{% macro m(a) %}{{ m(a) }}{% endmacro %}{{ m(1) }}",
    "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{% endmacro %}{{ m(b=2) }}",
    "{% set ns = {} %}{% set ns.a = 1 %}",
    "{{ [1].append(2) }}",
    "{{ 'a' < 1 }}",
    "{{ [2, 'a'] | sort }}",
    "{{ (messages | selectattr('role')) | length }}",
    "{{ undefined_thing | tojson }}",
    "{{ [x] | tojson }}",
    "{{ messages | map(attribute='a.b') | list }}",
    "{{ 'a' * 2.0 }}",
    "{{ none | select('none') | list }}{{ x | reject('none') | list }}{{ messages | map('int') | list }}",
    "{{ x | int }}",
    "{{ 1 | indent }}",
    "{{ x | indent }}",
    "{{ x | float }}",
    "{% set d = {} %}{{ d[1:] }}",
    "{{ raise_exception('no, thanks') }}",
    "{{ undefined_thing.attr }}",
    "{{ 'a' + 1 }}",
    "{{ undefined_thing + 'a' }}",
    "{{ 1 // 0 }}",
    "{% if true %}open",
    "{{ 'open }}",
    "{% endfor %}",
    "{{ 1 + }}",
    "{{ [1, 2 }}",
    "{% for x of y %}{% endfor %}",
]


def render(env, source, conv, gen):
    try:
        t = env.from_string(source)
        return {"text": t.render(messages=conv["messages"], add_generation_prompt=gen, bos_token="<bos>", eos_token="<eos>",
                                 tools=conv.get("tools"), documents=conv.get("documents"), **conv.get("vars", {}))}
    except Exception as e:  # noqa: BLE001 - any failure of the reference is a failure expected of us
        return {"error": str(e)[:60]}


def short(r):
    if len(r.get("text", "")) <= 150:
        return r
    b = r["text"].encode()
    return {"sha256": hashlib.sha256(b).hexdigest(), "bytes": len(b)}


def main():
    if sys.argv[1:2] == ["--show"]:
        for gen in (False, True):
            r = render(env, open(sys.argv[2]).read(), conversations[sys.argv[3]], gen)
            print(r.get("text", r))
        return
    cases = []
    for path in sorted(glob.glob(os.path.join(here, "*.jinja"))):
        source = open(path).read()
        for name, conv in conversations.items():
            for gen in (True, False):
                cases.append({"file": os.path.basename(path), "conversation": name, "gen": gen, **short(render(env, source, conv, gen))})
    for source in snippets:
        for name in ("turns", "one"):
            cases.append({"source": source, "conversation": name, "gen": True, **render(env, source, conversations[name], True)})
    text = json.dumps({"jinja2": __version__, "conversations": conversations, "cases": cases}, ensure_ascii=True, separators=(",", ":"))
    with open(os.path.join(here, "expected.json"), "w") as f:
        f.write(text.replace('{"file"', '\n{"file"').replace('{"source"', '\n{"source"') + "\n")


if __name__ == "__main__":
    main()
