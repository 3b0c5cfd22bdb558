/* vec.h - one vocabulary for the AVX2 and AVX-512 forms of the float kernels, so that both come from
 * one source (*.inc). VW lanes; loadn/storen touch only the first n (0..VW) elements, the rest read 0.
 * The math functions run the operations of kern/mathf.h lane by lane.
 */
#ifndef ASH_KERN_VEC_H
#define ASH_KERN_VEC_H

#include "kern/kern_decl.h"
#include "kern/mathf.h"

#include <immintrin.h>

#if defined(__AVX512F__)

#define VW 16
#define FN(name) ash_k_##name##_avx512
typedef __m512 vf;
typedef __m512i vi;
typedef __m512d vd; /* VW / 2 lanes */
#define vload(p) _mm512_loadu_ps(p)
#define vstore(p, v) _mm512_storeu_ps(p, v)
static inline __mmask16 vmask(int n) { return (__mmask16)((1u << n) - 1); }
static inline vf vloadn(const float *p, int n) { return _mm512_maskz_loadu_ps(vmask(n), p); }
static inline void vstoren(float *p, vf v, int n) { _mm512_mask_storeu_ps(p, vmask(n), v); }
#define vset1(x) _mm512_set1_ps(x)
#define vzero() _mm512_setzero_ps()
#define vadd(a, b) _mm512_add_ps(a, b)
#define vsub(a, b) _mm512_sub_ps(a, b)
#define vmul(a, b) _mm512_mul_ps(a, b)
#define vdiv(a, b) _mm512_div_ps(a, b)
#define vmax(a, b) _mm512_max_ps(a, b)
#define vfma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define vfms(a, b, c) _mm512_fmsub_ps(a, b, c)
#define vabs(a) _mm512_abs_ps(a)
#define vadd_shl23(p, t) \
    _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23)))
/* where a OP b: x, else y; comparisons with NaN are false */
#define vsel_lt(a, b, x, y) _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x)
#define vsel_nan(a, x, y) _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), y, x)
/* magnitude of a, sign of b */
#define vcopysign(a, b) \
    _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_set1_epi32((int)0x80000000), _mm512_castps_si512(b), _mm512_castps_si512(a), 0xca))
/* first n lanes of v, the rest from other */
static inline vf vkeepn(vf v, vf other, int n) { return _mm512_mask_blend_ps(vmask(n), other, v); }
#define vlo_d(v) _mm512_cvtps_pd(_mm512_castps512_ps256(v))
#define vhi_d(v) _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1))
#define vzero_d() _mm512_setzero_pd()
#define vset1_d(x) _mm512_set1_pd(x)
#define vadd_d(a, b) _mm512_add_pd(a, b)
#define vfma_d(a, b, c) _mm512_fmadd_pd(a, b, c)
#define vstore_d(p, v) _mm512_storeu_pd(p, v)
#define vload_f16(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define vstore_f16(p, v) _mm256_storeu_si256((__m256i *)(void *)(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))
static inline vf vload_f16n(const uint16_t *p, int n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vmask(n), p)); }
static inline float vhmax(vf v) { return _mm512_reduce_max_ps(v); }

#else

#define VW 8
#define FN(name) ash_k_##name##_avx2
typedef __m256 vf;
typedef __m256i vi;
typedef __m256d vd;
#define vload(p) _mm256_loadu_ps(p)
#define vstore(p, v) _mm256_storeu_ps(p, v)
static inline __m256i vmask(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
static inline vf vloadn(const float *p, int n) { return _mm256_maskload_ps(p, vmask(n)); }
static inline void vstoren(float *p, vf v, int n) { _mm256_maskstore_ps(p, vmask(n), v); }
#define vset1(x) _mm256_set1_ps(x)
#define vzero() _mm256_setzero_ps()
#define vadd(a, b) _mm256_add_ps(a, b)
#define vsub(a, b) _mm256_sub_ps(a, b)
#define vmul(a, b) _mm256_mul_ps(a, b)
#define vdiv(a, b) _mm256_div_ps(a, b)
#define vmax(a, b) _mm256_max_ps(a, b)
#define vfma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define vfms(a, b, c) _mm256_fmsub_ps(a, b, c)
#define vabs(a) _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a)
#define vadd_shl23(p, t) \
    _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)))
