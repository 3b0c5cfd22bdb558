/* test_sweep.c - the sweep on tiny models: identity, differences against the direct way, the support-set estimate against
 * the whole vocabulary, checkpoint and resume. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "eval/support.h"
#include "eval/sweep_int.h"
#include "eval/vec.h"
#include "tiny.h"

#include "ashlar/bake.h"

/* ---- the direct way: all layers anew with one matrix replaced, KL over the whole vocabulary ---- */
static void direct_hidden(const ash_model *m, const ash_exec *e, const ash_token *tok, int T, const ash_sweep_unit *u, float *out) {
    size_t E = (size_t)m->hp.n_embd;
    float *x = ash_alloc_aligned(ash_layer_state_floats(m, T) * 4, 64), *scratch = ash_alloc_aligned(ash_layer_scratch_floats(m, T) * 4 + 64, 64);
    (void)E;
    ash_embed_tokens(m, e->k, tok, T, x);
    for (int l = 0; l < m->hp.n_layer; l++) {
        float *p[ASH_W_COUNT];
        for (int r = 0; r < ASH_W_COUNT; r++) {
            const ash_mat *w = &m->layers[l].w[r];
            size_t n = ash_packed_floats(w->n_rows, w->K);
            p[r] = ash_alloc_aligned(n * 4, 64);
            if (w->data) ash_mm_pack(e->k, e->pool, w, p[r]);
            if (u && u->type != ASH_F32 && (u->layer < 0 || u->layer == l) && u->roles & 1u << r) {
                float *d = ash_alloc_aligned(n * 4, 64);
                double sums[2] = {0};
                assert_int_equal(ash_change_build(e, w, u->type, NULL, d, sums, NULL), ASH_OK);
                for (size_t i = 0; i < n; i++) p[r][i] += d[i];
                ash_free(d);
            }
        }
        ash_layer_apply(m, e->k, l, (const float *const *)p, x, T, scratch, NULL, NULL);
        for (int r = 0; r < ASH_W_COUNT; r++) ash_free(p[r]);
    }
    ash_final_norm(m, e->k, x, T, out);
    ash_free(x);
    ash_free(scratch);
}

/* The model against one with a unit changed, or (other not NULL) against another model. */
static double direct_kld2(const ash_model *m, const ash_exec *e, const ash_token *tok, int T, int skip, const ash_sweep_unit *u, const ash_model *other) {
    size_t E = (size_t)m->hp.n_embd, V = (size_t)m->hp.n_vocab;
    float *a = ash_alloc_aligned((size_t)T * E * 4, 64), *b = ash_alloc_aligned((size_t)T * E * 4, 64);
    float *la = ash_alloc_aligned((size_t)T * V * 4, 64), *lb = ash_alloc_aligned((size_t)T * V * 4, 64);
    void *s = ash_alloc_aligned(ash_head_scratch_bytes(e, m), 64);
    direct_hidden(m, e, tok, T, NULL, a);
    direct_hidden(other ? other : m, e, tok, T, u, b);
    ash_head_logits(e, m, a, T, la, s);
    ash_head_logits(e, other ? other : m, b, T, lb, s);
    double sum = 0;
    for (int t = skip; t < T; t++) {
        const float *p = la + (size_t)t * V, *q = lb + (size_t)t * V;
        double zp = 0, zq = 0, kl = 0;
        for (size_t i = 0; i < V; i++) zp += exp((double)p[i]), zq += exp((double)q[i]);
        for (size_t i = 0; i < V; i++) kl += exp((double)p[i]) / zp * ((double)p[i] - log(zp) - (double)q[i] + log(zq));
        sum += kl;
    }
    ash_free(a), ash_free(b), ash_free(la), ash_free(lb), ash_free(s);
    return sum / (T - skip);
}

static double direct_kld(const ash_model *m, const ash_exec *e, const ash_token *tok, int T, int skip, const ash_sweep_unit *u) {
    return direct_kld2(m, e, tok, T, skip, u, NULL);
}

enum { T = 28, SKIP = 4, CHUNKS = 2 };

static ash_sweep_job job_for(ash_model *m, const ash_eval_text *t, const ash_sweep_unit *u, uint32_t n) {
    ash_sweep_job j = {.m = m, .units = u, .T = T};
    j.o = ash_sweep_defaults();
    j.o.n_ctx = T;
    j.o.skip = SKIP;
    j.o.max_chunks = j.o.min_chunks = CHUNKS;
    j.tok = t->tokens;
    assert_int_equal(ash_exec_init(&j.e, 2, -1, NULL), ASH_OK);
    assert_int_equal(ash_book_init(&j.book, n, CHUNKS, 0, 1, NULL), ASH_OK);
    return j;
}

