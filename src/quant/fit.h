/* fit.h - what a fit takes and gives: sixteen blocks (or sub-blocks) at a time.
 *
 * The fits choose scales and codes; they know nothing of bit packing (pack.c does that), and there is
 * one copy of them per CPU level, all with the same results. */
#ifndef ASH_FIT_H
#define ASH_FIT_H

#include "ashlar/tensor.h"

#define FIT_LANES 16

/* Lane l holds n consecutive weights, transposed: x[j * 16 + l]. Scaled for the fit by the caller:
 * the stored value is x / unit[l], and w is between 0 and 1, not all zero in a lane. */
typedef struct {
    _Alignas(64) float x[32 * FIT_LANES];
    _Alignas(64) float w[32 * FIT_LANES];
    _Alignas(64) float unit[FIT_LANES]; /* a power of two, the same for all lanes of a super-block */
} fit_in;

/* d, m: float16 scale and minimum (or offset) of lane l; super-blocks: valid in the super-block's
 * first lane. sc, mn: the lane's integer sub-scale (signed as decoded; FP4 types: the scale's byte) and sub-minimum. q: codes,
 * transposed, as integers that the decoder multiplies (levels for IQ4). */
typedef struct {
    uint16_t d[FIT_LANES], m[FIT_LANES];
    int sc[FIT_LANES], mn[FIT_LANES];
    _Alignas(64) float q[32 * FIT_LANES];
    uint16_t idx[8 * FIT_LANES]; /* lattice types: codebook index of each point, idx[g * 16 + l]; q holds the signs, +-1 */
} fit_out;

enum { FIT_IDX_MINUS = 0x8000 }; /* IQ1: the point's offset is -1/8 */

typedef enum {
    FIT_Q4_0, FIT_Q5_0, FIT_Q8_0, FIT_IQ4_NL, FIT_Q4_1, FIT_Q5_1, FIT_Q2_K, FIT_Q3_K, FIT_Q4_K, FIT_Q5_K, FIT_Q6_K, FIT_IQ4_XS,
    FIT_IQ2_XXS, FIT_IQ2_XS, FIT_IQ2_S, FIT_IQ3_XXS, FIT_IQ3_S, FIT_IQ1_S, FIT_IQ1_M,
    FIT_TERNARY, FIT_Q2_0, FIT_Q1_0, FIT_MXFP4, FIT_NVFP4, FIT_COUNT
} fit_kind;

typedef void (*fit_fn)(fit_kind kind, const fit_in *in, fit_out *out);
void ash_fit_ref(fit_kind kind, const fit_in *in, fit_out *out);
#if defined(__x86_64__)
void ash_fit_avx2(fit_kind kind, const fit_in *in, fit_out *out);
void ash_fit_avx512(fit_kind kind, const fit_in *in, fit_out *out);
#endif

#endif
