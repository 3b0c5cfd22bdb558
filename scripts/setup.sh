#!/bin/sh
# Install what building and testing need (Debian, Ubuntu). Does nothing when all is there.
# usage: setup.sh [--tests | --cross]      --tests: also compilers and tools of the test tiers
#                                          --cross: instead, what builds for ARM and Windows need (docs/howto/cross-build.md)
set -eu
need="gcc g++ cmake ninja-build pkg-config libpcre2-dev libutf8proc-dev libjansson-dev libxxhash-dev libedit-dev libcurl4-openssl-dev zlib1g-dev python3 python3-pip python3-venv ca-certificates"
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
if [ "${1:-}" = --cross ]; then
  need="cmake ninja-build pkg-config dpkg-dev gcc-aarch64-linux-gnu qemu-user-static gcc-mingw-w64-x86-64 wine64 libpcre2-dev:arm64
    libutf8proc-dev:arm64 libjansson-dev:arm64 libxxhash-dev:arm64 libedit-dev:arm64 libcmocka-dev:arm64"
  dpkg --print-foreign-architectures | grep -qx arm64 || $sudo dpkg --add-architecture arm64
fi
[ "${1:-}" = --tests ] && need="$need libcmocka-dev clang valgrind libopenmpi-dev openmpi-bin"
missing=""
for p in $need; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q "install ok installed" || missing="$missing $p"
done
if [ "${1:-}" = --tests ] && command -v clang >/dev/null; then # the sanitizer and fuzzer runtime of this clang
  v=$(clang -dumpversion | cut -d. -f1)
  dpkg-query -W -f='${Status}' "libclang-rt-$v-dev" 2>/dev/null | grep -q "install ok installed" || missing="$missing libclang-rt-$v-dev"
fi
[ -z "$missing" ] && exit 0
echo "installing:$missing"
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
if [ "${1:-}" = --tests ]; then # clang may only have come just now
  v=$(clang -dumpversion | cut -d. -f1)
  dpkg-query -W -f='${Status}' "libclang-rt-$v-dev" 2>/dev/null | grep -q "install ok installed" ||
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "libclang-rt-$v-dev" >/dev/null
fi
