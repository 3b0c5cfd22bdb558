/* i8_types_ref.c - what the blocks of each type are in 8-bit panel form: integer codes, one scale (and
 * one minimum) per group, so that w = s * (code - zp) + m. One function per type unpacks one block;
 * the panel writer and the reference matrix-vector product are made from it.
 * Layouts: tensor/blocks.h. */
#include "kern/i8_common.h"
#include "tensor/blocks.h"
#include "tensor/codebooks.h"
#include "tensor/f16.h"

#include <string.h>

/* One block: codes q[block], scales s[block/G], minima m[block/G]. */
#define BLOCK(T, STRUCT)                                                            \
    static inline void blk_##T(const STRUCT *b, uint8_t *q, float *s, float *m); \
    static void raw_##T(const void *p, uint8_t *q, float *s, float *m) { blk_##T(p, q, s, m); } \
    static inline void blk_##T(const STRUCT *b, uint8_t *q, float *s, float *m)

static inline uint32_t load16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static inline uint32_t load32(const uint8_t *p) { return load16(p) | load16(p + 2) << 16; }

/* 16 bytes hold 32 nibbles: low ones are elements 0-15, high ones 16-31. */
static void nibbles(const uint8_t *p, uint8_t *q) {
    for (int i = 0; i < 16; i++) {
        q[i] = p[i] & 15;
        q[i + 16] = p[i] >> 4;
    }
}

static void fifth_bits(uint32_t bits, uint8_t *q) {
    for (int i = 0; i < 32; i++) q[i] |= (uint8_t)((bits >> i & 1) << 4);
}

/* Nibbles as indices into a codebook of signed levels. */
static void levels(const uint8_t *p, const int8_t *book, int zp, uint8_t *q) {
    nibbles(p, q);
    for (int i = 0; i < 32; i++) q[i] = (uint8_t)(book[q[i]] + zp);
}

BLOCK(Q4_0, ash_blk_q4_0) {
    (void)m;
    s[0] = ash_f16_to_f32(b->d);
    nibbles(b->qs, q);
}

BLOCK(Q4_1, ash_blk_q4_1) {
    s[0] = ash_f16_to_f32(b->d);
    m[0] = ash_f16_to_f32(b->m);
    nibbles(b->qs, q);
}

BLOCK(Q5_0, ash_blk_q5_0) {
    (void)m;
    s[0] = ash_f16_to_f32(b->d);
    nibbles(b->qs, q);
    fifth_bits(load32(b->qh), q);
}

BLOCK(Q5_1, ash_blk_q5_1) {
    s[0] = ash_f16_to_f32(b->d);
    m[0] = ash_f16_to_f32(b->m);
    nibbles(b->qs, q);
    fifth_bits(load32(b->qh), q);
}

BLOCK(Q8_0, ash_blk_q8_0) {
    (void)m;
    s[0] = ash_f16_to_f32(b->d);
    for (int i = 0; i < 32; i++) q[i] = (uint8_t)(b->qs[i] + 128);
}

