/* decode_super.c - scalar decoders of the 256-weight super-blocks with plain codes: Q2_K to Q6_K,
 * IQ4_XS, TQ1_0, TQ2_0. Layouts: tensor/blocks.h. */
#include "tensor/blocks.h"
#include "tensor/codebooks.h"
#include "tensor/decode_int.h"
#include "tensor/f16.h"

void ash_dec_Q2_K(const void *src, float *dst, int64_t n) {
    const ash_blk_q2_k *b = src;
    for (; n > 0; n -= 256, b++, dst += 256) {
        float d = ash_f16_to_f32(b->d), dmin = ash_f16_to_f32(b->dmin);
        for (int i = 0; i < 256; i++) {
            int h = i / 128, s = i / 32 % 4, l = i % 32, sc = b->scales[i / 16];
            float q = (float)(b->qs[32 * h + l] >> 2 * s & 3);
            dst[i] = d * (float)(sc & 15) * q - dmin * (float)(sc >> 4);
        }
    }
}

void ash_dec_Q3_K(const void *src, float *dst, int64_t n) {
    const ash_blk_q3_k *b = src;
    for (; n > 0; n -= 256, b++, dst += 256) {
        float d = ash_f16_to_f32(b->d);
        for (int s = 0; s < 16; s++) {
            float dl = d * (float)ash_q3k_scale(b->scales, s);
            for (int j = 0; j < 16; j++) {
                int i = 16 * s + j, l = i % 32;
                int q = (b->qs[32 * (i / 128) + l] >> 2 * (i / 32 % 4) & 3) | (b->hmask[l] >> (i / 32) & 1) << 2;
                dst[i] = dl * (float)(q - 4);
            }
        }
    }
}

void ash_dec_Q4_K(const void *src, float *dst, int64_t n) {
    const ash_blk_q4_k *b = src;
    for (; n > 0; n -= 256, b++, dst += 256) {
        float d = ash_f16_to_f32(b->d), dmin = ash_f16_to_f32(b->dmin);
        for (int s = 0; s < 8; s++) {
            uint8_t sc, mn;
            ash_q4k_scale_min(b->scales, s, &sc, &mn);
            float dl = d * (float)sc, ml = dmin * (float)mn;
            const uint8_t *q = b->qs + 32 * (s / 2);
            for (int l = 0; l < 32; l++) dst[32 * s + l] = dl * (float)(q[l] >> 4 * (s % 2) & 15) - ml;
        }
    }
}

void ash_dec_Q5_K(const void *src, float *dst, int64_t n) {
    const ash_blk_q5_k *b = src;
    for (; n > 0; n -= 256, b++, dst += 256) {
        float d = ash_f16_to_f32(b->d), dmin = ash_f16_to_f32(b->dmin);
        for (int s = 0; s < 8; s++) {
            uint8_t sc, mn;
            ash_q4k_scale_min(b->scales, s, &sc, &mn);
            float dl = d * (float)sc, ml = dmin * (float)mn;
            const uint8_t *q = b->qs + 32 * (s / 2);
            for (int l = 0; l < 32; l++)
                dst[32 * s + l] = dl * (float)((q[l] >> 4 * (s % 2) & 15) | (b->qh[l] >> s & 1) << 4) - ml;
        }
    }
}

void ash_dec_Q6_K(const void *src, float *dst, int64_t n) {
    const ash_blk_q6_k *b = src;
    for (; n > 0; n -= 256, b++, dst += 256) {
        float d = ash_f16_to_f32(b->d);
        for (int i = 0; i < 256; i++) {
            int h = i / 128, s = i / 32 % 4, l = i % 32;
            int q = (b->ql[64 * h + 32 * (s % 2) + l] >> 4 * (s / 2) & 15) | (b->qh[32 * h + l] >> 2 * s & 3) << 4;
            dst[i] = d * (float)b->scales[i / 16] * (float)(q - 32);
        }
    }
}

void ash_dec_IQ4_XS(const void *src, float *dst, int64_t n) {
    const ash_blk_iq4_xs *b = src;
    for (; n > 0; n -= 256, b++, dst += 256) {
        float d = ash_f16_to_f32(b->d);
        for (int s = 0; s < 8; s++) {
            int sc = (b->scales_l[s / 2] >> 4 * (s % 2) & 15) | (b->scales_h >> 2 * s & 3) << 4;
            float dl = d * (float)(sc - 32);
            const uint8_t *q = b->qs + 16 * s;
            for (int j = 0; j < 16; j++) {
                dst[32 * s + j] = dl * (float)ash_iq4nl_values[q[j] & 15];
                dst[32 * s + j + 16] = dl * (float)ash_iq4nl_values[q[j] >> 4];
            }
        }
    }
}

void ash_dec_TQ2_0(const void *src, float *dst, int64_t n) {
    const ash_blk_tq2_0 *b = src;
    for (; n > 0; n -= 256, b++, dst += 256) {
        float d = ash_f16_to_f32(b->d);
        for (int i = 0; i < 256; i++) dst[i] = d * (float)((b->qs[32 * (i / 128) + i % 32] >> 2 * (i / 32 % 4) & 3) - 1);
    }
}

/* Digit s of a base-3 fraction byte, as -1, 0 or 1. */
static inline int trit(uint8_t v, int s) {
    static const uint8_t pow3[5] = {1, 3, 9, 27, 81};
    return ((uint8_t)(v * pow3[s]) * 3 >> 8) - 1;
}

void ash_dec_TQ1_0(const void *src, float *dst, int64_t n) {
    const ash_blk_tq1_0 *b = src;
    for (; n > 0; n -= 256, b++, dst += 256) {
        float d = ash_f16_to_f32(b->d);
        for (int s = 0; s < 5; s++) {
            for (int l = 0; l < 32; l++) dst[32 * s + l] = d * (float)trit(b->qs[l], s);
            for (int l = 0; l < 16; l++) dst[160 + 16 * s + l] = d * (float)trit(b->qs[32 + l], s);
        }
        for (int s = 0; s < 4; s++)
            for (int l = 0; l < 4; l++) dst[240 + 4 * s + l] = d * (float)trit(b->qh[l], s);
    }
}
