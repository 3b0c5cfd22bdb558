#!/bin/sh
# eval --task and eval --chat from outside, on tiny models.
set -u
. "$(dirname "$0")/lib.sh"
M=$D/golden/llama/model.gguf Q=$D/golden/mistral-swa/model.gguf
for f in hellaswag arc gsm8k humaneval own; do want 0 "right: " eval "$M" --task "$D/tasks/$f.jsonl" --max-tokens 8; done
want 0 "never run" eval "$M" --task "$D/tasks/humaneval.jsonl" --max-tokens 8
want 0 "McNemar" eval "$M" --task "$D/tasks/arc.jsonl" --ref "$Q"
want 0 '"only_first": 0' eval "$M" --task "$D/tasks/arc.jsonl" --ref "$M" --json
want 0 "2 examples" eval "$M" --task "$D/tasks/gsm8k.jsonl" --shots 2 --max-tokens 4 --answers "$T/a.jsonl"
n=$((n + 1))
[ "$(wc -l <"$T/a.jsonl")" -eq 1 ] || { fails=$((fails + 1)); echo "FAIL: answers"; }
want 2 "leave none" eval "$M" --task "$D/tasks/gsm8k.jsonl" --shots 3
want 2 "a choice has none" eval "$M" --task "$D/tasks/arc.jsonl" --answers "$T/a.jsonl"
want 3 "line 1 is no JSON" eval "$M" --task "$D/tasks/../README.md"
want 3 "" eval "$M" --task "$T/missing"
want 2 "one of" eval "$M" --task "$D/tasks/arc.jsonl" --chat "$D/tasks/chat.jsonl"
want 3 "no chat template" eval "$M" --chat "$D/tasks/chat.jsonl" --ctx 16
want 0 "" edit "$(cp "$M" "$T/m.gguf"; echo "$T/m.gguf")" 'tokenizer.chat_template=str:{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}'
want 0 "KLD mean  *0.00000" eval "$T/m.gguf" --chat "$D/tasks/chat.jsonl" --ref "$T/m.gguf" --ctx 16
want 0 "right: " eval "$T/m.gguf" --task "$D/tasks/own.jsonl" --chat-template --max-tokens 4
want 3 "line 1 is no conversation" eval "$T/m.gguf" --chat "$D/tasks/own.jsonl"
echo "$n checks, $fails failed"
[ $fails -eq 0 ]
