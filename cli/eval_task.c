/* eval_task.c - see eval_task.h. */
#include "eval_task.h"

#include "cli.h"

#include <jansson.h>

static json_t *est(ash_est e) { return json_pack("{s:f, s:f, s:f}", "value", e.v, "lo", e.lo, "hi", e.hi); }

static json_t *result_json(const char *model, const ash_task_result *r) {
    json_t *per = json_array();
    for (size_t i = 0; i < r->n; i++) json_array_append_new(per, json_integer(r->correct[i]));
    json_t *o = json_pack("{s:s, s:I, s:I, s:o, s:f, s:o}", "model", model, "n", (json_int_t)r->n, "correct", (json_int_t)r->n_correct, "accuracy", est(r->accuracy), "seconds",
                          r->seconds, "items", per);
    if (r->kind == ASH_TASK_CHOICE) {
        json_object_set_new(o, "correct_unnormalised", json_integer((json_int_t)r->n_correct_raw));
    } else {
        json_object_set_new(o, "cut", json_integer((json_int_t)r->n_cut));
        json_object_set_new(o, "loops", json_integer((json_int_t)r->n_loops));
    }
    return o;
}

static void print_result(const char *model, const ash_task_result *r) {
    printf("%s\n  %zu of %zu right: %.1f %%  [%.1f, %.1f], %.1f s\n", model, r->n_correct, r->n, 100 * r->accuracy.v, 100 * r->accuracy.lo, 100 * r->accuracy.hi, r->seconds);
    if (r->kind == ASH_TASK_CHOICE) printf("  %zu by log-likelihood that is not divided by length\n", r->n_correct_raw);
    else if (r->n_cut) printf("  %zu answers reached the limit of tokens, %zu end in a repetition\n", r->n_cut, r->n_loops);
}

static void print_pair(const ash_task_pair *p) {
    printf("first minus second: %+.1f points  [%+.1f, %+.1f], McNemar's exact p = %.3g\n", 100 * p->difference.v, 100 * p->difference.lo, 100 * p->difference.hi, p->p);
    printf("  both right %zu, only the first %zu, only the second %zu, neither %zu\n", p->both, p->only_a, p->only_b, p->neither);
}

static ash_status save_answers(const char *path, const ash_tasks *t, const ash_task_result *r, uint32_t n_shots, ash_error *err) {
    cli_out o;
    ASH_TRY(cli_out_open(&o, path, err));
    ash_status st = ASH_OK;
    for (size_t i = 0; st == ASH_OK && i < r->n; i++) {
        const ash_task_item *it = ash_tasks_at(t, n_shots + i);
        json_t *l = json_pack("{s:i, s:b, s:s, s:s}", "line", (int)it->line, "correct", (int)r->correct[i], "expected", it->expected, "answer", r->answers[i]);
        if (!l || json_dumpf(l, o.f, JSON_COMPACT) != 0 || fputc('\n', o.f) == EOF) st = l ? cli_out_failed(&o, err) : ash_fail(err, ASH_E_NOMEM, "out of memory");
        json_decref(l);
    }
    return cli_out_close(&o, st, err);
}

static ash_status run_one(ash_task_result *r, const char *path, const ash_tasks *t, const ash_task_opts *o, ash_error *err) {
    ash_model *m = NULL;
    ASH_TRY(ash_model_load(&m, path, err));
    ash_status st = ash_task_run(r, m, t, o, err);
    ash_model_free(m);
    cli_progress_done();
    return st;
}

int cli_eval_task(const char *model, const char *other, const char *task, const char *answers, const ash_task_opts *o) {
    ash_error err = {0};
    ash_status st;
    ash_tasks *t = NULL;
    ash_task_result a = {0}, b = {0};
    ash_task_pair p = {0};
    int rc = 0;
    ASH_TRY_GOTO(ash_tasks_load(&t, task, &err), done);
    const ash_task_item *first = ash_tasks_at(t, 0);
    if (answers && first->kind == ASH_TASK_CHOICE) {
        st = ash_fail(&err, ASH_E_USAGE, "--answers keeps generated texts; a choice has none");
        goto done;
    }
    ASH_TRY_GOTO(run_one(&a, model, t, o, &err), done);
    if (answers) ASH_TRY_GOTO(save_answers(answers, t, &a, o->n_shots, &err), done);
    if (other) {
        ASH_TRY_GOTO(run_one(&b, other, t, o, &err), done);
        ASH_TRY_GOTO(ash_task_compare(&p, &a, &b, o->seed, &err), done);
    }
    if (g_json) {
        json_t *j = json_pack("{s:s, s:s, s:s, s:i, s:o}", "task", task, "kind", ash_task_kind_name(a.kind), "shape", first->shape, "shots", (int)o->n_shots, "result",
                              result_json(model, &a));
        if (other) {
            json_object_set_new(j, "other", result_json(other, &b));
            json_object_set_new(j, "pair", json_pack("{s:o, s:f, s:I, s:I, s:I, s:I}", "difference", est(p.difference), "p", p.p, "both", (json_int_t)p.both, "only_first",
                                                     (json_int_t)p.only_a, "only_second", (json_int_t)p.only_b, "neither", (json_int_t)p.neither));
        }
        rc = cli_print_json(j);
    } else {
        printf("%s: %s, shape %s, %u examples\n", task, ash_task_kind_name(a.kind), first->shape, o->n_shots);
        if (a.kind == ASH_TASK_CODE) printf("code is compared as text and never run: other right solutions count as wrong\n");
        print_result(model, &a);
        if (other) {
            print_result(other, &b);
            print_pair(&p);
        }
    }
done:
    if (st != ASH_OK) rc = cli_fail(&err, st);
    ash_task_result_free(&a);
    ash_task_result_free(&b);
    ash_tasks_free(t);
    return rc;
}
