/* fuzz_schema.c - the input is a JSON schema. Whatever is accepted must make GBNF that compiles, but for the named reasons. */
#include "ashlar/grammar.h"
#include "base/base.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n > 1 << 13) return 0;
    ash_grammar *g;
    ash_error e = {0};
    char *gbnf, *ignored;
    ash_status st = ash_schema_to_gbnf((const char *)data, n, n & 1, &gbnf, &ignored, &e);
    if (st != ASH_OK) {
        if (!e.msg[0]) abort();
        return 0;
    }
    st = ash_grammar_gbnf(&g, gbnf, strlen(gbnf), NULL, &e);
    if (st == ASH_OK) ash_grammar_free(g);
    else if (st == ASH_E_FORMAT && !strstr(e.msg, "left recursion")) abort(); /* what we wrote ourselves must be well-formed */
    ash_text_free(gbnf);
    ash_text_free(ignored);
    return 0;
}
