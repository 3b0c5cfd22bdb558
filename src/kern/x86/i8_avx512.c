/* i8_avx512.c - activation quantizer and panel matrix product with AVX-512 VNNI. The product keeps a
 * tile of 6 tokens x 32 rows (or 12 x 16) in registers: 12 integer sums, 12 float accumulators, vectors of
 * 16 rows x 4 codes against a broadcast of 4 activation codes. Same bits as i8_ref.c. */
#include "kern/i8_common.h"

#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))

void ash_k_quant8_avx512(const float *x, int K, int8_t *q, float *d, int16_t *b) {
    const __m512 lo = _mm512_set1_ps(-127.0f), hi = _mm512_set1_ps(127.0f);
    for (int g = 0; g < K / 32; g++, x += 32, q += 32) {
        __m512 v[2] = {_mm512_loadu_ps(x), _mm512_loadu_ps(x + 16)};
        /* operand order: a NaN in the first operand yields the second */
        __m512 m = _mm512_max_ps(_mm512_abs_ps(v[1]), _mm512_max_ps(_mm512_abs_ps(v[0]), _mm512_setzero_ps()));
        float scale = _mm512_reduce_max_ps(m) / 127.0f;
        d[g] = scale;
        __m512 s = _mm512_set1_ps(scale);
        __mmask16 nonzero = scale > 0 ? 0xffff : 0;
        for (int h = 0; h < 2; h++) {
            __m512 r = _mm512_maskz_div_ps(nonzero, v[h], s);
            r = _mm512_min_ps(_mm512_max_ps(r, lo), hi);
            __m512i i = _mm512_cvtps_epi32(r);
            _mm_storeu_si128((__m128i *)(void *)(q + 16 * h), _mm512_cvtepi32_epi8(i));
            b[2 * g + h] = (int16_t)_mm512_reduce_add_epi32(i);
        }
    }
}

