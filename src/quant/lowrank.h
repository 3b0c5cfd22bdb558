/* quant/lowrank.h - truncated singular value decomposition of a matrix whose columns are weighted. */
#ifndef ASH_QUANT_LOWRANK_H
#define ASH_QUANT_LOWRANK_H

#include "base/base.h"

/* Leading k singular triples of E diag(d), E [rows x cols] row-major, by randomized subspace iteration (Halko, Martinsson, Tropp 2011,
 * arXiv:0909.4061, algorithm 4.4) with `passes` power steps. u [rows x k], s [k] descending, v [cols x k], columns orthonormal; E ~ u
 * diag(s) v^T diag(1/d). k <= min(rows, cols). Same bits for any thread count. */
ash_status ash_lowrank(const float *e, int64_t rows, int64_t cols, const float *d, int k, int passes, uint64_t seed, ash_pool *pool,
                       float *u, float *s, float *v, ash_error *err);

/* Eigenvalues (descending) and eigenvectors (columns of q) of the symmetric a [n x n], which is overwritten: cyclic Jacobi. */
void ash_sym_eigen(double *a, int n, double *values, double *q);

#endif
