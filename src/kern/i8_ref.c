/* i8_ref.c - scalar references of the 8-bit path: activation quantizer, panel matrix product, and the
 * table of forms. The per-type unpackers are in i8_types_ref.c. These are the oracle: SIMD versions
 * must give the same bits. */
#include "kern/i8_common.h"

/* G, zero point, largest code, has_min. 16-groups where the format has a scale per 16. */
static const ash_i8_form forms[ASH_DTYPE_MAX] = {
    [ASH_Q4_0] = {32, 8, 15, false},     [ASH_Q4_1] = {32, 0, 15, true},      [ASH_Q5_0] = {32, 16, 31, false},
    [ASH_Q5_1] = {32, 0, 31, true},      [ASH_Q8_0] = {32, 128, 255, false},  [ASH_Q2_K] = {16, 0, 3, true},
    [ASH_Q3_K] = {16, 4, 7, false},      [ASH_Q4_K] = {32, 0, 15, true},      [ASH_Q5_K] = {32, 0, 31, true},
    [ASH_Q6_K] = {16, 32, 63, false},    [ASH_IQ2_XXS] = {32, 64, 126, false}, [ASH_IQ2_XS] = {16, 64, 126, false},
    [ASH_IQ3_XXS] = {32, 64, 126, false}, [ASH_IQ1_S] = {32, 16, 31, false},  [ASH_IQ4_NL] = {32, 128, 255, false},
    [ASH_IQ3_S] = {32, 16, 31, false},   [ASH_IQ2_S] = {16, 64, 126, false},  [ASH_IQ4_XS] = {32, 128, 255, false},
    [ASH_IQ1_M] = {16, 16, 31, false},   [ASH_TQ1_0] = {32, 1, 3, false},     [ASH_TQ2_0] = {32, 1, 3, false},
    [ASH_MXFP4] = {32, 16, 31, false},   [ASH_NVFP4] = {16, 16, 31, false},   [ASH_Q1_0] = {32, 1, 3, false},
    [ASH_Q2_0] = {32, 1, 3, false},
};

ash_i8_form ash_dtype_i8_form(ash_dtype t) {
    return (unsigned)t < ASH_DTYPE_MAX ? forms[t] : (ash_i8_form){0, 0, 0, false};
}

/* NaN never wins the maximum and becomes code -127, in SIMD alike (operand order of max/min). */
void ash_k_quant8_ref(const float *x, int K, int8_t *q, float *d, int16_t *b) {
    for (int g = 0; g < K / 32; g++, x += 32, q += 32) {
        float max = 0;
        for (int i = 0; i < 32; i++) max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
        float scale = max / 127.0f;
        d[g] = scale;
        for (int h = 0; h < 2; h++) {
            int sum = 0;
            for (int i = 16 * h; i < 16 * h + 16; i++) {
                float v = scale > 0 ? x[i] / scale : 0;
                v = v > -127.0f ? v : -127.0f;
                v = v < 127.0f ? v : 127.0f;
                q[i] = (int8_t)rintf(v);
                sum += q[i];
            }
            b[2 * g + h] = (int16_t)sum;
        }
    }
}

/* One panel. */
static inline void gemm8(ash_panel8 p, int G, bool has_min, int zp, int K, int n_rows, ash_act8 a, int n_tok, float *y, int64_t ldy) {
    for (int t = 0; t < n_tok; t++) {
        const int8_t *q = a.q + t * a.ld_q;
        const float *d = a.d + t * a.ld_d;
        const int16_t *b = a.b + t * a.ld_b;
        float acc[ASH_PANEL_ROWS] = {0};
        for (int g = 0; g < K / G; g++) {
            int bsum = G == 32 ? b[2 * g] + b[2 * g + 1] : b[g];
            for (int r = 0; r < ASH_PANEL_ROWS; r++) {
                int32_t isum = -zp * bsum;
                for (int k = g * G; k < (g + 1) * G; k++) isum += p.q[(size_t)(k / 4) * 64 + (size_t)r * 4 + k % 4] * q[k];
                size_t i = (size_t)g * 16 + (size_t)r;
                acc[r] = i8_step(acc[r], p.s[i], has_min ? p.m[i] : 0, has_min, isum, d[g * G / 32], bsum);
            }
        }
        for (int r = 0; r < n_rows; r++) y[t * ldy + r] = acc[r];
    }
}

#define GEMM(name, G, has_min)                                                                                                \
    void ash_k_##name##_ref(ash_panel8 p, ash_i8_form f, int K, int n_rows, ash_act8 a, int n_tok, float *y, int64_t ldy) { \
        for (int r = 0; r < n_rows; r += ASH_PANEL_ROWS, p = i8_panel_next(p, K, G, has_min))                                 \
            gemm8(p, G, has_min, f.zp, K, ASH_MIN(n_rows - r, ASH_PANEL_ROWS), a, n_tok, y + r, ldy);                         \
    }
GEMM(gemm8_g32, 32, false)
GEMM(gemm8_g32m, 32, true)
GEMM(gemm8_g16, 16, false)
GEMM(gemm8_g16m, 16, true)
