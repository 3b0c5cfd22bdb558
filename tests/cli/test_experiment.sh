#!/bin/sh
# experiment from outside, on tiny models: every one of the list runs and ends in a verdict; reports are written.
set -u
. "$(dirname "$0")/lib.sh"
E=$D/golden/gemma4-e/model.gguf G=$D/golden/gemma3/model.gguf M=$D/golden/llama/model.gguf
small="--ctx 32 --chunks 2 --scratch $T"
want 0 "stability cliff" experiment list
# shellcheck disable=SC2086
{
    for e in q2k imatrix coverage q2k-vs-q3k cross-arch swa deswa swa-slice cliff; do want 0 "^verdict: " experiment $e "$M" $small; done
    want 0 "refuted. All" experiment imatrix "$E" $small
    want 0 "verdict: refuted" experiment coverage "$E" $small
    want 0 "reproduced. 24 shapes conflict" experiment deswa "$E" $small
    want 0 "probe: LOAD_FAIL" experiment deswa "$E" $small
    want 0 "refuted. The patched model loads" experiment deswa "$G" $small
    want 0 "random drop 3" experiment swa-slice "$E" $small
    want 0 "no windows" experiment swa-slice "$M" $small
    want 0 '"verdict": "' experiment swa-slice "$G" $small --json --report "$T/r.md"
    want 0 "model.gguf, Q2_K" experiment cross-arch "$M" "$G" $small --no-probe
    want 2 "no experiment" experiment nonsense "$M"
    want 2 "needs a model" experiment q2k
    want 2 "takes one model" experiment q2k "$M" "$M"
    want 3 "" experiment q2k "$T/missing" $small
}
n=$((n + 2))
grep -q "Verdict: " "$T/r.md" || { fails=$((fails + 1)); echo "FAIL: no verdict in the report"; }
grep -q "</svg>" "$T/r.svg" || { fails=$((fails + 1)); echo "FAIL: no plot"; }
n=$((n + 1))
ls "$T" | grep -q ashlar-lab && { fails=$((fails + 1)); echo "FAIL: left behind: $(ls "$T")"; }
echo "$n checks, $fails failed"
[ $fails -eq 0 ]
