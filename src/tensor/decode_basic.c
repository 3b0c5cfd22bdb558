/* decode_basic.c - scalar decoders of the float types and of the types with one scale per block of
 * 32, 64 or 128 weights. Layouts: tensor/blocks.h. */
#include "tensor/blocks.h"
#include "tensor/codebooks.h"
#include "tensor/decode_int.h"
#include "tensor/f16.h"

static inline uint16_t load16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

void ash_dec_F32(const void *src, float *dst, int64_t n) { memcpy(dst, src, (size_t)n * 4); }

void ash_dec_F16(const void *src, float *dst, int64_t n) {
    const uint8_t *p = src;
    for (int64_t i = 0; i < n; i++) dst[i] = ash_f16_to_f32(load16(p + 2 * i));
}

void ash_dec_BF16(const void *src, float *dst, int64_t n) {
    const uint8_t *p = src;
    for (int64_t i = 0; i < n; i++) dst[i] = ash_bf16_to_f32(load16(p + 2 * i));
}

void ash_dec_Q4_0(const void *src, float *dst, int64_t n) {
    const ash_blk_q4_0 *b = src;
    for (; n > 0; n -= 32, b++, dst += 32) {
        float d = ash_f16_to_f32(b->d);
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)((b->qs[j] & 15) - 8);
            dst[j + 16] = d * (float)((b->qs[j] >> 4) - 8);
        }
    }
}

void ash_dec_Q4_1(const void *src, float *dst, int64_t n) {
    const ash_blk_q4_1 *b = src;
    for (; n > 0; n -= 32, b++, dst += 32) {
        float d = ash_f16_to_f32(b->d), m = ash_f16_to_f32(b->m);
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)(b->qs[j] & 15) + m;
            dst[j + 16] = d * (float)(b->qs[j] >> 4) + m;
        }
    }
}

static inline uint32_t load_qh(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }

void ash_dec_Q5_0(const void *src, float *dst, int64_t n) {
    const ash_blk_q5_0 *b = src;
    for (; n > 0; n -= 32, b++, dst += 32) {
        float d = ash_f16_to_f32(b->d);
        uint32_t h = load_qh(b->qh);
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)((int)((b->qs[j] & 15u) | (h >> j & 1u) << 4) - 16);
            dst[j + 16] = d * (float)((int)((b->qs[j] >> 4) | (h >> (j + 16) & 1u) << 4) - 16);
        }
    }
}

void ash_dec_Q5_1(const void *src, float *dst, int64_t n) {
    const ash_blk_q5_1 *b = src;
    for (; n > 0; n -= 32, b++, dst += 32) {
        float d = ash_f16_to_f32(b->d), m = ash_f16_to_f32(b->m);
        uint32_t h = load_qh(b->qh);
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)((b->qs[j] & 15u) | (h >> j & 1u) << 4) + m;
            dst[j + 16] = d * (float)((b->qs[j] >> 4) | (h >> (j + 16) & 1u) << 4) + m;
        }
    }
}

void ash_dec_Q8_0(const void *src, float *dst, int64_t n) {
    const ash_blk_q8_0 *b = src;
    for (; n > 0; n -= 32, b++, dst += 32) {
        float d = ash_f16_to_f32(b->d);
        for (int j = 0; j < 32; j++) dst[j] = d * (float)b->qs[j];
    }
}

void ash_dec_IQ4_NL(const void *src, float *dst, int64_t n) {
    const ash_blk_iq4_nl *b = src;
    for (; n > 0; n -= 32, b++, dst += 32) {
        float d = ash_f16_to_f32(b->d);
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)ash_iq4nl_values[b->qs[j] & 15];
            dst[j + 16] = d * (float)ash_iq4nl_values[b->qs[j] >> 4];
        }
    }
}

void ash_dec_MXFP4(const void *src, float *dst, int64_t n) {
    const ash_blk_mxfp4 *b = src;
    for (; n > 0; n -= 32, b++, dst += 32) {
        float d = ash_e8m0_half(b->e);
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)ash_fp4_values[b->qs[j] & 15];
            dst[j + 16] = d * (float)ash_fp4_values[b->qs[j] >> 4];
        }
    }
}

void ash_dec_NVFP4(const void *src, float *dst, int64_t n) {
    const ash_blk_nvfp4 *b = src;
    for (; n > 0; n -= 64, b++, dst += 64) {
        for (int s = 0; s < 4; s++) {
            float d = ash_ue4m3_half(b->sc[s]);
            for (int j = 0; j < 8; j++) {
                dst[16 * s + j] = d * (float)ash_fp4_values[b->qs[8 * s + j] & 15];
                dst[16 * s + 8 + j] = d * (float)ash_fp4_values[b->qs[8 * s + j] >> 4];
            }
        }
    }
}

void ash_dec_Q2_0(const void *src, float *dst, int64_t n) {
    const ash_blk_q2_0 *b = src;
    for (; n > 0; n -= 64, b++, dst += 64) {
        float d = ash_f16_to_f32(b->d);
        for (int i = 0; i < 64; i++) dst[i] = d * (float)((b->qs[i / 4] >> 2 * (i % 4) & 3) - 1);
    }
}

void ash_dec_Q1_0(const void *src, float *dst, int64_t n) {
    const ash_blk_q1_0 *b = src;
    for (; n > 0; n -= 128, b++, dst += 128) {
        float d = ash_f16_to_f32(b->d);
        for (int i = 0; i < 128; i++) dst[i] = b->qs[i / 8] >> (i % 8) & 1 ? d : -d;
    }
}