static void check_model(const char *name) {
    ash_model *m = tiny_model(name);
    ash_eval_text t = tiny_text(m, T * CHUNKS, 7);
    ash_sweep_unit u[16];
    uint32_t n = 0;
    for (int r = 0; r < ASH_ROLE_N_LAYER; r++) u[n++] = (ash_sweep_unit){r % m->hp.n_layer, 1u << r, ASH_Q4_0};
    u[n++] = (ash_sweep_unit){m->hp.n_layer - 1, 1u << ASH_ROLE_DOWN, ASH_Q8_0};
    u[n++] = (ash_sweep_unit){0, ASH_ROLES_LAYER, ASH_Q4_0};
    u[n++] = (ash_sweep_unit){-1, 1u << ASH_ROLE_V, ASH_Q4_0};
    u[n++] = (ash_sweep_unit){0, 1u << ASH_ROLE_Q, ASH_F32};
    for (int exact = 1; exact >= 0; exact--) {
        ash_sweep_job j = job_for(m, &t, u, n);
        j.exact = exact;
        ash_error e = {0};
        ash_sweep_take take[16];
        for (uint32_t i = 0; i < n; i++) take[i] = (ash_sweep_take){i, 0, CHUNKS};
        if (ash_sweep_pass(&j, &(ash_sweep_part){.take = take, .n_take = n, .controls = take[0]}, 0, &e) != ASH_OK) fail_msg("%s", e.msg);
        assert_true(j.book.identity == 0);
        assert_true(j.book.noise >= 0 && j.book.noise < 1e-9);
        assert_true(j.book.u[n - 1].kld[0] == 0);
        for (uint32_t i = 0; i + 1 < n; i++)
            for (uint32_t c = 0; c < CHUNKS; c++) {
                double want = direct_kld(m, &j.e, t.tokens + c * T, T, SKIP, &u[i]), got = j.book.u[i].kld[c], rel = fabs(got / want - 1);
                if (rel > (exact ? 0.01 : 0.03)) /* the kept differences are bfloat16 either way */
                    fail_msg("%s unit %u chunk %u exact %d: %g, direct %g", name, i, c, exact, got, want);
            }
        ash_book_free(&j.book);
        ash_exec_free(&j.e);
    }
    ash_free(t.tokens);
    ash_model_free(m);
}

static void differences_match_direct(void **state) {
    (void)state;
    check_model("llama");
    check_model("llama-tied");
    check_model("gemma3");
    check_model("qwen3");
}

/* ---- every architecture: each unit against a file in which that tensor alone has the type ---- */
static ash_model *baked(const ash_model *m, const char *tensor, ash_dtype type) {
    const char *path = "test_sweep_baked.gguf";
    char text[256];
    ash_recipe *r;
    ash_gguf *g;
    ash_model *out = NULL;
    ash_error e = {0};
    int n = snprintf(text, sizeof text, "%s = %s\n* = keep\n", tensor, ash_dtype_name(type));
    assert_int_equal(ash_recipe_parse(&r, text, (size_t)n, "test", &e), ASH_OK);
    assert_int_equal(ash_gguf_open(&g, ash_gguf_path(m->gguf), &e), ASH_OK);
    ash_bake_opts o = ash_bake_defaults();
    o.recipe = r;
    o.n_threads = 2;
    if (ash_bake(NULL, g, path, &o, &e) != ASH_OK || ash_model_load(&out, path, &e) != ASH_OK) fail_msg("%s: %s", tensor, e.msg);
    unlink(path);
    ash_gguf_close(g);
    ash_recipe_free(r);
    return out;
}

