/* f16.h - float16 and bfloat16 to and from float32, plain C, one value at a time.
 *
 * Rounding is to nearest even; subnormals, infinities and NaNs (kept, made quiet) come out as the
 * F16C and AVX512-BF16 instructions would give them. */
#ifndef ASH_F16_H
#define ASH_F16_H

#include <stdint.h>
#include <string.h>

static inline uint32_t ash_f32_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
static inline float ash_bits_f32(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline float ash_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, em = h & 0x7fffu;
    if (em >= 0x7c00u) return ash_bits_f32(sign | 0x7f800000u | (em & 0x3ffu ? 0x400000u | (em & 0x3ffu) << 13 : 0));
    /* exponent field moved up by 13 bits is 112 too small; the product is exact, subnormals included */
    return ash_bits_f32(sign | ash_f32_bits(ash_bits_f32(em << 13) * 0x1p112f));
}

static inline uint16_t ash_f32_to_f16(float f) {
    uint32_t u = ash_f32_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (a >> 13 & 0x3ffu));
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and above round to infinity */
    if (a < 0x38800000u) { /* below 2^-14: adding 0.5 leaves the subnormal's bits, rounded, at the bottom */
        float s = ash_bits_f32(a) + 0.5f;
        return (uint16_t)(sign | (ash_f32_bits(s) - 0x3f000000u));
    }
    return (uint16_t)(sign | ((a - 0x38000000u + 0xfffu + (a >> 13 & 1u)) >> 13));
}

static inline float ash_bf16_to_f32(uint16_t h) { return ash_bits_f32((uint32_t)h << 16); }

static inline uint16_t ash_f32_to_bf16(float f) {
    uint32_t u = ash_f32_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

#endif
