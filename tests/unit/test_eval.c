/* test_eval.c - statistics, perplexity, KL divergence, reference files and importance matrices on tiny models. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ashlar/bake.h"
#include "ashlar/quant.h"
#include "eval/imatrix.h"
#include "eval/ref.h"
#include "eval/stats.h"
#include "tiny.h"

static ash_eval_opts small(void) {
    ash_eval_opts o = ash_eval_defaults();
    o.n_ctx = 32;
    o.n_threads = 2;
    return o;
}

#define OK(call)                                                \
    do {                                                        \
        ash_error e_ = {0};                                     \
        ash_error *e = &e_;                                     \
        if ((call) != ASH_OK) fail_msg("%s: %s", #call, e->msg); \
    } while (0)

/* ---- statistics ---- */
static void figures_of_a_known_sample(void **state) {
    (void)state;
    double v[] = {0, 1, 2, 3, 4};
    assert_true(ash_quantile_sorted(v, 5, 0.5) == 2 && ash_quantile_sorted(v, 5, 0.125) == 0.5 && ash_quantile_sorted(v, 5, 1) == 4);
    assert_true(fabs(ash_t975(1) - 12.706) < 1e-3 && fabs(ash_t975(7) - 2.365) < 1e-3 && fabs(ash_t975(60) - 2.0003) < 1e-3);
    double mean, half;
    ash_mean_half(v, 5, &mean, &half);
    assert_true(mean == 2 && fabs(half - 2.776 * sqrt(2.5 / 5)) < 1e-9);
    ash_samples s;
    OK(ash_samples_init(&s, 10, 20, true, e));
    for (int i = 0; i < 200; i++) {
        s.nll[i] = 2;
        s.nll_ref[i] = 1;
        s.kld[i] = i / 199.;
        s.dp[i] = i % 2 ? 0.1 : -0.1;
        s.top1[i] = i % 4 != 0;
    }
    ash_eval_result r = {0};
    OK(ash_stats_result(&r, &s, 1, e));
    assert_true(fabs(r.ppl.v - exp(2)) < 1e-12 && fabs(r.ppl.hi - r.ppl.lo) < 1e-12 && fabs(r.ppl_ref.v - exp(1)) < 1e-12);
    assert_true(fabs(r.kld.v - 0.5) < 1e-12 && r.kld.lo < 0.4 && r.kld.hi > 0.6 && r.kld.lo > 0.2);
    assert_true(fabs(r.kld_median.v - 0.5) < 1e-12 && fabs(r.kld_p90.v - 0.9) < 1e-12 && r.kld_max == 1);
    assert_true(r.same_top1.v == 0.75 && fabs(r.rms_dp.v - 0.1) < 1e-12);
    assert_true(r.kld_median.lo <= r.kld_median.v && r.kld_median.v <= r.kld_median.hi);
    ash_eval_result_free(&r);
    ash_samples_free(&s);
}

/* ---- perplexity ---- */
typedef struct { const ash_token *tok; double nll; int n; int64_t V; } direct;

static ash_status add_row(void *ctx, size_t pos, const float *l, ash_error *err) {
    (void)err;
    direct *d = ctx;
    if (pos > 30) return ASH_OK;
    double z = 0;
    for (int64_t i = 0; i < d->V; i++) z += exp((double)l[i]);
    d->nll += log(z) - (double)l[d->tok[pos + 1]];
    d->n++;
    return ASH_OK;
}

