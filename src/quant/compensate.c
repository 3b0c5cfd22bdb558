/* compensate.c - second moments into factors, and rows through compensated rounding: threads, packing, and the comparison with the
 * plain code that every row has to win. */
#include "quant/compensate.h"

#include "ashlar/quant.h"
#include "quant/encode.h"
#include "quant/pack.h"
#include "tensor/f16.h"

#include <math.h>

const comp_fns *ash_comp_fns(ash_cpu_level level) {
    level = ASH_MIN(level, ash_cpu_detect());
#if defined(__x86_64__)
    if (level >= ASH_CPU_AVX512) return &ash_comp_avx512;
    if (level >= ASH_CPU_AVX2) return &ash_comp_avx2;
#endif
    return &ash_comp_ref;
}

/* ---- H = U D U^T ---- */

enum { PANEL = 64 };

void ash_hess_free(ash_hess *h) {
    ash_free(h->H);
    ash_free(h->L);
    ash_free(h->D);
    ash_free(h->diag);
    *h = (ash_hess){0};
}

typedef struct {
    const comp_fns *f;
    float *L, *D, *nD; /* nD = -D */
    int K, a, b;       /* rows a..b are being finished */
} factor_job;

/* Rows a..b, columns i0..i0+n: what the rows below take off. */
static void below(const factor_job *j, int i0, int n) {
    if (j->b == j->K) return;
    const rank_job u = {.M = j->L, .P = j->L, .R = j->L, .s = j->nD, .ldm = j->K, .ldp = j->K, .ldr = j->K, .k0 = j->b, .k1 = j->K};
    j->f->rank(&u, j->a, j->b - j->a, i0, n);
}

/* Panels of columns left of the diagonal block: finish them against the block's own rows. */
static void left_panels(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    const factor_job *j = ctx;
    for (int64_t p = begin; p < end; p++) {
        const int i0 = (int)p * PANEL;
        below(j, i0, PANEL);
        for (int r = j->b - 1; r >= j->a; r--) {
            float *row = j->L + (size_t)r * (size_t)j->K;
            const float inv = 1.0f / j->D[r];
            for (int i = i0; i < i0 + PANEL; i++) row[i] *= inv;
            for (int q = j->a; q < r; q++) {
                const float s = row[q] * j->D[r];
                float *up = j->L + (size_t)q * (size_t)j->K;
                for (int i = i0; i < i0 + PANEL; i++) up[i] -= s * row[i];
            }
        }
    }
}

static void factor(ash_hess *h, float *nD, ash_pool *pool) {
    const int K = h->K;
    factor_job j = {.f = ash_comp_fns(ash_cpu_detect()), .L = h->L, .D = h->D, .nD = nD, .K = K};
    for (j.a = (K - 1) / PANEL * PANEL; j.a >= 0; j.a -= PANEL) {
        j.b = ASH_MIN(j.a + PANEL, K);
        below(&j, j.a, j.b - j.a);
        for (int r = j.b - 1; r >= j.a; r--) {
            float *row = h->L + (size_t)r * (size_t)K;
            /* rounding may push a nearly dependent column below zero */
            h->D[r] = ASH_MAX(row[r], 1e-5f * h->H[(size_t)r * (size_t)K + (size_t)r]);
            nD[r] = -h->D[r];
            for (int i = j.a; i < r; i++) row[i] /= h->D[r];
            for (int q = j.a; q < r; q++) {
                const float s = row[q] * h->D[r];
                float *up = h->L + (size_t)q * (size_t)K;
                for (int i = j.a; i <= q; i++) up[i] -= s * row[i];
            }
        }
        ash_pool_run(pool, j.a / PANEL, 1, left_panels, &j);
    }
}

