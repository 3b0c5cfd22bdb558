/* test_backward.c - gradients of the backward pass against central differences of the engine's own forward pass, on every plain architecture. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "eval/backward.h"
#include "eval/imatrix.h"
#include "tiny.h"

enum { T = 24, SKIP = 4 };

/* sum of log p(label), all layers anew with h * dir added to one matrix (row-major n_rows x K) */
static double log_p(const ash_model *m, const ash_exec *e, const ash_token *tok, const ash_token *y, int layer, int role, const float *dir, float h) {
    const size_t E = (size_t)m->hp.n_embd, V = (size_t)m->hp.n_vocab;
    float *x = ash_alloc_aligned(ash_layer_state_floats(m, T) * 4, 64), *scratch = ash_alloc_aligned(ash_layer_scratch_floats(m, T) * 4 + 64, 64);
    float *z = ash_alloc_aligned((size_t)T * V * 4, 64);
    void *s = ash_alloc_aligned(ash_head_scratch_bytes(e, m), 64);
    double sum = 0;
    ash_embed_tokens(m, e->k, tok, T, x);
    for (int l = 0; l < m->hp.n_layer; l++) {
        float *p[ASH_W_COUNT];
        for (int r = 0; r < ASH_W_COUNT; r++) {
            const ash_mat *w = &m->layers[l].w[r];
            p[r] = ash_alloc_aligned(ash_packed_floats(w->n_rows, w->K) * 4, 64);
            ash_mm_pack(e->k, e->pool, w, p[r]);
            for (int64_t i = 0; l == layer && r == role && i < w->n_rows; i++)
                for (int64_t k = 0; k < w->K; k++) p[r][(i / 16 * w->K + k) * 16 + i % 16] += h * dir[i * w->K + k];
        }
        ash_layer_apply(m, e->k, l, (const float *const *)p, x, T, scratch, NULL, NULL);
        for (int r = 0; r < ASH_W_COUNT; r++) ash_free(p[r]);
    }
    ash_final_norm(m, e->k, x, T, x);
    ash_head_logits(e, m, x, T, z, s);
    (void)E;
    for (size_t t = 0; t < T; t++)
        if (y[t] >= 0) sum += (double)z[t * V + (size_t)y[t]] - e->k->lse(z + t * V, (int64_t)V);
    ash_free(x);
    ash_free(scratch);
    ash_free(z);
    ash_free(s);
    return sum;
}

typedef struct { int layer, role; const float *dir; double slope; } along;

static void tap(void *ctx, uint32_t chunk, int layer, ash_role role, const float *g, int n_rows, const float *x, int K) {
    along *a = ctx;
    if (chunk != 1 || layer != a->layer || (int)role != a->role) return;
    for (int t = 0; t < T; t++)
        for (int i = 0; i < n_rows; i++)
            for (int k = 0; k < K; k++) a->slope += (double)g[t * n_rows + i] * (double)x[t * K + k] * (double)a->dir[(size_t)i * (size_t)K + (size_t)k];
}

static void check(const char *name) {
    ash_model *m = tiny_model(name);
    ash_eval_text t = tiny_text(m, 2 * T, 5);
    ash_exec e;
    ash_error err = {0};
    assert_int_equal(ash_exec_init(&e, 2, -1, &err), ASH_OK);
    ash_token y[2 * T];
    for (int drawn = 0; drawn < 2; drawn++) /* once to draw labels: the rest of the test holds them */
        for (int l = 0; l < m->hp.n_layer; l += ASH_MAX(1, m->hp.n_layer - 1))
            for (int r = 0; r < (drawn ? ASH_W_COUNT : 1); r++) {
                const ash_mat *w = &m->layers[l].w[r];
                const size_t n = (size_t)w->n_rows * (size_t)w->K;
                float *dir = ash_alloc(n * sizeof *dir);
                ash_rng rng;
                ash_rng_seed(&rng, (uint64_t)(l * 8 + r + 1));
                for (size_t i = 0; i < n; i++) dir[i] = (float)(2 * ash_rng_f64(&rng) - 1) / sqrtf((float)n);
                along a = {l, r, dir, 0};
                ash_backward_job j = {.m = m, .tok = t.tokens, .T = T, .skip = SKIP, .n_chunks = 2, .labels = y, .draw = !drawn, .seed = 9, .tap = tap, .ctx = &a};
                if (ash_backward(&e, &j, &err) != ASH_OK) fail_msg("%s", err.msg);
                for (int k = 0; k < 2 * T; k++) assert_true(k % T < SKIP ? y[k] == -1 : y[k] >= 0 && y[k] < m->hp.n_vocab);
                if (drawn) {
                    const float h = 0.08f; /* float32 sums need a step this large */
                    const double up = log_p(m, &e, t.tokens + T, y + T, l, r, dir, h), down = log_p(m, &e, t.tokens + T, y + T, l, r, dir, -h), want = (up - down) / (2 * (double)h);
                    if (fabs(a.slope - want) > 0.003 * fabs(want) + 7e-4) fail_msg("%s layer %d matrix %d: gradient %g, differences %g", name, l, r, a.slope, want);
                }
                ash_free(dir);
            }
    ash_exec_free(&e);
    ash_free(t.tokens);
    ash_model_free(m);
}

static void gradients_match_differences(void **state) {
    (void)state;
    check("llama");
    check("llama-tied");
    check("gemma3");
    check("qwen3");
}

/* Through the file and back; models without plain layers say so. */
static void kept_with_the_importance(void **state) {
    (void)state;
    ash_model *m = tiny_model("gemma3");
    ash_eval_text t = tiny_text(m, 256, 3);
    ash_imatrix *im = NULL, *back = NULL;
    ash_error err = {0};
    ash_eval_opts o = ash_eval_defaults();
    o.n_ctx = 64;
    assert_int_equal(ash_imatrix_collect(&im, m, &t, "x", &o, &err), ASH_OK);
    assert_false(ash_imatrix_has_gradients(im));
    if (ash_imatrix_gradients(im, m, &t, 4, &o, &err) != ASH_OK) fail_msg("%s", err.msg);
    char path[64];
    snprintf(path, sizeof path, "test_backward-%d.gguf", (int)getpid());
    assert_int_equal(ash_imatrix_save(im, path, &err), ASH_OK);
    if (ash_imatrix_load(&back, path, &err) != ASH_OK) fail_msg("%s", err.msg);
    unlink(path);
    assert_true(ash_imatrix_has_gradients(back));
    for (int l = 0; l < m->hp.n_layer; l++)
        for (int r = 0; r < ASH_W_COUNT; r++) {
            const ash_mat *w = &m->layers[l].w[r];
            const float *in[2], *out[2];
            double sum = 0;
            for (int k = 0; k < 2; k++)
                assert_true(ash_imatrix_sensitivity(k ? back : im, m->layers[l].name[r], (uint64_t)w->K, (uint64_t)w->n_rows, &in[k], &out[k]));
            assert_memory_equal(in[0], in[1], (size_t)w->K * 4);
            assert_memory_equal(out[0], out[1], (size_t)w->n_rows * 4);
            for (int64_t i = 0; i < w->n_rows; i++) sum += (double)out[0][i];
            assert_true(fabs(sum - 1) < 1e-4);
        }
    ash_imatrix_free(back);
    ash_imatrix_free(im);
    ash_free(t.tokens);
    ash_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(gradients_match_differences), cmocka_unit_test(kept_with_the_importance)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
