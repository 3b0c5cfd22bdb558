#!/bin/sh
# `cmake --install` into a scratch prefix: the program runs there, man pages and completions exist for
# every verb, and a small program builds against the installed library through pkg-config.
# Each public header also compiles alone, as C11 and as C++17.
set -u
A=${ASHLAR:?} ROOT=${ASH_ROOT:?}
B=$(dirname "$A")
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
fails=0
fail() { echo "FAIL: $*"; fails=$((fails + 1)); }
P=$T/usr
cmake --install "$B" --prefix "$P" >"$T/log" 2>&1 || { cat "$T/log"; exit 1; }
[ "$("$P/bin/ashlar" --version)" = "$("$A" --version)" ] || fail "the installed program does not run"
for v in $("$A" help --list); do
    [ -s "$P/share/man/man1/ashlar-$v.1" ] || fail "no man page for $v"
done
for f in share/man/man1/ashlar.1 share/bash-completion/completions/ashlar share/zsh/site-functions/_ashlar share/fish/vendor_completions.d/ashlar.fish \
    share/ashlar/wikitext2-valid.txt share/ashlar/README.md include/ashlar/gguf.h; do
    [ -s "$P/$f" ] || fail "$f is missing"
done

CC=${CC:-cc}
cd "$T" || exit 1
if command -v "$CC" >/dev/null; then
    for h in "$ROOT"/include/ashlar/*.h; do
        n=ashlar/$(basename "$h")
        echo "#include \"$n\"" >h.c
        "$CC" -std=c11 -Wall -Wextra -Werror -I"$P/include" -fsyntax-only h.c || fail "$n does not compile alone as C11"
        if command -v c++ >/dev/null; then
            cp h.c h.cpp
            c++ -std=c++17 -Wall -Wextra -Werror -I"$P/include" -fsyntax-only h.cpp || fail "$n does not compile alone as C++17"
        fi
    done
    # A sanitizer build's library needs the same sanitizer to link; the plain one is enough here.
    if command -v pkg-config >/dev/null && ! nm "$A" 2>/dev/null | grep -q -e __asan_init -e __tsan_init; then
        cat >t.c <<'C'
#include <ashlar/gguf.h>
#include <stdio.h>
int main(void) {
    ash_gguf *g;
    ash_error e;
    if (ash_gguf_open_mem(&g, "x", 1, &e) == ASH_OK) return 1;
    return printf("%s %s\n", ash_version(), e.msg) < 0;
}
C
        pc=$(find "$P" -name ashlar.pc -printf '%h\n')
        export PKG_CONFIG_PATH="$pc"
        # shellcheck disable=SC2046
        "$CC" t.c $(pkg-config --cflags --libs ashlar) -o t && ./t | grep -q "not a GGUF" || fail "a program does not build with pkg-config"
    fi
fi
[ $fails -eq 0 ] || exit 1
echo "installed and used"
