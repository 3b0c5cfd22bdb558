/* blocks.h - the packed blocks of every element type, as GGUF files store them.
 *
 * All multi-byte fields are little-endian; `d` and `m` fields are float16 (tensor/f16.h). x[i] is the
 * value of weight i of the block. In the comments lo/hi are the low and high nibble of a byte and q the
 * unsigned code. Blocks are byte-aligned in files: copy or use unaligned loads, never assume alignment
 * of a block pointer. Layout facts: the GGUF/ggml format as documented by the gguf Python package. */
#ifndef ASH_BLOCKS_H
#define ASH_BLOCKS_H

#include <assert.h>
#include <stdint.h>

#define ASH_PACKED __attribute__((packed))
#define ASH_BLOCK_SIZE(T, n) static_assert(sizeof(T) == (n) && _Alignof(T) == 1, #T)

/* ---- 32 weights ----
 * nibbles: x[j] from lo(qs[j]), x[j+16] from hi(qs[j]), j < 16; fifth bit of x[j] is bit j of qh */
typedef struct ASH_PACKED { uint16_t d; uint8_t qs[16]; } ash_blk_q4_0;                 /* d * (q - 8) */
typedef struct ASH_PACKED { uint16_t d, m; uint8_t qs[16]; } ash_blk_q4_1;              /* d * q + m */
typedef struct ASH_PACKED { uint16_t d; uint8_t qh[4], qs[16]; } ash_blk_q5_0;          /* d * (q - 16) */
typedef struct ASH_PACKED { uint16_t d, m; uint8_t qh[4], qs[16]; } ash_blk_q5_1;       /* d * q + m */
typedef struct ASH_PACKED { uint16_t d; int8_t qs[32]; } ash_blk_q8_0;                  /* d * q */
typedef struct ASH_PACKED { uint16_t d; uint8_t qs[16]; } ash_blk_iq4_nl;               /* d * ash_iq4nl_values[q] */
typedef struct ASH_PACKED { uint8_t e, qs[16]; } ash_blk_mxfp4;                         /* 2^(e-128) * ash_fp4_values[q] */

/* ---- 64 and 128 weights ---- */
/* scale b for weights 16b..16b+15: x[16b+j] from lo(qs[8b+j]), x[16b+8+j] from hi(qs[8b+j]), j < 8 */
typedef struct ASH_PACKED { uint8_t sc[4], qs[32]; } ash_blk_nvfp4;                     /* ue4m3_half(sc) * ash_fp4_values[q] */
typedef struct ASH_PACKED { uint16_t d; uint8_t qs[16]; } ash_blk_q2_0;                 /* d * (q - 1); q of x[4i+j]: bits 2j of qs[i] */
typedef struct ASH_PACKED { uint16_t d; uint8_t qs[16]; } ash_blk_q1_0;                 /* bit i%8 of qs[i/8] set: d, else -d */

/* ---- 256 weights: super-blocks of 16 x 16 or 8 x 32 ----
 *
 * Q2_K   x[i] = d * lo(sc[i/16]) * q - dmin * hi(sc[i/16])
 *        q of x[128h + 32s + l]: bits 2s, 2s+1 of qs[32h + l]        h < 2, s < 4, l < 32 */
typedef struct ASH_PACKED { uint8_t scales[16], qs[64]; uint16_t d, dmin; } ash_blk_q2_k;
/* Q3_K   x[i] = d * (sc[i/16] - 32) * (q - 4)
 *        low 2 bits of q as in Q2_K; bit 2 of x[128h + 32s + l]: bit 4h+s of hmask[l]
 *        sc[b], 6 bits: low 4 in scales[b%8] (lo for b < 8, hi after), high 2 in scales[8 + b%4] at bit 2*(b/4) */
