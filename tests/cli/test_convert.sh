#!/bin/sh
# convert from outside: report, names, refusals, a full disk, an interrupted run. Tiny folders only.
set -u
. "$(dirname "$0")/lib.sh"
mkdir "$T/tiny-qwen"
cp "$D"/convert/qwen3/* "$D"/convert/tok-qwen/* "$T/tiny-qwen"
chmod -R u+w "$T/tiny-qwen"
want 0 "qwen3, gpt2 vocabulary of 512, pre-tokenizer qwen2" convert "$T/tiny-qwen" -o "$T/o.gguf"
want 0 "tiny-qwen" inspect "$T/o.gguf" --kv
want 0 '"type": "Q8_0"' convert "$T/tiny-qwen/" -o "$T/o.gguf" --type q8_0 --json
want 0 "" run "$T/o.gguf" hello -n 2
want 0 "512" convert "$D/convert/tok-llama" -o "$T/v.gguf" --vocab-only
[ "$(printf 'the dog' | "$A" tokenize "$T/v.gguf" --no-bos)" = "$(printf 'the dog' | "$A" tokenize "$D/golden/llama/model.gguf" --no-bos)" ] && ok || bad "a vocabulary-only file tokenizes differently"
want 2 "-o FILE" convert "$T/tiny-qwen"
want 2 "unknown type" convert "$T/tiny-qwen" -o "$T/x" --type q9
want 2 "unknown pre-tokenizer" convert "$T/tiny-qwen" -o "$T/x" --pre nonsense
want 3 "no config.json" convert "$T" -o "$T/x"
want 3 "" convert "$T/tiny-qwen" -o "$T/no/dir/x"
want 0 "pre-tokenizer gpt-2" convert "$T/tiny-qwen" -o "$T/o.gguf" --pre gpt-2
rm "$T/o.gguf"
(ulimit -f 64 && exec "$A" convert "$T/tiny-qwen" -o "$T/x") >"$T/log" 2>&1
[ $? -eq 4 ] && ok || bad "a full disk: $(cat "$T/log")"
(ulimit -f 600 && exec "$A" convert "$T/tiny-qwen" -o "$T/x" --type q8_0) >"$T/log" 2>&1
ls "$T" | grep -q -e '^x' -e float -e tmp- && bad "left behind: $(ls "$T")" || ok
printf '{"chat_template": "{{ 1 }}", "eos_token": "<|im_end|>"}' >"$T/tiny-qwen/tokenizer_config.json"
printf '{{ messages[0].content }}' >"$T/tiny-qwen/chat_template.jinja"
printf '{"eos_token_id": [511, 509], "temperature": 0.6, "top_k": 20}' >"$T/tiny-qwen/generation_config.json"
want 0 "" convert "$T/tiny-qwen" -o "$T/o.gguf"
want 0 "messages\[0\].content" inspect "$T/o.gguf" --kv
grep -q "eot_token_id.* 509" "$T/log" && grep -q "sampling.top_k.* 20" "$T/log" && ok || bad "generation_config.json was not taken along: $(grep -e eot -e sampling "$T/log")"
[ $fails -eq 0 ] && echo "$n checks passed" || { echo "$fails failures in $n checks"; exit 1; }
