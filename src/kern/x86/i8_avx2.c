/* i8_avx2.c - activation quantizer and panel matrix product with AVX2. Same bits as i8_ref.c.
 *
 * The byte product is vpmaddubsw: unsigned codes times signed activations, neighbours added in 16 bits
 * with saturation. Sums stay exact because few enough products share a 16-bit lane: with codes <= qmax
 * and |a| <= 127, 2*N products of N vectors need 2*N*127*qmax <= 32767: N = 8 for 4-bit codes, 4 for 5,
 * 2 for 6, 1 up to 126. Codes of the full byte range (zp = 128) are made signed, and their sign moved to
 * the activation: 2*128*127 still fits. */
#include "kern/i8_common.h"

#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))
/* Pins a running sum to a register here: gcc would reassociate integer vector sums into trees and spill. */
#define KEEP(v) __asm__("" : "+x"(v))

void ash_k_quant8_avx2(const float *x, int K, int8_t *q, float *d, int16_t *b) {
    const __m256 lo = _mm256_set1_ps(-127.0f), hi = _mm256_set1_ps(127.0f), sign = _mm256_set1_ps(-0.0f);
    for (int g = 0; g < K / 32; g++, x += 32, q += 32) {
        __m256 v[4], m = _mm256_setzero_ps();
        /* operand order: a NaN in the first operand yields the second */
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            m = _mm256_max_ps(_mm256_andnot_ps(sign, v[i]), m);
        }
        __m128 h = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
        h = _mm_max_ps(h, _mm_movehl_ps(h, h));
        h = _mm_max_ss(h, _mm_movehdup_ps(h));
        float scale = _mm_cvtss_f32(h) / 127.0f;
        d[g] = scale;
        __m256 s = _mm256_set1_ps(scale);
        for (int k = 0; k < 2; k++) {
            __m256i n[2];
            for (int i = 0; i < 2; i++) {
                __m256 r = scale > 0 ? _mm256_div_ps(v[2 * k + i], s) : _mm256_setzero_ps();
                n[i] = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(r, lo), hi));
            }
            __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(n[0], n[1]), 0xd8);
            __m128i w0 = _mm256_castsi256_si128(w), w1 = _mm256_extracti128_si256(w, 1);
            _mm_storeu_si128((__m128i *)(void *)(q + 16 * k), _mm_packs_epi16(w0, w1));
            __m128i sum = _mm_madd_epi16(_mm_add_epi16(w0, w1), _mm_set1_epi16(1));
            sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
            sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
            b[2 * g + k] = (int16_t)_mm_cvtsi128_si32(sum);
        }
    }
}

enum { TILE = 4, STEP = 16 /* 32-groups whose per-token terms are prepared at a time */ };