static void perplexity_matches_a_session(void **state) {
    (void)state;
    const char *names[] = {"llama", "gemma3"};
    for (int k = 0; k < 2; k++) {
        ash_model *m = tiny_model(names[k]);
        ash_eval_text t = tiny_text(m, 32 * 5 + 7, 11);
        t.add_bos = k == 1;
        t.bos = 1;
        ash_eval_opts o = small();
        ash_eval_result r, one, fast;
        OK(ash_eval_measure(&r, m, &t, NULL, &o, e));
        assert_int_equal(r.n_chunks, 5);
        assert_int_equal(r.n_scored, 5 * 15);
        assert_false(r.has_ref);
        ash_session_opts so = ash_session_defaults();
        so.n_ctx = 32;
        so.precision = ASH_PREC_EXACT;
        ash_session *s;
        OK(ash_session_new(&s, m, &so, e));
        direct d = {.V = m->hp.n_vocab};
        for (int c = 0; c < 5; c++) {
            ash_token tok[32];
            memcpy(tok, t.tokens + 32 * c, sizeof tok);
            if (t.add_bos) tok[0] = t.bos;
            d.tok = tok;
            OK(ash_session_eval_all(s, tok, 32, 16, add_row, &d, e));
        }
        assert_int_equal(d.n, 75);
        if (!(fabs(r.ppl.v / exp(d.nll / d.n) - 1) < 1e-5)) fail_msg("%s: %.9g, session %.9g", names[k], r.ppl.v, exp(d.nll / d.n));
        o.n_threads = 1;
        o.mem_bytes = 1; /* one chunk at a time: the same bits */
        OK(ash_eval_measure(&one, m, &t, NULL, &o, e));
        assert_true(one.ppl.v == r.ppl.v && one.ppl.lo == r.ppl.lo);
        o.precision = ASH_PREC_FAST;
        OK(ash_eval_measure(&fast, m, &t, NULL, &o, e));
        assert_true(fabs(fast.ppl.v / r.ppl.v - 1) < 0.05);
        ash_eval_result_free(&r);
        ash_eval_result_free(&one);
        ash_eval_result_free(&fast);
        ash_session_free(s);
        ash_free(t.tokens);
        ash_model_free(m);
    }
}

/* ---- references ---- */
static void flip_and_cut(const char *path, ash_model *m) {
    ash_buf b = {0};
    OK(ash_file_read(path, 1 << 24, &b, e));
    ash_error err;
    for (size_t i = 0; i < b.n; i += 1 + b.n / 97) {
        ash_eval_ref r = {0};
        b.p[i] ^= 0x15;
        assert_int_not_equal(ash_aref_parse(&r, b.p, b.n, &err), ASH_OK); /* the checksum covers every byte */
        assert_true(err.msg[0]);
        ash_ref_clear(&r);
        b.p[i] ^= 0x15;
        assert_int_not_equal(ash_aref_parse(&r, b.p, i, &err), ASH_OK);
        ash_ref_clear(&r);
    }
    ash_buf_free(&b);
    (void)m;
}

