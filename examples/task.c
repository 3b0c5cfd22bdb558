/* task.c - task.h: two models at the same task, and whether the difference is more than chance.
 * usage: task A B ITEMS.jsonl */
#include "example.h"

#include "ashlar/task.h"

int main(int argc, char **argv) {
    ARGS(3, "A B ITEMS.jsonl");
    ash_tasks *items;
    OK(ash_tasks_load(&items, argv[3], &err));
    ash_task_opts o = ash_task_defaults();
    o.max_tokens = 16;
    ash_task_result r[2];
    for (int i = 0; i < 2; i++) {
        ash_model *m;
        OK(ash_model_load(&m, argv[1 + i], &err));
        OK(ash_task_run(&r[i], m, items, &o, &err));
        printf("%s: %zu of %zu right (%.0f to %.0f %%)\n", argv[1 + i], r[i].n_correct, r[i].n, 100 * r[i].accuracy.lo, 100 * r[i].accuracy.hi);
        ash_model_free(m);
    }
    ash_task_pair p;
    OK(ash_task_compare(&p, &r[0], &r[1], 1, &err));
    printf("only the first %zu, only the second %zu: p = %.3f\n", p.only_a, p.only_b, p.p);
    ash_task_result_free(&r[0]);
    ash_task_result_free(&r[1]);
    ash_tasks_free(items);
}
