/* vec.h - element-wise loops of the sweep. Same bits at every CPU level: no reassociation, no fused multiply-add. */
#ifndef ASH_EVAL_VEC_H
#define ASH_EVAL_VEC_H

#include <stdint.h>

void ash_vec_add(float *y, const float *a, const float *b, int64_t n); /* y = a + b; y may be a or b */
void ash_vec_sub(float *y, const float *a, const float *b, int64_t n); /* y = a - b; y may be a or b */
/* Differences between layers are kept as bfloat16 (round to nearest even): 2^-9 of d, below the 8-bit products' error. */
void ash_vec_to_bf16(uint16_t *y, const float *x, int64_t n);
void ash_vec_from_bf16(float *y, const uint16_t *x, int64_t n);
/* KL divergence of a discrete distribution w (sums to 1, n entries) to the one with log-weights shifted by d:
 * log(sum w e^d) - sum w d, computed as log1p(sum w (e^x - 1 - x)) with x = d - sum w d, without cancellation: relative
 * accuracy near 1e-5 however small, exactly 0 for d = 0. */
double ash_vec_kl(const float *w, const float *d, int n);

#endif
