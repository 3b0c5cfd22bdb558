/* gemmf_avx512.c - float matrix product on packed panels.
 *
 * A register tile is P panels (16 rows, one vector each) x NT tokens; every accumulator is the fma
 * chain over k that kern.h prescribes, so tiling changes no bit. k runs in blocks of at most KB columns
 * with the partial sums kept in y (stores of floats are exact). The tokens of a tile are copied into a
 * small buffer of fixed stride first: rows of x that lie a power of two apart would fight for the same
 * cache sets, and a constant stride makes all addresses displacements of one register.
 * Loop order: groups of panels that fit L2 with one k block, token tiles, panels.
 */
#include "kern/kern_decl.h"

#include <immintrin.h>

#define KB 640            /* columns of a block at most */
#define XS (KB + 16)      /* floats between rows of the x tile: not a multiple of 4 KiB / 16 */
#define NT_MAX 12
#define FAR_FLOATS 131072 /* x beyond 512 KiB */
#define GROUP 16          /* panels of a group: at most 40 KiB each per k block, together well inside a 1 MiB L2 */

typedef struct {
    const float *p;       /* first panel at this k block */
    int64_t ps;           /* floats from panel to panel */
    int kn;
    const float *xt;
    float *y;             /* first token, first row */
    int64_t ldy;
    bool first;           /* sums start at 0 */
    bool far;             /* x and y are too big for L2: fetch ahead */
    __mmask16 last;       /* rows of the last panel */
} tile_arg;

static inline __attribute__((always_inline)) void tile(const int P, const int NT, const tile_arg *a) {
    __m512 acc[8][NT_MAX];
#pragma GCC unroll 12
    for (int t = 0; t < NT; t++)
#pragma GCC unroll 8
        for (int i = 0; i < P; i++) {
            if (a->first) acc[i][t] = _mm512_setzero_ps();
            else acc[i][t] = _mm512_maskz_loadu_ps(i == P - 1 ? a->last : 0xffff, a->y + t * a->ldy + 16 * i);
        }
    if (a->far && a->first)
#pragma GCC unroll 12
        for (int t = 0; t < NT; t++)
#pragma GCC unroll 8
            for (int i = 0; i < P; i++) __builtin_prefetch(a->y + t * a->ldy + 16 * i, 1, 3);
    const float *p = a->p, *xt = a->xt;
    int64_t ps = a->ps;
#pragma GCC unroll 2
    for (int k = 0; k < a->kn; k++, p += 16, xt++) {
        __m512 b[8];
#pragma GCC unroll 8
        for (int i = 0; i < P; i++) b[i] = _mm512_loadu_ps(p + i * ps);
#pragma GCC unroll 12
        for (int t = 0; t < NT; t++) {
            __m512 x = _mm512_set1_ps(xt[t * XS]);
#pragma GCC unroll 8
            for (int i = 0; i < P; i++) acc[i][t] = _mm512_fmadd_ps(b[i], x, acc[i][t]);
        }
    }
#pragma GCC unroll 12
    for (int t = 0; t < NT; t++)
#pragma GCC unroll 8
        for (int i = 0; i < P; i++) _mm512_mask_storeu_ps(a->y + t * a->ldy + 16 * i, i == P - 1 ? a->last : 0xffff, acc[i][t]);
}

#define TILE(P, NT)                                                                                                                \
    static __attribute__((noinline)) void tile_##P##_##NT(const tile_arg *a) { tile(P, NT, a); }
#define ROW1(NT) TILE(1, NT)
#define ROW2(NT) TILE(2, NT) ROW1(NT)
#define ROW4(NT) TILE(4, NT) ROW2(NT)
#define ROW8(NT) TILE(8, NT) ROW4(NT)
ROW8(1) ROW8(2) ROW4(3) ROW4(4) ROW4(5) ROW4(6) ROW2(7) ROW2(8) ROW2(9) ROW2(10) ROW2(11) ROW2(12)

/* [log2 P][NT]; NULL where the accumulators would not fit the registers */
static void (*const tiles[4][NT_MAX + 1])(const tile_arg *) = {
    {NULL, tile_1_1, tile_1_2, tile_1_3, tile_1_4, tile_1_5, tile_1_6, tile_1_7, tile_1_8, tile_1_9, tile_1_10, tile_1_11, tile_1_12},
    {NULL, tile_2_1, tile_2_2, tile_2_3, tile_2_4, tile_2_5, tile_2_6, tile_2_7, tile_2_8, tile_2_9, tile_2_10, tile_2_11, tile_2_12},
    {NULL, tile_4_1, tile_4_2, tile_4_3, tile_4_4, tile_4_5, tile_4_6},
    {NULL, tile_8_1, tile_8_2},
};

void ash_k_gemmf_avx512(const float *panels, int K, int64_t n_rows, const float *x, int64_t ldx, int n_tok, float *y, int64_t ldy) {
    float xt[NT_MAX * XS] __attribute__((aligned(64)));
    int64_t n_panels = (n_rows + 15) / 16, ps = (int64_t)K * 16;
    __mmask16 tail = (__mmask16)(n_rows % 16 ? (1u << (n_rows % 16)) - 1 : 0xffff);
    bool far = (int64_t)n_tok * K > FAR_FLOATS;
    int blocks = (K + KB - 1) / KB, kb = blocks ? ((K + blocks - 1) / blocks + 15) / 16 * 16 : KB;
    for (int64_t g = 0; g < n_panels; g += GROUP) {
        int64_t ge = ASH_MIN(g + GROUP, n_panels);
        for (int k0 = 0; k0 < K || k0 == 0; k0 += kb) {
            int kn = ASH_MIN(kb, K - k0);
            for (int t0 = 0; t0 < n_tok; t0 += NT_MAX) {
                int nt = ASH_MIN(NT_MAX, n_tok - t0);
                for (int t = 0; t < nt; t++) memcpy(xt + t * XS, x + (t0 + t) * ldx + k0, (size_t)kn * sizeof(float));
                const float *next = x + (t0 + NT_MAX) * ldx + k0; /* rows of the next tile: fetched during this one */
                int ahead = far ? ASH_MIN(NT_MAX, n_tok - t0 - NT_MAX) : 0, row = 0;
                for (int64_t p = g; p < ge;) {
                    int lp = 3;
                    while (!tiles[lp][nt] || p + (1 << lp) > ge) lp--;
                    for (int e = ASH_MIN(row + (1 << lp), ahead); row < e; row++)
                        for (int c = 0; c < kn; c += 16) _mm_prefetch((const char *)(next + row * ldx + c), _MM_HINT_T1);
                    tile_arg a = {panels + p * ps + (int64_t)k0 * 16, ps, kn, xt, y + t0 * ldy + p * 16, ldy, k0 == 0, far,
                                  p + (1 << lp) == n_panels ? tail : 0xffff};
                    tiles[lp][nt](&a);
                    p += 1 << lp;
                }
            }
        }
    }
}