/* T tokens from the front of `a`. N: vectors that may share a 16-bit sum; 0: full-range codes around 128. */
INLINE void tile(const int T, const int N, const int G, const bool has_min, ash_panel8 p, int zp, int K, int n_rows, ash_act8 a, float *y, int64_t ldy) {
    enum { MAX = STEP * 2 };
    int32_t zb[TILE][MAX];
    float dd[TILE][MAX], db[TILE][MAX];
    float acc[TILE][16] __attribute__((aligned(32)));
    const __m256i ones = _mm256_set1_epi16(1), top = _mm256_set1_epi8((char)0x80);
    memset(acc, 0, sizeof acc);
    const int64_t ld = a.ld_q;
    const int8_t *q = a.q;
    for (int g0 = 0; g0 < K / 32; g0 += STEP) {
        const int n = ASH_MIN(STEP, K / 32 - g0) * 32 / G;
        for (int t = 0; t < T; t++) {
            const int16_t *b = a.b + t * a.ld_b + 2 * g0;
            const float *d = a.d + t * a.ld_d + g0;
            for (int g = 0; g < n; g++) {
                int bsum = G == 32 ? b[2 * g] + b[2 * g + 1] : b[g];
                dd[t][g] = d[G == 32 ? g : g / 2];
                zb[t][g] = N ? -zp * bsum : 0;
                if (has_min) db[t][g] = dd[t][g] * (float)bsum;
            }
        }
        for (int g = 0; g < n; g++) {
            __m256i isum[TILE][2];
            UNROLL for (int t = 0; t < T; t++) isum[t][0] = isum[t][1] = _mm256_set1_epi32(zb[t][g]);
            const int step = N > 0 ? N : 1;
            for (int k0 = 0; k0 < G / 4; k0 += step) {
                __m256i sum[TILE][2];
                UNROLL for (int i = 0; i < step; i++) {
                    __m256i w0 = _mm256_load_si256((const __m256i *)(const void *)(p.q + (k0 + i) * 64));
                    __m256i w1 = _mm256_load_si256((const __m256i *)(const void *)(p.q + (k0 + i) * 64 + 32));
                    if (N == 0) {
                        w0 = _mm256_xor_si256(w0, top);
                        w1 = _mm256_xor_si256(w1, top);
                    }
                    UNROLL for (int t = 0; t < T; t++) {
                        int32_t four;
                        memcpy(&four, q + t * ld + 4 * (k0 + i), 4);
                        __m256i x = _mm256_set1_epi32(four), r0, r1;
                        if (N == 0) {
                            r0 = _mm256_maddubs_epi16(_mm256_abs_epi8(w0), _mm256_sign_epi8(x, w0));
                            r1 = _mm256_maddubs_epi16(_mm256_abs_epi8(w1), _mm256_sign_epi8(x, w1));
                        } else {
                            r0 = _mm256_maddubs_epi16(w0, x);
                            r1 = _mm256_maddubs_epi16(w1, x);
                        }
                        sum[t][0] = i ? _mm256_add_epi16(sum[t][0], r0) : r0;
                        sum[t][1] = i ? _mm256_add_epi16(sum[t][1], r1) : r1;
                        KEEP(sum[t][0]);
                        KEEP(sum[t][1]);
                    }
                }
                UNROLL for (int t = 0; t < T; t++) {
                    isum[t][0] = _mm256_add_epi32(isum[t][0], _mm256_madd_epi16(sum[t][0], ones));
                    isum[t][1] = _mm256_add_epi32(isum[t][1], _mm256_madd_epi16(sum[t][1], ones));
                }
            }
            UNROLL for (int h = 0; h < 2; h++) {
                __m256 s = _mm256_load_ps(p.s + 8 * h), m = has_min ? _mm256_load_ps(p.m + 8 * h) : s;
                UNROLL for (int t = 0; t < T; t++) {
                    __m256 v = _mm256_load_ps(acc[t] + 8 * h);
                    v = _mm256_fmadd_ps(_mm256_mul_ps(s, _mm256_set1_ps(dd[t][g])), _mm256_cvtepi32_ps(isum[t][h]), v);
                    if (has_min) v = _mm256_fmadd_ps(m, _mm256_set1_ps(db[t][g]), v);
                    _mm256_store_ps(acc[t] + 8 * h, v);
                }
            }
            p.q += G * 16;
            p.s += 16;
            if (has_min) p.m += 16;
            q += G;
        }
    }
    for (int t = 0; t < T; t++) memcpy(y + t * ldy, acc[t], sizeof(float) * (size_t)n_rows);
}

INLINE void tokens(const int N, const int G, const bool has_min, ash_panel8 p, int zp, int K, int n_rows, ash_act8 a, int n_tok, float *y, int64_t ldy) {
    for (int r = 0; r < n_rows; r += ASH_PANEL_ROWS, p = i8_panel_next(p, K, G, has_min)) {
        int nr = ASH_MIN(n_rows - r, ASH_PANEL_ROWS), n = 0;
        ash_act8 at = a;
        float *out = y + r;
        for (int left = n_tok; left > 0; left -= n, at = i8_tokens_next(at, n), out += n * ldy) {
            if (left >= 4) tile(n = 4, N, G, has_min, p, zp, K, nr, at, out, ldy);
            else if (left >= 2) tile(n = 2, N, G, has_min, p, zp, K, nr, at, out, ldy);
            else tile(n = 1, N, G, has_min, p, zp, K, nr, at, out, ldy);
        }
    }
}

#define GEMM(name, G, has_min)                                                                                                \
    void ash_k_##name##_avx2(ash_panel8 p, ash_i8_form f, int K, int n_rows, ash_act8 a, int n_tok, float *y, int64_t ldy) { \
        if (f.qmax <= 15) tokens(G == 32 ? 8 : 4, G, has_min, p, f.zp, K, n_rows, a, n_tok, y, ldy);                          \
        else if (f.qmax <= 31) tokens(4, G, has_min, p, f.zp, K, n_rows, a, n_tok, y, ldy);                                   \
        else if (f.qmax <= 63) tokens(2, G, has_min, p, f.zp, K, n_rows, a, n_tok, y, ldy);                                   \
        else if (f.qmax <= 126) tokens(1, G, has_min, p, f.zp, K, n_rows, a, n_tok, y, ldy);                                  \
        else tokens(0, G, has_min, p, f.zp, K, n_rows, a, n_tok, y, ldy);                                                     \
    }
GEMM(gemm8_g32, 32, false)
GEMM(gemm8_g32m, 32, true)
GEMM(gemm8_g16, 16, false)
GEMM(gemm8_g16m, 16, true)
