/* matmul_i8.c - matrix products on 8-bit activations over threads: the choice between reading the file's
 * layout row by row (few tokens) and unpacking panels into per-thread scratch (many tokens). Both give
 * the same bits (kern.h), so the choice is about speed alone. */
#include "kern/kern.h"

/* Work items: small enough to balance two to sixteen threads, large enough that claiming one is cheap. */
enum {
    GEMV_ITEMS = 6,   /* items per thread with few tokens */
    GEMM_PANELS = 2,  /* panels of one item with many tokens */
    GEMV_TOKENS = 2,  /* up to this many tokens are done by repeated gemv8 */
    QUANT_VALUES = 4096, /* floats of one item of the activation quantizer */
};

typedef struct {
    const ash_kern *k;
    char *scratch;
    size_t scratch_bytes;
    const ash_mm_job *jobs;
    int n_jobs;
    ash_act8 a;
    int n_tok;
    int64_t gemv_rows; /* rows of one item with few tokens */
} mm_ctx;

static bool takes_i8(const ash_mm_job *j) { return ash_dtype_i8_form(j->w->type).G != 0; }
static bool by_rows(const mm_ctx *c, const ash_mm_job *j) { return c->n_tok <= GEMV_TOKENS && c->k->gemv8[j->w->type]; }
static int64_t item_rows(const mm_ctx *c, const ash_mm_job *j) { return by_rows(c, j) ? c->gemv_rows : GEMM_PANELS * ASH_PANEL_ROWS; }
static int64_t n_items(const mm_ctx *c, const ash_mm_job *j) {
    int64_t rows = item_rows(c, j);
    return takes_i8(j) ? (j->w->n_rows + rows - 1) / rows : 0;
}

static ash_act8 token(ash_act8 a, int64_t t) {
    a.q += t * a.ld_q;
    a.d += t * a.ld_d;
    a.b += t * a.ld_b;
    return a;
}

static void panels(const mm_ctx *c, const ash_mm_job *j, int64_t row0, int n_rows, char *scratch) {
    const ash_mat *w = j->w;
    ash_i8_form f = ash_dtype_i8_form(w->type);
    size_t q_bytes = (size_t)w->K * ASH_PANEL_ROWS, n_s = (size_t)(w->K / f.G) * ASH_PANEL_ROWS;
    void *s = scratch + q_bytes * GEMM_PANELS;
    ash_panel8 p = {(uint8_t *)scratch, s, (float *)s + n_s * GEMM_PANELS};
    for (int r = 0, i = 0; r < n_rows; r += ASH_PANEL_ROWS, i++) {
        ash_panel8 out = {p.q + q_bytes * (size_t)i, p.s + n_s * (size_t)i, p.m + n_s * (size_t)i};
        c->k->unpack8[w->type](w->data + (size_t)(row0 + r) * w->row_bytes, w->row_bytes, ASH_MIN(n_rows - r, ASH_PANEL_ROWS), w->K, out);
    }
    ash_gemm8_fn gemm = f.G == 32 ? (f.has_min ? c->k->gemm8_g32m : c->k->gemm8_g32) : f.has_min ? c->k->gemm8_g16m : c->k->gemm8_g16;
    gemm(p, f, w->K, n_rows, c->a, c->n_tok, j->y + row0, j->ldy);
}

static void part(void *ctx, int64_t begin, int64_t end, int ith) {
    const mm_ctx *c = ctx;
    char *scratch = c->scratch + (size_t)ith * c->scratch_bytes;
    for (int64_t i = begin; i < end; i++) {
        const ash_mm_job *j = c->jobs;
        int64_t item = i, n;
        while (item >= (n = n_items(c, j))) item -= n, j++;
        const ash_mat *w = j->w;
        int64_t rows = item_rows(c, j), row0 = item * rows, n_rows = ASH_MIN(rows, w->n_rows - row0);
        if (!by_rows(c, j)) {
            panels(c, j, row0, (int)n_rows, scratch);
            continue;
        }
        const uint8_t *at = w->data + (size_t)row0 * w->row_bytes;
        for (int t = 0; t < c->n_tok; t++)
            c->k->gemv8[w->type](at, w->row_bytes, n_rows, w->K, token(c->a, t), j->y + t * j->ldy + row0);
    }
}

void ash_mm_i8(const ash_kern *k, ash_pool *pool, void *scratch, size_t scratch_bytes, const ash_mm_job *jobs, int n_jobs, ash_act8 a,
               const float *xf, int64_t ldx, int n_tok) {
    if (n_tok <= 0) return;
    mm_ctx c = {k, scratch, scratch_bytes, jobs, n_jobs, a, n_tok, 0};
    int64_t n = 0, n_rows = 0;
    for (int i = 0; i < n_jobs; i++) n_rows += jobs[i].w->n_rows;
    /* long runs of rows keep the reads ahead of the arithmetic; several runs per thread even the load */
    c.gemv_rows = n_rows / ((int64_t)ash_pool_threads(pool) * GEMV_ITEMS) / ASH_PANEL_ROWS * ASH_PANEL_ROWS;
    c.gemv_rows = ASH_MAX(2 * ASH_PANEL_ROWS, ASH_MIN(c.gemv_rows, 1024));
    for (int i = 0; i < n_jobs; i++) {
        n += n_items(&c, &jobs[i]);
        if (!takes_i8(&jobs[i])) ash_mm_f32(k, pool, scratch, scratch_bytes, &jobs[i], 1, xf, ldx, n_tok);
    }
    ash_pool_run(pool, n, 1, part, &c);
}

typedef struct {
    const ash_kern *k;
    const float *x;
    int64_t ldx;
    int K;
    ash_act8 a;
} quant_ctx;

static void quant_part(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    const quant_ctx *c = ctx;
    for (int64_t t = begin; t < end; t++) {
        ash_act8 a = token(c->a, t);
        c->k->quant8(c->x + t * c->ldx, c->K, a.q, a.d, a.b);
    }
}

void ash_mm_quant8(const ash_kern *k, ash_pool *pool, const float *x, int64_t ldx, int K, int n_tok, ash_act8 a) {
    quant_ctx c = {k, x, ldx, K, a};
    ash_pool_run(pool, n_tok, ASH_MAX(1, QUANT_VALUES / ASH_MAX(K, 1)), quant_part, &c);
}
