/* lanes.h - sixteen floats side by side: the vector the encoders are written in.
 *
 * A lane is one block (or sub-block) of weights; only the sums over a super-block mix lanes, pairwise in
 * a fixed tree. So results are the same at all CPU levels, bit for bit: only IEEE add, sub, mul, div
 * and comparisons, in program order, no fused operations. AVX-512 and AVX2 forms by what the file is compiled for; the
 * plain form uses the compilers' portable vectors. */
#ifndef ASH_LANES_H
#define ASH_LANES_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16

#if defined(__AVX512F__)
#include <immintrin.h>
typedef __m512 V;
typedef __mmask16 M;
static inline V v_set(float f) { return _mm512_set1_ps(f); }
static inline V v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, V a) { _mm512_storeu_ps(p, a); }
static inline V v_add(V a, V b) { return _mm512_add_ps(a, b); }
static inline V v_sub(V a, V b) { return _mm512_sub_ps(a, b); }
static inline V v_mul(V a, V b) { return _mm512_mul_ps(a, b); }
static inline V v_div(V a, V b) { return _mm512_div_ps(a, b); }
static inline V v_sqrt(V a) { return _mm512_sqrt_ps(a); }
static inline V v_min(V a, V b) { return _mm512_min_ps(a, b); }
static inline V v_max(V a, V b) { return _mm512_max_ps(a, b); }
static inline M v_gt(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
static inline V v_sel(M m, V a, V b) { return _mm512_mask_blend_ps(m, b, a); }
/* lane l takes lane l ^ k */
static inline V v_swap1(V a) { return _mm512_permute_ps(a, 0xb1); }
static inline V v_swap2(V a) { return _mm512_permute_ps(a, 0x4e); }
static inline V v_swap4(V a) { return _mm512_shuffle_f32x4(a, a, 0xb1); }
static inline V v_swap8(V a) { return _mm512_shuffle_f32x4(a, a, 0x4e); }

#elif defined(__AVX2__)
#include <immintrin.h>
typedef struct { __m256 a, b; } V;
typedef V M;
#define V2(op) ((V){op(a.a, b.a), op(a.b, b.b)})
static inline V v_set(float f) { return (V){_mm256_set1_ps(f), _mm256_set1_ps(f)}; }
static inline V v_load(const float *p) { return (V){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void v_store(float *p, V a) { _mm256_storeu_ps(p, a.a), _mm256_storeu_ps(p + 8, a.b); }
static inline V v_add(V a, V b) { return V2(_mm256_add_ps); }
static inline V v_sub(V a, V b) { return V2(_mm256_sub_ps); }
static inline V v_mul(V a, V b) { return V2(_mm256_mul_ps); }
static inline V v_div(V a, V b) { return V2(_mm256_div_ps); }
static inline V v_sqrt(V a) { return (V){_mm256_sqrt_ps(a.a), _mm256_sqrt_ps(a.b)}; }
static inline V v_min(V a, V b) { return V2(_mm256_min_ps); }
static inline V v_max(V a, V b) { return V2(_mm256_max_ps); }
static inline M v_gt(V a, V b) { return (M){_mm256_cmp_ps(a.a, b.a, _CMP_GT_OQ), _mm256_cmp_ps(a.b, b.b, _CMP_GT_OQ)}; }
static inline V v_sel(M m, V a, V b) { return (V){_mm256_blendv_ps(b.a, a.a, m.a), _mm256_blendv_ps(b.b, a.b, m.b)}; }
static inline V v_swap1(V a) { return (V){_mm256_permute_ps(a.a, 0xb1), _mm256_permute_ps(a.b, 0xb1)}; }
static inline V v_swap2(V a) { return (V){_mm256_permute_ps(a.a, 0x4e), _mm256_permute_ps(a.b, 0x4e)}; }
static inline V v_swap4(V a) { return (V){_mm256_permute2f128_ps(a.a, a.a, 1), _mm256_permute2f128_ps(a.b, a.b, 1)}; }
static inline V v_swap8(V a) { return (V){a.b, a.a}; }
#undef V2

#else
/* four of the compilers' portable 16-byte vectors, which every machine in question has */
typedef float F4 __attribute__((vector_size(16)));
typedef int32_t I4 __attribute__((vector_size(16)));
typedef struct { F4 a, b, c, d; } V;
typedef struct { I4 a, b, c, d; } M;
static inline F4 f4_sel(I4 m, F4 a, F4 b) { return (F4)((m & (I4)a) | (~m & (I4)b)); }
#define V4(x, y, op) ((V){(x).a op (y).a, (x).b op (y).b, (x).c op (y).c, (x).d op (y).d})
static inline V v_set(float f) {
    F4 t = {f, f, f, f};
    return (V){t, t, t, t};
}
static inline V v_load(const float *p) {
    V a;
    memcpy(&a.a, p, 16), memcpy(&a.b, p + 4, 16), memcpy(&a.c, p + 8, 16), memcpy(&a.d, p + 12, 16);
    return a;
}
static inline void v_store(float *p, V a) { memcpy(p, &a.a, 16), memcpy(p + 4, &a.b, 16), memcpy(p + 8, &a.c, 16), memcpy(p + 12, &a.d, 16); }
static inline V v_add(V a, V b) { return V4(a, b, +); }
static inline V v_sub(V a, V b) { return V4(a, b, -); }
static inline V v_mul(V a, V b) { return V4(a, b, *); }
static inline V v_div(V a, V b) { return V4(a, b, /); }
static inline M v_gt(V a, V b) { return (M){a.a > b.a, a.b > b.b, a.c > b.c, a.d > b.d}; }
static inline V v_sel(M m, V a, V b) { return (V){f4_sel(m.a, a.a, b.a), f4_sel(m.b, a.b, b.b), f4_sel(m.c, a.c, b.c), f4_sel(m.d, a.d, b.d)}; }
static inline V v_min(V a, V b) { return v_sel(v_gt(b, a), a, b); }
static inline V v_max(V a, V b) { return v_sel(v_gt(a, b), a, b); }
static inline F4 f4_swap1(F4 a) { return (F4){a[1], a[0], a[3], a[2]}; }
static inline F4 f4_swap2(F4 a) { return (F4){a[2], a[3], a[0], a[1]}; }
static inline V v_swap1(V a) { return (V){f4_swap1(a.a), f4_swap1(a.b), f4_swap1(a.c), f4_swap1(a.d)}; }
static inline V v_swap2(V a) { return (V){f4_swap2(a.a), f4_swap2(a.b), f4_swap2(a.c), f4_swap2(a.d)}; }
static inline V v_swap4(V a) { return (V){a.b, a.a, a.d, a.c}; }
static inline V v_swap8(V a) { return (V){a.c, a.d, a.a, a.b}; }
#undef V4
#endif

#if !defined(__AVX2__) && !defined(__AVX512F__)
static inline V v_sqrt(V a) {
    float t[LANES];
    v_store(t, a);
    for (int l = 0; l < LANES; l++) t[l] = sqrtf(t[l]);
    return v_load(t);
}
#endif

/* Nearest integer, ties to even, for |a| < 2^22: adding 1.5 * 2^23 leaves the integer in the mantissa. */
static inline V v_round(V a) { return v_sub(v_add(a, v_set(12582912.0f)), v_set(12582912.0f)); }
static inline V v_clamp(V a, V lo, V hi) { return v_min(v_max(a, lo), hi); }
static inline V v_abs(V a) { return v_max(a, v_sub(v_set(0.0f), a)); }
/* a / b where b > 0, else 0 */
static inline V v_ratio(V a, V b) {
    M ok = v_gt(b, v_set(0.0f));
    return v_sel(ok, v_div(a, v_sel(ok, b, v_set(1.0f))), v_set(0.0f));
}
/* 1 / a, 0 for 0 */
static inline V v_inv(V a) {
    M ok = v_gt(v_abs(a), v_set(0.0f));
    return v_sel(ok, v_div(v_set(1.0f), v_sel(ok, a, v_set(1.0f))), v_set(0.0f));
}

/* Midpoints between neighbouring IQ4_NL levels. */
#define IQ4_LEVELS -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
#define IQ4_MIDS -115.5f, -93.5f, -74.0f, -57.0f, -42.0f, -28.5f, -16.0f, -4.5f, 7.0f, 19.0f, 31.5f, 45.5f, 61.0f, 79.0f, 101.0f

/* The IQ4_NL level nearest to a, as a float: a four-step binary search in registers. */
static inline V v_iq4(V a) {
#if defined(__AVX512F__)
    /* mid[i + 3], mid[i + 1], mid[i]: the threshold that splits what is left after the bits found so far */
    static const float levels[16] = {IQ4_LEVELS}, mids[16] = {IQ4_MIDS};
    const __m512 lev = _mm512_loadu_ps(levels), mid = _mm512_loadu_ps(mids);
    const __m512i three = _mm512_set1_epi32(3), one = _mm512_set1_epi32(1);
    __m512i i = _mm512_maskz_set1_epi32(_mm512_cmp_ps_mask(a, _mm512_set1_ps(-4.5f), _CMP_GT_OQ), 8);
    M m = _mm512_cmp_ps_mask(a, _mm512_permutexvar_ps(_mm512_add_epi32(i, three), mid), _CMP_GT_OQ);
    i = _mm512_mask_add_epi32(i, m, i, _mm512_set1_epi32(4));
    m = _mm512_cmp_ps_mask(a, _mm512_permutexvar_ps(_mm512_add_epi32(i, one), mid), _CMP_GT_OQ);
    i = _mm512_mask_add_epi32(i, m, i, _mm512_set1_epi32(2));
    m = _mm512_cmp_ps_mask(a, _mm512_permutexvar_ps(i, mid), _CMP_GT_OQ);
    i = _mm512_mask_add_epi32(i, m, i, one);
    return _mm512_permutexvar_ps(i, lev);
#elif defined(__AVX2__)
    V r;
    static const float lev[16] = {IQ4_LEVELS}, mid[16] = {IQ4_MIDS};
    const __m256 l0 = _mm256_loadu_ps(lev), l1 = _mm256_loadu_ps(lev + 8), m0 = _mm256_loadu_ps(mid), m1 = _mm256_loadu_ps(mid + 8);
    for (int h = 0; h < 2; h++) {
        __m256 x = h ? a.b : a.a;
        __m256 up = _mm256_cmp_ps(x, _mm256_set1_ps(mid[7]), _CMP_GT_OQ);
        __m256 c = _mm256_cmp_ps(x, _mm256_blendv_ps(_mm256_set1_ps(mid[3]), _mm256_set1_ps(mid[11]), up), _CMP_GT_OQ);
        __m256i i = _mm256_and_si256(_mm256_castps_si256(c), _mm256_set1_epi32(4)), j = _mm256_add_epi32(i, _mm256_set1_epi32(1));
        c = _mm256_cmp_ps(x, _mm256_blendv_ps(_mm256_permutevar8x32_ps(m0, j), _mm256_permutevar8x32_ps(m1, j), up), _CMP_GT_OQ);
        i = _mm256_add_epi32(i, _mm256_and_si256(_mm256_castps_si256(c), _mm256_set1_epi32(2)));
        c = _mm256_cmp_ps(x, _mm256_blendv_ps(_mm256_permutevar8x32_ps(m0, i), _mm256_permutevar8x32_ps(m1, i), up), _CMP_GT_OQ);
        i = _mm256_sub_epi32(i, _mm256_castps_si256(c));
        __m256 l = _mm256_blendv_ps(_mm256_permutevar8x32_ps(l0, i), _mm256_permutevar8x32_ps(l1, i), up);
        if (h) r.b = l;
        else r.a = l;
    }
    return r;
#else
    static const float lev[16] = {IQ4_LEVELS}, mid[16] = {IQ4_MIDS};
    float x[LANES];
    v_store(x, a);
    for (int l = 0; l < LANES; l++) {
        int i = (x[l] > mid[7]) * 8;
        i += (x[l] > mid[i + 3]) * 4;
        i += (x[l] > mid[i + 1]) * 2;
        i += x[l] > mid[i];
        x[l] = lev[i];
    }
    return v_load(x);
#endif
}

#endif