BLOCK(Q2_K, ash_blk_q2_k) {
    float d = ash_f16_to_f32(b->d), dmin = ash_f16_to_f32(b->dmin);
    for (int g = 0; g < 16; g++) {
        s[g] = d * (float)(b->scales[g] & 15);
        m[g] = -(dmin * (float)(b->scales[g] >> 4));
    }
    for (int i = 0; i < 256; i++) q[i] = b->qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

BLOCK(Q3_K, ash_blk_q3_k) {
    (void)m;
    float d = ash_f16_to_f32(b->d);
    for (int g = 0; g < 16; g++) s[g] = d * (float)ash_q3k_scale(b->scales, g);
    for (int i = 0; i < 256; i++) {
        int lo = b->qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        q[i] = (uint8_t)(lo | (b->hmask[i % 32] >> (i / 32) & 1) << 2);
    }
}

static void k_scales(uint16_t d16, uint16_t dmin16, const uint8_t *scales, float *s, float *m) {
    float d = ash_f16_to_f32(d16), dmin = ash_f16_to_f32(dmin16);
    for (int g = 0; g < 8; g++) {
        uint8_t sc, mn;
        ash_q4k_scale_min(scales, g, &sc, &mn);
        s[g] = d * (float)sc;
        m[g] = -(dmin * (float)mn);
    }
}

BLOCK(Q4_K, ash_blk_q4_k) {
    k_scales(b->d, b->dmin, b->scales, s, m);
    for (int i = 0; i < 256; i++) q[i] = b->qs[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
}

BLOCK(Q5_K, ash_blk_q5_k) {
    k_scales(b->d, b->dmin, b->scales, s, m);
    for (int i = 0; i < 256; i++)
        q[i] = (uint8_t)((b->qs[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15) | (b->qh[i % 32] >> (i / 32) & 1) << 4);
}

BLOCK(Q6_K, ash_blk_q6_k) {
    (void)m;
    float d = ash_f16_to_f32(b->d);
    for (int g = 0; g < 16; g++) s[g] = d * (float)b->scales[g];
    for (int i = 0; i < 256; i++) {
        int half = i / 128, e = i % 128;
        int lo = b->ql[half * 64 + e % 64] >> (e / 64 * 4) & 15, hi = b->qh[half * 32 + e % 32] >> (e / 32 * 2) & 3;
        q[i] = (uint8_t)(lo | hi << 4);
    }
}

BLOCK(IQ4_NL, ash_blk_iq4_nl) {
    (void)m;
    s[0] = ash_f16_to_f32(b->d);
    levels(b->qs, ash_iq4nl_values, 128, q);
}

BLOCK(IQ4_XS, ash_blk_iq4_xs) {
    (void)m;
    float d = ash_f16_to_f32(b->d);
    for (int g = 0; g < 8; g++) {
        int sc = (b->scales_l[g / 2] >> (g % 2 * 4) & 15) | (b->scales_h >> (2 * g) & 3) << 4;
        s[g] = d * (float)(sc - 32);
        levels(b->qs + 16 * g, ash_iq4nl_values, 128, q + 32 * g);
    }
}

BLOCK(MXFP4, ash_blk_mxfp4) {
    (void)m;
    s[0] = ash_e8m0_half(b->e);
    levels(b->qs, ash_fp4_values, 16, q);
}

BLOCK(NVFP4, ash_blk_nvfp4) {
    (void)m;
    for (int g = 0; g < 4; g++) {
        s[g] = ash_ue4m3_half(b->sc[g]);
        for (int i = 0; i < 8; i++) {
            q[16 * g + i] = (uint8_t)(ash_fp4_values[b->qs[8 * g + i] & 15] + 16);
            q[16 * g + i + 8] = (uint8_t)(ash_fp4_values[b->qs[8 * g + i] >> 4] + 16);
        }
    }
}

BLOCK(TQ1_0, ash_blk_tq1_0) {
    (void)m;
    static const uint8_t pow3[5] = {1, 3, 9, 27, 81};
    for (int g = 0; g < 8; g++) s[g] = ash_f16_to_f32(b->d);
    for (int i = 0; i < 256; i++) {
        uint8_t v = i < 160 ? b->qs[i % 32] : i < 240 ? b->qs[32 + (i - 160) % 16] : b->qh[i % 4];
        int n = i < 160 ? i / 32 : i < 240 ? (i - 160) / 16 : (i - 240) / 4;
        q[i] = (uint8_t)((uint8_t)(v * pow3[n]) * 3 >> 8);
    }
}

BLOCK(TQ2_0, ash_blk_tq2_0) {
    (void)m;
    for (int g = 0; g < 8; g++) s[g] = ash_f16_to_f32(b->d);
    for (int i = 0; i < 256; i++) q[i] = b->qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

BLOCK(Q1_0, ash_blk_q1_0) { /* codes 0 and 2 around the zero point 1 */
    (void)m;
    for (int g = 0; g < 4; g++) s[g] = ash_f16_to_f32(b->d);
    for (int i = 0; i < 128; i++) q[i] = (uint8_t)((b->qs[i / 8] >> (i % 8) & 1) * 2);
}

BLOCK(Q2_0, ash_blk_q2_0) {
    (void)m;
    for (int g = 0; g < 2; g++) s[g] = ash_f16_to_f32(b->d);
    for (int i = 0; i < 64; i++) q[i] = b->qs[i / 4] >> (i % 4 * 2) & 3;
}

/* n magnitudes, one per byte, with signs, around zero point zp. */
static void lattice(uint64_t grid, uint32_t signs, int n, int zp, uint8_t *q) {
    for (int j = 0; j < n; j++) {
        int v = (int)(grid >> 8 * j & 255);
        q[j] = (uint8_t)(signs >> j & 1 ? zp - v : zp + v);
    }
}

BLOCK(IQ2_XXS, ash_blk_iq2_xxs) {
    (void)m;
    float d = ash_f16_to_f32(b->d);
    for (int g = 0; g < 8; g++) {
        uint32_t w = load32(b->qs + 8 * g + 4);
        s[g] = d * (0.5f + (float)(w >> 28)) * 0.25f;
        for (int i = 0; i < 4; i++) lattice(ash_iq2xxs_grid[b->qs[8 * g + i]], ash_ksigns(w >> 7 * i & 127), 8, 64, q + 32 * g + 8 * i);
    }
}

BLOCK(IQ2_XS, ash_blk_iq2_xs) {
    (void)m;
    float d = ash_f16_to_f32(b->d);
    for (int g = 0; g < 16; g++) s[g] = d * (0.5f + (float)(b->scales[g / 2] >> 4 * (g % 2) & 15)) * 0.25f;
    for (int i = 0; i < 32; i++) {
        uint32_t w = load16(b->qs + 2 * i);
        lattice(ash_iq2xs_grid[w & 511], ash_ksigns(w >> 9), 8, 64, q + 8 * i);
    }
}

BLOCK(IQ2_S, ash_blk_iq2_s) {
    (void)m;
    float d = ash_f16_to_f32(b->d);
    for (int g = 0; g < 16; g++) s[g] = d * (0.5f + (float)(b->scales[g / 2] >> 4 * (g % 2) & 15)) * 0.25f;
    for (int i = 0; i < 32; i++) lattice(ash_iq2s_grid[b->qs[i] | (b->qh[i / 4] >> 2 * (i % 4) & 3) << 8], b->signs[i], 8, 64, q + 8 * i);
}

BLOCK(IQ3_XXS, ash_blk_iq3_xxs) {
    (void)m;
    float d = ash_f16_to_f32(b->d);
    for (int g = 0; g < 8; g++) {
        uint32_t w = load32(b->ss + 4 * g);
        s[g] = d * (0.5f + (float)(w >> 28)) * 0.5f;
        for (int i = 0; i < 8; i++) {
            uint32_t signs = (uint32_t)ash_ksigns(w >> 7 * (i / 2) & 127) >> 4 * (i % 2);
            lattice(ash_iq3xxs_grid[b->qs[8 * g + i]], signs, 4, 64, q + 32 * g + 4 * i);
        }
    }
}

BLOCK(IQ3_S, ash_blk_iq3_s) {
    (void)m;
    float d = ash_f16_to_f32(b->d);
    for (int g = 0; g < 8; g++) s[g] = d * (float)(1 + 2 * (b->scales[g / 2] >> 4 * (g % 2) & 15));
    for (int i = 0; i < 64; i++)
        lattice(ash_iq3s_grid[b->qs[i] | (b->qh[i / 8] >> (i % 8) & 1) << 8], (uint32_t)b->signs[i / 2] >> 4 * (i % 2), 4, 16, q + 4 * i);
}

/* w = dl * (grid -+ 1/8) = dl/8 * (8 grid -+ 1), exactly. */
static void lattice1(uint64_t grid, int offset, uint8_t *q) {
    for (int j = 0; j < 8; j++) q[j] = (uint8_t)(16 + offset + 8 * (int8_t)(grid >> 8 * j & 255));
}

BLOCK(IQ1_S, ash_blk_iq1_s) {
    (void)m;
    float d = ash_f16_to_f32(b->d);
    for (int i = 0; i < 32; i++) {
        uint32_t h = load16(b->qh + 2 * (i / 4));
        s[i / 4] = d * (float)(2 * (h >> 12 & 7) + 1) * 0.125f;
        lattice1(ash_iq1_grid[b->qs[i] | (h >> 3 * (i % 4) & 7) << 8], h & 0x8000 ? -1 : 1, q + 8 * i);
    }
}

BLOCK(IQ1_M, ash_blk_iq1_m) {
    (void)m;
    uint32_t dbits = 0;
    for (int w = 0; w < 4; w++) dbits |= (load16(b->scales + 2 * w) >> 12) << 4 * w;
    float d = ash_f16_to_f32((uint16_t)dbits);
    for (int i = 0; i < 32; i++) {
        uint32_t h = b->qh[i / 2] >> 4 * (i % 2) & 15u;
        s[i / 2] = d * (float)(2 * (load16(b->scales + 2 * (i / 8)) >> 3 * (i / 2 % 4) & 7) + 1) * 0.125f;
        lattice1(ash_iq1_grid[b->qs[i] | (h & 7) << 8], h & 8 ? -1 : 1, q + 8 * i);
    }
}

/* ---- made from the block functions ---- */
typedef void (*blk_fn)(const void *p, uint8_t *q, float *s, float *m);

static inline void unpack8(blk_fn blk, ash_dtype t, const uint8_t *w, size_t row_bytes, int n_rows, int K, ash_panel8 out) {
    const ash_dtype_info *info = ash_dtype_get((int)t);
    const ash_i8_form f = ash_dtype_i8_form(t);
    int B = (int)info->block_elems, ng = B / f.G;
    uint8_t q[256];
    float s[16], m[16];
    for (int r = 0; r < ASH_PANEL_ROWS; r++)
        for (int b = 0; b < K / B; b++) {
            if (r < n_rows) blk(w + (size_t)r * row_bytes + (size_t)b * info->block_bytes, q, s, m);
            else {
                memset(q, f.zp, sizeof q);
                memset(s, 0, sizeof s);
                memset(m, 0, sizeof m);
            }
            for (int i = 0; i < B; i++) out.q[(size_t)((b * B + i) / 4) * 64 + (size_t)r * 4 + (size_t)(i % 4)] = q[i];
            for (int g = 0; g < ng; g++) {
                size_t at = (size_t)(b * ng + g) * 16 + (size_t)r;
                out.s[at] = s[g];
                if (f.has_min) out.m[at] = m[g];
            }
        }
}

static inline void gemv8(blk_fn blk, ash_dtype t, const uint8_t *w, size_t row_bytes, int64_t n_rows, int K, ash_act8 a, float *y) {
    const ash_dtype_info *info = ash_dtype_get((int)t);
    const ash_i8_form f = ash_dtype_i8_form(t);
    int B = (int)info->block_elems, ng = B / f.G;
    uint8_t q[256];
    float s[16], m[16] = {0};
    for (int64_t r = 0; r < n_rows; r++) {
        float acc = 0;
        for (int b = 0; b < K / B; b++) {
            blk(w + (size_t)r * row_bytes + (size_t)b * info->block_bytes, q, s, m);
            for (int g = 0; g < ng; g++) {
                int at = b * ng + g, bsum = f.G == 32 ? a.b[2 * at] + a.b[2 * at + 1] : a.b[at];
                int32_t isum = -f.zp * bsum;
                for (int i = 0; i < f.G; i++) isum += q[g * f.G + i] * a.q[at * f.G + i];
                acc = i8_step(acc, s[g], m[g], f.has_min, isum, a.d[at * f.G / 32], bsum);
            }
        }
        y[r] = acc;
    }
}

#define BOTH(T)                                                                                                        \
    void ash_k_unpack8_##T##_ref(const void *w, size_t row_bytes, int n_rows, int K, ash_panel8 out) {                 \
        unpack8(raw_##T, ASH_##T, w, row_bytes, n_rows, K, out);                                                       \
    }                                                                                                                  \
    void ash_k_gemv8_##T##_ref(const void *w, size_t row_bytes, int64_t n_rows, int K, ash_act8 a, float *y) {        \
        gemv8(raw_##T, ASH_##T, w, row_bytes, n_rows, K, a, y);                                                         \
    }

BOTH(Q4_0)
BOTH(Q4_1)
BOTH(Q5_0)
BOTH(Q5_1)
BOTH(Q8_0)
BOTH(Q2_K)
BOTH(Q3_K)
BOTH(Q4_K)
BOTH(Q5_K)
BOTH(Q6_K)
BOTH(IQ4_NL)
BOTH(IQ4_XS)
BOTH(IQ2_XXS)
BOTH(IQ2_XS)
BOTH(IQ2_S)
BOTH(IQ3_XXS)
BOTH(IQ3_S)
BOTH(IQ1_S)
BOTH(IQ1_M)
BOTH(MXFP4)
BOTH(NVFP4)
BOTH(TQ1_0)
BOTH(TQ2_0)
BOTH(Q1_0)
BOTH(Q2_0)