static void references_round_trip(void **state) {
    (void)state;
    ash_model *m = tiny_model("llama"), *other = tiny_model("llama-tied");
    ash_eval_text t = tiny_text(m, 32 * 4, 11), u = tiny_text(m, 32 * 4, 11);
    u.tokens[3] ^= 1;
    const ash_vocab *v = ash_model_vocab(m, NULL); /* what a base file's reader will assume */
    t.add_bos = v && ash_vocab_add_bos(v);
    t.bos = v ? ash_vocab_bos(v) : -1;
    ash_eval_opts o = small();
    ash_eval_ref *ref, *file, *base;
    ash_eval_result self, a, b, c;
    ash_error err;
    OK(ash_eval_ref_compute(&ref, m, &t, &o, e));
    OK(ash_eval_measure(&self, m, NULL, ref, &o, e));
    assert_true(self.kld.v < 1e-9 && self.kld_max < 1e-8 && self.same_top1.v == 1 && self.rms_dp.v == 0 && self.ppl.v == self.ppl_ref.v);
    assert_int_equal(ash_eval_measure(&a, m, &u, ref, &o, &err), ASH_E_FORMAT); /* another text */
    OK(ash_eval_ref_save(ref, "t.aref", e));
    OK(ash_eval_ref_open(&file, "t.aref", NULL, e));
    OK(ash_eval_measure(&a, other, &t, ref, &o, e)); /* something that differs */
    OK(ash_eval_measure(&b, other, NULL, file, &o, e));
    if (!(a.kld.v > 0 && fabs(a.kld.v / b.kld.v - 1) < 0.01)) fail_msg("%g, from the file %g", a.kld.v, b.kld.v);
    OK(ash_eval_save_base(m, &t, &o, "t.base", e));
    OK(ash_eval_ref_open(&base, "t.base", NULL, e));
    OK(ash_eval_measure(&c, m, NULL, base, &o, e));
    assert_true(c.kld.v < 1e-5 && fabs(c.ppl_ref.v / self.ppl.v - 1) < 1e-3);
    flip_and_cut("t.aref", m);
    ash_eval_ref *bad = NULL;
    assert_int_equal(ash_eval_ref_open(&bad, "t.aref", other, &err), ASH_E_FORMAT); /* another head */
    ash_buf f = {0};
    OK(ash_file_read("t.base", 1 << 24, &f, e));
    ash_eval_ref r = {0};
    assert_int_equal(ash_base_parse(&r, f.p, f.n - 1, &err), ASH_E_FORMAT);
    ash_ref_clear(&r);
    memset(f.p + 8, 0xff, 12);
    assert_int_equal(ash_base_parse(&r, f.p, f.n, &err), ASH_E_FORMAT);
    ash_ref_clear(&r);
    ash_buf_free(&f);
    unlink("t.aref");
    unlink("t.base");
    ash_eval_result_free(&self), ash_eval_result_free(&a), ash_eval_result_free(&b), ash_eval_result_free(&c);
    ash_eval_ref_free(ref), ash_eval_ref_free(file), ash_eval_ref_free(base);
    ash_free(t.tokens), ash_free(u.tokens);
    ash_model_free(m), ash_model_free(other);
}

/* Small hidden size against the vocabulary keeps float32; a wide one goes to float16 with a scale per state. */
static void half_precision_states(void **state) {
    (void)state;
    enum { E = 96, V = 64, N = 7 };
    ash_eval_ref r = {.n_ctx = 16, .first = 8, .n_chunks = 1, .n_embd = E, .n_vocab = V, .bos = -1}, q = {0};
    r.tok = ash_calloc(16, sizeof *r.tok);
    r.hidden = ash_calloc(N * E, sizeof *r.hidden);
    for (int i = 0; i < N * E; i++) r.hidden[i] = (float)(sin(i) * (i % 50 == 0 ? 3e5 : 1));
    OK(ash_eval_ref_save(&r, "h.aref", e));
    ash_buf b = {0};
    OK(ash_file_read("h.aref", 1 << 20, &b, e));
    assert_true(b.n < N * (2 * E + 4) + 400);
    OK(ash_aref_parse(&q, b.p, b.n, e));
    for (int i = 0; i < N; i++)
        for (int k = 0; k < E; k++) {
            double x = r.hidden[i * E + k], y = q.hidden[i * E + k];
            assert_true(fabs(x - y) <= 6e-4 * fabs(x) + 3e-2); /* 2^-11, and float16's smallest step times the scale */
        }
    ash_buf_free(&b);
    unlink("h.aref");
    ash_ref_clear(&r);
    ash_ref_clear(&q);
}

/* ---- importance ---- */
typedef struct { double *sum; int layer; ash_tap_point p; } tap_sum;

static void take(void *ctx, int layer, ash_tap_point p, int expert, const float *x, int64_t ldx, int n, int K) {
    (void)expert;
    tap_sum *s = ctx;
    if (layer != s->layer || p != s->p) return;
    for (int t = 0; t < n; t++)
        for (int i = 0; i < K; i++) s->sum[i] += (double)x[t * ldx + i] * (double)x[t * ldx + i];
}

