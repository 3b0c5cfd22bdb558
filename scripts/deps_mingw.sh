#!/bin/sh
# Build the third-party libraries for 64-bit Windows as static libraries into build/deps-mingw, from Debian's
# source packages. Needs gcc-mingw-w64-x86-64, cmake, ninja and dpkg-dev; no root. Does nothing when all is there.
set -eu
cd "$(dirname "$0")/.."
out=$PWD/build/deps-mingw
src=$out/src
host=x86_64-w64-mingw32
suite=${DEBIAN_SUITE:-bookworm}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
stamp=$out/complete-$suite
[ -f "$stamp" ] && exit 0
rm -rf "$out"
mkdir -p "$src" "$out/include" "$out/lib/pkgconfig"

# A package index of our own: the machine's sources and lists stay as they are.
apt=$out/apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
options="-o Dir::Etc::sourcelist=$apt/sources.list -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$apt/lists
  -o Dir::Cache=$apt/cache -o APT::Sandbox::User="
# shellcheck disable=SC2086 # a list of options
(cd "$src" && apt-get $options update -qq && apt-get $options source -qq pcre2 jansson utf8proc xxhash) >"$out/fetch.log" 2>&1 ||
  { cat "$out/fetch.log"; exit 1; }

pc() { # name, version, cflags, libs
  cat >"$out/lib/pkgconfig/$1.pc" <<PC
Name: $1
Description: $1 for $host
Version: $2
Cflags: -I$out/include $3
Libs: -L$out/lib $4
PC
}
version() { basename "$1" | sed 's/.*-//'; }
cmake_lib() { # source folder, options
  d=$1
  shift
  cmake -S "$d" -B "$d/build-mingw" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$PWD/cmake/$host.cmake" -DCMAKE_BUILD_TYPE=Release \
    -DBUILD_SHARED_LIBS=OFF -DCMAKE_INSTALL_PREFIX="$out" "$@" >"$out/build.log" 2>&1 &&
    cmake --build "$d/build-mingw" -j "${JOBS:-1}" >>"$out/build.log" 2>&1 && cmake --install "$d/build-mingw" >>"$out/build.log" 2>&1 ||
    { tail -n 40 "$out/build.log"; exit 1; }
}
c_lib() { # source folder, name, flags...: one file, one header
  d=$1
  n=$2
  shift 2
  "$host-gcc-posix" -O2 "$@" -c "$d/$n.c" -o "$d/$n.o"
  "$host-ar" rcs "$out/lib/lib$n.a" "$d/$n.o"
  cp "$d/$n.h" "$out/include/"
}

d=$(echo "$src"/pcre2-*/)
cmake_lib "$d" -DPCRE2_BUILD_PCRE2GREP=OFF -DPCRE2_BUILD_TESTS=OFF -DPCRE2_SUPPORT_JIT=ON
pcre=$(find "$out/lib" -name 'libpcre2-8*.a' | head -n 1)
pc libpcre2-8 "$(version "$d")" -DPCRE2_STATIC "-l$(basename "$pcre" .a | sed 's/^lib//')"
d=$(echo "$src"/jansson-*/)
cmake_lib "$d" -DJANSSON_BUILD_DOCS=OFF -DJANSSON_WITHOUT_TESTS=ON -DJANSSON_EXAMPLES=OFF
pc jansson "$(version "$d")" "" -ljansson
d=$(echo "$src"/utf8proc-*/)
c_lib "$d" utf8proc -DUTF8PROC_STATIC
pc libutf8proc "$(version "$d")" -DUTF8PROC_STATIC -lutf8proc
d=$(echo "$src"/xxhash-*/)
c_lib "$d" xxhash
cp "$d"/xxh3.h "$out/include/" 2>/dev/null || true
pc libxxhash "$(version "$d")" "" -lxxhash
rm -rf "$src" "$apt"
: >"$stamp"
