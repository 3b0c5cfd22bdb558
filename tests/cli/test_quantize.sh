#!/bin/sh
# quantize, widen, plan and fit from outside: sizes, fallbacks, recipes, refusals, resuming. Tiny models only.
set -u
. "$(dirname "$0")/lib.sh"
R=${ASH_ROOT:?}
size_is() { s=$(wc -c <"$1"); if [ "$s" -eq "$2" ]; then ok; else bad "$1 has $s bytes, not $2"; fi; }
M=$D/golden/llama/model.gguf

# one type: the size said before is the size written; copying is byte for byte
want 0 "would write" quantize "$M" "$T/q.gguf" --type Q8_0 --dry-run
said=$(sed -n 's/.*(\([0-9]*\) bytes).*/\1/p' "$T/log" | head -1)
[ ! -e "$T/q.gguf" ] && ok || bad "a dry run wrote a file"
want 0 "Q8_0" quantize "$M" "$T/q.gguf" --type Q8_0 -t 2
size_is "$T/q.gguf" "$said"
want 0 "already had their type" quantize "$T/q.gguf" "$T/q2.gguf" --type q8_0
same "$T/q.gguf" "$T/q2.gguf"
want 0 "Q8_0" quantize "$M" "$T/q1.gguf" --type Q8_0 -t 1
same "$T/q.gguf" "$T/q1.gguf"

# repair: an adapter that the runner takes, within its bytes; what cannot be repaired is said
want 0 "" quantize "$M" "$T/r4.gguf" --type Q4_0
want 0 "won back" repair "$T/r4.gguf" --of "$M" -o "$T/rep.gguf" --percent 30
want 0 '"rel_err_after"' repair "$T/r4.gguf" --of "$M" -o "$T/rep2.gguf" --percent 30 --json
same "$T/rep.gguf" "$T/rep2.gguf"
want 0 "" logits "$T/r4.gguf" --lora "$T/rep.gguf" --tokens 1,2,3 -o "$T/rep.bin"
want 2 "nothing to repair" repair "$M" --of "$M" -o "$T/rep3.gguf"
want 2 "give the original" repair "$T/r4.gguf" -o "$T/rep3.gguf"
want 4 "not one direction" repair "$T/r4.gguf" --of "$M" -o "$T/rep3.gguf" --size 10
want 2 "no tensor\|is it another model\|in the quantized file" repair "$T/r4.gguf" --of "$D/golden/phi3/model.gguf" -o "$T/rep3.gguf"
[ ! -e "$T/rep3.gguf" ] && ok || bad "a refused repair wrote a file"

# presets: a name that is no type is one; stand-ins are named
want 0 "stands in for" quantize "$M" "$T/p.gguf" --preset Q2_K --dry-run
want 0 "Q6_K\|Q8_0" quantize "$M" "$T/p.gguf" --type q4_k_m --dry-run
want 2 "unknown preset" quantize "$M" "$T/p.gguf" --preset Q9_K --dry-run
want 2 "belongs to --type" quantize "$M" "$T/p.gguf" --preset Q2_K --strict

# a type that does not fit: named fallback, error with --strict, or widened rows
want 0 "fallback: .*do not fit Q4_K, written as IQ4_NL" quantize "$M" "$T/f.gguf" --type Q4_K
want 2 "do not fit Q4_K" quantize "$M" "$T/s.gguf" --type Q4_K --strict
[ ! -e "$T/s.gguf" ] && ok || bad "a refused quantize left a file"
want 0 "Q2_K" quantize "$M" "$T/w.gguf" --type Q2_K --widen 256
grep -q fallback "$T/log" && grep -v ffn_down "$T/log" | grep -q fallback && bad "widened rows still fell back"
want 0 "columns" widen "$M" "$T/wide.gguf"
want 0 "" logits "$M" --tokens 1,2,3,4 -o "$T/a.f32"
want 0 "" logits "$T/wide.gguf" --tokens 1,2,3,4 -o "$T/b.f32"
same "$T/a.f32" "$T/b.f32"

# recipes
printf 'blk.*.ffn_down.weight = Q8_0\ntoken_embd.weight = keep\n* = Q5_0\n' >"$T/r"
want 0 "Q5_0" quantize "$M" "$T/r.gguf" --recipe "$T/r"
printf 'blk.99.* = Q8_0\n' >"$T/r"
want 2 "decides no tensor" quantize "$M" "$T/r2.gguf" --recipe "$T/r"
printf 'output_norm.weight = Q8_0\n' >"$T/r"
want 2 "cannot be quantized" quantize "$M" "$T/r2.gguf" --recipe "$T/r"
printf '* = Q9_0\n' >"$T/r"
want 3 "r:1: unknown type" quantize "$M" "$T/r2.gguf" --recipe "$T/r"
want 2 "one of --type, --preset and --recipe" quantize "$M" "$T/r2.gguf"
want 2 "own source" quantize "$M" "$M" --type Q8_0
[ ! -e "$T/r2.gguf" ] && ok || bad "a refused recipe left a file"