static void importance_matches_direct_sums(void **state) {
    (void)state;
    ash_model *m = tiny_model("gemma3");
    ash_eval_text t = tiny_text(m, 32 * 5, 11);
    ash_eval_opts o = small();
    ash_imatrix *im, *back;
    OK(ash_imatrix_collect(&im, m, &t, "babble", &o, e));
    assert_int_equal(ash_imatrix_dead(im, m, NULL, 0), 0);
    assert_int_equal(ash_imatrix_n(im), (size_t)m->hp.n_layer * 7 + 1);
    OK(ash_imatrix_save(im, "t.imatrix", e));
    OK(ash_imatrix_load(&back, "t.imatrix", e));
    assert_int_equal(ash_imatrix_n(back), ash_imatrix_n(im));
    assert_int_equal(ash_imatrix_chunks(back), 5);
    assert_int_equal(ash_imatrix_chunk_size(back), 32);
    ash_exec x;
    OK(ash_exec_init(&x, 1, -1, e));
    const ash_role roles[] = {ASH_W_K, ASH_W_O, ASH_W_UP, ASH_W_DOWN};
    for (int k = 0; k < 4; k++) {
        int l = k % m->hp.n_layer;
        tap_sum s = {ash_calloc(4096, sizeof(double)), l, ash_role_tap(roles[k])};
        ash_watch w = {take, &s, 0, NULL, NULL};
        ash_fwd_job j = {.m = m, .tok = t.tokens, .n_chunks = 5, .n_ctx = 32, .first = 0, .end = 32, .watch = &w};
        OK(ash_fwd_chunks(&x, &j, NULL, e));
        const ash_mat *mat = &m->layers[l].w[roles[k]];
        const float *v = ash_imatrix_weights(back, m->layers[l].name[roles[k]], (uint64_t)mat->K);
        assert_non_null(v);
        for (int i = 0; i < mat->K; i++) assert_true(fabs((double)v[i] * 160 - s.sum[i]) <= 1e-5 * s.sum[i]);
        ash_free(s.sum);
    }
    assert_null(ash_imatrix_weights(im, "blk.0.attn_q.weight", 7));
    assert_null(ash_imatrix_weights(im, "no.such", 64));
    ash_exec_free(&x);
    /* damaged: never accepted with nonsense, never a crash */
    ash_buf b = {0};
    OK(ash_file_read("t.imatrix", 1 << 24, &b, e));
    ash_error err;
    for (size_t i = 0; i < b.n; i += 1 + b.n / 211) {
        ash_imatrix *bad = NULL;
        b.p[i] ^= 0xff;
        if (ash_imatrix_load_mem(&bad, b.p, b.n, &err) != ASH_OK) assert_true(err.msg[0]);
        ash_imatrix_free(bad);
        b.p[i] ^= 0xff;
        if (i + 64 < b.n) assert_int_not_equal(ash_imatrix_load_mem(&bad, b.p, i, &err), ASH_OK); /* the end is padding */
    }
    ash_buf_free(&b);
    unlink("t.imatrix");
    ash_imatrix_free(im);
    ash_imatrix_free(back);
    ash_free(t.tokens);
    ash_model_free(m);
}

static void bad_requests(void **state) {
    (void)state;
    ash_model *m = tiny_model("llama");
    ash_eval_text t = tiny_text(m, 20, 11);
    ash_eval_opts o = small();
    ash_eval_result r;
    ash_error err;
    assert_int_equal(ash_eval_measure(&r, m, &t, NULL, &o, &err), ASH_E_RANGE);
    assert_int_equal(ash_eval_measure(&r, m, NULL, NULL, &o, &err), ASH_E_USAGE);
    o.n_ctx = 16;
    t.tokens[2] = m->hp.n_vocab;
    assert_int_equal(ash_eval_measure(&r, m, &t, NULL, &o, &err), ASH_E_RANGE);
    ash_eval_ref *ref = NULL;
    assert_int_equal(ash_eval_ref_open(&ref, "no-such-file", NULL, &err), ASH_E_IO);
    ash_free(t.tokens);
    ash_model_free(m);
}

