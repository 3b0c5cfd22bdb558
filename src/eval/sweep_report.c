/* sweep_report.c - what a sweep will cost, and its result as JSON (docs/formats/sweep.md). */
#include "eval/sweep_int.h"

#include <jansson.h>
#include <math.h>

/* Multiply-accumulates per second of the 8-bit difference products on these threads, measured for some 30 ms. */
typedef struct { const ash_exec *e; uint8_t *q; float *s, *y, *d; int8_t *a; int16_t *b; } rate_ctx;

enum { RATE_K = 576, RATE_PANELS = 16, RATE_TOK = 64 };

static void rate_part(void *ctx, int64_t begin, int64_t end, int ith) {
    rate_ctx *c = ctx;
    ash_act8 a = {c->a, c->d, c->b, RATE_K, RATE_K / 32, RATE_K / 16};
    for (int64_t i = begin; i < end; i++)
        for (int p = 0; p < RATE_PANELS; p++) {
            ash_panel8 w = {c->q + (size_t)p * RATE_K * 16, c->s + (size_t)p * RATE_K / 2, NULL};
            c->e->k->gemm8_g32(w, ash_dtype_i8_form(ASH_Q8_0), RATE_K, 16, a, RATE_TOK, c->y + (size_t)ith * RATE_TOK * 16, 16);
        }
}

static double measure_rate(const ash_exec *e) {
    rate_ctx c = {.e = e};
    c.q = ash_alloc_aligned((size_t)RATE_PANELS * RATE_K * 16, 64);
    c.s = ash_alloc_aligned((size_t)RATE_PANELS * RATE_K / 2 * sizeof(float), 64);
    c.y = ash_alloc_aligned((size_t)e->n_threads * RATE_TOK * 16 * sizeof(float), 64);
    c.a = ash_alloc_aligned((size_t)RATE_TOK * RATE_K, 64);
    c.d = ash_alloc_aligned((size_t)RATE_TOK * RATE_K / 32 * sizeof(float), 64);
    c.b = ash_alloc_aligned((size_t)RATE_TOK * RATE_K / 16 * sizeof(int16_t), 64);
    double rate = 0;
    if (c.q && c.s && c.y && c.a && c.d && c.b) {
        memset(c.q, 130, (size_t)RATE_PANELS * RATE_K * 16);
        memset(c.a, 3, (size_t)RATE_TOK * RATE_K);
        for (int i = 0; i < RATE_PANELS * RATE_K / 2; i++) c.s[i] = 1;
        for (int i = 0; i < RATE_TOK * RATE_K / 32; i++) c.d[i] = 1;
        for (int i = 0; i < RATE_TOK * RATE_K / 16; i++) c.b[i] = 48;
        double t0 = ash_now(), dt;
        int64_t n = 0;
        do {
            ash_pool_run(e->pool, 4 * e->n_threads, 1, rate_part, &c);
            n += 4 * e->n_threads;
            dt = ash_now() - t0;
        } while (dt < 0.03);
        rate = (double)n * RATE_PANELS * 16 * RATE_K * RATE_TOK / dt;
    }
    ash_free(c.q);
    ash_free(c.s);
    ash_free(c.y);
    ash_free(c.a);
    ash_free(c.d);
    ash_free(c.b);
    return rate;
}

