/* test_task.c - task files of every shape, what counts as the same answer, the statistics against values known elsewhere, and
 * log-likelihoods of choices against logits summed here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "ashlar/task.h"
#include "tiny.h"

static const char *data(const char *name) {
    static char p[512];
    snprintf(p, sizeof p, "%s/tasks/%s", getenv("ASH_TEST_DATA"), name);
    return p;
}
static ash_tasks *load(const char *name) {
    ash_tasks *t;
    ash_error err = {0};
    if (ash_tasks_load(&t, data(name), &err) != ASH_OK) fail_msg("%s", err.msg);
    return t;
}

static void shapes_are_known(void **state) {
    (void)state;
    ash_tasks *t = load("hellaswag.jsonl");
    const ash_task_item *it = ash_tasks_at(t, 0);
    assert_int_equal(ash_tasks_n(t), 2);
    assert_int_equal(it->kind, ASH_TASK_CHOICE);
    assert_string_equal(it->prompt, "Baking: A woman stands in a kitchen. She");
    assert_string_equal(it->choices[0], " pours flour into a bowl and stirs it.");
    assert_string_equal(it->choices[1], " jumps over the moon with a spoon.");
    it = ash_tasks_at(t, 1);
    assert_string_equal(it->prompt, "Chess: How to open a game. Take a pawn. Two players sit down. They");
    assert_int_equal(it->answer, 1);
    ash_tasks_free(t);
    t = load("arc.jsonl");
    assert_string_equal(ash_tasks_at(t, 0)->prompt, "Question: Which of these gives light?\nAnswer:");
    assert_string_equal(ash_tasks_at(t, 0)->choices[1], " the sun");
    assert_int_equal(ash_tasks_at(t, 0)->answer, 1);
    assert_int_equal(ash_tasks_at(t, 1)->answer, 1);
    assert_int_equal(ash_tasks_at(t, 1)->n_choices, 3);
    ash_tasks_free(t);
    t = load("gsm8k.jsonl");
    assert_int_equal(ash_tasks_at(t, 0)->kind, ASH_TASK_NUMBER);
    assert_true(ash_task_match(ash_tasks_at(t, 1), "so it is $2400."));
    assert_true(ash_task_match(ash_tasks_at(t, 1), "5 boxes, no: #### 2,400.00 and 7"));
    assert_false(ash_task_match(ash_tasks_at(t, 1), "2401"));
    assert_false(ash_task_match(ash_tasks_at(t, 1), "no idea"));
    assert_true(ash_task_match(ash_tasks_at(t, 0), " 3 + 4 = 7"));
    assert_false(ash_task_match(ash_tasks_at(t, 0), "-7"));
    ash_tasks_free(t);
    t = load("humaneval.jsonl");
    assert_int_equal(ash_tasks_at(t, 0)->kind, ASH_TASK_CODE);
    assert_true(ash_task_match(ash_tasks_at(t, 0), "    return a + b  \n\n"));
    assert_false(ash_task_match(ash_tasks_at(t, 0), "    return b + a\n"));
    assert_false(ash_task_match(ash_tasks_at(t, 0), "return a + b"));
    ash_tasks_free(t);
    t = load("own.jsonl");
    assert_int_equal(ash_tasks_at(t, 1)->line, 3);
    assert_true(ash_task_match(ash_tasks_at(t, 0), "  Paris\n"));
    assert_false(ash_task_match(ash_tasks_at(t, 0), "Paris, France"));
    ash_tasks_free(t);
}

static void bad_files_name_the_line(void **state) {
    (void)state;
    static const char *const bad[] = {"", "\n\n", "x", "[]", "{}", "{\"prompt\": \"a\"}", "{\"prompt\": \"a\", \"choices\": [\"b\"], \"answer\": 0}",
                                      "{\"prompt\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 2}", "{\"prompt\": \"a\", \"choices\": [\"b\", \"\"], \"answer\": 0}",
                                      "{\"prompt\": \"a\", \"choices\": [\"b\", 3], \"answer\": 0}", "{\"prompt\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": -1}",
                                      "{\"question\": \"q\", \"choices\": {}, \"answerKey\": \"A\"}", "{\"ctx\": \"c\", \"endings\": [], \"label\": 0}",
                                      "{\"prompt\": \"a\", \"answer\": \"b\"}\n{\"question\": \"q\", \"answer\": \"#### 1\"}", "{\"prompt\": \"a\", \"answer\": \"b\"", "\xff\xfe"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(bad); i++) {
        ash_tasks *t;
        ash_error err = {0};
        assert_int_equal(ash_tasks_parse(&t, bad[i], strlen(bad[i]), &err), ASH_E_FORMAT);
        assert_true(err.msg[0] != 0);
        assert_null(t);
    }
}

static void statistics_are_the_known_ones(void **state) {
    (void)state;
    /* binomial: 2 * P(X <= 1 | 8, 1/2) = 18/256; statsmodels' proportion_confint(8, 10, method="wilson") */
    assert_true(fabs(ash_binomial_p(1, 7) - 18.0 / 256) < 1e-12);
    assert_true(fabs(ash_binomial_p(5, 5) - 1) < 1e-12);
    assert_true(ash_binomial_p(0, 0) == 1);
    assert_true(fabs(ash_binomial_p(0, 40) - 2 * pow(2, -40)) < 1e-15);
    ash_est e = ash_wilson(8, 10);
    assert_true(fabs(e.lo - 0.490162) < 1e-5 && fabs(e.hi - 0.943318) < 1e-5);
    uint8_t x[40], y[40];
    for (int i = 0; i < 40; i++) x[i] = i < 30, y[i] = i >= 10 && i < 32;
    ash_task_result a = {.n = 40, .correct = x}, b = {.n = 40, .correct = y};
    ash_task_pair p;
    ash_error err = {0};
    assert_int_equal(ash_task_compare(&p, &a, &b, 1, &err), ASH_OK);
    assert_int_equal(p.both, 20);
    assert_int_equal(p.only_a, 10);
    assert_int_equal(p.only_b, 2);
    assert_int_equal(p.neither, 8);
    assert_true(fabs(p.p - 2.0 * (1 + 12 + 66) / 4096) < 1e-12);
    assert_true(fabs(p.difference.v - 0.2) < 1e-12 && p.difference.lo < 0.2 && p.difference.hi > 0.2);
    b.n = 39;
    assert_int_equal(ash_task_compare(&p, &a, &b, 1, &err), ASH_E_USAGE);
}

