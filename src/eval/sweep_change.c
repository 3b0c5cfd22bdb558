/* sweep_change.c - what a type does to a matrix: encode, decode, subtract. Rows that are no multiple of the type's block are
 * widened with zero columns first, as the baked file would be. */
#include "eval/sweep_int.h"

#include "ashlar/quant.h"
#include "eval/vec.h"
#include "eval/whole.h"

#include <math.h>

uint64_t ash_padded_cols(ash_dtype t, uint64_t K) {
    const ash_dtype_info *i = ash_dtype_get((int)t);
    return i ? (K + i->block_elems - 1) / i->block_elems * i->block_elems : K;
}

enum { MAX_BLOCK = 256 };

/* row, importance, then encoded bytes (at most 4 per weight) */
size_t ash_change_row_floats(int K) { return 3 * ((size_t)K + MAX_BLOCK) + 64; }

ash_status ash_change_row(const ash_kern *k, const float *src, ash_dtype type, const float *imp, int K, float *dst, float *tmp, ash_error *err) {
    if (type == ASH_F32) {
        memmove(dst, src, (size_t)K * sizeof(float));
        return ASH_OK;
    }
    uint64_t n = ash_padded_cols(type, (uint64_t)K);
    float *row = tmp, *im = tmp + n;
    uint8_t *enc = (uint8_t *)(tmp + 2 * n);
    memcpy(row, src, (size_t)K * sizeof(float));
    memset(row + K, 0, (n - (size_t)K) * sizeof(float));
    const float *use = imp;
    if (imp && n > (uint64_t)K) {
        float top = 0;
        for (int i = 0; i < K; i++) top = fmaxf(top, imp[i]);
        memcpy(im, imp, (size_t)K * sizeof(float));
        for (uint64_t i = (uint64_t)K; i < n; i++) im[i] = top * 1e-6f; /* their input is always 0 */
        use = im;
    }
    ASH_TRY(ash_quant_row(type, row, enc, n, use, err));
    k->decode[type](enc, row, (int64_t)n);
    memcpy(dst, row, (size_t)K * sizeof(float));
    return ASH_OK;
}

typedef struct {
    const ash_exec *e;
    const ash_mat *w;
    ash_dtype type;
    const float *imp;
    float *panels;       /* of the difference; or */
    float *rows;         /* the changed rows themselves */
    float *scratch;      /* per thread: 32 rows and a row's temporaries */
    size_t scratch_floats;
    double *sums;        /* [panel][2] */
    _Atomic int failed;
    ash_error err;
} change_ctx;

static void change_part(void *ctx, int64_t begin, int64_t end, int ith) {
    change_ctx *c = ctx;
    const ash_mat *w = c->w;
    const int K = w->K;
    float *rows = c->scratch + (size_t)ith * c->scratch_floats, *one = rows + (size_t)16 * (size_t)K, *tmp = one + ((size_t)K + 15) / 16 * 16;
    for (int64_t p = begin; p < end && !c->failed; p++) {
        int nr = (int)ASH_MIN(16, w->n_rows - p * 16);
        double num = 0, den = 0;
        for (int r = 0; r < nr; r++) {
            float *row = rows + (size_t)r * (size_t)K;
            c->e->k->decode[w->type](w->data + (size_t)(p * 16 + r) * w->row_bytes, row, K);
            ash_error err;
            if (ash_change_row(c->e->k, row, c->type, c->imp, K, one, tmp, &err) != ASH_OK) {
                if (!c->failed++) c->err = err;
                return;
            }
            for (int i = 0; i < K; i++) {
                double im = c->imp ? (double)c->imp[i] : 1, v = (double)row[i], d = (double)one[i] - v;
                num += im * d * d;
                den += im * v * v;
            }
            if (c->rows) memcpy(c->rows + (size_t)(p * 16 + r) * (size_t)K, one, (size_t)K * sizeof *one);
            ash_vec_sub(row, one, row, K);
        }
        if (c->panels) c->e->k->packf(rows, K, nr, K, c->panels + (size_t)p * 16 * (size_t)K);
        c->sums[2 * p] = num;
        c->sums[2 * p + 1] = den;
    }
}

/* `share`: weight of this matrix in err_sums. */
static ash_status change(const ash_exec *e, const ash_mat *w, ash_dtype type, const float *imp, float *panels, float *rows, double share, double err_sums[2],
                         ash_error *err) {
    ash_status st = ASH_OK;
    int64_t n = (w->n_rows + 15) / 16;
    change_ctx c = {.e = e, .w = w, .type = type, .imp = imp, .panels = panels, .rows = rows};
    c.scratch_floats = ((size_t)w->K * 17 + 64 + ash_change_row_floats(w->K) + 15) / 16 * 16;
    c.scratch = ash_alloc_aligned((size_t)e->n_threads * c.scratch_floats * sizeof(float), 64);
    c.sums = ash_calloc((size_t)n * 2, sizeof(double));
    if (!c.scratch || !c.sums) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for encoding a matrix");
        goto done;
    }
    ash_pool_run(e->pool, n, 1, change_part, &c);
    if (c.failed) {
        if (err) *err = c.err;
        st = c.err.code;
        goto done;
    }
    for (int64_t p = 0; p < n; p++) {
        err_sums[0] += share * c.sums[2 * p];
        err_sums[1] += share * c.sums[2 * p + 1];
    }
done:
    ash_free(c.scratch);
    ash_free(c.sums);
    return st;
}

ash_status ash_change_build(const ash_exec *e, const ash_mat *w, ash_dtype type, const float *imp, float *panels, double err_sums[2], ash_error *err) {
    return change(e, w, type, imp, panels, NULL, 1, err_sums, err);
}

/* An expert that no token chose has no importance: it is encoded evenly and its error hurts nobody. */
ash_status ash_change_rows(const ash_exec *e, const ash_part *p, ash_dtype type, const float *imp, const float *counts, float *rows, double err_sums[2],
                           ash_error *err) {
    double all = 0;
    for (int i = 0; counts && i < p->n_mat; i++) all += (double)counts[i];
    for (int i = 0; i < p->n_mat; i++) {
        ash_mat w = *p->w;
        w.data += (size_t)i * p->stride;
        const bool seen = !counts || counts[i] > 0;
        const double share = all > 0 ? (double)counts[i] / all : 1;
        ASH_TRY(change(e, &w, type, imp && seen ? imp + (size_t)i * (size_t)w.K : NULL, NULL, rows + (size_t)i * (size_t)w.n_rows * (size_t)w.K, seen ? share : 0,
                       err_sums, err));
    }
    return ASH_OK;
}