static void check_whole(const char *name, bool forced) {
    ash_model *m = tiny_model(name);
    ash_eval_text t = tiny_text(m, T * CHUNKS, 7);
    const ash_dtype type = ASH_Q4_0;
    ash_sweep_unit *u;
    size_t n;
    assert_int_equal(ash_sweep_units(&u, &n, m, 't', &type, 1, &type, 1, NULL), ASH_OK);
    ash_sweep_take *take = ash_calloc(n, sizeof *take);
    ash_sweep_job j = job_for(m, &t, u, (uint32_t)n);
    ash_error e = {0};
    j.whole = forced || !ash_model_plain(m, NULL, 0);
    assert_true(j.whole);
    for (uint32_t i = 0; i < n; i++) {
        take[i] = (ash_sweep_take){i, 0, CHUNKS};
        const ash_gguf_tensor *g = ash_gguf_find_tensor(m->gguf, ash_unit_tensor(m, &u[i]));
        if (g->ne[0] % 32) u[i].type = ASH_BF16; /* what the file can hold */
    }
    if (ash_sweep_pass(&j, &(ash_sweep_part){.take = take, .n_take = (uint32_t)n, .controls = take[0]}, 0, &e) != ASH_OK) fail_msg("%s: %s", name, e.msg);
    assert_true(j.book.identity == 0);
    assert_true(j.book.noise >= 0 && j.book.noise < 1e-9);
    size_t tensors = 0;
    for (uint32_t i = 0; i < n; i++) {
        const char *tensor = ash_unit_tensor(m, &u[i]);
        assert_non_null(tensor);
        ash_model *other = baked(m, tensor, u[i].type);
        for (uint32_t c = 0; c < CHUNKS; c++) {
            double want = direct_kld2(m, &j.e, t.tokens + c * T, T, SKIP, NULL, other), got = j.book.u[i].kld[c];
            if (fabs(got - want) > 0.01 * want + 1e-9) fail_msg("%s %s chunk %u: %g, direct %g", name, tensor, c, got, want);
        }
        ash_model_free(other);
        tensors++;
    }
    /* no matrix that runs is without a unit */
    for (size_t i = 0; i < ash_gguf_n_tensors(m->gguf); i++) {
        const ash_gguf_tensor *g = ash_gguf_tensor_at(m->gguf, i);
        bool dead = false, seen = !ash_plan_is_matrix(g);
        for (int l = 0; l < m->hp.n_layer; l++)
            for (int r = ASH_W_K; r <= ASH_W_V; r++) dead |= m->layers[l].kv_layer != l && m->layers[l].name[r] && strcmp(m->layers[l].name[r], g->name) == 0;
        for (size_t k = 0; k < n && !seen; k++) seen = strcmp(ash_unit_tensor(m, &u[k]), g->name) == 0;
        if (!seen && !dead) fail_msg("%s: tensor %s is no unit", name, g->name);
    }
    ash_book_free(&j.book);
    ash_exec_free(&j.e);
    ash_free(take);
    ash_sweep_units_free(u);
    ash_free(t.tokens);
    ash_model_free(m);
}

static void every_architecture(void **state) {
    (void)state;
    static const char *const names[] = {"gemma2", "gemma4-dense", "gemma4-e", "gemma4-moe", "mistral-swa", "mixtral", "phi3", "phi3-longrope", "qwen2", "qwen3-moe"};
    check_whole("llama", true);
    check_whole("gemma3", true);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        ash_model *m = tiny_model(names[i]);
        bool plain = ash_model_plain(m, NULL, 0);
        ash_model_free(m);
        check_whole(names[i], plain);
        if (plain) check_model(names[i]);
    }
}

/* ---- support sets ---- */
static void support_estimates_kl(void **state) {
    (void)state;
    enum { V = 20000, REPS = 40 };
    float *p = ash_alloc(V * 4), *d = ash_alloc(V * 4), ds[ASH_SUP_N];
    ash_rng r;
    ash_rng_seed(&r, 3);
    double sum_est = 0, sum_true = 0, worst = 0;
    for (int rep = 0; rep < REPS; rep++) {
        double zp = 0, zq = 0, kl = 0;
        for (int i = 0; i < V; i++) {
            double g = 0;
            for (int k = 0; k < 6; k++) g += ash_rng_f64(&r) - 0.5;
            p[i] = (float)(g * 3.2); /* flat: much of the mass lies in the tail */
            d[i] = (float)((ash_rng_f64(&r) - 0.5) * 0.1);
            zp += exp((double)p[i]);
        }
        for (int i = 0; i < V; i++) zq += exp((double)p[i] + (double)d[i]);
        for (int i = 0; i < V; i++) kl += exp((double)p[i]) / zp * (log(zq) - log(zp) - (double)d[i]);
        ash_support s;
        for (int i = 0; i < V; i++) p[i] = (float)(exp((double)p[i]) / zp);
        ash_support_choose(&s, p, V, (uint64_t)rep);
        assert_in_range(s.n, 1, ASH_SUP_N);
        double w = 0;
        for (int i = 0; i < s.n; i++) {
            assert_in_range(s.id[i], 0, V - 1);
            ds[i] = d[s.id[i]];
            w += (double)s.w[i];
        }
        assert_true(fabs(w - 1) < 1e-5);
        double est = ash_vec_kl(s.w, ds, s.n);
        assert_true(est >= 0);
        sum_est += est;
        sum_true += kl;
        worst = fmax(worst, fabs(est / kl - 1));
    }
    assert_true(fabs(sum_est / sum_true - 1) < 0.02);
    assert_true(worst < 0.25);
    memset(ds, 0, sizeof ds);
    ash_support s;
    ash_support_choose(&s, p, V, 1);
    assert_true(ash_vec_kl(s.w, ds, s.n) == 0);
    ash_free(p);
    ash_free(d);
}

