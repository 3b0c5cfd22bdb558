#!/bin/sh
# `ashlar template` from outside, and the warning of `ashlar run` about turn markers. Needs ASHLAR and ASH_TEST_DATA.
set -u
A=${ASHLAR:?} D=${ASH_TEST_DATA:?}
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
fails=0 checks=0
fail() { echo "FAIL: $*"; fails=$((fails + 1)); }
# want CODE "TEXT IN stdout or stderr" ARGS...
want() {
    code=$1 text=$2
    shift 2
    checks=$((checks + 1))
    "$A" "$@" >"$T/out" 2>"$T/err" </dev/null
    rc=$?
    [ $rc -eq "$code" ] || fail "$*: exit $rc, not $code: $(cat "$T/err")"
    cat "$T/out" "$T/err" | grep -Fq -- "$text" || fail "$*: no \"$text\" in $(cat "$T/out" "$T/err")"
}
M=$T/m.json
echo '[{"role": "user", "content": "W?"}, {"role": "assistant", "content": "", "tool_calls": [{"id": "abc123XYZ", "type": "function",
 "function": {"name": "f", "arguments": {"x": 1.5, "u": "\u00e9"}}}]}, {"role": "tool", "tool_call_id": "abc123XYZ", "content": "ok"}]' >"$M"
echo '[{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"x": {"type": "number"}}}}}]' >"$T/t.json"
Q=$D/templates/Qwen-Qwen3-0.6B.jinja
want 0 '{"name": "f", "arguments": {"x": 1.5, "u": "é"}}' template "$Q" --messages "$M" --tools "$T/t.json"
want 0 '"properties": {"x": {"type": "number"}}' template "$Q" --messages "$M" --tools "$T/t.json"
want 0 '<think>' template "$Q" -m "$M" --var enable_thinking=false
want 0 '"stray_tokens": []' template "$Q" -m "$M" --json
want 0 'Current date: 2026-02-03' template "$D/templates/openai-gpt-oss-120b.jinja" -m "$M" --date 2026-02-03
want 2 '--date takes' template "$Q" -m "$M" --date yesterday
want 3 'messages are not JSON' template "$Q"
want 2 '--var takes' template "$Q" -m "$M" --var nonsense
want 3 'no chat template' template "$D/tokenizers/golden-llama.gguf" -m "$M"
echo '{"role": 1}' >"$T/bad.json"
want 3 'must be a JSON array' template "$Q" -m "$T/bad.json"
echo '[{' >"$T/bad.json"
want 3 'not JSON' template "$Q" -m "$T/bad.json"
echo '{{ messages | nosuch }}' >"$T/x.jinja"
want 3 'template line 1: the filter "nosuch" is not supported' template "$T/x.jinja" -m "$M"
# turn markers that the vocabulary lacks
cp "$D/golden/llama/model.gguf" "$T/g.gguf"
chmod u+w "$T/g.gguf"
"$A" edit "$T/g.gguf" 'tokenizer.chat_template=str:{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<end_of_turn>{% endfor %}</s><tools>' || fail "edit"
want 0 'warning: <|im_start|> is no special token' template "$T/g.gguf" -m "$M"
want 0 'warning: the chat template prints <end_of_turn>' run "$T/g.gguf" Hi -n 1
grep -q '</s>\|tools' "$T/err" && fail "a warning about what is no marker: $(cat "$T/err")"
[ $fails -eq 0 ] && echo "$checks checks"
exit $((fails > 0))
