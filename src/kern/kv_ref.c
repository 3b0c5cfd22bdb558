/* kv_ref.c - blocks of the KV cache in scalar C: what kv_decode.inc and kv_fused.inc are held against, and kv_encode.inc compiled
 * for the architecture's base level. */
#define KV_FN(name) ash_k_##name##_ref
#include "kern/kv_encode.inc"

#include "kern/mathf.h"

static float half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return ash_f16_to_f32(h);
}

/* One value: token t or dimension d of a block of keys, dimension d of a token's values. */
static float k8_value(const uint8_t *b, int hdp, int d, int t) { return (float)(int8_t)b[2 * hdp + d * 32 + t] * half_at(b + d / 32 * 64 + 2 * t); }
static float k4_value(const uint8_t *b, int hdp, int d, int t) {
    const uint8_t q = b[2 * hdp + d * 16 + t % 16];
    return ((float)(t / 16 ? q >> 4 : q & 15) + (float)(int8_t)b[hdp + d]) * ash_kv_k4_scale[b[d]];
}
static float v8_value(const uint8_t *v, int d) { return (float)(int8_t)v[d / 32 * 34 + 2 + d % 32] * half_at(v + d / 32 * 34); }
static float v4_value(const uint8_t *v, int hdp, int d) {
    const uint8_t q = v[hdp / 16 + d / 32 * 16 + d % 16];
    return (float)((d % 32 < 16 ? q & 15 : q >> 4) - 8) * ash_kv_v4_scale[v[d / 16]];
}

static void panels_of(bool four, const uint8_t *block, int hd, int n_panels, float *panels) {
    for (int i = 0; i < n_panels; i++)
        for (int d = 0; d < hd; d++)
            for (int j = 0; j < 16; j++) {
                const uint8_t *b = block + (size_t)(i / 2) * ash_kv_block_bytes(four ? ASH_KEYS_K4 : ASH_KEYS_K8, hd);
                const int t = i % 2 * 16 + j;
                *panels++ = four ? k4_value(b, ash_kv_padded(hd), d, t) : k8_value(b, ash_kv_padded(hd), d, t);
            }
}
void ash_k_k8_panels_ref(const uint8_t *block, int hd, int n_panels, float *panels) { panels_of(false, block, hd, n_panels, panels); }
void ash_k_k4_panels_ref(const uint8_t *block, int hd, int n_panels, float *panels) { panels_of(true, block, hd, n_panels, panels); }

void ash_k_v8_rows_ref(const uint8_t *v, int hd, int d0, int nd, int n, float *y, int64_t ldy) {
    for (int t = 0; t < n; t++, v += ash_kv_padded(hd) / 32 * 34)
        for (int d = 0; d < ash_kv_padded(nd); d++) y[t * ldy + d] = v8_value(v, d0 + d);
}
void ash_k_v4_rows_ref(const uint8_t *v, int hd, int d0, int nd, int n, float *y, int64_t ldy) {
    const int hdp = ash_kv_padded(hd);
    for (int t = 0; t < n; t++, v += hdp / 16 + hdp / 2)
        for (int d = 0; d < ash_kv_padded(nd); d++) y[t * ldy + d] = v4_value(v, hdp, d0 + d);
}

/* ---- attention straight from blocks ---- */
static void scores(bool four, const float *q, int64_t ldq, int n_q, const uint8_t *block, int n_blocks, int hd, float *s, int64_t lds) {
    const size_t bytes = ash_kv_block_bytes(four ? ASH_KEYS_K4 : ASH_KEYS_K8, hd);
    const int hdp = ash_kv_padded(hd);
    for (int j = 0; j < n_blocks * ASH_KV_BLOCK; j++) {
        const uint8_t *b = block + (size_t)(j / ASH_KV_BLOCK) * bytes;
        const int t = j % ASH_KV_BLOCK;
        for (int i = 0; i < n_q; i++) s[i * lds + j] = 0;
        for (int d = 0; d < hd; d++) {
            const float x = four ? k4_value(b, hdp, d, t) : k8_value(b, hdp, d, t);
            for (int i = 0; i < n_q; i++) s[i * lds + j] = fmaf(x, q[i * ldq + d], s[i * lds + j]);
        }
    }
}

static void sums(bool four, const float *p, int64_t ldp, int n_q, const uint8_t *v, int hd, int d0, int nd, int n, float *out, int64_t ldo) {
    const int hdp = ash_kv_padded(hd), row = four ? hdp / 16 + hdp / 2 : hdp / 32 * 34;
    for (int t = 0; t < n; t++)
        for (int d = 0; d < nd; d++) {
            const float x = four ? v4_value(v + t * row, hdp, d0 + d) : v8_value(v + t * row, d0 + d);
            for (int i = 0; i < n_q; i++) out[i * ldo + d] = fmaf(x, p[i * ldp + t], out[i * ldo + d]);
        }
}

void ash_k_qk_k8_ref(const float *q, int64_t ldq, int n_q, const uint8_t *block, int n_blocks, int hd, float *s, int64_t lds) {
    scores(false, q, ldq, n_q, block, n_blocks, hd, s, lds);
}
void ash_k_qk_k4_ref(const float *q, int64_t ldq, int n_q, const uint8_t *block, int n_blocks, int hd, float *s, int64_t lds) {
    scores(true, q, ldq, n_q, block, n_blocks, hd, s, lds);
}
void ash_k_pv_v8_ref(const float *p, int64_t ldp, int n_q, const uint8_t *v, int hd, int d0, int nd, int n, float *out, int64_t ldo) {
    sums(false, p, ldp, n_q, v, hd, d0, nd, n, out, ldo);
}
void ash_k_pv_v4_ref(const float *p, int64_t ldp, int n_q, const uint8_t *v, int hd, int d0, int nd, int n, float *out, int64_t ldo) {
    sums(true, p, ldp, n_q, v, hd, d0, nd, n, out, ldo);
}