ash_status ash_hess_make(ash_hess *h, float *H, int K, double damp, ash_pool *pool, ash_error *err) {
    *h = (ash_hess){.K = K, .H = H};
    ash_status st = ASH_OK;
    const size_t n = (size_t)K;
    float *nD = NULL;
    double mean = 0;
    size_t live = 0;
    if (K < 16 || K % 16) {
        st = ash_fail(err, ASH_E_RANGE, "second moments of %d columns: not a multiple of 16", K);
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        const float d = H[i * n + i];
        if (d > 0) mean += d, live++;
    }
    if (!live || !isfinite(mean)) {
        st = ash_fail(err, ASH_E_RANGE, "second moments: %s", live ? "not finite" : "nothing was seen");
        goto done;
    }
    mean /= (double)live;
    h->L = ash_alloc_aligned(n * n * sizeof(float), 64);
    h->D = ash_calloc(n, sizeof(float));
    h->diag = ash_calloc(n, sizeof(float));
    nD = ash_calloc(n, sizeof(float));
    if (!h->L || !h->D || !h->diag || !nD) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for second moments of %d columns", K);
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        float *d = &H[i * n + i];
        if (!(*d > (float)(1e-4 * mean))) *d = (float)(1e-4 * mean); /* as ash_widen_spread's trace */
        h->diag[i] = *d;
        for (size_t j = i + 1; j < n; j++) {
            const float v = (float)((1.0 - damp) * (double)H[i * n + j]);
            H[i * n + j] = H[j * n + i] = v;
        }
    }
    memcpy(h->L, H, n * n * sizeof(float));
    factor(h, nD, pool);
    for (size_t i = 0; i < n; i++)
        if (!(h->D[i] > 0) || !isfinite(h->D[i])) {
            st = ash_fail(err, ASH_E_RANGE, "second moments: no factors at column %zu", i);
            break;
        }
done:
    ash_free(nD);
    if (st != ASH_OK) ash_hess_free(h);
    return st;
}

/* ---- rows ---- */

typedef struct {
    ash_dtype type;
    fit_kind kind;
    int n, per, k;
} form; /* k: weights per lattice point, 0: none */
static const form forms[] = {
    {ASH_Q4_0, FIT_Q4_0, 32, 1, 0},       {ASH_Q5_0, FIT_Q5_0, 32, 1, 0},      {ASH_Q8_0, FIT_Q8_0, 32, 1, 0},
    {ASH_IQ4_NL, FIT_IQ4_NL, 32, 1, 0},   {ASH_Q4_1, FIT_Q4_1, 32, 1, 0},      {ASH_Q5_1, FIT_Q5_1, 32, 1, 0},
    {ASH_Q2_K, FIT_Q2_K, 16, 16, 0},      {ASH_Q3_K, FIT_Q3_K, 16, 16, 0},     {ASH_Q4_K, FIT_Q4_K, 32, 8, 0},
    {ASH_Q5_K, FIT_Q5_K, 32, 8, 0},       {ASH_Q6_K, FIT_Q6_K, 16, 16, 0},     {ASH_IQ4_XS, FIT_IQ4_XS, 32, 8, 0},
    {ASH_IQ2_XXS, FIT_IQ2_XXS, 32, 8, 8}, {ASH_IQ2_XS, FIT_IQ2_XS, 16, 16, 8}, {ASH_IQ2_S, FIT_IQ2_S, 16, 16, 8},
    {ASH_IQ3_XXS, FIT_IQ3_XXS, 32, 8, 4}, {ASH_IQ3_S, FIT_IQ3_S, 32, 8, 4},    {ASH_IQ1_S, FIT_IQ1_S, 32, 8, 8},
    {ASH_IQ1_M, FIT_IQ1_M, 16, 16, 8},    {ASH_TQ1_0, FIT_TERNARY, 32, 8, 0},  {ASH_TQ2_0, FIT_TERNARY, 32, 8, 0},
    {ASH_Q2_0, FIT_Q2_0, 32, 2, 0},       {ASH_MXFP4, FIT_MXFP4, 32, 1, 0},    {ASH_NVFP4, FIT_NVFP4, 16, 4, 0},
};

static const form *form_of(ash_dtype t) {
    for (size_t i = 0; i < ASH_ARRAY_LEN(forms); i++)
        if (forms[i].type == t) return &forms[i];
    return NULL;
}

bool ash_comp_can(ash_dtype t) { return form_of(t) != NULL; }

enum { ROWS = FIT_LANES };

