#!/bin/sh
# `ashlar doctor` from outside: good files are healthy, planted faults are found by the right check, files that cannot be opened are failures.
# tests/long/doctor.py plants hundreds and gives the figures.
set -u
. "$(dirname "$0")/lib.sh"
P=${ASH_ROOT:?}/tools/plant_faults.py

for f in golden/llama/model.gguf golden/gemma3/model.gguf golden/gemma4-e/model.gguf golden/qwen3-moe/model.gguf golden/bert/model.gguf golden/phi3-longrope/model.gguf \
    golden/quant-models/IQ1_M.gguf golden/quant-models/Q4_K.gguf tokenizers/smollm2.gguf tokenizers/llama-spm.gguf golden/qwen3/lora/adapter.gguf; do
    want 0 ": healthy$" doctor "$D/$f"
done

# found KIND CHECK FILE: the fault, planted by some seed, makes the file ill, and that check says so
found() {
    kind=$1 check=$2 file=$D/$3
    if ! python3 "$P" "$file" "$T/ill.gguf" --kind "$kind" --seed 1 >"$T/what" 2>&1; then
        bad "$kind cannot be planted: $(cat "$T/what")"
        return
    fi
    want 1 "$check" doctor "$(sed 's/\.gguf: .*/.gguf/' "$T/what")"
}
L=golden/llama/model.gguf
found cut_data TRUNCATED $L
found cut_header HEADER $L
found part_missing SHARD $L
found part_cut SHARD $L
found tensor_missing BIND $L
found dims_exchanged BIND $L
found rope_wild HPARAM $L
found nan_value NONFINITE golden/quant-models/Q8_0.gguf
found nan_value NONFINITE golden/quant-models/Q4_K.gguf
found noise_pages "LARGE\|NONFINITE\|TINY" $L
found zero_rows ZERO_ROWS $L
found repeated_rows REPEATED_ROWS golden/quant-models/Q6_K.gguf
found copied_tensor REPEATED_TENSOR golden/gemma4-e/model.gguf
found copied_pages REPEATED_PAGES $L
found scaled_row "SCALE_ROWS\|LARGE" $L
found rope_factors "ROPE_FACTORS\|NONFINITE" golden/phi3-longrope/model.gguf
found vocab_short VOCAB_SIZE golden/gemma3/model.gguf
found special_outside SPECIAL_ID tokenizers/smollm2.gguf
found stop_ordinary STOP_TOKEN tokenizers/smollm2.gguf
found merges_foreign VOCAB tokenizers/smollm2.gguf

# templates: the good one of the vocabulary, and three that are not
tmpl() { cp "$D/tokenizers/smollm2.gguf" "$T/t.gguf" && "$A" edit "$T/t.gguf" "tokenizer.chat_template=$1" >/dev/null; }
tmpl "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}{% endfor %}"
want 0 ": healthy$" doctor "$T/t.gguf"
cp "$T/t.gguf" "$T/good.gguf"
"$A" edit "$T/t.gguf" tokenizer.ggml.eos_token_id=1 tokenizer.ggml.bos_token_id=0 >/dev/null
want 1 "opens a turn" doctor "$T/t.gguf"
tmpl "{% for m in messages %}{{ '<start_of_turn>' + m['content'] + '<end_of_turn>' }}{% endfor %}"
want 1 TEMPLATE_TOKENS doctor "$T/t.gguf"
tmpl "{% for m in messages %}{{ m['content'] }}{% endfor %}"
want 1 TEMPLATE_TURNS doctor "$T/t.gguf"
tmpl "{% for m in messages %}<|im_start|>{% endfor %}"
want 1 TEMPLATE_TEXT doctor "$T/t.gguf"
tmpl "{% for m in messages %}{{ m['content'] "
want 1 "TEMPLATE " doctor "$T/t.gguf"

# published templates can be read, and print what is said (their markers are another vocabulary's)
for f in "$D"/templates/*.jinja; do
    tmpl "$(cat "$f")"
    "$A" doctor "$T/t.gguf" >"$T/log" 2>&1
    if grep -q "TEMPLATE \|TEMPLATE_TEXT" "$T/log"; then bad "$f: $(cat "$T/log")"; else ok; fi
done

# the importance matrix of this model, and of another
"$A" imatrix "$D/$L" --text "$ASH_ROOT/LICENSE" --chunks 1 --ctx 32 -o "$T/im" >/dev/null 2>&1
want 0 ": healthy$" doctor "$D/$L" --imatrix "$T/im"
want 1 "IMATRIX " doctor "$D/golden/qwen3/model.gguf" --imatrix "$T/im"
want 3 "none.im" doctor "$D/$L" --imatrix "$T/none.im"

echo "no model" >"$T/text.gguf"
want 1 "HEADER" doctor "$T/text.gguf"
want 3 "none.gguf" doctor "$T/none.gguf"
want 3 "" doctor "$T"
want 2 "a file is needed" doctor
want 0 "NONFINITE .*download" doctor --list
"$A" doctor "$D/$L" --json >"$T/j1" && "$A" doctor --list --json >"$T/j2" && python3 "$P" "$D/$L" "$T/ill.gguf" --kind zero_tensor >/dev/null
"$A" doctor "$T/ill.gguf" --json >"$T/j3"
if [ $? -eq 1 ] && python3 - "$T/j1" "$T/j2" "$T/j3" <<'PY'; then ok; else bad "--json"; fi
import json, sys
good, checks, ill = (json.load(open(p)) for p in sys.argv[1:])
assert good["verdict"] == "healthy" and not good["ill"], good
assert len(checks) >= 40 and all(c["text"] and c["advice"] for c in checks)
assert ill["ill"] and ill["verdict"] == "ill" and any(f["check"] == "ZERO_TENSOR" and f["severity"] == "error" and f["where"] for f in ill["findings"]), ill
PY

if [ $fails -ne 0 ]; then echo "$fails failures in $n checks"; exit 1; fi
echo "$n checks passed"