static void small_kl_keeps_its_digits(void **state) {
    (void)state;
    float w[ASH_SUP_N], d[ASH_SUP_N];
    ash_rng r;
    ash_rng_seed(&r, 5);
    for (double size = 1e-4; size < 10; size *= 10) {
        double sw = 0, z = 0, mean = 0;
        for (int i = 0; i < ASH_SUP_N; i++) sw += (double)(w[i] = (float)ash_rng_f64(&r));
        for (int i = 0; i < ASH_SUP_N; i++) {
            w[i] = (float)((double)w[i] / sw);
            d[i] = (float)(3 + size * (ash_rng_f64(&r) - 0.5));
        }
        sw = 0;
        for (int i = 0; i < ASH_SUP_N; i++) sw += (double)w[i];
        for (int i = 0; i < ASH_SUP_N; i++) mean += (double)w[i] / sw * (double)d[i];
        for (int i = 0; i < ASH_SUP_N; i++) z += (double)w[i] / sw * expm1((double)d[i] - mean);
        double want = log1p(z), got = ash_vec_kl(w, d, ASH_SUP_N);
        assert_true(fabs(got / want - 1) < 1e-4);
    }
}

/* ---- whole sweeps ---- */
static ash_sweep_opts small_opts(void) {
    ash_sweep_opts o = ash_sweep_defaults();
    o.n_ctx = 24;
    o.skip = 4;
    o.min_chunks = 8;
    o.max_chunks = 14;
    o.until = 0.1;
    o.n_threads = 2;
    return o;
}

static ash_sweep_result sweep(ash_model *m, const ash_eval_text *t, const ash_sweep_unit *u, size_t n, const ash_sweep_opts *o) {
    ash_sweep_result r;
    ash_error e = {0};
    if (ash_sweep_run(&r, m, t, NULL, u, n, o, &e) != ASH_OK) fail_msg("%s", e.msg);
    return r;
}

static void same_rows(const ash_sweep_result *a, const ash_sweep_result *b) {
    assert_int_equal(a->n_rows, b->n_rows);
    for (size_t i = 0; i < a->n_rows; i++) {
        assert_true(a->rows[i].kld == b->rows[i].kld);
        assert_true(a->rows[i].half == b->rows[i].half);
        assert_true(a->rows[i].rel_err == b->rows[i].rel_err);
        assert_int_equal(a->rows[i].n_chunks, b->rows[i].n_chunks);
    }
}

static void tables_and_tensors(void **state) {
    (void)state;
    const char *names[] = {"llama", "llama-tied"};
    for (int k = 0; k < 2; k++) {
        ash_model *m = tiny_model(names[k]);
        ash_eval_text t = tiny_text(m, 1000, 7);
        ash_sweep_unit *u;
        size_t n;
        const ash_dtype types[] = {ASH_Q4_0}, tables[] = {ASH_Q8_0, ASH_Q4_0, ASH_F32};
        assert_int_equal(ash_sweep_units(&u, &n, m, 't', types, 1, tables, 3, NULL), ASH_OK);
        assert_int_equal(n, (size_t)m->hp.n_layer * 7 + (m->tied ? 3 : 6));
        ash_sweep_opts o = small_opts();
        ash_sweep_result r = sweep(m, &t, u, n, &o);
        o.n_threads = 1;
        ash_sweep_result r1 = sweep(m, &t, u, n, &o);
        same_rows(&r, &r1);
        assert_true(r.identity == 0);
        for (size_t i = 0; i < n; i++) {
            if (u[i].type == ASH_F32) assert_true(r.rows[i].kld == 0);
            else assert_true(r.rows[i].kld > 0 && r.rows[i].n_chunks >= 8 && r.rows[i].bytes > 0 && r.rows[i].rel_err > 0);
            if (r.rows[i].n_chunks < 14) assert_true(r.rows[i].half <= 0.1 * r.rows[i].kld);
        }
        size_t q8 = n - (m->tied ? 3 : 6); /* the table at 8 bits loses less than at 4 */
        assert_true(r.rows[q8].kld < r.rows[q8 + (m->tied ? 1 : 2)].kld);
        char *json;
        size_t len;
        assert_int_equal(ash_sweep_json(&r, m, &json, &len, NULL), ASH_OK);
        assert_non_null(strstr(json, "\"noise_floor\""));
        ash_text_free(json);
        ash_sweep_result_free(&r);
        ash_sweep_result_free(&r1);
        ash_sweep_units_free(u);
        ash_free(t.tokens);
        ash_model_free(m);
    }
}