/* The parts of a thread's memory, cut from p (NULL: only counted). */
typedef struct {
    comp_rows r;
    float *x; /* sixteen rows decoded */
    uint8_t *plain, *comp;
} scratch;

static size_t place(scratch *s, const form *f, int K, char *p) {
    const size_t k = (size_t)K, lanes = k * ROWS * sizeof(float), subs = k / (size_t)f->n * ROWS, elems = (size_t)(f->n * f->per),
                 blocks = k / elems * ROWS;
    size_t at = 0;
#define PART(field, type, bytes) s->field = p ? (type *)(void *)(p + at) : NULL, at += ((bytes) + 63) / 64 * 64
    PART(r.w, float, lanes);
    PART(r.e, float, lanes);
    PART(r.t, float, lanes);
    PART(r.c, float, lanes);
    PART(r.g, float, elems *ROWS * sizeof(float));
    PART(r.v, float, elems *ROWS * sizeof(float));
    PART(r.hv, float, elems *ROWS * sizeof(float));
    PART(r.A, float, subs * sizeof(float));
    PART(r.B, float, subs * sizeof(float));
    PART(r.sc, int, subs * sizeof(int));
    PART(r.mn, int, subs * sizeof(int));
    PART(r.d, uint16_t, blocks * sizeof(uint16_t));
    PART(r.m, uint16_t, blocks * sizeof(uint16_t));
    PART(r.idx, uint16_t, f->k ? k / (size_t)f->k * ROWS * sizeof(uint16_t) : 64);
    PART(x, float, lanes);
    PART(plain, uint8_t, ROWS * ash_dtype_row_bytes(f->type, k));
    PART(comp, uint8_t, ROWS * ash_dtype_row_bytes(f->type, k));
#undef PART
    return at;
}

size_t ash_comp_scratch_bytes(ash_dtype t, int K) {
    const form *f = form_of(t);
    scratch s;
    return f ? place(&s, f, K, NULL) : 0;
}

typedef struct {
    const form *f;
    const comp_fns *fns;
    ash_cpu_level level;
    comp_job j;
    const float *src;
    uint8_t *dst;
    uint64_t n_rows, row_bytes;
    char *mem;
    size_t per_thread;
    double *loss;    /* [2] per batch, plain and as written */
    ash_error *errs; /* per thread */
} run;

/* The coded rows to bytes. */
static void pack_rows(const run *u, const scratch *s) {
    const form *f = u->f;
    const int K = u->j.h->K, elems = f->n * f->per, group = ROWS / f->per;
    fit_out out;
    memset(&out, 0, sizeof out);
    for (int b = 0; b < K / elems; b++)
        for (int r0 = 0; r0 < ROWS; r0 += group) {
            uint8_t *dst[ROWS];
            for (int i = 0; i < group; i++) {
                const int row = r0 + i;
                dst[i] = s->comp + (size_t)row * u->row_bytes + (size_t)b * ash_dtype_get((int)f->type)->block_bytes;
                for (int p = 0; p < f->per; p++) {
                    const int l = i * f->per + p, sub = b * f->per + p;
                    out.d[l] = s->r.d[b * ROWS + row], out.m[l] = s->r.m[b * ROWS + row];
                    out.sc[l] = s->r.sc[sub * ROWS + row], out.mn[l] = s->r.mn[sub * ROWS + row];
                    for (int k = 0; k < f->n; k++) out.q[k * ROWS + l] = s->r.c[(sub * f->n + k) * ROWS + row];
                    for (int g = 0; f->k && g < f->n / f->k; g++)
                        out.idx[g * ROWS + l] = s->r.idx[(size_t)(sub * (f->n / f->k) + g) * ROWS + (size_t)row];
                }
            }
            ash_pack(f->type, &out, group, dst);
        }
}

/* e^T H e of the rows whose bytes are given. */
static void loss_of(const run *u, const scratch *s, const uint8_t *bytes, double out[ROWS]) {
    const size_t K = (size_t)u->j.h->K;
    for (size_t r = 0; r < ROWS; r++) {
        ash_dtype_decode(u->f->type, bytes + r * u->row_bytes, s->x, K);
        for (size_t k = 0; k < K; k++) s->r.e[k * ROWS + r] = s->r.w[k * ROWS + r] - s->x[k];
    }
    u->fns->loss(u->j.h, s->r.e, out);
}

