/* decode_iq.c - scalar decoders of the lattice types IQ1, IQ2, IQ3. Layouts: tensor/blocks.h,
 * codebooks: tensor/codebooks.h. */
#include "tensor/blocks.h"
#include "tensor/codebooks.h"
#include "tensor/decode_int.h"
#include "tensor/f16.h"

static inline uint32_t load16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static inline uint32_t load32(const uint8_t *p) { return load16(p) | load16(p + 2) << 16; }

/* n <= 8 magnitudes, one per byte of `grid`, times db, negated where the sign bit is set. */
static inline void put(float *dst, float db, uint64_t grid, uint32_t signs, int n) {
    for (int j = 0; j < n; j++) {
        float v = db * (float)(grid >> 8 * j & 255);
        dst[j] = signs >> j & 1 ? -v : v;
    }
}

void ash_dec_IQ2_XXS(const void *src, float *dst, int64_t n) {
    const ash_blk_iq2_xxs *b = src;
    for (; n > 0; n -= 256, b++) {
        float d = ash_f16_to_f32(b->d);
        for (int s = 0; s < 8; s++) {
            uint32_t w = load32(b->qs + 8 * s + 4);
            float db = d * (0.5f + (float)(w >> 28)) * 0.25f;
            for (int i = 0; i < 4; i++, dst += 8) put(dst, db, ash_iq2xxs_grid[b->qs[8 * s + i]], ash_ksigns(w >> 7 * i & 127), 8);
        }
    }
}

void ash_dec_IQ2_XS(const void *src, float *dst, int64_t n) {
    const ash_blk_iq2_xs *b = src;
    for (; n > 0; n -= 256, b++) {
        float d = ash_f16_to_f32(b->d);
        for (int i = 0; i < 32; i++, dst += 8) {
            uint32_t w = load16(b->qs + 2 * i);
            float db = d * (0.5f + (float)(b->scales[i / 4] >> 4 * (i / 2 % 2) & 15)) * 0.25f;
            put(dst, db, ash_iq2xs_grid[w & 511], ash_ksigns(w >> 9), 8);
        }
    }
}

void ash_dec_IQ2_S(const void *src, float *dst, int64_t n) {
    const ash_blk_iq2_s *b = src;
    for (; n > 0; n -= 256, b++) {
        float d = ash_f16_to_f32(b->d);
        for (int i = 0; i < 32; i++, dst += 8) {
            float db = d * (0.5f + (float)(b->scales[i / 4] >> 4 * (i / 2 % 2) & 15)) * 0.25f;
            put(dst, db, ash_iq2s_grid[b->qs[i] | (b->qh[i / 4] >> 2 * (i % 4) & 3) << 8], b->signs[i], 8);
        }
    }
}

void ash_dec_IQ3_XXS(const void *src, float *dst, int64_t n) {
    const ash_blk_iq3_xxs *b = src;
    for (; n > 0; n -= 256, b++) {
        float d = ash_f16_to_f32(b->d);
        for (int s = 0; s < 8; s++) {
            uint32_t w = load32(b->ss + 4 * s);
            float db = d * (0.5f + (float)(w >> 28)) * 0.5f;
            for (int i = 0; i < 8; i++, dst += 4)
                put(dst, db, ash_iq3xxs_grid[b->qs[8 * s + i]], (uint32_t)ash_ksigns(w >> 7 * (i / 2) & 127) >> 4 * (i % 2), 4);
        }
    }
}

void ash_dec_IQ3_S(const void *src, float *dst, int64_t n) {
    const ash_blk_iq3_s *b = src;
    for (; n > 0; n -= 256, b++) {
        float d = ash_f16_to_f32(b->d);
        for (int i = 0; i < 64; i++, dst += 4) {
            float db = d * (float)(1 + 2 * (b->scales[i / 16] >> 4 * (i / 8 % 2) & 15));
            put(dst, db, ash_iq3s_grid[b->qs[i] | (b->qh[i / 8] >> (i % 8) & 1) << 8], (uint32_t)b->signs[i / 2] >> 4 * (i % 2), 4);
        }
    }
}

static inline void put1(float *dst, float dl, uint64_t grid, float offset) {
    for (int j = 0; j < 8; j++) dst[j] = dl * ((float)(int8_t)(grid >> 8 * j & 255) + offset);
}

void ash_dec_IQ1_S(const void *src, float *dst, int64_t n) {
    const ash_blk_iq1_s *b = src;
    for (; n > 0; n -= 256, b++) {
        float d = ash_f16_to_f32(b->d);
        for (int i = 0; i < 32; i++, dst += 8) {
            uint32_t h = load16(b->qh + 2 * (i / 4));
            float dl = d * (float)(2 * (h >> 12 & 7) + 1);
            put1(dst, dl, ash_iq1_grid[b->qs[i] | (h >> 3 * (i % 4) & 7) << 8], h & 0x8000 ? -0.125f : 0.125f);
        }
    }
}

void ash_dec_IQ1_M(const void *src, float *dst, int64_t n) {
    const ash_blk_iq1_m *b = src;
    for (; n > 0; n -= 256, b++) {
        uint32_t dbits = 0;
        for (int w = 0; w < 4; w++) dbits |= (load16(b->scales + 2 * w) >> 12) << 4 * w;
        float d = ash_f16_to_f32((uint16_t)dbits);
        for (int i = 0; i < 32; i++, dst += 8) {
            uint32_t h = b->qh[i / 2] >> 4 * (i % 2) & 15u;
            float dl = d * (float)(2 * (load16(b->scales + 2 * (i / 8)) >> 3 * (i / 2 % 4) & 7) + 1);
            put1(dst, dl, ash_iq1_grid[b->qs[i] | (h & 7) << 8], h & 8 ? -0.125f : 0.125f);
        }
    }
}
