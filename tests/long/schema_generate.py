#!/usr/bin/env python3
"""Answers of a real model under JSON schemas, checked by an independent validator (pip install jsonschema).

usage: schema_generate.py ASHLAR MODEL [SEEDS]

Every answer that ended by itself must parse and be valid."""
import json
import subprocess
import sys

import jsonschema

SCHEMAS = [
    {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 0, "maximum": 120}, "email": {"type": "string", "format": "email"}},
     "required": ["name", "age"], "additionalProperties": False},
    {"type": "array", "items": {"enum": ["red", "green", "blue", None, 7]}, "minItems": 2, "maxItems": 5},
    {"type": "object", "properties": {"city": {"type": "string", "pattern": "^[A-Z][a-z]{2,12}$"}, "date": {"type": "string", "format": "date"}, "temps": {"type": "array", "items": {"type": "number", "minimum": -40, "maximum": 50}, "maxItems": 4}},
     "required": ["city", "date", "temps"]},
    {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"value": {"type": "integer", "minimum": -5, "maximum": 5}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2}}, "required": ["value"]}}},
    {"anyOf": [{"type": "object", "properties": {"kind": {"const": "circle"}, "r": {"type": "number"}}, "required": ["kind", "r"]},
               {"type": "object", "properties": {"kind": {"const": "box"}, "w": {"type": "integer"}, "h": {"type": "integer"}}, "required": ["kind", "w", "h"]}]},
    {"type": "object", "properties": {"id": {"type": "string", "format": "uuid"}, "ip": {"type": "string", "format": "ipv4"}, "when": {"type": "string", "format": "date-time"}}, "required": ["id", "ip", "when"]},
    {"type": "object", "properties": {"a": {"type": "boolean"}}, "additionalProperties": {"type": "integer", "exclusiveMaximum": 10}},
    {"type": "string", "minLength": 3, "maxLength": 12},
]


def main():
    ashlar, model, seeds = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 3
    bad = ended = cut = 0
    for schema in SCHEMAS:
        for seed in range(seeds):
            r = subprocess.run([ashlar, "run", model, "Answer in JSON about anything you like.", "--json-schema", json.dumps(schema), "--seed", str(seed), "--temp", "1", "-n", "200", "--json"],
                               capture_output=True, text=True)
            if r.returncode:
                print(r.stderr)
                bad += 1
                continue
            out = json.loads(r.stdout)
            if out["stop"] != "end":
                cut += 1
                continue
            ended += 1
            try:
                jsonschema.validate(json.loads(out["text"]), schema, format_checker=jsonschema.FormatChecker())
            except Exception as e:  # noqa: BLE001 - either the text is no JSON or it does not fit
                print(f"{json.dumps(schema)}\n{out['text']}\n{e}")
                bad += 1
    print(f"{ended} answers ended by themselves, {cut} ran out of tokens, {bad} bad")
    return 1 if bad or not ended else 0


if __name__ == "__main__":
    sys.exit(main())
