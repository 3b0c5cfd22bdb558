/* compensate.h - rounding that knows the inputs' second moments.
 *
 * With H = E[x x^T] of a matrix' inputs, the error of a row w coded as q is e^T H e, e = w - q. With H = U D U^T (U unit upper
 * triangular) that is sum_j D_j (e_j + sum_{i<j} U_ij e_i)^2: coding column j against w_j + sum_{i<j} U_ij e_i makes each column take
 * back what the ones before it did (GPTQ, Frantar et al. 2022; the same as LDLQ in QuIP, Chee et al. 2023). After that codes and scales
 * are improved in place, one at a time, against the whole of H. Types stay what they are: only codes and scales are chosen otherwise. */
#ifndef ASH_COMPENSATE_H
#define ASH_COMPENSATE_H

#include "base/base.h"
#include "quant/fit.h"

/* Second moments made ready: damped H and its factors, K x K floats each, rows contiguous. */
typedef struct {
    int K;
    float *H;    /* symmetric */
    float *L;    /* U^T: row j holds what column j takes of the errors of the columns before it (on and above the diagonal: undefined) */
    float *D;    /* K */
    float *diag; /* K: of H, the plain importance */
} ash_hess;

/* Takes H (its memory too: K x K from ash_alloc_aligned, only i <= j need be valid), shrinks what is off the diagonal by `damp` and factors
 * it. Columns whose input is always zero get a trace of weight. ASH_E_RANGE when nothing is there or it is not finite. On failure H is
 * freed. */
ash_status ash_hess_make(ash_hess *h, float *H, int K, double damp, ash_pool *pool, ash_error *err);
void ash_hess_free(ash_hess *h);

/* What is done, for measuring what each brings. */
enum {
    ASH_COMP_FEEDBACK = 1,    /* errors are fed into later columns */
    ASH_COMP_CONDITIONED = 2, /* scales are chosen by D, the part of a column's error that later columns cannot undo, not by H's diagonal */
    ASH_COMP_DESCENT = 4,     /* codes are changed one at a time while that lowers e^T H e */
    ASH_COMP_REFIT = 8,       /* scales too */
    ASH_COMP_ALL = 15
};
typedef struct {
    unsigned what;
    int passes; /* of descent and refit */
} ash_comp_opts;

bool ash_comp_can(ash_dtype t);

/* Bytes one thread needs for rows of K weights. */
size_t ash_comp_scratch_bytes(ash_dtype t, int K);

/* n_rows rows of h->K weights, encoded; a row whose plain code (ash_quant_rows with H's diagonal) has the lower e^T H e keeps that.
 * loss[2] (may be NULL) += sums of e^T H e over the rows, plain and as written. Same bytes at all levels and with any pool. */
ash_status ash_comp_rows_at(ash_cpu_level level, ash_dtype t, const float *src, void *dst, uint64_t n_rows, const ash_hess *h,
                            const ash_comp_opts *o, ash_pool *pool, double loss[2], ash_error *err);

/* ---- inside: sixteen rows at a time, one copy per CPU level ---- */
typedef struct {
    fit_kind kind;
    int n, per; /* as in encode.c: weights per lane, lanes per block */
    const ash_hess *h;
    ash_comp_opts o;
} comp_job;

/* Sixteen rows transposed: value of column j in row r at [j * 16 + r]. Sub-blocks (n columns) and blocks likewise. */
typedef struct {
    float *w, *e, *t; /* the rows, their errors w - q, targets */
    float *c;         /* what the scale multiplies: integer codes, levels, or points with signs */
    float *g;         /* of one block: H e */
    float *v, *hv;    /* of one block: a direction and H times it */
    float *A, *B;     /* per sub-block: q = A c + B */
    int *sc, *mn;     /* per sub-block, as in fit_out */
    uint16_t *d, *m;  /* per block */
    uint16_t *idx;    /* lattice types: per point */
} comp_rows;

/* M[j][i] += sum over k in [k0, k1) of s_k P[k][j] R[k][i]; s NULL: 1. */
typedef struct {
    float *M;
    const float *P, *R, *s;
    int64_t ldm, ldp, ldr, k0, k1;
} rank_job;

typedef struct {
    void (*code)(const comp_job *j, comp_rows *r);
    void (*loss)(const ash_hess *h, const float *e, double out[16]);   /* e^T H e of sixteen rows */
    void (*rank)(const rank_job *u, int j0, int n_j, int i0, int n_i); /* rows j0.., columns i0.. (n_i a multiple of 16) */
} comp_fns;
const comp_fns *ash_comp_fns(ash_cpu_level level);
extern const comp_fns ash_comp_ref;
#if defined(__x86_64__)
extern const comp_fns ash_comp_avx2, ash_comp_avx512;
#endif

#endif