typedef struct { int passes, stop_at; } stopper;

static bool stop_later(void *ctx, const char *stage, double done, double total, const char *note) {
    (void)stage, (void)done, (void)total, (void)note;
    stopper *s = ctx;
    return ++s->passes != s->stop_at;
}

/* The ratio to the probes is an estimate of the same mean that many plain chunks give. */
static void probes_agree_with_many_chunks(void **state) {
    (void)state;
    ash_model *m = tiny_model("llama");
    ash_eval_text t = tiny_text(m, 24 * 4 * ASH_SWEEP_PROBE_CHUNKS + 24, 7);
    ash_sweep_unit *u;
    size_t n;
    const ash_dtype types[] = {ASH_Q4_0, ASH_Q5_0};
    assert_int_equal(ash_sweep_units(&u, &n, m, 't', types, 2, NULL, 0, NULL), ASH_OK);
    assert_true(n >= 32);
    ash_sweep_opts o = small_opts();
    o.until = 0.2;
    ash_sweep_result r = sweep(m, &t, u, n, &o);
    o.min_chunks = o.max_chunks = 100;
    ash_sweep_result many = sweep(m, &t, u, n, &o);
    int out = 0;
    for (size_t i = 0; i < n; i++) {
        const ash_sweep_row *a = &r.rows[i], *b = &many.rows[i];
        assert_true(b->n_chunks == 100 && b->half < 0.2 * b->kld);
        double gap = fabs(a->kld - b->kld);
        if (gap > a->half + b->half) out++;
        assert_true(gap < 2 * (a->half + b->half));
    }
    assert_true(out <= (int)n / 10);
    ash_sweep_result_free(&r);
    ash_sweep_result_free(&many);
    ash_sweep_units_free(u);
    ash_free(t.tokens);
    ash_model_free(m);
}

static void resume_gives_the_same(void **state) {
    (void)state;
    ash_model *m = tiny_model("llama");
    ash_eval_text t = tiny_text(m, 24 * 4 * ASH_SWEEP_PROBE_CHUNKS + 24, 7); /* enough for probes */
    ash_sweep_unit *u;
    size_t n;
    const ash_dtype types[] = {ASH_Q4_0, ASH_Q4_1};
    assert_int_equal(ash_sweep_units(&u, &n, m, 't', types, 2, NULL, 0, NULL), ASH_OK);
    ash_sweep_opts o = small_opts();
    o.mem_bytes = (n + ASH_SWEEP_EXTRA) * 24 * (uint64_t)m->hp.n_embd * 2 * 4; /* four chunks a pass */
    ash_sweep_result whole = sweep(m, &t, u, n, &o), r;
    const char *part = "resume.part";
    unlink(part);
    o.checkpoint = part;
    stopper s = {0, 3 * m->hp.n_layer + 2}; /* probes, one pass, part of the next */
    o.progress = (ash_progress){stop_later, &s};
    ash_error e = {0};
    assert_int_equal(ash_sweep_run(&r, m, &t, NULL, u, n, &o, &e), ASH_E_CANCELLED);
    assert_int_equal(access(part, R_OK), 0);
    s = (stopper){0, -1};
    r = sweep(m, &t, u, n, &o);
    same_rows(&whole, &r);
    ash_sweep_result_free(&r);
    /* another job's checkpoint is refused; a damaged one too */
    o.seed = 99;
    assert_int_equal(ash_sweep_run(&r, m, &t, NULL, u, n, &o, &e), ASH_E_STATE);
    o.seed = 1;
    FILE *f = fopen(part, "r+b");
    fseek(f, 60, SEEK_SET);
    fputc(0x5a, f);
    fclose(f);
    assert_int_equal(ash_sweep_run(&r, m, &t, NULL, u, n, &o, &e), ASH_E_FORMAT);
    unlink(part);
    /* differences on disk change nothing but the number of chunks in a pass */
    o.checkpoint = NULL;
    o.mem_bytes = 1;
    o.until = 1e-9;
    r = sweep(m, &t, u, n, &o);
    o.mem_bytes = 0;
    ash_sweep_result mem = sweep(m, &t, u, n, &o);
    same_rows(&mem, &r);
    ash_sweep_result_free(&mem);
    ash_sweep_result_free(&r);
    ash_sweep_result_free(&whole);
    ash_sweep_cost c;
    assert_int_equal(ash_sweep_estimate(&c, m, u, n, &o, &e), ASH_OK);
    assert_true(c.seconds > 0 && c.mem_bytes > 0);
    ash_sweep_units_free(u);
    ash_free(t.tokens);
    ash_model_free(m);
}

