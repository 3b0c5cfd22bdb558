/* gemmf_neon.c - float matrix product on packed panels for 64-bit ARM: the plan of x86/gemmf_avx512.c. A
 * register tile is one panel (16 rows, four vectors) x up to 6 tokens: 24 accumulators of the 32 registers;
 * every accumulator is the fma chain over k that kern.h prescribes.
 */
#include "kern/vec.h"

#define KB 640       /* columns of a block at most */
#define XS (KB + 16) /* floats between rows of the x tile */
#define NT_MAX 6
#define GROUP 8      /* panels of a group: 40 KiB each per k block, inside a 512 KiB L2 */
#define PV (ASH_PANEL_ROWS / VW)

typedef struct {
    const float *p;  /* panel at this k block */
    int kn;
    const float *xt;
    float *y;
    int64_t ldy;
    bool first;      /* sums start at 0 */
    int rows;        /* valid rows */
} tile_arg;

static inline __attribute__((always_inline)) void tile(const int NT, const tile_arg *a) {
    vf acc[PV][NT_MAX];
#pragma GCC unroll 6
    for (int t = 0; t < NT; t++)
#pragma GCC unroll 4
        for (int i = 0; i < PV; i++) {
            acc[i][t] = vzero();
            if (!a->first && a->rows > VW * i) acc[i][t] = vloadn(a->y + t * a->ldy + VW * i, a->rows - VW * i);
        }
    const float *p = a->p, *xt = a->xt;
    for (int k = 0; k < a->kn; k++, p += ASH_PANEL_ROWS, xt++) {
        vf b[PV];
#pragma GCC unroll 4
        for (int i = 0; i < PV; i++) b[i] = vload(p + VW * i);
#pragma GCC unroll 6
        for (int t = 0; t < NT; t++) {
            vf x = vset1(xt[t * XS]);
#pragma GCC unroll 4
            for (int i = 0; i < PV; i++) acc[i][t] = vfma(b[i], x, acc[i][t]);
        }
    }
#pragma GCC unroll 6
    for (int t = 0; t < NT; t++)
#pragma GCC unroll 4
        for (int i = 0; i < PV; i++)
            if (a->rows > VW * i) vstoren(a->y + t * a->ldy + VW * i, acc[i][t], a->rows - VW * i);
}

#define TILE(NT)                                                                                                                   \
    static __attribute__((noinline)) void tile_##NT(const tile_arg *a) { tile(NT, a); }
TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)
static void (*const tiles[NT_MAX + 1])(const tile_arg *) = {NULL, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};

void ash_k_gemmf_neon(const float *panels, int K, int64_t n_rows, const float *x, int64_t ldx, int n_tok, float *y, int64_t ldy) {
    float xt[NT_MAX * XS] __attribute__((aligned(64)));
    int64_t n_panels = (n_rows + ASH_PANEL_ROWS - 1) / ASH_PANEL_ROWS, ps = (int64_t)K * ASH_PANEL_ROWS;
    int blocks = (K + KB - 1) / KB, kb = blocks ? ((K + blocks - 1) / blocks + 15) / 16 * 16 : KB;
    for (int64_t g = 0; g < n_panels; g += GROUP) {
        int64_t ge = ASH_MIN(g + GROUP, n_panels);
        for (int k0 = 0; k0 < K || k0 == 0; k0 += kb) {
            int kn = ASH_MIN(kb, K - k0);
            for (int t0 = 0; t0 < n_tok; t0 += NT_MAX) {
                int nt = ASH_MIN(NT_MAX, n_tok - t0);
                for (int t = 0; t < nt; t++) memcpy(xt + t * XS, x + (t0 + t) * ldx + k0, (size_t)kn * sizeof(float));
                for (int64_t p = g; p < ge; p++) {
                    tile_arg a = {panels + p * ps + (int64_t)k0 * ASH_PANEL_ROWS, kn, xt, y + t0 * ldy + p * ASH_PANEL_ROWS, ldy, k0 == 0,
                                  (int)ASH_MIN(n_rows - p * ASH_PANEL_ROWS, ASH_PANEL_ROWS)};
                    tiles[nt](&a);
                }
            }
        }
    }
}
