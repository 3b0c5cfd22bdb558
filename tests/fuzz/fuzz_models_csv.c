/* fuzz_models_csv.c - the table of known models from arbitrary bytes; and the score over what it says. */
#include "ashlar/assess.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    ash_known_models k;
    if (ash_known_models_parse(&k, (const char *)p, n, "table", NULL) != ASH_OK) return 0;
    for (int form = 0; form < ASH_RULE_FORMS; form++) ash_ffn_rule_score(form, &k, 2);
    ash_known_models_free(&k);
    return 0;
}
