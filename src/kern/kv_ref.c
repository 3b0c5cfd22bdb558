/* kv_ref.c - blocks of the KV cache in scalar C: the decoders that kv_decode.inc is held against, and kv_encode.inc compiled for
 * the architecture's base level. */
#define KV_FN(name) ash_k_##name##_ref
#include "kern/kv_encode.inc"

#include "tensor/f16.h"

static float half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return ash_f16_to_f32(h);
}

void ash_k_k8_panels_ref(const uint8_t *block, int hd, int n_panels, float *panels) {
    const int hdp = ash_kv_padded(hd);
    for (int i = 0; i < n_panels; i++)
        for (int d = 0; d < hd; d++)
            for (int j = 0; j < 16; j++) {
                const uint8_t *b = block + (size_t)(i / 2) * ash_kv_block_bytes(ASH_KEYS_K8, hd);
                const int t = i % 2 * 16 + j;
                *panels++ = (float)(int8_t)b[2 * hdp + d * 32 + t] * half_at(b + d / 32 * 64 + 2 * t);
            }
}

void ash_k_k4_panels_ref(const uint8_t *block, int hd, int n_panels, float *panels) {
    const int hdp = ash_kv_padded(hd);
    for (int i = 0; i < n_panels; i++)
        for (int d = 0; d < hd; d++)
            for (int j = 0; j < 16; j++) {
                const uint8_t *b = block + (size_t)(i / 2) * ash_kv_block_bytes(ASH_KEYS_K4, hd), q = b[2 * hdp + d * 16 + j];
                *panels++ = ((float)(i % 2 ? q >> 4 : q & 15) + (float)(int8_t)b[hdp + d]) * ash_kv_k4_scale[b[d]];
            }
}

void ash_k_v8_rows_ref(const uint8_t *v, int hd, int d0, int nd, int n, float *y, int64_t ldy) {
    const int row = ash_kv_padded(hd) / 32 * 34;
    for (int t = 0; t < n; t++)
        for (int d = 0; d < ash_kv_padded(nd); d++) {
            const uint8_t *b = v + t * row + (d0 + d) / 32 * 34;
            y[t * ldy + d] = (float)(int8_t)b[2 + d % 32] * half_at(b);
        }
}

void ash_k_v4_rows_ref(const uint8_t *v, int hd, int d0, int nd, int n, float *y, int64_t ldy) {
    const int hdp = ash_kv_padded(hd), row = hdp / 16 + hdp / 2;
    for (int t = 0; t < n; t++)
        for (int d = 0; d < ash_kv_padded(nd); d++) {
            const uint8_t *sc = v + t * row, q = sc[hdp / 16 + (d0 + d) / 32 * 16 + d % 16];
            y[t * ldy + d] = (float)((d % 32 < 16 ? q & 15 : q >> 4) - 8) * ash_kv_v4_scale[sc[(d0 + d) / 16]];
        }
}
