/* fuzz_task.c - task files of arbitrary bytes: items that are whole, or one sentence. */
#include "ashlar/task.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    ash_tasks *t;
    ash_error err = {0};
    if (ash_tasks_parse(&t, (const char *)p, n, &err) != ASH_OK) {
        if (!err.msg[0]) abort();
        return 0;
    }
    for (size_t i = 0; i < ash_tasks_n(t); i++) {
        const ash_task_item *it = ash_tasks_at(t, i);
        if (!it->prompt || !it->gold || (it->kind == ASH_TASK_CHOICE ? it->answer >= it->n_choices : !it->expected)) abort();
        if (it->kind != ASH_TASK_CHOICE) ash_task_match(it, it->expected), ash_task_match(it, it->prompt);
    }
    ash_tasks_free(t);
    return 0;
}