typedef struct ASH_PACKED { uint8_t hmask[32], qs[64], scales[12]; uint16_t d; } ash_blk_q3_k;
/* Q4_K   x[i] = d * sc[i/32] * q - dmin * mn[i/32]
 *        x[64c + l] from lo(qs[32c + l]), x[64c + 32 + l] from hi          c < 4, l < 32
 *        sc, mn (6 bits each):   byte   0-3   hh ssssss   sc[0..3], and the top two bits of sc[4..7]
 *                                       4-7   hh mmmmmm   mn[0..3], and the top two bits of mn[4..7]
 *                                       8-11  mmmm ssss   low four bits of mn[4..7] and sc[4..7] */
typedef struct ASH_PACKED { uint16_t d, dmin; uint8_t scales[12], qs[128]; } ash_blk_q4_k;
/* Q5_K   as Q4_K; bit 4 of q of x[32b + l]: bit b of qh[l] */
typedef struct ASH_PACKED { uint16_t d, dmin; uint8_t scales[12], qh[32], qs[128]; } ash_blk_q5_k;
/* Q6_K   x[i] = d * sc[i/16] * (q - 32)
 *        x[128h + 32s + l]: low 4 bits lo (s < 2) or hi (s >= 2) of ql[64h + 32(s%2) + l], high 2 at bit 2s of qh[32h + l] */
typedef struct ASH_PACKED { uint8_t ql[128], qh[64]; int8_t scales[16]; uint16_t d; } ash_blk_q6_k;
/* IQ4_XS x[i] = d * (sc[i/32] - 32) * ash_iq4nl_values[q]
 *        x[32b + l] from lo(qs[16b + l]), x[32b + 16 + l] from hi, l < 16
 *        sc[b]: low 4 bits lo/hi (b even/odd) of scales_l[b/2], high 2 at bit 2b of scales_h */
typedef struct ASH_PACKED { uint16_t d, scales_h; uint8_t scales_l[4], qs[128]; } ash_blk_iq4_xs;

/* IQ2_XXS, per 32 weights two little-endian words in qs: four 8-bit grid indices, then
 *        ssss 7777777 7777777 7777777 7777777   4-bit scale and 4 x 7 signs (ash_ksigns), lowest first
 *        x = d * (0.5 + scale) / 4 * sign * grid */
typedef struct ASH_PACKED { uint16_t d; uint8_t qs[64]; } ash_blk_iq2_xxs;
/* IQ2_XS, per 8 weights one word: 7 sign bits, 9-bit grid index; per 16 weights a 4-bit scale, lo first */
typedef struct ASH_PACKED { uint16_t d; uint8_t qs[64], scales[8]; } ash_blk_iq2_xs;
/* IQ2_S, per 8 weights: 10-bit index (8 in qs[i], 2 in qh[i/4] at bit 2*(i%4)), 8 signs in qs[32 + i]; scales as IQ2_XS */
typedef struct ASH_PACKED { uint16_t d; uint8_t qs[32], signs[32], qh[8], scales[8]; } ash_blk_iq2_s;
/* IQ3_XXS, per 4 weights an 8-bit index in qs; per 32 weights a word of scale and signs as in IQ2_XXS
 *        x = d * (0.5 + scale) / 2 * sign * grid */
typedef struct ASH_PACKED { uint16_t d; uint8_t qs[64], ss[32]; } ash_blk_iq3_xxs;
/* IQ3_S, per 4 weights: 9-bit index (8 in qs[i], 1 in qh[i/8] at bit i%8); 8 signs per 8 weights; 4-bit scale per 32
 *        x = d * (1 + 2 scale) * sign * grid */
typedef struct ASH_PACKED { uint16_t d; uint8_t qs[64], qh[8], signs[32], scales[4]; } ash_blk_iq3_s;
/* IQ1_S, per 8 weights an 11-bit index (8 in qs[i], 3 in qh[i/4] at bit 3*(i%4)); qh, 16 bits per 32 weights:
 *        e sss hhh hhh hhh hhh   e: offset is -1/8, else +1/8;   x = d * (2 s + 1) * (grid + offset) */
