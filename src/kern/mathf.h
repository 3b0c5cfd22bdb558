/* mathf.h - scalar forms of the float functions that kernels share: exp, tanh, halves, lane sums.
 *
 * The SIMD files run the very same operations per lane (same constants, same fma), so every CPU level
 * gives the same bits.
 *
 * ash_expf: Cody-Waite reduction by ln 2 in two parts, degree-6 polynomial on [-ln2/2, ln2/2], the
 * exponent added to the bits. Error <= 1.1 ulp over the range (measured over all floats in the test);
 * below ln(2^-126) it returns 0 (no denormal results), above 88.7228 infinity, NaN stays NaN.
 */
#ifndef ASH_KERN_MATHF_H
#define ASH_KERN_MATHF_H

#include "tensor/f16.h"

#include <math.h>

#define ASH_EXP_LO (-0x1.5d589ep+6f) /* -87.336540: ln(2^-126), rounded towards 0 */
#define ASH_EXP_HI (0x1.62e42ep+6f)  /* 88.722832: largest x whose exp is finite */
#define ASH_EXP_LOG2E 0x1.715476p+0f
#define ASH_EXP_MAGIC 12582912.0f     /* 1.5 * 2^23: adding it rounds to an integer kept in the low bits */
#define ASH_EXP_LN2_HI 0x1.62e4p-1f   /* 15 bits: n * hi is exact for |n| <= 128 */
#define ASH_EXP_LN2_LO 0x1.7f7d1cp-20f
/* minimax of (e^r - 1 - r) / r^2, Cephes expf (S. Moshier) */
#define ASH_EXP_C0 1.9875691500E-4f
#define ASH_EXP_C1 1.3981999507E-3f
#define ASH_EXP_C2 8.3334519073E-3f
#define ASH_EXP_C3 4.1665795894E-2f
#define ASH_EXP_C4 1.6666665459E-1f
#define ASH_EXP_C5 5.0000001201E-1f
/* tanh on |x| < 0.625: x + x^3 P(x^2), Cephes tanhf; beyond: 1 - 2 / (e^2x + 1) */
#define ASH_TANH_T0 -5.70498872745E-3f
#define ASH_TANH_T1 2.06390887954E-2f
#define ASH_TANH_T2 -5.37397155531E-2f
#define ASH_TANH_T3 1.33314422036E-1f
#define ASH_TANH_T4 -3.33332819422E-1f
#define ASH_TANH_SMALL 0.625f
/* gelu(x) = 0.5 x (1 + tanh u) = x / (1 + exp(-2u)), -2u = x * (G0 + G1 x^2), G0 = -2 sqrt(2/pi), G1 = 0.044715 G0 */
#define ASH_GELU_G0 (-1.5957691216057308f)
#define ASH_GELU_G1 (-0.07135481627159537f)

/* Without -mfma every fmaf is a call into libm. ASH_REF_FMA defines a reference function twice from one
 * always-inline body, plain and for the fma instruction, and picks at run time: same operations, same bits. */
#define ASH_REF_BODY static inline __attribute__((always_inline)) void
#if defined(__x86_64__)
#define ASH_REF_FMA(name, body, params, args)                                                                                      \
    static __attribute__((target("avx2,fma"))) void name##_hw params { body args; }                                                \
    void name params {                                                                                                             \
        if (__builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2")) name##_hw args;                                       \
        else body args;                                                                                                            \
    }
#else
#define ASH_REF_FMA(name, body, params, args)                                                                                      \
    void name params { body args; }
#endif

static inline float ash_expf(float x) {
    float t = fmaf(x, ASH_EXP_LOG2E, ASH_EXP_MAGIC);
    float n = t - ASH_EXP_MAGIC;
    float r = fmaf(n, -ASH_EXP_LN2_HI, x);
    r = fmaf(n, -ASH_EXP_LN2_LO, r);
    float p = fmaf(ASH_EXP_C0, r, ASH_EXP_C1);
    p = fmaf(p, r, ASH_EXP_C2);
    p = fmaf(p, r, ASH_EXP_C3);
    p = fmaf(p, r, ASH_EXP_C4);
    p = fmaf(p, r, ASH_EXP_C5);
    p = fmaf(p, r * r, r) + 1.0f;
    float y = ash_bits_f32(ash_f32_bits(p) + (ash_f32_bits(t) << 23));
    if (x < ASH_EXP_LO) y = 0;
    if (x > ASH_EXP_HI) y = INFINITY;
    return x != x ? x : y;
}

static inline float ash_tanhf(float x) {
    float a = fabsf(x), z = x * x;
    float p = fmaf(ASH_TANH_T0, z, ASH_TANH_T1);
    p = fmaf(p, z, ASH_TANH_T2);
    p = fmaf(p, z, ASH_TANH_T3);
    p = fmaf(p, z, ASH_TANH_T4);
    float small = fmaf(p * z, x, x);
    float big = 1.0f - 2.0f / (ash_expf(2.0f * a) + 1.0f);
    return a < ASH_TANH_SMALL ? small : copysignf(big, x);
}

static inline float ash_siluf(float x) { return x / (1.0f + ash_expf(-x)); }
static inline float ash_geluf(float x) { return x / (1.0f + ash_expf(x * fmaf(ASH_GELU_G1, x * x, ASH_GELU_G0))); }

/* Sums over n elements run in 64 lanes (element i belongs to lane i % 64), folded in halves: 32, 16, 8, 4, 2, 1. */
#define ASH_SUM_LANES 64
static inline float ash_fold64(float *l) {
    for (int h = ASH_SUM_LANES / 2; h >= 1; h /= 2)
        for (int i = 0; i < h; i++) l[i] += l[i + h];
    return l[0];
}
/* Double sums run in 16 lanes. */
static inline double ash_fold16d(double *l) {
    for (int h = 8; h >= 1; h /= 2)
        for (int i = 0; i < h; i++) l[i] += l[i + h];
    return l[0];
}

#endif