static void run_batches(void *ctx, int64_t begin, int64_t end, int ith) {
    run *u = ctx;
    const size_t K = (size_t)u->j.h->K;
    scratch s;
    place(&s, u->f, (int)K, u->mem + (size_t)ith * u->per_thread);
    if (u->errs[ith].code != ASH_OK) return;
    for (int64_t b = begin; b < end; b++) {
        const uint64_t row0 = (uint64_t)b * ROWS, n = ASH_MIN((uint64_t)ROWS, u->n_rows - row0);
        const float *src = u->src + row0 * K;
        double plain[ROWS], comp[ROWS];
        if (ash_quant_rows_at(u->level, u->f->type, src, s.plain, n, K, u->j.h->diag, NULL, &u->errs[ith]) != ASH_OK) {
            u->errs[ith].pos += row0 * K;
            return;
        }
        for (uint64_t r = n; r < ROWS; r++) memcpy(s.plain + r * u->row_bytes, s.plain, u->row_bytes);
        for (uint64_t r = 0; r < ROWS; r++)
            for (size_t k = 0; k < K; k++) s.r.w[k * ROWS + r] = src[(r < n ? r : 0) * K + k];
        u->fns->code(&u->j, &s.r);
        pack_rows(u, &s);
        loss_of(u, &s, s.plain, plain);
        loss_of(u, &s, s.comp, comp);
        for (uint64_t r = 0; r < n; r++) {
            const bool better = comp[r] < plain[r];
            memcpy(u->dst + (row0 + r) * u->row_bytes, (better ? s.comp : s.plain) + r * u->row_bytes, u->row_bytes);
            u->loss[2 * b] += plain[r];
            u->loss[2 * b + 1] += better ? comp[r] : plain[r];
        }
    }
}

ash_status ash_comp_rows_at(ash_cpu_level level, ash_dtype t, const float *src, void *dst, uint64_t n_rows, const ash_hess *h,
                            const ash_comp_opts *o, ash_pool *pool, double loss[2], ash_error *err) {
    const form *f = form_of(t);
    if (!f) return ash_fail(err, ASH_E_UNSUPPORTED, "type %s has no compensated rounding", ash_dtype_name(t));
    if (h->K % (f->n * f->per)) return ash_fail(err, ASH_E_RANGE, "a row of %d weights cannot be %s", h->K, ash_dtype_name(t));
    ash_status st = ASH_OK;
    const int nt = ash_pool_threads(pool);
    const uint64_t batches = (n_rows + ROWS - 1) / ROWS;
    run u = {.f = f,
             .fns = ash_comp_fns(level),
             .level = level,
             .src = src,
             .dst = dst,
             .n_rows = n_rows,
             .row_bytes = ash_dtype_row_bytes(t, (uint64_t)h->K)};
    u.j = (comp_job){.kind = f->kind, .n = f->n, .per = f->per, .h = h, .o = *o};
    u.per_thread = ash_comp_scratch_bytes(t, h->K);
    u.mem = ash_alloc_aligned((size_t)nt * u.per_thread, 64);
    u.loss = ash_calloc((size_t)batches * 2 + 1, sizeof *u.loss);
    u.errs = ash_calloc((size_t)nt, sizeof *u.errs);
    if (!u.mem || !u.loss || !u.errs) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for compensated rounding of rows of %d weights", h->K);
        goto done;
    }
    ash_pool_run(pool, (int64_t)batches, 1, run_batches, &u);
    for (int k = 0; k < nt && st == ASH_OK; k++)
        if (u.errs[k].code != ASH_OK) {
            st = u.errs[k].code;
            if (err) *err = u.errs[k];
        }
    for (uint64_t b = 0; loss && b < batches; b++) loss[0] += u.loss[2 * b], loss[1] += u.loss[2 * b + 1];
done:
    ash_free(u.mem);
    ash_free(u.loss);
    ash_free(u.errs);
    return st;
}