/* ---- several processes: here threads, each with a model of its own, that meet at a barrier ---- */
enum { MOST_RANKS = 4 };

typedef struct {
    pthread_barrier_t bar;
    int n;
    const void *from[MOST_RANKS];
} meeting;

typedef struct {
    meeting *meet;
    ash_ranks ranks;
    const ash_sweep_opts *o;
    const ash_imatrix *im;
    int n_chunks_less;   /* of the text this rank has */
    ash_status st;
    ash_error e;
    ash_sweep_result r;
} rank_ctx;

static ash_status meet(void *ctx, const void *mine, const uint64_t *sizes, void *all, ash_error *err) {
    (void)err;
    rank_ctx *c = ctx;
    meeting *m = c->meet;
    uint64_t at = 0;
    m->from[c->ranks.rank] = mine;
    pthread_barrier_wait(&m->bar);
    for (int i = 0; i < m->n; i++) {
        if (sizes[i]) memcpy((char *)all + at, m->from[i], sizes[i]);
        at += sizes[i];
    }
    pthread_barrier_wait(&m->bar);
    return ASH_OK;
}

static const ash_dtype k_rank_types[] = {ASH_Q4_0, ASH_Q4_1}, k_rank_tables[] = {ASH_Q4_0};

static void *run_rank(void *ctx) {
    rank_ctx *c = ctx;
    ash_model *m = tiny_model("llama");
    ash_eval_text t = tiny_text(m, (size_t)(24 * 4 * ASH_SWEEP_PROBE_CHUNKS + 24 - 24 * c->n_chunks_less), 7);
    ash_sweep_unit *u;
    size_t n;
    ash_sweep_opts o = *c->o;
    o.ranks = c->ranks.n ? &c->ranks : NULL;
    assert_int_equal(ash_sweep_units(&u, &n, m, 't', k_rank_types, 2, k_rank_tables, 1, NULL), ASH_OK);
    c->st = ash_sweep_run(&c->r, m, &t, c->im, u, n, &o, &c->e);
    ash_sweep_units_free(u);
    ash_free(t.tokens);
    ash_model_free(m);
    return NULL;
}

static void run_ranks(rank_ctx *c, int n) {
    meeting m = {.n = n};
    pthread_t tid[MOST_RANKS];
    pthread_barrier_init(&m.bar, NULL, (unsigned)n);
    for (int i = 0; i < n; i++) {
        c[i].meet = &m;
        c[i].ranks = (ash_ranks){.rank = i, .n = n, .gather = meet, .ctx = &c[i]};
        assert_int_equal(pthread_create(&tid[i], NULL, run_rank, &c[i]), 0);
    }
    for (int i = 0; i < n; i++) pthread_join(tid[i], NULL);
    pthread_barrier_destroy(&m.bar);
}

