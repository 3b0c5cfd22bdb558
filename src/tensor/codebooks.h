/* codebooks.h - value tables of the types whose codes are indices: i-quant lattices, IQ4_NL levels,
 * FP4 values, and the exotic scale formats (e8m0, ue4m3).
 *
 * Grid entries hold one byte per weight, first weight in the lowest byte: IQ2 grids 8 magnitudes
 * (8, 25 or 43), IQ3_XXS 4 magnitudes (4..62), IQ3_S 4 magnitudes (1, 3 .. 15), the IQ1 grid 8 signed
 * bytes (-1, 0, 1). Little-endian hosts may load them as bytes. */
#ifndef ASH_CODEBOOKS_H
#define ASH_CODEBOOKS_H

#include <stdint.h>
#include <string.h>

extern const uint64_t ash_iq2xxs_grid[256];
extern const uint64_t ash_iq2xs_grid[512];
extern const uint64_t ash_iq2s_grid[1024];
extern const uint64_t ash_iq1_grid[2048]; /* IQ1_S and IQ1_M */
extern const uint32_t ash_iq3xxs_grid[256];
extern const uint32_t ash_iq3s_grid[512];
extern const int8_t ash_iq4nl_values[16]; /* IQ4_NL, IQ4_XS */
extern const int8_t ash_fp4_values[16];   /* MXFP4, NVFP4: twice the E2M1 value */

/* IQ2_XXS, IQ2_XS, IQ3_XXS store 7 of 8 signs; the eighth makes the number of minus signs even.
 * Bit i of the result set = weight i negative. */
static inline uint8_t ash_ksigns(uint32_t s7) { return (uint8_t)(s7 | (uint32_t)(__builtin_popcount(s7 & 127u) & 1) << 7); }

/* Half of the e8m0 scale: 2^(e - 128), to go with the doubled FP4 values. */
static inline float ash_e8m0_half(uint8_t e) {
    uint32_t u = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* Half of the unsigned e4m3 scale (bias 7; 0x7f is zero, as ggml reads it). */
static inline float ash_ue4m3_half(uint8_t x) {
    if ((x & 0x7f) == 0x7f) return 0.0f;
    uint32_t e = x >> 3 & 15u, m = x & 7u;
    if (e == 0) return (float)m * 0x1p-10f;
    uint32_t u = (e - 7 - 1 + 127) << 23 | m << 20;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

#endif