INLINE __m512i bcast4(const void *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

enum { TILE = 12, STEP = 16 /* 32-groups whose per-token terms are prepared at a time */ };

/* T tokens from the front of `a` against P panels (1 or 2), T * P <= TILE. Two panels share each broadcast
 * of activations, so the load ports keep up with the multipliers. */
INLINE void tile(const int T, const int P, const int G, const bool has_min, ash_panel8 p, int zp, int K, int n_rows, ash_act8 a, float *y, int64_t ldy) {
    enum { MAX = STEP * 2 };
    /* per token and group: -zp * bsum, d, d * bsum */
    int32_t zb[TILE][MAX] __attribute__((aligned(64)));
    float dd[TILE][STEP] __attribute__((aligned(64))), db[TILE][MAX] __attribute__((aligned(64)));
    const __m512i zero = _mm512_setzero_si512();
    const __mmask16 rows[2] = {(__mmask16)((1u << ASH_MIN(n_rows, 16)) - 1), (__mmask16)((1u << ASH_MAX(n_rows - 16, 0)) - 1)};
    const ash_panel8 p1 = P > 1 ? i8_panel_next(p, K, G, has_min) : p;
    const uint8_t *pq[2] = {p.q, p1.q};
    const float *ps[2] = {p.s, p1.s}, *pm[2] = {p.m, p1.m};
    __m512 acc[TILE];
    UNROLL for (int t = 0; t < T; t++) {
        UNROLL for (int j = 0; j < P; j++) {
            acc[t * P + j] = _mm512_setzero_ps();
            __builtin_prefetch(y + t * ldy + 16 * j, 1);
        }
    }
    const int64_t ld = a.ld_q;
    const int8_t *q0 = a.q, *q3 = a.q + (T > 3 ? 3 * ld : 0), *q6 = a.q + (T > 6 ? 6 * ld : 0), *q9 = a.q + (T > 9 ? 9 * ld : 0);
    for (int g0 = 0; g0 < K / 32; g0 += STEP) {
        int n = ASH_MIN(STEP, K / 32 - g0);
        __mmask16 have = (__mmask16)((1u << n) - 1);
        for (int t = 0; t < T; t++) {
            __m512 d = _mm512_maskz_loadu_ps(have, a.d + t * a.ld_d + g0);
            __m512i b = _mm512_maskz_loadu_epi32(have, a.b + t * a.ld_b + 2 * g0); /* pairs of 16-sums */
            _mm512_store_ps(dd[t], d);
            if (G == 32) {
                __m512i sum = _mm512_madd_epi16(b, _mm512_set1_epi16(1));
                _mm512_store_si512(zb[t], _mm512_mullo_epi32(sum, _mm512_set1_epi32(-zp)));
                if (has_min) _mm512_store_ps(db[t], _mm512_mul_ps(d, _mm512_cvtepi32_ps(sum)));
            } else {
                __m512i even = _mm512_srai_epi32(_mm512_slli_epi32(b, 16), 16), odd = _mm512_srai_epi32(b, 16);
                const __m512i i0 = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
                const __m512i i1 = _mm512_add_epi32(i0, _mm512_set1_epi32(8)), z = _mm512_set1_epi32(-zp);
                _mm512_store_si512(zb[t], _mm512_mullo_epi32(_mm512_permutex2var_epi32(even, i0, odd), z));
                _mm512_store_si512(zb[t] + 16, _mm512_mullo_epi32(_mm512_permutex2var_epi32(even, i1, odd), z));
                if (has_min) {
                    __m512 fe = _mm512_mul_ps(d, _mm512_cvtepi32_ps(even)), fo = _mm512_mul_ps(d, _mm512_cvtepi32_ps(odd));
                    _mm512_store_ps(db[t], _mm512_permutex2var_ps(fe, i0, fo));
                    _mm512_store_ps(db[t] + 16, _mm512_permutex2var_ps(fe, i1, fo));
                }
            }
        }
        for (int g = 0; g < n * 32 / G; g++) {
            __m512i isum[TILE];
            UNROLL for (int t = 0; t < T; t++) {
                __m512i z = has_min ? zero : _mm512_set1_epi32(zb[t][g]);
                UNROLL for (int j = 0; j < P; j++) isum[t * P + j] = z;
            }
            UNROLL for (int k = 0; k < G; k += 4) {
                __m512i w[2];
                UNROLL for (int j = 0; j < P; j++) w[j] = _mm512_load_si512(pq[j] + k * 16);
                UNROLL for (int t = 0; t < T; t++) {
                    const __m512i x = bcast4((t < 3 ? q0 : t < 6 ? q3 : t < 9 ? q6 : q9) + (t % 3) * ld + k);
                    UNROLL for (int j = 0; j < P; j++) isum[t * P + j] = _mm512_dpbusd_epi32(isum[t * P + j], w[j], x);
                }
            }
            UNROLL for (int j = 0; j < P; j++) {
                __m512 s = _mm512_load_ps(ps[j]), m = has_min ? _mm512_load_ps(pm[j]) : s;
                UNROLL for (int t = 0; t < T; t++) {
                    __m512 v = acc[t * P + j];
                    v = _mm512_fmadd_ps(_mm512_mul_ps(s, _mm512_set1_ps(dd[t][G == 32 ? g : g / 2])), _mm512_cvtepi32_ps(isum[t * P + j]), v);
                    if (has_min) v = _mm512_fmadd_ps(m, _mm512_set1_ps(db[t][g]), v);
                    acc[t * P + j] = v;
                }
                pq[j] += G * 16;
                ps[j] += 16;
                if (has_min) pm[j] += 16;
            }
            q0 += G, q3 += G, q6 += G, q9 += G;
        }
    }
    UNROLL for (int t = 0; t < T; t++) {
        UNROLL for (int j = 0; j < P; j++) _mm512_mask_storeu_ps(y + t * ldy + 16 * j, rows[j], acc[t * P + j]);
    }
}

INLINE void gemm8(const int G, const bool has_min, ash_panel8 p, int zp, int K, int n_rows, ash_act8 a, int n_tok, float *y, int64_t ldy) {
    while (n_rows > 0) {
        const int nr = ASH_MIN(n_rows, 32);
        ash_act8 at = a;
        float *out = y;
        for (int left = n_tok, n = 0; left > 0; left -= n, at = i8_tokens_next(at, n), out += n * ldy) {
            if (nr > 16) {
                if (left >= 6) tile(n = 6, 2, G, has_min, p, zp, K, nr, at, out, ldy);
                else if (left >= 3) tile(n = 3, 2, G, has_min, p, zp, K, nr, at, out, ldy);
                else tile(n = 1, 2, G, has_min, p, zp, K, nr, at, out, ldy);
            } else {
                if (left >= 12) tile(n = 12, 1, G, has_min, p, zp, K, nr, at, out, ldy);
                else if (left >= 4) tile(n = 4, 1, G, has_min, p, zp, K, nr, at, out, ldy);
                else tile(n = 1, 1, G, has_min, p, zp, K, nr, at, out, ldy);
            }
        }
        p = i8_panel_next(i8_panel_next(p, K, G, has_min), K, G, has_min);
        y += 32;
        n_rows -= 32;
    }
}

#define GEMM(name, G, has_min)                                                                                                   \
    void ash_k_##name##_avx512(ash_panel8 p, ash_i8_form f, int K, int n_rows, ash_act8 a, int n_tok, float *y, int64_t ldy) { \
        gemm8(G, has_min, p, f.zp, K, n_rows, a, n_tok, y, ldy);                                                                 \
    }
GEMM(gemm8_g32, 32, false)
GEMM(gemm8_g32m, 32, true)
GEMM(gemm8_g16, 16, false)
GEMM(gemm8_g16m, 16, true)