static void ranks_give_the_same(void **state) {
    (void)state;
    ash_sweep_opts o = small_opts();
    o.n_threads = 1;
    o.max_chunks = 60; /* long takes are cut */
    o.until = 0.04;
    ash_model *m = tiny_model("llama");
    ash_eval_text t = tiny_text(m, 64, 3);
    ash_imatrix *im;
    ash_eval_opts eo = ash_eval_defaults();
    eo.n_ctx = 32;
    assert_int_equal(ash_imatrix_collect(&im, m, &t, "t", &eo, NULL), ASH_OK);
    rank_ctx one = {.o = &o, .im = im};
    run_rank(&one);
    assert_int_equal(one.st, ASH_OK);
    for (int n = 2; n <= MOST_RANKS; n++) {
        rank_ctx c[MOST_RANKS] = {{.o = &o, .im = im}, {.o = &o}, {.o = &o}, {.o = &o}};
        run_ranks(c, n);
        for (int i = 0; i < n; i++) {
            if (c[i].st != ASH_OK) fail_msg("rank %d of %d: %s", i, n, c[i].e.msg);
            same_rows(&one.r, &c[i].r);
            assert_true(c[i].r.noise_floor == one.r.noise_floor && c[i].r.identity == 0 && c[i].r.n_chunks == one.r.n_chunks);
            ash_sweep_result_free(&c[i].r);
        }
    }
    /* two are interrupted, by the one that does not decide; one goes on alone, then three */
    const char *part = "ranks.part";
    unlink(part);
    ash_sweep_opts kept = o, stopped = o;
    kept.checkpoint = part;
    stopper s = {0, 3 * m->hp.n_layer + 2};
    stopped.progress = (ash_progress){stop_later, &s};
    rank_ctx c[MOST_RANKS] = {{.o = &kept, .im = im}, {.o = &stopped}};
    run_ranks(c, 2);
    assert_int_equal(c[0].st, ASH_E_CANCELLED);
    assert_int_equal(c[1].st, ASH_E_CANCELLED);
    assert_non_null(strstr(c[0].e.msg, "process 1: "));
    assert_int_equal(access(part, R_OK), 0);
    s = (stopper){0, 2 * m->hp.n_layer};
    ash_sweep_opts alone = kept;
    alone.progress = stopped.progress;
    rank_ctx last = {.o = &alone, .im = im};
    run_rank(&last);
    assert_int_equal(last.st, ASH_E_CANCELLED);
    rank_ctx three[MOST_RANKS] = {{.o = &kept, .im = im}, {.o = &o}, {.o = &o}};
    run_ranks(three, 3);
    for (int i = 0; i < 3; i++) {
        if (three[i].st != ASH_OK) fail_msg("rank %d: %s", i, three[i].e.msg);
        same_rows(&one.r, &three[i].r);
        ash_sweep_result_free(&three[i].r);
    }
    unlink(part);
    /* another text, and one that is too short: every rank says no, and whose fault it was */
    for (int k = 0; k < 2; k++) {
        rank_ctx odd[MOST_RANKS] = {{.o = &o, .im = im}, {.o = &o, .n_chunks_less = k ? 4 * ASH_SWEEP_PROBE_CHUNKS - 1 : 1}};
        run_ranks(odd, 2);
        assert_int_equal(odd[0].st, k ? ASH_E_RANGE : ASH_E_STATE);
        assert_int_equal(odd[1].st, odd[0].st);
        assert_non_null(strstr(odd[0].e.msg, "process 1"));
    }
    ash_sweep_result_free(&one.r);
    ash_imatrix_free(im);
    ash_free(t.tokens);
    ash_model_free(m);
}

