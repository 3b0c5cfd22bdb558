#!/bin/sh
# The main job on a real model: set up, build, fetch SmolLM2-135M-Instruct, fit it to 85 MB, prove it, talk to it.
# usage: demo.sh [smollm2|gemma3]     output files go to ./demo
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh
cmake --preset release -DASHLAR_TESTS=OFF >/dev/null
cmake --build --preset release
model=${1:-smollm2}
case $model in smollm2) size=85MB ;; gemma3) size=170MB ;; esac
gguf=$(sh scripts/fetch_model.sh "$model")
mkdir -p demo
out=demo/$model-$size.gguf
set -x
build/release/ashlar fit "$gguf" --size "$size" -o "$out" --report "demo/$model-$size.html"
build/release/ashlar run "$out" "Give me three uses for an old brick."
