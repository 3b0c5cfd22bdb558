/* fuzz_sweep_rows.c - the planner's reader of sweep results on arbitrary bytes. */
#include "ashlar/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    ash_plan_sweep s;
    if (ash_plan_sweep_parse(&s, (const char *)p, n, "fuzz", NULL) == ASH_OK) ash_plan_sweep_free(&s);
    return 0;
}
