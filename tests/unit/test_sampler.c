/* test_sampler.c - the sampling chain against a plain sort-everything implementation, its options one by one, and its
 * determinism. */
#include "golden.h"

enum { V = 1000 };
static ash_rng g_rng;
static float g_logits[V];

static void fill(uint64_t seed) {
    ash_rng_seed(&g_rng, seed);
    for (int i = 0; i < V; i++) g_logits[i] = (float)(ash_rng_f64(&g_rng) * 12 - 6);
    for (int i = 0; i < V / 20; i++) g_logits[ash_rng_below(&g_rng, V)] = g_logits[ash_rng_below(&g_rng, V)]; /* ties */
}

static ash_sampler *make(ash_sampler_opts o) {
    ash_sampler *s;
    ash_error err = {0};
    if (ash_sampler_new(&s, &o, V, &err) != ASH_OK) fail_msg("%s", err.msg);
    return s;
}

typedef struct {
    double l;
    int id;
} pair;
static int by_logit(const void *a, const void *b) {
    const pair *x = a, *y = b;
    return x->l != y->l ? (x->l < y->l ? 1 : -1) : x->id - y->id;
}

/* The set the chain may draw from. */
static void allowed(ash_sampler_opts o, bool *ok) {
    pair p[V];
    for (int i = 0; i < V; i++) p[i] = (pair){(double)g_logits[i], i};
    qsort(p, V, sizeof *p, by_logit);
    int n = V;
    if (o.top_k > 0 && o.top_k < n) n = o.top_k;
    if (o.top_p < 1) {
        double sum = 0, cum = 0;
        for (int i = 0; i < n; i++) sum += exp(p[i].l - p[0].l);
        for (int i = 0; i < n; i++) {
            cum += exp(p[i].l - p[0].l) / sum;
            if (cum >= (double)o.top_p) {
                n = i + 1;
                break;
            }
        }
    }
    memset(ok, 0, V * sizeof *ok);
    for (int i = 0; i < n; i++) ok[p[i].id] = o.min_p <= 0 || p[i].l >= p[0].l + log((double)o.min_p) - 1e-6;
}

static void chain(void **st) {
    (void)st;
    const ash_sampler_opts opts[] = {
        {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1},
        {.temperature = 5.0f, .top_k = 5, .top_p = 1, .repeat_penalty = 1},
        {.temperature = 3.0f, .top_k = 0, .top_p = 0.5f, .repeat_penalty = 1},
        {.temperature = 3.0f, .top_k = 0, .top_p = 1, .min_p = 0.2f, .repeat_penalty = 1},
        {.temperature = 2.0f, .top_k = 100, .top_p = 0.3f, .repeat_penalty = 1},
        {.temperature = 1.0f, .top_k = 5000, .top_p = 0, .repeat_penalty = 1},
    };
    for (size_t i = 0; i < ASH_ARRAY_LEN(opts); i++)
        for (uint64_t seed = 0; seed < 4; seed++) {
            fill(seed);
            bool ok[V], drawn[V] = {0};
            int n_ok = 0, n_drawn = 0;
            allowed(opts[i], ok);
            ash_sampler *s = make(opts[i]);
            for (int d = 0; d < 3000; d++) {
                ash_token t = ash_sampler_pick(s, g_logits);
                assert_in_range(t, 0, V - 1);
                if (!ok[t]) fail_msg("options %zu seed %d: drew id %d outside the set", i, (int)seed, t);
                drawn[t] = true;
            }
            for (int v = 0; v < V; v++) n_ok += ok[v], n_drawn += drawn[v];
            if (n_ok <= 40) assert_true(n_drawn * 2 >= n_ok);
            ash_sampler_free(s);
        }
}

static void frequencies(void **st) {
    (void)st;
    for (int i = 0; i < V; i++) g_logits[i] = -50;
    g_logits[3] = logf(0.6f), g_logits[7] = logf(0.3f), g_logits[9] = logf(0.1f);
    ash_sampler *s = make((ash_sampler_opts){.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 4});
    int n[V] = {0};
    for (int i = 0; i < 20000; i++) n[ash_sampler_pick(s, g_logits)]++;
    assert_in_range(n[3], 11600, 12400);
    assert_in_range(n[7], 5600, 6400);
    assert_in_range(n[9], 1700, 2300);
    ash_sampler_free(s);
}

