/* fuzz_gbnf.c - the input is a grammar, a zero byte, and a text that is matched against it. */
#include "ashlar/grammar.h"
#include "base/base.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n > 1 << 13) return 0;
    const uint8_t *z = n ? memchr(data, 0, n) : NULL;
    size_t len = z ? (size_t)(z - data) : n;
    ash_grammar *g;
    ash_matcher *m;
    ash_error e = {0};
    if (ash_grammar_gbnf(&g, (const char *)data, len, NULL, &e) != ASH_OK) {
        if (!e.msg[0]) abort();
        return 0;
    }
    if (ash_matcher_new(&m, g, NULL, &e) == ASH_OK) {
        for (size_t i = len + 1; i < n && i < len + 200; i++)
            if (!ash_matcher_text(m, (const char *)data + i, 1)) break;
        ash_matcher_may_end(m);
        ash_matcher_reset(m);
        ash_matcher_text(m, "{\"a\": [1, 2]}", 13);
        ash_matcher_free(m);
    } else if (!e.msg[0])
        abort();
    ash_grammar_free(g);
    return 0;
}