/* Every chunk of every unit goes to one rank, all ranks get something, and a slow rank gets less. */
static void parts_are_the_whole(void **state) {
    (void)state;
    ash_model *m = tiny_model("llama");
    ash_sweep_unit *u;
    size_t n;
    assert_int_equal(ash_sweep_units(&u, &n, m, 't', k_rank_types, 2, k_rank_tables, 1, NULL), ASH_OK);
    enum { MOST = 300 };
    ash_sweep_job j = {.m = m, .units = u, .T = T};
    assert_int_equal(ash_book_init(&j.book, (uint32_t)n, MOST, 160, 1, NULL), ASH_OK);
    ash_sweep_take *take = ash_calloc(n, sizeof *take);
    ash_rng r;
    ash_rng_seed(&r, 11);
    for (int rep = 0; rep < 200; rep++) {
        const int ranks = 1 + (int)ash_rng_below(&r, 7);
        uint32_t sum = 0, probes = 0;
        double speed[8];
        uint8_t *seen = ash_calloc(n * MOST, 1);
        ash_sweep_part w = {.take = take, .n_take = 1 + (uint32_t)ash_rng_below(&r, n), .probes = {0, 0, rep % 3 ? 0 : 160}}, parts[8];
        for (uint32_t i = 0; i < w.n_take; i++) {
            const uint32_t at = (uint32_t)ash_rng_below(&r, 40);
            take[i] = (ash_sweep_take){i, at, 1 + (uint32_t)ash_rng_below(&r, MOST - 40)};
            j.book.u[i].encoded = at > 20;
            sum += take[i].n;
        }
        for (int i = 0; i < ranks; i++) speed[i] = 0.1 + ash_rng_f64(&r);
        assert_int_equal(ash_sweep_divide(&j, &w, speed, ranks, parts, NULL), ASH_OK);
        for (int i = 0; i < ranks; i++) {
            for (uint32_t k = 0; k < parts[i].n_take; k++) {
                const ash_sweep_take t = parts[i].take[k];
                if (!j.book.u[t.unit].encoded) assert_int_equal(t.n, take[t.unit].n);
                assert_true(t.n > 0 && t.at >= take[t.unit].at);
                for (uint32_t c = t.at; c < t.at + t.n; c++, sum--) assert_int_equal(seen[t.unit * MOST + c]++, 0);
            }
            assert_int_equal(parts[i].probes.at, probes);
            probes += parts[i].probes.n;
        }
        assert_int_equal(sum, 0);
        assert_int_equal(probes, w.probes.n);
        ash_sweep_parts_free(parts, ranks);
        ash_free(seen);
    }
    /* one long unit over equal ranks; then the first is slow */
    take[0] = (ash_sweep_take){0, 0, 240};
    j.book.u[0].encoded = 1;
    ash_sweep_part w = {.take = take, .n_take = 1}, parts[3];
    assert_int_equal(ash_sweep_divide(&j, &w, (double[]){1, 1, 1}, 3, parts, NULL), ASH_OK);
    for (int i = 0; i < 3; i++) assert_true(parts[i].n_take == 1 && parts[i].take[0].n == 80);
    ash_sweep_parts_free(parts, 3);
    for (uint32_t i = 0; i < n; i++) take[i] = (ash_sweep_take){i, 0, 16};
    w.n_take = (uint32_t)n;
    assert_int_equal(ash_sweep_divide(&j, &w, (double[]){0.25, 1, 1}, 3, parts, NULL), ASH_OK);
    assert_true(parts[0].n_take && parts[0].n_take < parts[1].n_take && parts[0].n_take < parts[2].n_take);
    ash_sweep_parts_free(parts, 3);
    ash_free(take);
    ash_book_free(&j.book);
    ash_sweep_units_free(u);
    ash_model_free(m);
}

static void bad_jobs_are_refused(void **state) {
    (void)state;
    ash_model *m = tiny_model("llama-tied");
    ash_eval_text t = tiny_text(m, 500, 7), little = {.tokens = t.tokens, .n = 20};
    ash_sweep_opts o = small_opts();
    ash_sweep_result r;
    ash_error e;
    ash_sweep_unit u = {m->hp.n_layer, 1, ASH_Q4_0};
    assert_int_equal(ash_sweep_run(&r, m, &t, NULL, &u, 1, &o, &e), ASH_E_USAGE);
    u = (ash_sweep_unit){-1, 1u << ASH_ROLE_OUTPUT, ASH_Q4_0};
    assert_int_equal(ash_sweep_run(&r, m, &t, NULL, &u, 1, &o, &e), ASH_E_USAGE);
    u = (ash_sweep_unit){0, 1, ASH_I32};
    assert_int_equal(ash_sweep_run(&r, m, &t, NULL, &u, 1, &o, &e), ASH_E_UNSUPPORTED);
    u.type = ASH_Q4_0;
    assert_int_equal(ash_sweep_run(&r, m, &little, NULL, &u, 1, &o, &e), ASH_E_RANGE);
    o.n_ctx = 4;
    assert_int_equal(ash_sweep_run(&r, m, &t, NULL, &u, 1, &o, &e), ASH_E_USAGE);
    assert_int_equal(ash_role_parse("ffn_up", 6), ASH_ROLE_UP);
    assert_int_equal(ash_role_parse("ffn", 3), -1);
    ash_free(t.tokens);
    ash_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(support_estimates_kl), cmocka_unit_test(small_kl_keeps_its_digits), cmocka_unit_test(differences_match_direct), cmocka_unit_test(every_architecture),
        cmocka_unit_test(tables_and_tensors),   cmocka_unit_test(resume_gives_the_same),     cmocka_unit_test(bad_jobs_are_refused),
        cmocka_unit_test(probes_agree_with_many_chunks), cmocka_unit_test(parts_are_the_whole), cmocka_unit_test(ranks_give_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