/* Every architecture: all matrices that run have an entry; experts have one set each, and counts that add up. */
static void importance_of_all_parts(void **state) {
    (void)state;
    static const char *const cases[] = {
#define G_LM(name) name,
#define G_ENC(name)
#include "golden_cases.inc"
#undef G_LM
#undef G_ENC
    };
    for (size_t k = 0; k < ASH_ARRAY_LEN(cases); k++) {
        ash_model *m = tiny_model(cases[k]);
        ash_eval_text t = tiny_text(m, 32 * 3, 11);
        ash_eval_opts o = small();
        ash_imatrix *im;
        OK(ash_imatrix_collect(&im, m, &t, "babble", &o, e));
        const char *dead = "";
        if (ash_imatrix_dead(im, m, &dead, 1)) fail_msg("%s: %s has no entry", cases[k], dead);
        size_t banks = 0;
        for (size_t i = 0; i < ash_imatrix_n(im); i++) {
            ash_imatrix_entry x = ash_imatrix_at(im, i);
            double rows = 0;
            for (uint64_t j = 0; j < x.n_mat; j++) rows += (double)x.counts[j];
            assert_true(rows == 96.0 * (x.n_mat > 1 ? m->hp.n_expert_used : 1));
            if (x.n_mat == 1) continue;
            assert_int_equal(x.n_mat, m->hp.n_expert);
            banks++;
        }
        assert_int_equal(banks > 0, m->hp.n_expert > 0);
        ash_imatrix_free(im);
        ash_free((void *)(uintptr_t)t.tokens);
        ash_model_free(m);
    }
}

/* An expert's rows are encoded with the expert's own weights. */
static const float *weights_of(void *ctx, const char *tensor, uint64_t n) { return ash_imatrix_weights(ctx, tensor, n); }

static void experts_are_weighted(void **state) {
    (void)state;
    ash_model *m = tiny_model("qwen3-moe");
    ash_eval_text t = tiny_text(m, 32 * 4, 11);
    ash_eval_opts o = small();
    ash_imatrix *im;
    OK(ash_imatrix_collect(&im, m, &t, "babble", &o, e));
    ash_bake_opts b = ash_bake_defaults();
    b.type = ASH_IQ4_NL;
    b.importance = (ash_importance){.weights = weights_of, .ctx = im};
    OK(ash_bake(NULL, ash_model_gguf(m), "t.experts.gguf", &b, e));
    ash_gguf *g;
    OK(ash_gguf_open(&g, "t.experts.gguf", e));
    const char *name = "blk.1.ffn_gate_exps.weight";
    const ash_gguf_tensor *src = ash_gguf_find_tensor(ash_model_gguf(m), name), *dst = ash_gguf_find_tensor(g, name);
    const uint64_t K = src->ne[0], rows = src->ne[1], X = src->ne[2], rb = ash_dtype_row_bytes(ASH_IQ4_NL, K);
    const float *w = ash_imatrix_weights(im, name, K * X);
    assert_non_null(w);
    float row[512];
    uint8_t want[512];
    size_t chosen = 0;
    for (uint64_t x = 0; x < X; x++) {
        bool live = false;
        for (uint64_t i = 0; i < K; i++) live = live || w[x * K + i] > 0;
        if (!live) continue;
        chosen++;
        for (uint64_t r = x * rows; r < (x + 1) * rows; r++) {
            assert_true(ash_dtype_decode(src->type, src->data + r * (src->n_bytes / (rows * X)), row, K));
            OK(ash_quant_row(ASH_IQ4_NL, row, want, K, w + x * K, e));
            assert_memory_equal(dst->data + r * rb, want, rb);
        }
    }
    assert_true(chosen > 1);
    ash_gguf_close(g);
    unlink("t.experts.gguf");
    ash_imatrix_free(im);
    ash_free((void *)(uintptr_t)t.tokens);
    ash_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_of_a_known_sample), cmocka_unit_test(perplexity_matches_a_session),
        cmocka_unit_test(references_round_trip),     cmocka_unit_test(half_precision_states),
        cmocka_unit_test(importance_matches_direct_sums), cmocka_unit_test(bad_requests),
        cmocka_unit_test(importance_of_all_parts),   cmocka_unit_test(experts_are_weighted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