static void greedy_and_penalties(void **st) {
    (void)st;
    for (int i = 0; i < V; i++) g_logits[i] = -1;
    g_logits[10] = 4, g_logits[20] = 3, g_logits[30] = 3, g_logits[40] = -0.5f;
    ash_sampler *s = make((ash_sampler_opts){.temperature = 0, .repeat_penalty = 2, .penalty_last_n = 2});
    assert_int_equal(ash_sampler_pick(s, g_logits), 10);
    ash_sampler_accept(s, 10); /* 4 / 2 = 2 < 3; the tie goes to the lower id */
    assert_int_equal(ash_sampler_pick(s, g_logits), 20);
    ash_sampler_accept(s, 20);
    assert_int_equal(ash_sampler_pick(s, g_logits), 30);
    ash_sampler_accept(s, 30); /* 10 leaves the window of 2 */
    assert_int_equal(ash_sampler_pick(s, g_logits), 10);
    ash_sampler_free(s);

    s = make((ash_sampler_opts){.temperature = 0, .repeat_penalty = 1, .frequency_penalty = 0.4f, .penalty_last_n = -1});
    for (int i = 0; i < 2; i++) ash_sampler_accept(s, 10);
    assert_int_equal(ash_sampler_pick(s, g_logits), 10); /* 3.2 */
    ash_sampler_accept(s, 10);
    assert_int_equal(ash_sampler_pick(s, g_logits), 20); /* 2.8 */
    ash_sampler_free(s);

    s = make((ash_sampler_opts){.temperature = 0, .repeat_penalty = 1, .presence_penalty = 1.5f, .penalty_last_n = 64});
    for (int i = 0; i < 5; i++) ash_sampler_accept(s, 10);
    assert_int_equal(ash_sampler_pick(s, g_logits), 20);
    ash_sampler_free(s);

    ash_logit_bias bias[] = {{40, 100}, {10, -INFINITY}};
    s = make((ash_sampler_opts){.temperature = 0, .repeat_penalty = 1, .bias = bias, .n_bias = 2});
    assert_int_equal(ash_sampler_pick(s, g_logits), 40);
    ash_sampler_free(s);
    bias[0].token = V;
    ash_error err = {0};
    ash_sampler_opts bad = {.repeat_penalty = 1, .bias = bias, .n_bias = 2};
    assert_int_equal(ash_sampler_new(&s, &bad, V, &err), ASH_E_RANGE);
}

static void deterministic(void **st) {
    (void)st;
    fill(9);
    ash_sampler_opts o = ash_sampler_defaults(NULL);
    o.seed = 42, o.repeat_penalty = 1.1f;
    ash_sampler *a = make(o), *b = make(o);
    o.seed = 43;
    ash_sampler *c = make(o);
    int differs = 0;
    uint64_t before = ash_alloc_count();
    for (int i = 0; i < 200; i++) {
        ash_token x = ash_sampler_pick(a, g_logits), y = ash_sampler_pick(b, g_logits), z = ash_sampler_pick(c, g_logits);
        assert_int_equal(x, y);
        differs += x != z;
        ash_sampler_accept(a, x), ash_sampler_accept(b, y), ash_sampler_accept(c, z);
    }
    assert_int_equal(ash_alloc_count(), before);
    assert_true(differs > 20);
    ash_sampler_free(a), ash_sampler_free(b), ash_sampler_free(c);

    for (int i = 0; i < V; i++) g_logits[i] = i == 5 ? 1.0f : NAN; /* never a NaN's id */
    o.temperature = 1;
    a = make(o);
    for (int i = 0; i < 50; i++) assert_int_equal(ash_sampler_pick(a, g_logits), 5);
    ash_sampler_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(chain), cmocka_unit_test(frequencies), cmocka_unit_test(greedy_and_penalties),
                                       cmocka_unit_test(deterministic)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