# compensated rounding: less expected error, the same bytes with any number of threads, and from the parts of an interrupted run
head -c 24000 "$R/data/wikitext2-valid.txt" >"$T/c.txt"
want 0 "matrices compensated: expected squared error of their outputs 0" quantize "$M" "$T/k1.gguf" --type Q4_0 --compensate "$T/c.txt" --chunks 8 -t 1
want 0 "matrices compensated" quantize "$M" "$T/k3.gguf" --type Q4_0 --compensate "$T/c.txt" --chunks 8 -t 3
same "$T/k1.gguf" "$T/k3.gguf"
want 0 "Q4_0" quantize "$M" "$T/k0.gguf" --type Q4_0
cmp -s "$T/k0.gguf" "$T/k1.gguf" && bad "compensation changed nothing" || ok
mkdir "$T/k.gguf"
want 3 "k.gguf" quantize "$M" "$T/k.gguf" --type Q4_0 --compensate "$T/c.txt" --chunks 8
[ -e "$T/k.gguf.comp-0" ] && ok || bad "a failed run left no parts"
rmdir "$T/k.gguf"
printf 'spoilt' >"$T/k.gguf.comp-1"
want 0 "matrices compensated" quantize "$M" "$T/k.gguf" --type Q4_0 --compensate "$T/c.txt" --chunks 8
same "$T/k.gguf" "$T/k1.gguf"
ls "$T"/*.comp-* >/dev/null 2>&1 && bad "parts were left behind" || ok
want 0 "matrices compensated" quantize "$M" "$T/kw.gguf" --type Q2_K --widen 256 --compensate "$T/c.txt" --chunks 8 --only feedback,descent,refit,prefix
want 2 "unknown step" quantize "$M" "$T/x.gguf" --type Q4_0 --compensate "$T/c.txt" --only magic
want 2 "belongs to --compensate" quantize "$M" "$T/x.gguf" --type Q4_0 --only refit
want 3 "nothere" quantize "$M" "$T/x.gguf" --type Q4_0 --compensate "$T/nothere"
[ ! -e "$T/x.gguf" ] && ok || bad "a refused compensation left a file"

# plan: the recipe's predicted size is the file's; a recipe sticks to its model only when it names one
want 0 "predicted KLD" plan "$M" --bpw 9 -o "$T/plan.json"
bytes=$(sed -n 's/.*"predicted": {.*"bytes": \([0-9]*\)}.*/\1/p' "$T/plan.json")
want 0 "bits per weight" quantize "$M" "$T/plan.gguf" --recipe "$T/plan.json"
size_is "$T/plan.gguf" "$bytes"
want 4 "smallest possible file" plan "$M" --size 1000

# the baselines: a plan that knows no sensitivities, within the same budget
for m in lagrange lagrange-rel; do
    want 0 "error .* (bound" plan "$M" --bpw 9 -o "$T/base.json" --method $m
    [ "$(sed -n 's/.*"predicted": {.*"bytes": \([0-9]*\)}.*/\1/p' "$T/base.json")" -le "$(sed -n 's/.*"budget_bytes": \([0-9]*\).*/\1/p' "$T/base.json")" ] && ok || bad "the $m plan is over its budget"
done
want 2 "method is damage, lagrange or lagrange-rel" plan "$M" --bpw 9 --method magic
want 2 "names such as Q4_K" plan "$M" --bpw 9 --allow-types Q4_K,,Q8_0

# fit: from a small text to a proved file; again from the work directory: the same bytes
head -c 24000 "$R/data/wikitext2-test.txt" >"$T/t.txt"
fit() { "$A" fit "$M" --bpw 9 -o "$T/fit.gguf" --calib "$T/c.txt" --test "$T/t.txt" --controls 1 --effort quick "$@" >"$T/log" 2>&1; }
if fit --report "$T/fit.html"; then ok; else bad "fit: $(cat "$T/log")"; fi
grep -q "this fit" "$T/log" && grep -q "random mix 1" "$T/log" && ok || bad "fit's table: $(cat "$T/log")"
grep -q "estimate: about" "$T/log" && ok || bad "fit gave no estimate"
grep -q "</html>" "$T/fit.html" && ! grep -q "https*://" "$T/fit.html" && ok || bad "the report has outside references or no end"
cp "$T/fit.gguf" "$T/first.gguf"
if fit --json && grep -q '"ashlar-fit-report"' "$T/log"; then ok; else bad "fit again: $(head -c 300 "$T/log")"; fi
same "$T/fit.gguf" "$T/first.gguf"
want 0 "this fit" fit "$M" --bpw 9 -o "$T/lag.gguf" --calib "$T/c.txt" --test "$T/t.txt" --controls -1 --method lagrange --workdir "$T/lag.fit"
grep -q "everywhere\|preset\|random mix" "$T/log" && bad "controls although none were wanted: $(cat "$T/log")" || ok
[ "$(ls "$T/lag.fit" | grep -c '^sweep-')" -eq 0 ] && ok || bad "a baseline has swept"
want 2 "at most\|up to 4" fit "$M" --bpw 9 -o "$T/x.gguf" --sweep-types Q4_0,Q3_K,Q2_K,Q5_0,Q8_0
want 2 "share" fit "$M" --bpw 9 -o "$T/x.gguf" --calib "$T/c.txt" --test "$T/c.txt"
want 4 "smallest possible file" fit "$M" --size 1000 -o "$T/x.gguf" --calib "$T/c.txt" --test "$T/t.txt"
want 2 "one budget" fit "$M" -o "$T/x.gguf"
want 3 "nonexistent" fit "$M" --bpw 9 -o "$T/nonexistent/x.gguf" --calib "$T/c.txt" --test "$T/t.txt"
[ ! -e "$T/x.gguf" ] && ok || bad "a refused fit left a file"

[ $fails -eq 0 ] && echo "$n checks passed" || { echo "$fails failures in $n checks"; exit 1; }
