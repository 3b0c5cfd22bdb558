/* f32_ref.c - scalar reference of the float kernels: panels, matrix products, norm, activations,
 * halves, rope. The oracle of the SIMD files, which give the same bits (see kern.h and mathf.h for the
 * order of every sum).
 */
#include "kern/kern_decl.h"
#include "kern/mathf.h"

void ash_k_packf_ref(const float *src, int64_t ld, int n_rows, int K, float *panel) {
    for (int k = 0; k < K; k++)
        for (int r = 0; r < ASH_PANEL_ROWS; r++) panel[(int64_t)k * ASH_PANEL_ROWS + r] = r < n_rows ? src[r * ld + k] : 0.0f;
}

ASH_REF_BODY gemmf(const float *panels, int K, int64_t n_rows, const float *x, int64_t ldx, int n_tok, float *y, int64_t ldy) {
    for (int64_t r0 = 0; r0 < n_rows; r0 += ASH_PANEL_ROWS) {
        const float *p = panels + r0 * K;
        int nr = (int)ASH_MIN(n_rows - r0, ASH_PANEL_ROWS);
        for (int t = 0; t < n_tok; t++) {
            float acc[ASH_PANEL_ROWS] = {0};
            for (int k = 0; k < K; k++)
                for (int r = 0; r < ASH_PANEL_ROWS; r++) acc[r] = fmaf(p[(int64_t)k * ASH_PANEL_ROWS + r], x[t * ldx + k], acc[r]);
            for (int r = 0; r < nr; r++) y[t * ldy + r0 + r] = acc[r];
        }
    }
}

ASH_REF_FMA(ash_k_gemmf_ref, gemmf,
            (const float *panels, int K, int64_t n_rows, const float *x, int64_t ldx, int n_tok, float *y, int64_t ldy),
            (panels, K, n_rows, x, ldx, n_tok, y, ldy))

static inline float at_f32(const uint8_t *row, int k) {
    float f;
    memcpy(&f, row + 4 * (size_t)k, 4);
    return f;
}

static inline uint16_t at_u16(const uint8_t *row, int k) {
    uint16_t h;
    memcpy(&h, row + 2 * (size_t)k, 2);
    return h;
}

static inline float at_f16(const uint8_t *row, int k) { return ash_f16_to_f32(at_u16(row, k)); }
static inline float at_bf16(const uint8_t *row, int k) { return ash_bf16_to_f32(at_u16(row, k)); }

#define GEMVF(TYPE, AT)                                                                                                            \
    ASH_REF_BODY gemvf_##TYPE(const void *w, size_t row_bytes, int64_t n_rows, int K, const float *x, float *y) {                  \
        for (int64_t r = 0; r < n_rows; r++) {                                                                                     \
            const uint8_t *row = (const uint8_t *)w + (size_t)r * row_bytes;                                                       \
            float acc = 0;                                                                                                         \
            for (int k = 0; k < K; k++) acc = fmaf(AT(row, k), x[k], acc);                                                         \
            y[r] = acc;                                                                                                            \
        }                                                                                                                          \
    }                                                                                                                              \
    ASH_REF_FMA(ash_k_gemvf_##TYPE##_ref, gemvf_##TYPE,                                                                            \
                (const void *w, size_t row_bytes, int64_t n_rows, int K, const float *x, float *y), (w, row_bytes, n_rows, K, x, y))
GEMVF(F32, at_f32)
GEMVF(F16, at_f16)
GEMVF(BF16, at_bf16)

void ash_k_rmsnorm_ref(const float *x, const float *w, int n, float eps, float *y) {
    float l[ASH_SUM_LANES] = {0};
    for (int i = 0; i < n; i++) l[i % ASH_SUM_LANES] = fmaf(x[i], x[i], l[i % ASH_SUM_LANES]);
    float s = 1.0f / sqrtf(ash_fold64(l) / (float)n + eps);
    for (int i = 0; i < n; i++) y[i] = w ? x[i] * s * w[i] : x[i] * s;
}

void ash_k_addto_ref(float *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

void ash_k_silu_mul_ref(float *g, const float *u, int64_t n) {
    for (int64_t i = 0; i < n; i++) g[i] = ash_siluf(g[i]) * u[i];
}

void ash_k_gelu_mul_ref(float *g, const float *u, int64_t n) {
    for (int64_t i = 0; i < n; i++) g[i] = ash_geluf(g[i]) * u[i];
}

void ash_k_to_f16_ref(const float *x, uint16_t *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = ash_f32_to_f16(x[i]);
}

void ash_k_from_f16_ref(const uint16_t *x, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = ash_f16_to_f32(x[i]);
}

static inline void rotate(float *a, float *b, const float *cs) {
    float x0 = *a, x1 = *b;
    *a = fmaf(x0, cs[0], -(x1 * cs[1]));
    *b = fmaf(x1, cs[0], x0 * cs[1]);
}

void ash_k_rope_norm_ref(float *x, int n_head, int hd, int n_rot, const float *cs) {
    for (int h = 0; h < n_head; h++)
        for (int i = 0; i < n_rot / 2; i++) rotate(x + (int64_t)h * hd + 2 * i, x + (int64_t)h * hd + 2 * i + 1, cs + 2 * i);
}

void ash_k_rope_neox_ref(float *x, int n_head, int hd, int n_rot, const float *cs) {
    for (int h = 0; h < n_head; h++)
        for (int i = 0; i < n_rot / 2; i++) rotate(x + (int64_t)h * hd + i, x + (int64_t)h * hd + n_rot / 2 + i, cs + 2 * i);
}
