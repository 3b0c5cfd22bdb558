/* fuzz_recipe.c - the recipe reader on arbitrary bytes; what it accepts must survive a round trip. */
#include "ashlar/plan.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    ash_recipe *r, *q;
    char *s, *s2;
    size_t m, m2;
    if (ash_recipe_parse(&r, (const char *)p, n, "fuzz", NULL) != ASH_OK) return 0;
    ash_recipe_find(r, "blk.0.attn_q.weight");
    if (ash_recipe_json(r, &s, &m, NULL) == ASH_OK) {
        /* lines may hold bytes that are no UTF-8, which JSON then refuses: only a second success must agree */
        if (ash_recipe_parse(&q, s, m, "again", NULL) == ASH_OK) {
            if (ash_recipe_json(q, &s2, &m2, NULL) != ASH_OK || m2 != m || memcmp(s, s2, m) != 0) abort();
            ash_recipe_text_free(s2);
            ash_recipe_free(q);
        }
        ash_recipe_text_free(s);
    }
    ash_recipe_free(r);
    return 0;
}