ash_status ash_sweep_estimate(ash_sweep_cost *c, const ash_model *m, const ash_sweep_unit *units, size_t n, const ash_sweep_opts *opts, ash_error *err) {
    *c = (ash_sweep_cost){0};
    ash_sweep_opts d = ash_sweep_defaults();
    int T = (int)(opts->n_ctx ? opts->n_ctx : d.n_ctx);
    uint32_t lo = opts->min_chunks ? opts->min_chunks : d.min_chunks;
    uint64_t budget = opts->mem_bytes ? opts->mem_bytes : d.mem_bytes;
    double chunks = 1.3 * lo; /* a third more than the least: what text like ours takes at 20 % */
    ash_exec e;
    ASH_TRY(ash_exec_init(&e, opts->n_threads, opts->cpu_level, err));
    double rate = measure_rate(&e);
    c->macs = ash_sweep_macs(m, T, units, NULL, n) * chunks;
    double encode = 0, tables = 0; /* weights to encode per pass, and head rows times types */
    for (size_t i = 0; i < n; i++)
        for (int r = 0; r < ASH_ROLE_COUNT; r++) {
            if (!(units[i].roles & 1u << r)) continue;
            const ash_mat *w = ash_sweep_mat(m, ASH_MAX(units[i].layer, 0), r);
            if (w && r < ASH_ROLE_N_LAYER) encode += (double)w->n_rows * w->K * (units[i].layer < 0 ? m->hp.n_layer : 1);
            else if (w) tables += (double)ASH_MIN(w->n_rows, (int64_t)120000) * w->K;
        }
    uint64_t per, rest;
    ash_sweep_pass_bytes(m, e.n_threads, T, (uint64_t)n + ASH_SWEEP_EXTRA, 1, &per, &rest);
    double per_pass = ASH_MAX(1.0, ASH_MIN((double)(budget / per), (double)lo)), passes = ceil(chunks / per_pass);
    uint64_t diff;
    ash_sweep_pass_bytes(m, e.n_threads, T, (uint64_t)n + ASH_SWEEP_EXTRA, (uint64_t)(budget / per ? per_pass : 4), &diff, &rest);
    if (diff > budget) c->disk_bytes = diff;
    c->mem_bytes = (diff > budget ? 0 : diff) + rest;
    /* 0.55: the share of the products in a layer's time; 12 M weights/s and thread encoded; both measured */
    c->seconds = rate > 0 ? c->macs / (0.55 * rate) + passes * (encode + tables) / (12e6 * e.n_threads) : 0;
    ash_exec_free(&e);
    return ASH_OK;
}

static json_t *unit_json(const ash_sweep_row *r, const ash_model *m) {
    const ash_sweep_unit *u = &r->unit;
    json_t *roles = json_array(), *o = json_object();
    for (int i = 0; i < ASH_ROLE_COUNT; i++)
        if (u->roles & 1u << i) json_array_append_new(roles, json_string(ash_role_name(i)));
    json_object_set_new(o, "layer", u->layer < 0 ? json_null() : json_integer(u->layer));
    json_object_set_new(o, "roles", roles);
    if (!(u->roles & (u->roles - 1))) { /* one matrix: its name */
        int r1 = __builtin_ctz(u->roles);
        const char *name = r1 == ASH_ROLE_EMBD ? m->embd_name : r1 == ASH_ROLE_OUTPUT ? m->head_name : u->layer >= 0 ? m->layers[u->layer].name[r1] : NULL;
        if (name) json_object_set_new(o, "tensor", json_string(name));
    }
    json_object_set_new(o, "type", json_string(ash_dtype_name(u->type)));
    json_object_set_new(o, "kld", json_real(r->kld));
    json_object_set_new(o, "half", isfinite(r->half) ? json_real(r->half) : json_null());
    json_object_set_new(o, "n_chunks", json_integer(r->n_chunks));
    json_object_set_new(o, "rel_err", json_real(r->rel_err));
    json_object_set_new(o, "bytes", json_integer((json_int_t)r->bytes));
    json_object_set_new(o, "widened", json_boolean(r->widened));
    if (r->dead) json_object_set_new(o, "dead", json_true());
    return o;
}

ash_status ash_sweep_json(const ash_sweep_result *r, const ash_model *m, char **out, size_t *n_out, ash_error *err) {
    *out = NULL;
    json_t *o = json_object(), *rows = json_array();
    json_object_set_new(o, "format", json_string("ashlar-sweep"));
    json_object_set_new(o, "version", json_integer(1));
    json_object_set_new(o, "model", json_string(ash_gguf_path(m->gguf)));
    json_object_set_new(o, "arch", json_string(ash_model_arch(m)));
    json_object_set_new(o, "text_sha256", json_string(r->text_sha256));
    json_object_set_new(o, "n_ctx", json_integer(r->n_ctx));
    json_object_set_new(o, "n_scored", json_integer(r->n_scored));
    json_object_set_new(o, "n_chunks", json_integer(r->n_chunks));
    json_object_set_new(o, "identity", json_real(r->identity));
    json_object_set_new(o, "noise_floor", json_real(r->noise_floor));
    json_object_set_new(o, "seconds", json_real(r->seconds));
    for (size_t i = 0; i < r->n_rows; i++) json_array_append_new(rows, unit_json(&r->rows[i], m));
    json_object_set_new(o, "rows", rows);
    char *s = json_dumps(o, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    json_decref(o);
    if (!s) return ash_fail(err, ASH_E_NOMEM, "out of memory for the sweep's JSON");
    *out = ash_strdup(s);
    *n_out = strlen(s);
    free(s);
    return *out ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory for the sweep's JSON");
}
