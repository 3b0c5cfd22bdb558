#!/bin/sh
# front from outside: the table, the picture, going on where it stopped, the search for a divergence, fit --kld. A tiny model only.
set -u
. "$(dirname "$0")/lib.sh"
R=${ASH_ROOT:?}
M=$D/golden/llama/model.gguf
head -c 24000 "$R/data/wikitext2-valid.txt" >"$T/c.txt"
head -c 24000 "$R/data/wikitext2-test.txt" >"$T/t.txt"
front() { "$A" front "$M" --effort quick --calib "$T/c.txt" --test "$T/t.txt" "$@" >"$T/log" 2>"$T/err"; }

if front --sizes 4 --presets Q8_0,Q4_K_M --baseline lagrange,lagrange-rel -o "$T/f.csv" --plot "$T/f.svg" --report "$T/f.html" --keep; then ok; else bad "front: $(cat "$T/err")"; fi
grep -q "estimate: about" "$T/log" && ok || bad "no estimate"
[ "$(head -1 "$T/f.csv")" = "file,kind,bytes,bpw,bpw_blocks,kld,kld_lo,kld_hi,same_top1,ppl,predicted_kld,pareto" ] && ok || bad "header: $(head -1 "$T/f.csv")"
for k in fit:4 baseline:8 preset:2; do
    [ "$(cut -d, -f2 "$T/f.csv" | grep -cx "${k%:*}")" -eq "${k#*:}" ] && ok || bad "rows of kind ${k%:*}: $(cat "$T/f.csv")"
done
# larger files of one kind are closer; every kept file has the size that its row says and is within its budget
awk -F, '$2 == "fit" { if (n++ && ($3 >= b || $6 <= k)) bad = 1; b = $3; k = $6 } END { exit bad }' "$T/f.csv" && ok || bad "fits are not in order: $(cat "$T/f.csv")"
for f in "$T"/f.csv.work/fit-*.gguf "$T"/f.csv.work/lagrange-[0-9]*.gguf; do
    b=${f##*-} s=$(wc -c <"$f")
    [ "$s" -le "${b%.gguf}" ] && grep -q ",$s," "$T/f.csv" && ok || bad "$f has $s bytes"
done
grep -q "</svg>" "$T/f.svg" && grep -q "fit-line" "$T/f.svg" && grep -q "Q4_K_M" "$T/f.svg" && ! grep -q "https*://[^w]" "$T/f.svg" && ok || bad "the picture"

grep -q "</html>" "$T/f.html" && grep -q "Matrices of the blocks" "$T/f.html" && ! grep -q "https*://" "$T/f.html" && ok || bad "the page has outside references or no end"

# again: nothing is made anew, the same table
if front --sizes 4 --presets Q8_0,Q4_K_M --baseline lagrange,lagrange-rel -o "$T/g.csv" --workdir "$T/f.csv.work" --json && [ "$(grep -c '"reused": true' "$T/log")" -eq 12 ]; then ok; else bad "again: $(head -c 300 "$T/err")"; fi
same "$T/f.csv" "$T/g.csv"

# sizes by name, largest first; the smallest file for a divergence, and fit --kld with the same answer
if front --sizes 200kB,240kB --presets none -o "$T/s.csv" --workdir "$T/f.csv.work" && awk -F, '$2 == "fit" && $3 <= 240000 && $3 > 230000 { x++ } END { exit x != 1 }' "$T/s.csv"; then ok; else bad "sizes by name: $(cat "$T/s.csv" "$T/err")"; fi
if front --kld 0.0005 --presets none -o "$T/k.csv" --workdir "$T/f.csv.work" && grep -q "smallest with KLD <= 0.0005" "$T/log"; then ok; else bad "kld: $(cat "$T/log" "$T/err")"; fi
bytes=$(sed -n 's/^smallest.*(\([0-9]*\) bytes).*/\1/p' "$T/log")
awk -F, -v b="$bytes" '$3 == b && $6 <= 0.0005 { x = 1 } END { exit !x }' "$T/k.csv" && ok || bad "the smallest file is above the divergence"
want 0 "this fit" fit "$M" --kld 0.0005 --effort quick --calib "$T/c.txt" --test "$T/t.txt" --controls -1 -o "$T/k.gguf" --workdir "$T/f.csv.work"
[ "$(wc -c <"$T/k.gguf")" -eq "$bytes" ] && ok || bad "fit --kld made $(wc -c <"$T/k.gguf") bytes, front found $bytes"
want 4 "measures at or below" fit "$M" --kld 1e-5 --allow-types IQ4_NL --always-widen --effort quick --calib "$T/c.txt" --test "$T/t.txt" --controls -1 -o "$T/x.gguf"

# refusals
want 2 "names the table" front "$M"
want 2 "takes a number" front "$M" --sizes 80MB,,90MB -o "$T/x.csv"
want 2 "is no size" front "$M" --sizes huge -o "$T/x.csv"
want 2 "unknown preset" front "$M" --presets Q9_K -o "$T/x.csv"
want 2 "baseline is" front "$M" --baseline magic -o "$T/x.csv"
want 4 "smallest possible file" front "$M" --sizes 1kB,100kB -o "$T/x.csv" --calib "$T/c.txt" --test "$T/t.txt"
want 2 "share" front "$M" --sizes 2 -o "$T/x.csv" --calib "$T/c.txt" --test "$T/c.txt"
[ ! -e "$T/x.csv" ] && [ ! -e "$T/x.gguf" ] && ok || bad "a refused front left a file"
[ $fails -eq 0 ] && echo "$n checks passed" || { echo "$fails of $n checks failed"; exit 1; }
