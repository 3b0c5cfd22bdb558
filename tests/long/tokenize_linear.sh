#!/bin/sh
# Tokenizing is linear: a megabyte of one letter, of spaces, of text without spaces, of random letters ... costs at most three
# times as much per byte as ordinary text, for byte-level BPE and SentencePiece vocabularies. Prints the table.
# usage: [ASHLAR=PROGRAM] tokenize_linear.sh [MODEL.gguf...]      (default: both real models and the vocabularies in tests/data)
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
tool=$(dirname "${ASHLAR:-$root/build/release/ashlar}")/text_bench
fail=0
if [ $# = 0 ]; then
  set -- "${ASH_SMOLLM2:-$(sh "$root/scripts/fetch_model.sh" smollm2)}" "${ASH_GEMMA3:-$(sh "$root/scripts/fetch_model.sh" gemma3)}" \
    "$root/tests/data/tokenizers/gpt-2.gguf" "$root/tests/data/tokenizers/llama-spm.gguf"
fi
for m in "$@"; do "$tool" "$m" "$root/data/wikitext2-test.txt" 3 || fail=1; done
[ $fail = 0 ] && echo "tokenize_linear: nothing costs more than three times" || { echo "tokenize_linear: FAILED"; exit 1; }
