#!/usr/bin/env python3
"""Random templates over random conversations: `ashlar template` against Jinja2 (pip install jinja2).

usage: tmpl_random.py ASHLAR [CASES] [SEED]

Two kinds of cases, half each: a published template (tests/data/templates) with a random conversation, and a random
template made from a grammar of the subset. A result must equal Jinja2's byte for byte; where Jinja2 fails, ashlar must
fail, too. What ashlar names as not supported is counted apart; so are slices of what has none, for which Jinja2 has two
answers (undefined where it folds a constant while compiling, an error when rendering)."""
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
data = os.path.join(here, "..", "data", "templates")
spec = importlib.util.spec_from_file_location("make_expected", os.path.join(data, "make_expected.py"))
ref = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ref)

R = random.Random()
WORDS = ["a", "Bc", "hello world", "", " x ", "é\U0001f642", "<b>&", "it's", 'say "q"', "line\nbreak", "\u4f60\u597d", "</think>\n", "\\n", "Z", "tool", "0", "3.5", "user"]


def word():
    return R.choice(WORDS)


def value(d=0):
    k = R.randrange(8 if d < 3 else 5)
    if k < 2:
        return word()
    if k == 2:
        return R.choice([0, 1, -7, 42, 10**12])
    if k == 3:
        return R.choice([0.5, 1e16, -2.0, 1e-7, 123456.75, 0.1])
    if k == 4:
        return R.choice([None, True, False])
    if k == 5:
        return [value(d + 1) for _ in range(R.randrange(4))]
    return {R.choice(["a", "b", "type", "text", "items", "name", "Key", "é"]): value(d + 1) for _ in range(R.randrange(4))}


def content():
    k = R.randrange(10)
    if k < 6:
        return word()
    if k == 6:
        return None
    if k == 7:
        return [{"type": "text", "text": word()} for _ in range(R.randrange(3))]
    return word() + word()


def tool():
    t = R.choice([ref.weather, ref.deep, ref.bare, ref.with_response])
    if R.random() < 0.3:
        t = json.loads(json.dumps(t))
        t["function"]["parameters"]["properties"][R.choice(["q", "Zed", "items"])] = R.choice(
            [{"type": "string", "description": word()}, {"type": "array", "items": {"type": R.choice(["string", "object"])}}, {"type": ["integer", "null"]}, {"enum": ["a", "b"], "type": "string"}])
    return t


def conversation():
    m = []
    if R.random() < 0.4:
        m.append({"role": "system", "content": content() if R.random() < 0.2 else word()})
    for _ in range(R.randrange(4)):
        m.append({"role": "user", "content": content()})
        a = {"role": "assistant", "content": content()}
        if R.random() < 0.3:
            a[R.choice(["reasoning_content", "thinking", "reasoning"])] = R.choice([word(), word(), None])
        if R.random() < 0.4:
            ids = ["abc123XYZ", "def456XYZ"][: R.randrange(1, 3)]
            a["tool_calls"] = [{"id": i, "type": "function", "function": {"name": "f", "arguments": {R.choice("abc"): value(1) for _ in range(R.randrange(3))}}} for i in ids]
            m.append(a)
            m += [{"role": "tool", "tool_call_id": i, "name": "f", "content": R.choice([word(), word(), value(2)])} for i in ids]
            if R.random() < 0.7:
                m.append({"role": "assistant", "content": content()})
        elif R.random() < 0.9:
            m.append(a)
    if R.random() < 0.7 or not m:
        m.append({"role": "user", "content": word()})
    c = {"messages": m}
    if R.random() < 0.4:
        c["tools"] = [tool() for _ in range(R.randrange(3))]
    if R.random() < 0.1:
        c["documents"] = ref.docs
    if R.random() < 0.2:
        c["vars"] = {"enable_thinking": R.random() < 0.5}
    return c


# ---- random templates ----
def lit():
    return R.choice(["1", "0", "-3", "2.5", "1e16", "'a'", "' Bc d '", "''", "none", "true", "false", "[1, 'a', none]", "[]", "{'b': 1, 'A': [2]}", "{}", "(1, 'x')", "\"q'\\n\"", "[3, 1, 2]", "['b', 'A']"])


def name():
    return R.choice(["x", "y", "messages", "m", "nope", "tools", "ns.v", "d", "s", "loop.index", "loop.last", "messages[0].content", "messages[-1]['role']", "d.items", "d['b']", "s[1:]", "x[0]"])


FILTERS = ["upper", "lower", "trim", "length", "first", "last", "list", "join(',')", "tojson", "tojson(indent=2)", "default('dd')", "default('e', true)", "string", "int", "float", "reverse | list", "sort",
           "unique | list", "replace('a', 'b')", "title", "capitalize", "items | list", "dictsort", "map('string') | list", "select | list", "reject('none') | list", "selectattr('role') | list", "map(attribute='role') | list",
           "abs", "round", "min", "max", "sum", "indent(2)", "e", "safe", "count", "batch(2) | list", "join"]
TESTS = ["defined", "none", "string", "mapping", "sequence", "iterable", "number", "integer", "boolean", "odd", "true", "not none", "not defined", "eq(1)", "in [1, 'a']", "float", "undefined", "divisibleby(2)", "lower"]
METHODS = ["strip()", "split()", "split('a')", "upper()", "startswith('a')", "endswith('c')", "items() | list", "keys() | list", "values() | list", "get('a')", "get('zz', 1)", "replace('a', 'xy')", "rstrip('x')", "title()",
           "find('c')", "isdigit()", "splitlines()", "count('a')", "partition(' ')", "rsplit(' ', 1)"]