typedef struct ASH_PACKED { uint16_t d; uint8_t qs[32]; uint8_t qh[16]; } ash_blk_iq1_s;
/* IQ1_M, as IQ1_S with qh a nibble per 8 weights (e hhh); scales: four 16-bit words of four 3-bit scales (16 weights
 *        each, lowest first), whose top nibbles, lowest word first, are the bits of the float16 d */
typedef struct ASH_PACKED { uint8_t qs[32], qh[16], scales[8]; } ash_blk_iq1_m;

/* TQ2_0  x[128h + 32s + l] = d * (q - 1), q: bits 2s of qs[32h + l] */
typedef struct ASH_PACKED { uint8_t qs[64]; uint16_t d; } ash_blk_tq2_0;
/* TQ1_0  base 3, five digits in a byte as a fraction of 256: digit s of byte v is ((v * 3^s mod 256) * 3) >> 8;
 *        x[32s + l] from qs[l] (l < 32), x[160 + 16s + l] from qs[32 + l] (l < 16), x[240 + 4s + l] from qh[l] (s < 4) */
typedef struct ASH_PACKED { uint8_t qs[48], qh[4]; uint16_t d; } ash_blk_tq1_0;

ASH_BLOCK_SIZE(ash_blk_q4_0, 18);
ASH_BLOCK_SIZE(ash_blk_q4_1, 20);
ASH_BLOCK_SIZE(ash_blk_q5_0, 22);
ASH_BLOCK_SIZE(ash_blk_q5_1, 24);
ASH_BLOCK_SIZE(ash_blk_q8_0, 34);
ASH_BLOCK_SIZE(ash_blk_iq4_nl, 18);
ASH_BLOCK_SIZE(ash_blk_mxfp4, 17);
ASH_BLOCK_SIZE(ash_blk_nvfp4, 36);
ASH_BLOCK_SIZE(ash_blk_q2_0, 18);
ASH_BLOCK_SIZE(ash_blk_q1_0, 18);
ASH_BLOCK_SIZE(ash_blk_q2_k, 84);
ASH_BLOCK_SIZE(ash_blk_q3_k, 110);
ASH_BLOCK_SIZE(ash_blk_q4_k, 144);
ASH_BLOCK_SIZE(ash_blk_q5_k, 176);
ASH_BLOCK_SIZE(ash_blk_q6_k, 210);
ASH_BLOCK_SIZE(ash_blk_iq4_xs, 136);
ASH_BLOCK_SIZE(ash_blk_iq2_xxs, 66);
ASH_BLOCK_SIZE(ash_blk_iq2_xs, 74);
ASH_BLOCK_SIZE(ash_blk_iq2_s, 82);
ASH_BLOCK_SIZE(ash_blk_iq3_xxs, 98);
ASH_BLOCK_SIZE(ash_blk_iq3_s, 110);
ASH_BLOCK_SIZE(ash_blk_iq1_s, 50);
ASH_BLOCK_SIZE(ash_blk_iq1_m, 56);
ASH_BLOCK_SIZE(ash_blk_tq1_0, 54);
ASH_BLOCK_SIZE(ash_blk_tq2_0, 66);

/* Sub-scale b and sub-minimum b (b < 8) of a Q4_K or Q5_K block's 12 scale bytes. */
static inline void ash_q4k_scale_min(const uint8_t *s, int b, uint8_t *sc, uint8_t *mn) {
    if (b < 4) {
        *sc = s[b] & 63;
        *mn = s[b + 4] & 63;
    } else {
        *sc = (uint8_t)((s[b + 4] & 15) | (s[b - 4] >> 6) << 4);
        *mn = (uint8_t)(s[b + 4] >> 4 | (s[b] >> 6) << 4);
    }
}

/* Sub-scale b (b < 16) of a Q3_K block's 12 scale bytes, signed. */
static inline int ash_q3k_scale(const uint8_t *s, int b) {
    return ((s[b & 7] >> (b < 8 ? 0 : 4) & 15) | (s[8 + (b & 3)] >> 2 * (b >> 2) & 3) << 4) - 32;
}

#endif
