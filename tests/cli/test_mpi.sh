#!/bin/sh
# `mpirun -n N ashlar sweep`: the file one process writes whatever N is, also after a process was killed; mistakes end all processes.
set -u
. "$(dirname "$0")/lib.sh"
MPIRUN=${ASHLAR_TEST_MPI:?}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl_vader_single_copy_mechanism=none # containers
M=$D/golden/llama/model.gguf
head -c 60000 "$ASH_ROOT/data/wikitext2-valid.txt" >"$T/text"
tail -c 60000 "$ASH_ROOT/data/wikitext2-valid.txt" >"$T/other"
# sweep OUT ARGS...: as a command line; many short passes
opts="--types Q4_0,Q5_0 --table-types Q8_0 --until 0.035 --budget-mem 1MiB -t 1"
result() { grep -v '"seconds"' "$1" >"$1.cmp"; }
# many N OUT ARGS...
many() {
    k=$1 out=$2
    shift 2
    timeout 300 "$MPIRUN" -n "$k" "$A" sweep "$M" -o "$out" --calib "$T/text" $opts "$@" >"$T/log" 2>&1
}
"$A" sweep "$M" -o "$T/one" --calib "$T/text" $opts >"$T/log.one" 2>&1 || bad "one process: $(head -c 600 "$T/log.one")"
result "$T/one"
for k in 1 2 3; do
    many $k "$T/n$k" || bad "$k processes: $(head -c 600 "$T/log")"
    result "$T/n$k"
    same "$T/one.cmp" "$T/n$k.cmp"
    if [ -e "$T/n$k.part" ]; then bad "$k processes leave a checkpoint"; else ok; fi
done
if grep -q "3 share the work" "$T/log"; then ok; else bad "no word of three processes: $(head -c 600 "$T/log")"; fi
if [ "$(grep -c "identity control" "$T/log")" = 1 ]; then ok; else bad "not one table is printed"; fi

# two kinds of processor
timeout 300 "$MPIRUN" -n 1 "$A" sweep "$M" -o "$T/cpu" --calib "$T/text" $opts : -n 1 env ASHLAR_CPU=scalar "$A" sweep "$M" -o "$T/cpu" --calib "$T/text" $opts >"$T/log" 2>&1 ||
    bad "two kinds of processor: $(head -c 600 "$T/log")"
result "$T/cpu"
same "$T/one.cmp" "$T/cpu.cmp"

# one of two is killed after the first checkpoint; three go on, then the same
"$MPIRUN" -n 2 "$A" sweep "$M" -o "$T/k" --calib "$T/text" $opts >"$T/log" 2>&1 &
run=$!
for i in $(seq 3000); do
    if [ -e "$T/k.part" ] || [ -e "$T/k" ]; then break; fi
    sleep 0.02
done
victim=$(ps -o pid=,args= --ppid $run | grep -w sweep | tail -1 | awk '{print $1}')
[ -n "$victim" ] && kill -KILL "$victim"
wait $run
rc=$?
if [ -n "$victim" ] && [ $rc -ne 0 ] && [ -e "$T/k.part" ] && [ ! -e "$T/k" ]; then ok; else bad "killed \"$victim\": exit $rc, $(ls "$T")"; fi
many 3 "$T/k" || bad "resumed: $(head -c 600 "$T/log")"
result "$T/k"
same "$T/one.cmp" "$T/k.cmp"

# processes that do not agree; one that has no model
timeout 120 "$MPIRUN" -n 1 "$A" sweep "$M" -o "$T/x" --calib "$T/text" $opts : -n 1 "$A" sweep "$M" -o "$T/x" --calib "$T/other" $opts >"$T/log" 2>&1
rc=$?
if [ $rc -ne 0 ] && [ $rc -ne 124 ] && grep -q "process 1 has another job" "$T/log"; then ok; else bad "another text: exit $rc: $(head -c 600 "$T/log")"; fi
timeout 120 "$MPIRUN" -n 1 "$A" sweep "$M" -o "$T/x" --calib "$T/text" $opts : -n 1 "$A" sweep "$T/none.gguf" -o "$T/x" $opts >"$T/log" 2>&1
rc=$?
if [ $rc -ne 0 ] && [ $rc -ne 124 ] && grep -q "none.gguf" "$T/log"; then ok; else bad "no model: exit $rc: $(head -c 600 "$T/log")"; fi
echo "$n checks, $fails failed"
[ "$fails" = 0 ]
