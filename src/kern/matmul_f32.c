/* matmul_f32.c - float matrix products over threads: decode rows to f32 panels in per-thread scratch and
 * run gemmf, or gemvf straight on the file's layout for one token. All paths give the same bits: every
 * output element is one fma chain over k.
 */
#include "kern/kern.h"

#define PANELS_PER_STEP 4   /* panels of one work item: the scratch of a thread */
#define DECODE_STEP 256     /* columns decoded at a time: a multiple of every type's block */

size_t ash_mm_scratch_bytes(int K) { return ((size_t)ASH_MAX(K, 1) * ASH_PANEL_ROWS * PANELS_PER_STEP * sizeof(float) + 63) / 64 * 64; }

/* Rows row0 .. row0 + nr (<= 16) of w into one panel. */
static void pack_panel(const ash_kern *k, const ash_mat *w, int64_t row0, int nr, float *panel) {
    const uint8_t *base = w->data + (size_t)row0 * w->row_bytes;
    if (w->type == ASH_F32 && w->row_bytes % sizeof(float) == 0 && (uintptr_t)base % sizeof(float) == 0) {
        k->packf((const float *)(const void *)base, (int64_t)(w->row_bytes / sizeof(float)), nr, w->K, panel);
        return;
    }
    float tile[ASH_PANEL_ROWS * DECODE_STEP] __attribute__((aligned(64)));
    const ash_dtype_info *ti = ash_dtype_get((int)w->type);
    for (int k0 = 0; k0 < w->K; k0 += DECODE_STEP) {
        int kn = ASH_MIN(DECODE_STEP, w->K - k0);
        size_t off = (size_t)k0 / ti->block_elems * ti->block_bytes;
        for (int r = 0; r < nr; r++) k->decode[w->type](base + (size_t)r * w->row_bytes + off, tile + r * DECODE_STEP, kn);
        k->packf(tile, DECODE_STEP, nr, kn, panel + (size_t)k0 * ASH_PANEL_ROWS);
    }
}

typedef struct {
    const ash_kern *k;
    char *scratch;
    size_t scratch_bytes;
    const ash_mm_job *jobs;
    int n_jobs;
    const float *x;
    int64_t ldx;
    int n_tok;
    int step; /* panels of one work item */
} mm_ctx;

static int64_t job_items(const ash_mm_job *j, int step) {
    int64_t rows = (int64_t)step * ASH_PANEL_ROWS;
    return (j->w->n_rows + rows - 1) / rows;
}

/* Rows [row0, row0 + n) of a job for all tokens. */
static void mm_rows(const mm_ctx *c, const ash_mm_job *j, int64_t row0, int64_t n, float *scratch) {
    const ash_mat *w = j->w;
    if (c->n_tok == 1 && c->k->gemvf[w->type]) {
        c->k->gemvf[w->type](w->data + (size_t)row0 * w->row_bytes, w->row_bytes, n, w->K, c->x, j->y + row0);
        return;
    }
    for (int64_t r = 0; r < n; r += ASH_PANEL_ROWS)
        pack_panel(c->k, w, row0 + r, (int)ASH_MIN(n - r, ASH_PANEL_ROWS), scratch + (size_t)r * (size_t)w->K);
    c->k->gemmf(scratch, w->K, n, c->x, c->ldx, c->n_tok, j->y + row0, j->ldy);
}

static void mm_part(void *ctx, int64_t begin, int64_t end, int ith) {
    const mm_ctx *c = ctx;
    float *scratch = (float *)(void *)(c->scratch + (size_t)ith * c->scratch_bytes);
    int64_t rows = (int64_t)c->step * ASH_PANEL_ROWS;
    for (int64_t i = begin; i < end; i++) {
        int64_t item = i;
        const ash_mm_job *j = c->jobs;
        while (item >= job_items(j, c->step)) item -= job_items(j++, c->step);
        int64_t row0 = item * rows;
        mm_rows(c, j, row0, ASH_MIN(rows, j->w->n_rows - row0), scratch);
    }
}

void ash_mm_f32(const ash_kern *k, ash_pool *pool, void *scratch, size_t scratch_bytes, const ash_mm_job *jobs, int n_jobs,
                const float *x, int64_t ldx, int n_tok) {
    if (n_tok <= 0) return;
    mm_ctx c = {k, scratch, scratch_bytes, jobs, n_jobs, x, ldx, n_tok, PANELS_PER_STEP};
    int64_t n = 0;
    for (int i = 0; i < n_jobs; i++) n += job_items(&jobs[i], c.step);
    ash_pool_run(pool, n, 1, mm_part, &c);
}

typedef struct {
    const ash_kern *k;
    const ash_mat *w;
    float *panels;
} pack_ctx;

static void pack_part(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    const pack_ctx *c = ctx;
    for (int64_t p = begin; p < end; p++) {
        int64_t row0 = p * ASH_PANEL_ROWS;
        pack_panel(c->k, c->w, row0, (int)ASH_MIN(c->w->n_rows - row0, ASH_PANEL_ROWS), c->panels + (size_t)row0 * (size_t)c->w->K);
    }
}

void ash_mm_pack(const ash_kern *k, ash_pool *pool, const ash_mat *w, float *panels) {
    pack_ctx c = {k, w, panels};
    ash_pool_run(pool, (w->n_rows + ASH_PANEL_ROWS - 1) / ASH_PANEL_ROWS, 4, pack_part, &c);
}
