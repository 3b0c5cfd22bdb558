/* i8_neon.c - activation quantizer and, from i8_gemm.inc, the panel matrix product for 64-bit ARM. Same bits as
 * i8_ref.c. */
#include "kern/arm/i8_gemm.inc"

/* a > b ? a : b and a < b ? a : b: FMAX and FMIN would let a NaN win */
INLINE float32x4_t greater(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
INLINE float32x4_t lesser(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }

void ash_k_quant8_neon(const float *x, int K, int8_t *q, float *d, int16_t *b) {
    const float32x4_t lo = vdupq_n_f32(-127.0f), hi = vdupq_n_f32(127.0f);
    for (int g = 0; g < K / 32; g++, x += 32, q += 32) {
        float32x4_t v[8], m = vdupq_n_f32(0);
        UNROLL for (int i = 0; i < 8; i++) {
            v[i] = vld1q_f32(x + 4 * i);
            m = greater(vabsq_f32(v[i]), m);
        }
        float scale = vmaxvq_f32(m) / 127.0f;
        d[g] = scale;
        float32x4_t s = vdupq_n_f32(scale);
        for (int h = 0; h < 2; h++) {
            int16x4_t n[4];
            UNROLL for (int i = 0; i < 4; i++) {
                float32x4_t r = scale > 0 ? vdivq_f32(v[4 * h + i], s) : vdupq_n_f32(0);
                n[i] = vmovn_s32(vcvtnq_s32_f32(lesser(greater(r, lo), hi)));
            }
            int16x8_t n0 = vcombine_s16(n[0], n[1]), n1 = vcombine_s16(n[2], n[3]);
            vst1q_s8(q + 16 * h, vcombine_s8(vmovn_s16(n0), vmovn_s16(n1)));
            b[2 * g + h] = vaddvq_s16(vaddq_s16(n0, n1));
        }
    }
}