#define vsel_lt(a, b, x, y) _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ))
#define vsel_nan(a, x, y) _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, a, _CMP_UNORD_Q))
#define vcopysign(a, b) _mm256_or_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a), _mm256_and_ps(_mm256_set1_ps(-0.0f), b))
static inline vf vkeepn(vf v, vf other, int n) { return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(vmask(n))); }
#define vlo_d(v) _mm256_cvtps_pd(_mm256_castps256_ps128(v))
#define vhi_d(v) _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1))
#define vzero_d() _mm256_setzero_pd()
#define vset1_d(x) _mm256_set1_pd(x)
#define vadd_d(a, b) _mm256_add_pd(a, b)
#define vfma_d(a, b, c) _mm256_fmadd_pd(a, b, c)
#define vstore_d(p, v) _mm256_storeu_pd(p, v)
#define vload_f16(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define vstore_f16(p, v) _mm_storeu_si128((__m128i *)(void *)(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))
static inline vf vload_f16n(const uint16_t *p, int n) {
    uint16_t t[8] = {0};
    memcpy(t, p, (size_t)n * 2);
    return vload_f16(t);
}
static inline float vhmax(vf v) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

#endif

#define VN64 (ASH_SUM_LANES / VW) /* vectors of the 64 lanes of a float sum */
#define VN16D (32 / VW)           /* vectors of the 16 lanes of a double sum */

/* ash_fold64 on registers: halves 32 and 16 (and 8 with AVX2) are whole vectors. */
static inline float vfold64(const vf *l) {
    float t[ASH_SUM_LANES];
    for (int i = 0; i < VN64; i++) vstore(t + i * VW, l[i]);
    return ash_fold64(t);
}

static inline vf vexp(vf x) {
    vf t = vfma(x, vset1(ASH_EXP_LOG2E), vset1(ASH_EXP_MAGIC));
    vf n = vsub(t, vset1(ASH_EXP_MAGIC));
    vf r = vfma(n, vset1(-ASH_EXP_LN2_HI), x);
    r = vfma(n, vset1(-ASH_EXP_LN2_LO), r);
    vf p = vfma(vset1(ASH_EXP_C0), r, vset1(ASH_EXP_C1));
    p = vfma(p, r, vset1(ASH_EXP_C2));
    p = vfma(p, r, vset1(ASH_EXP_C3));
    p = vfma(p, r, vset1(ASH_EXP_C4));
    p = vfma(p, r, vset1(ASH_EXP_C5));
    p = vadd(vfma(p, vmul(r, r), r), vset1(1.0f));
    vf y = vadd_shl23(p, t);
    y = vsel_lt(x, vset1(ASH_EXP_LO), vzero(), y);
    y = vsel_lt(vset1(ASH_EXP_HI), x, vset1(INFINITY), y);
    return vsel_nan(x, x, y);
}

static inline vf vtanh(vf x) {
    vf a = vabs(x), z = vmul(x, x);
    vf p = vfma(vset1(ASH_TANH_T0), z, vset1(ASH_TANH_T1));
    p = vfma(p, z, vset1(ASH_TANH_T2));
    p = vfma(p, z, vset1(ASH_TANH_T3));
    p = vfma(p, z, vset1(ASH_TANH_T4));
    vf small = vfma(vmul(p, z), x, x);
    vf big = vsub(vset1(1.0f), vdiv(vset1(2.0f), vadd(vexp(vmul(vset1(2.0f), a)), vset1(1.0f))));
    return vsel_lt(a, vset1(ASH_TANH_SMALL), small, vcopysign(big, x));
}

#endif
