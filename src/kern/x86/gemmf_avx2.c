/* gemmf_avx2.c - float matrix product on packed panels, AVX2: gemmf_avx512.c's plan with half the
 * vector width and half the registers. A register tile is one panel (16 rows, two vectors) x up to 6
 * tokens, or two panels x up to 3; the order of every sum is kern.h's.
 */
#include "kern/kern_decl.h"

#include <immintrin.h>

#define KB 640
#define XS (KB + 16)
#define NT_MAX 6
#define GROUP 16

typedef struct {
    const float *p;
    int64_t ps;
    int kn;
    const float *xt;
    float *y;
    int64_t ldy;
    bool first;
    int last; /* rows of the last panel */
} tile_arg;

static inline __m256i mask8(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline __attribute__((always_inline)) void tile(const int P, const int NT, const tile_arg *a) {
    __m256 acc[4][NT_MAX];
    const int H = 2 * P; /* half panels: 8 rows each */
#pragma GCC unroll 6
    for (int t = 0; t < NT; t++)
#pragma GCC unroll 4
        for (int i = 0; i < H; i++) {
            int left = i >= H - 2 ? a->last - 8 * (i - (H - 2)) : 8;
            if (a->first) acc[i][t] = _mm256_setzero_ps();
            else acc[i][t] = left >= 8 ? _mm256_loadu_ps(a->y + t * a->ldy + 8 * i)
                                       : _mm256_maskload_ps(a->y + t * a->ldy + 8 * i, mask8(left));
        }
    const float *p = a->p, *xt = a->xt;
    int64_t ps = a->ps;
#pragma GCC unroll 2
    for (int k = 0; k < a->kn; k++, p += 16, xt++) {
        __m256 b[4];
#pragma GCC unroll 4
        for (int i = 0; i < H; i++) b[i] = _mm256_loadu_ps(p + (i / 2) * ps + (i % 2) * 8);
#pragma GCC unroll 6
        for (int t = 0; t < NT; t++) {
            __m256 x = _mm256_broadcast_ss(xt + t * XS);
#pragma GCC unroll 4
            for (int i = 0; i < H; i++) acc[i][t] = _mm256_fmadd_ps(b[i], x, acc[i][t]);
        }
    }
#pragma GCC unroll 6
    for (int t = 0; t < NT; t++)
#pragma GCC unroll 4
        for (int i = 0; i < H; i++) {
            int left = i >= H - 2 ? a->last - 8 * (i - (H - 2)) : 8;
            if (left >= 8) _mm256_storeu_ps(a->y + t * a->ldy + 8 * i, acc[i][t]);
            else _mm256_maskstore_ps(a->y + t * a->ldy + 8 * i, mask8(left), acc[i][t]);
        }
}

#define TILE(P, NT)                                                                                                                \
    static __attribute__((noinline)) void tile_##P##_##NT(const tile_arg *a) { tile(P, NT, a); }
TILE(1, 1) TILE(1, 2) TILE(1, 3) TILE(1, 4) TILE(1, 5) TILE(1, 6) TILE(2, 1) TILE(2, 2) TILE(2, 3)

static void (*const tiles[2][NT_MAX + 1])(const tile_arg *) = {
    {NULL, tile_1_1, tile_1_2, tile_1_3, tile_1_4, tile_1_5, tile_1_6},
    {NULL, tile_2_1, tile_2_2, tile_2_3},
};

void ash_k_gemmf_avx2(const float *panels, int K, int64_t n_rows, const float *x, int64_t ldx, int n_tok, float *y, int64_t ldy) {
    float xt[NT_MAX * XS] __attribute__((aligned(64)));
    int64_t n_panels = (n_rows + 15) / 16, ps = (int64_t)K * 16;
    int tail = (int)(n_rows - (n_panels - 1) * 16);
    int blocks = (K + KB - 1) / KB, kb = blocks ? ((K + blocks - 1) / blocks + 15) / 16 * 16 : KB;
    for (int64_t g = 0; g < n_panels; g += GROUP) {
        int64_t ge = ASH_MIN(g + GROUP, n_panels);
        for (int k0 = 0; k0 < K || k0 == 0; k0 += kb) {
            int kn = ASH_MIN(kb, K - k0);
            for (int t0 = 0; t0 < n_tok; t0 += NT_MAX) {
                int nt = ASH_MIN(NT_MAX, n_tok - t0);
                for (int t = 0; t < nt; t++) memcpy(xt + t * XS, x + (t0 + t) * ldx + k0, (size_t)kn * sizeof(float));
                for (int64_t p = g; p < ge;) {
                    int lp = tiles[1][nt] && p + 2 <= ge;
                    tile_arg a = {panels + p * ps + (int64_t)k0 * 16, ps, kn, xt, y + t0 * ldy + p * 16, ldy, k0 == 0,
                                  p + (1 << lp) == n_panels ? tail : 16};
                    tiles[lp][nt](&a);
                    p += 1 << lp;
                }
            }
        }
    }
}
