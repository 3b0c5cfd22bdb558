#!/usr/bin/env python3
"""Write expected.json: what Jinja2, set up as Hugging Face's apply_chat_template does, makes of the
templates here and of the snippets below. Needs python3-jinja2 (3.1)."""
import glob
import json
import os

from jinja2 import __version__
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

here = os.path.dirname(os.path.abspath(__file__))
env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise TemplateError(message)


env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception

U, A, S = "user", "assistant", "system"
conversations = {
    "one": [(U, "Hello!")],
    "system": [(S, "You are terse. "), (U, " What is 2+2?\n")],
    "turns": [(S, "Be kind."), (U, "Hi"), (A, "Hello, how can I help?"), (U, "Name a \u201cquote\u201d: \u00e9\U0001f642 <b>&amp;</b>")],
    "no system": [(U, "a"), (A, "<think>\nhm\n</think>\n\nb"), (U, "c"), (A, "d")],
    "wrong order": [(A, "first")],
    "empty content": [(U, "")],
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


def render(source, conv, gen):
    try:
        t = env.from_string(source)
        return {"text": t.render(messages=[{"role": r, "content": c} for r, c in conv], add_generation_prompt=gen, bos_token="<bos>",
                                 eos_token="<eos>", tools=None, documents=None)}
    except Exception as e:  # noqa: BLE001 - any failure of the reference is a failure expected of us
        return {"error": str(e)}


cases = []
for path in sorted(glob.glob(os.path.join(here, "*.jinja"))):
    source = open(path).read()
    for name, conv in conversations.items():
        for gen in (True, False):
            cases.append({"file": os.path.basename(path), "conversation": name, "gen": gen, **render(source, conv, gen)})
for source in snippets:
    for name in ("turns", "one"):
        cases.append({"source": source, "conversation": name, "gen": True, **render(source, conversations[name], True)})
with open(os.path.join(here, "expected.json"), "w") as f:
    json.dump({"jinja2": __version__, "conversations": {k: [list(m) for m in v] for k, v in conversations.items()}, "cases": cases}, f, indent=0)
