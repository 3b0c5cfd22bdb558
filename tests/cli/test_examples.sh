#!/bin/sh
# The example programs on tiny models: each runs and prints what it is about; every public header is shown by one.
set -u
. "$(dirname "$0")/lib.sh"
X=${ASHLAR_EXAMPLES:?} M=$D/golden/llama/model.gguf
# show PATTERN PROGRAM ARGS...
show() {
    pat=$1 p=$2
    shift 2
    if "$X/$p" "$@" >"$T/log" 2>&1 && grep -q -e "$pat" "$T/log"; then ok; else bad "$p: no \"$pat\" in $(head -c 600 "$T/log")"; fi
}
head -c 24000 "$ASH_ROOT/data/wikitext2-valid.txt" >"$T/calib"
head -c 24000 "$ASH_ROOT/data/wikitext2-test.txt" >"$T/text"
show "tokens in the timeline" generate "$M" "Once upon a time" 8
show "^complete$" constrain "$M" "Yes or no? " '{"enum": ["yes", "no"]}'
show "^architecture llama" metadata "$M" "$T/meta.gguf" general.description "made by an example"
show 'general.description = "made by an example"' metadata "$T/meta.gguf" "$T/again.gguf" a b
show "^Q8_0 .*e-0[0-9]$" encode_row "$M" blk.0.attn_q.weight
show "bits per weight" plan_bake "$M" "$T/small.gguf" 20
show "^same first choice" kld "$M" "$T/small.gguf" "$T/text" 2
show "predicted damage" repair "$M" "$T/small.gguf" "$T/lora.gguf" 60000
show "^this fit  *[0-9]* bytes, KLD" fit "$M" "$T/fit.gguf" 9 "$T/calib" "$T/text" "$T/fit.html"
if grep -q "</html>" "$T/fit.html"; then ok; else bad "fit: no page"; fi
show "^2 of 3 layers" slice "$M" first:2 "$T/slice.gguf"
show "only the first [0-9]*, only the second" task "$M" "$T/small.gguf" "$D/tasks/arc.jsonl"
show "^Q8_0 .* fits" assess "$M"
show "tied\|layers" assess "$D/assess/e2b.json"
"$X/doctor" "$M" >"$T/log" 2>&1
if [ $? -le 1 ] && grep -q "^sound$\|^ill$" "$T/log"; then ok; else bad "doctor: $(head -c 300 "$T/log")"; fi
show "^q2k " lab
show "^refuted\|^reproduced\|^not testable" lab coverage "$M" "$T/text" "$T"
mkdir "$T/hf" && cp "$D"/convert/qwen3/* "$D"/convert/tok-qwen/* "$T/hf"
show "^qwen3 (Qwen3ForCausalLM)" convert "$T/hf" "$T/qwen.gguf"
if [ -x "$X/pull" ]; then show "^0 here" pull "$ASH_ROOT/data/catalogue.json" "$T/none"; fi
if [ -x "$X/sweep_mpi" ]; then show "ffn_down.weight  *KLD" sweep_mpi "$M" "$T/calib" Q4_0; fi
for h in "$ASH_ROOT"/include/ashlar/*.h; do
    if grep -q "ashlar/$(basename "$h")" "$ASH_ROOT"/examples/*.[ch]; then ok
    else bad "no example shows $(basename "$h")"; fi
done
echo "$n checks, $fails failed"
[ "$fails" = 0 ]