OPS = ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", ">", "<=", ">=", "in", "not in", "and", "or", "**"]


def expr(d=0):
    k = R.randrange(11)
    if d > 3 or k < 2:
        return lit()
    if k < 4:
        return name()
    if k == 4:
        return f"({expr(d + 1)} {R.choice(OPS)} {expr(d + 1)})"
    if k < 7:
        return f"({expr(d + 1)}) | {R.choice(FILTERS)}"
    if k == 7:
        return f"({expr(d + 1)} is {R.choice(TESTS)})"
    if k == 8:
        return f"({expr(d + 1)}).{R.choice(METHODS)}"
    if k == 9:
        return f"({expr(d + 1)} if {expr(d + 1)} else {expr(d + 1)})"
    return f"({expr(d + 1)})[{R.choice(['0', '-1', '1:', ':-1', '::-1', '::2', chr(39) + 'a' + chr(39)])}]" if R.random() < 0.7 else f"not ({expr(d + 1)})"


def sign():
    return R.choice(["", "", "-", "+"]) if R.random() < 0.4 else ""


def space():
    return R.choice(["", "", " ", "\n", "  \n", "\n  ", "text\n", " t "])


def stmt(d=0):
    k = R.randrange(9)
    b = lambda: body(d + 1)  # noqa: E731
    if k < 3 or d > 2:
        return "{{" + R.choice(["", "-"]) + " " + expr() + " " + R.choice(["", "-"]) + "}}"
    if k == 3:
        return "{%" + sign() + f" if {expr()} " + sign() + "%}" + b() + "{%" + sign() + " else %}" + b() + "{% endif " + sign() + "%}"
    if k == 4:
        return "{%" + sign() + " for " + R.choice(["m in messages", "m in " + expr(), "m in messages if m.role != 'user'", "k, m in d.items()"]) + " %}" + b() + R.choice(["", "{% if loop.index > 2 %}{% break %}{% endif %}"]) + \
            R.choice(["", "{% else %}none"]) + "{% endfor %}"
    if k == 5:
        return "{% set " + R.choice(["x", "y", "ns.v", "s"]) + " = " + expr() + " " + sign() + "%}"
    if k == 6:
        return "{% macro f(p, q=" + lit() + ") %}[{{ p }}{{ q }}]" + b() + "{% endmacro %}{{ f(" + expr(2) + R.choice(["", ", 2", ", q=3"]) + ") }}"
    if k == 7:
        return "{% set s %}" + b() + "{% endset %}{{ s }}" if R.random() < 0.5 else "{% filter upper %}" + b() + "{% endfilter %}"
    return R.choice(["{# note #}", "{#- note -#}", "{% raw %} {{ x }} {% endraw %}", "{% with x = 1 %}{{ x }}{% endwith %}", "\n  {#+ a #}\n"])


def body(d=0):
    return "".join(space() + stmt(d) for _ in range(R.randrange(1, 4))) + space()


def main():
    ashlar, cases, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1000, int(sys.argv[3]) if len(sys.argv) > 3 else 1
    R.seed(seed)
    files = sorted(f for f in os.listdir(data) if f.endswith(".jinja"))
    equal = refused = unsupported = bad = 0
    with tempfile.TemporaryDirectory() as tmp:
        path = lambda n: os.path.join(tmp, n)  # noqa: E731
        for i in range(cases):
            conv = conversation()
            if i % 2:
                source = "{% set ns = namespace(v=1) %}{% set d = {'b': 'x', 'a': [1, 2], 'C': none} %}{% set s = 'ab c' %}" + body()
            else:
                source = open(os.path.join(data, R.choice(files))).read()
            gen = R.random() < 0.5
            want = ref.render(ref.environment(), source, conv, gen)
            cmd = [ashlar, "template", path("t.jinja"), "--messages", path("messages"), "--date", "2026-02-03 04:05:06", "--bos", "<bos>", "--eos", "<eos>", "--json"]
            if not gen:
                cmd.append("--no-generation")
            with open(path("t.jinja"), "w", newline="") as f:
                f.write(source)
            for key in ("messages", "tools", "documents"):
                if key in conv:
                    with open(path(key), "w") as f:
                        json.dump(conv[key], f, ensure_ascii=False)
                    if key != "messages":
                        cmd += ["--" + key, path(key)]
            for k, v in conv.get("vars", {}).items():
                cmd += ["--var", f"{k}={json.dumps(v)}"]
            r = subprocess.run(cmd, capture_output=True, text=True, timeout=60)
            if r.returncode not in (0, 3, 4):
                print(f"exit {r.returncode}: {r.stderr}")
                bad += 1
            elif r.returncode == 0 and "text" in want and json.loads(r.stdout)["text"] == want["text"]:
                equal += 1
            elif r.returncode and "text" not in want:
                refused += 1
            elif r.returncode and ("not supported" in r.stderr or "cannot slice" in r.stderr):
                unsupported += 1
                print("not supported:", r.stderr.strip(), file=sys.stderr)
            else:
                bad += 1
                print(f"--- case {i} of seed {seed}\n{source if i % 2 else '(published)'}\n{json.dumps(conv)[:600]}\nwant {want}\n got {r.stdout or r.stderr}")
    print(f"{cases} cases: {equal} equal, {refused} refused alike, {unsupported} not supported, {bad} different")
    return 1 if bad or unsupported > cases // 20 else 0


if __name__ == "__main__":
    sys.exit(main())