/* Sums logits of one sequence. */
typedef struct {
    const ash_token *t;
    size_t n;
    int32_t v;
    double sum;
} sum;
static ash_status add(void *ctx, size_t pos, const float *x, ash_error *err) {
    sum *s = ctx;
    (void)err;
    if (pos + 1 >= s->n) return ASH_OK;
    double z = 0, mx = -INFINITY;
    for (int32_t i = 0; i < s->v; i++) mx = fmax(mx, x[i]);
    for (int32_t i = 0; i < s->v; i++) z += exp(x[i] - mx);
    s->sum += x[s->t[pos + 1]] - mx - log(z);
    return ASH_OK;
}

static void choices_are_log_likelihoods(void **state) {
    (void)state;
    ash_error err = {0};
    ash_model *m = tiny_model("llama");
    const ash_vocab *v = ash_model_vocab(m, &err);
    ash_tasks *t = load("arc.jsonl");
    ash_task_opts o = ash_task_defaults();
    ash_task_result r;
    if (ash_task_run(&r, m, t, &o, &err) != ASH_OK) fail_msg("%s", err.msg);
    assert_int_equal(r.n, 2);
    for (size_t i = 0; i < 2; i++) {
        const ash_task_item *it = ash_tasks_at(t, i);
        double per[8], wrong = -INFINITY;
        ash_session *s;
        ash_session_opts so = ash_session_defaults();
        so.n_ctx = 256;
        so.precision = ASH_PREC_EXACT;
        assert_int_equal(ash_session_new(&s, m, &so, &err), ASH_OK);
        for (uint32_t c = 0; c < it->n_choices; c++) {
            char text[512];
            snprintf(text, sizeof text, "%s%s", it->prompt, it->choices[c]);
            sum w = {.v = ash_model_n_vocab(m)}, head = {.v = w.v};
            ash_token *a, *b;
            assert_int_equal(ash_tokenize(v, text, strlen(text), ASH_TOKENIZE_BOS, &a, &w.n, &err), ASH_OK);
            assert_int_equal(ash_tokenize(v, it->prompt, strlen(it->prompt), ASH_TOKENIZE_BOS, &b, &head.n, &err), ASH_OK);
            size_t k = 0;
            while (k < head.n && a[k] == b[k]) k++;
            w.t = a;
            assert_int_equal(ash_session_eval_all(s, a, w.n, k - 1, add, &w, &err), ASH_OK);
            per[c] = w.sum / (double)strlen(it->choices[c]);
            if (c != it->answer) wrong = fmax(wrong, per[c]);
            ash_tokens_free(a);
            ash_tokens_free(b);
        }
        assert_true(fabs(r.margin[i] - (per[it->answer] - wrong)) < 1e-5);
        assert_int_equal(r.correct[i], per[it->answer] > wrong);
        ash_session_free(s);
    }
    ash_task_result_free(&r);
    ash_tasks_free(t);
    /* generated answers, examples, limits */
    t = load("gsm8k.jsonl");
    o.n_shots = 1;
    o.max_tokens = 8;
    if (ash_task_run(&r, m, t, &o, &err) != ASH_OK) fail_msg("%s", err.msg);
    assert_int_equal(r.n, 2);
    assert_non_null(r.answers[0]);
    ash_task_result_free(&r);
    o.n_shots = 3;
    assert_int_equal(ash_task_run(&r, m, t, &o, &err), ASH_E_USAGE);
    o.n_shots = 1;
    o.chat = true;
    assert_int_equal(ash_task_run(&r, m, t, &o, &err), ASH_E_USAGE);
    ash_tasks_free(t);
    ash_model_free(m);
}

int main(void) {
    const struct CMUnitTest t[] = {cmocka_unit_test(shapes_are_known), cmocka_unit_test(bad_files_name_the_line), cmocka_unit_test(statistics_are_the_known_ones),
                                   cmocka_unit_test(choices_are_log_likelihoods)};
    return cmocka_run_group_tests(t, NULL, NULL);
}
