/* delta.h - one layer for a reference and for many variants that differ from it a little.
 *
 * A variant is carried as its difference d to the reference. Matrix products are linear: W(x + d) = Wx + Wd, and Wx is
 * the reference's, computed once in float32. Wd is computed with 8-bit weights and 8-bit d: its rounding error is half a
 * percent of d, not of x, so that an arbitrarily small change is measured with the same relative accuracy, and d = 0 gives
 * exactly 0. Everything else (norms, rope, attention, activation, the changed matrix itself) is float32 on x + d.
 * docs/decisions/sweep-by-differences.md has the error budget and the checks. */
#ifndef ASH_EVAL_DELTA_H
#define ASH_EVAL_DELTA_H

#include "eval/exec.h"

/* A weight matrix for products with differences: 8-bit panels, or (exact) float32 panels. */
typedef struct {
    int K, Kp;          /* columns; rounded up to 32 */
    int64_t n_rows;
    float *f;           /* float32 panels of the matrix: the reference's products */
    uint8_t *q;         /* [panel][Kp/4][16][4] */
    float *s;           /* [panel][Kp/32][16] */
} ash_dmat;

/* Geometry and per-thread buffers of one layer for chunks of T tokens. */
typedef struct {
    const ash_model *m;
    const ash_kern *k;
    int T, layer;
    bool exact;                  /* differences through float32 panels too: for checks */
    ash_dmat w[ASH_W_COUNT];
    float *cs[ASH_ROPE_KINDS];   /* [T][n_rot/2][2] */
} ash_dlayer;

/* What the reference computed in this layer for one chunk; every array has T rows. */
typedef struct {
    float *x;                      /* in: residual entering; after ash_dref_run: leaving (x2) */
    float *x0;                     /* residual that entered */
    float *a, *q, *k, *v, *att, *o, *po, *x1, *f, *g, *u, *h, *d, *pd;
    float *base;                   /* one allocation */
} ash_dref;

/* Floats per chunk of an ash_dref, floats of per-thread scratch. */
size_t ash_dref_floats(const ash_model *m, int T);
void ash_dref_place(ash_dref *r, const ash_model *m, int T, float *base);
size_t ash_delta_scratch_floats(const ash_model *m, int T);

/* Bytes of 8-bit panels of a matrix; build from float32 panels. */
size_t ash_dmat_q_bytes(int64_t n_rows, int K);
size_t ash_dmat_s_floats(int64_t n_rows, int K);
void ash_dmat_build(const ash_exec *e, ash_dmat *w);

/* Reference through the layer: r->x -> r->x, all intermediates kept. One chunk, calling thread. */
void ash_dref_run(const ash_dlayer *L, ash_dref *r, float *scratch);

/* Variant through the layer: d[T][n_embd], in place. dw[role]: float32 panels of (changed - original) matrix, or NULL.
 * `zero`: d is all zero on entry (born here). */
void ash_delta_run(const ash_dlayer *L, const ash_dref *r, const float *const dw[ASH_W_COUNT], bool zero, float *d, float *scratch);

#endif
