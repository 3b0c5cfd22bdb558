#!/bin/sh
# Install what building and testing need (Debian, Ubuntu). Does nothing when all is there.
# usage: setup.sh [--tests]      --tests: also compilers and tools of the test tiers
set -eu
need="gcc g++ cmake ninja-build pkg-config libpcre2-dev libutf8proc-dev libjansson-dev libxxhash-dev libedit-dev libcurl4-openssl-dev zlib1g-dev python3 python3-pip python3-venv ca-certificates"
[ "${1:-}" = --tests ] && need="$need libcmocka-dev clang valgrind"
missing=""
for p in $need; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q "install ok installed" || missing="$missing $p"
done
if [ "${1:-}" = --tests ] && command -v clang >/dev/null; then # the sanitizer and fuzzer runtime of this clang
  v=$(clang -dumpversion | cut -d. -f1)
  dpkg-query -W -f='${Status}' "libclang-rt-$v-dev" 2>/dev/null | grep -q "install ok installed" || missing="$missing libclang-rt-$v-dev"
fi
[ -z "$missing" ] && exit 0
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
echo "installing:$missing"
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
if [ "${1:-}" = --tests ]; then # clang may only have come just now
  v=$(clang -dumpversion | cut -d. -f1)
  dpkg-query -W -f='${Status}' "libclang-rt-$v-dev" 2>/dev/null | grep -q "install ok installed" ||
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "libclang-rt-$v-dev" >/dev/null
fi
