/* kv_block.c - see kv_block.h: sizes, the choice of encoder, scales, and the rotation of values. */
#include "kern/kv_block.h"

#include <math.h>

size_t ash_kv_block_bytes(ash_keys_form form, int hd) {
    const size_t n = (size_t)ash_kv_padded(hd) * ASH_KV_BLOCK;
    switch (form) {
    case ASH_KEYS_K8:
    case ASH_KEYS_V8: return n / 32 * 34;
    case ASH_KEYS_K4:
    case ASH_KEYS_V4: return n / 16 * 9;
    default: return 0;
    }
}

void ash_kv_encode(const ash_kern *k, ash_keys_form form, const float *x, int64_t ldx, int hd, uint8_t *block) {
    switch (form) {
    case ASH_KEYS_K8: k->k8_encode(x, ldx, hd, block); return;
    case ASH_KEYS_V8: k->v8_encode(x, ldx, hd, block); return;
    case ASH_KEYS_K4: k->k4_encode(x, ldx, hd, block); return;
    case ASH_KEYS_V4: k->v4_encode(x, ldx, hd, block); return;
    default: return;
    }
}

/* ---- scales: geometric, so that one byte spans all magnitudes; products with powers of two are exact ---- */
#define E4(o) ASH_KV_EIGHTHS(o), ASH_KV_EIGHTHS(2 * (o)), ASH_KV_EIGHTHS(4 * (o)), ASH_KV_EIGHTHS(8 * (o))
const float ash_kv_k4_scale[256] = {E4(0x1p-24f), E4(0x1p-20f), E4(0x1p-16f), E4(0x1p-12f), E4(0x1p-8f), E4(0x1p-4f), E4(0x1p0f), E4(0x1p4f)};

/* code 1: 2^(-78/6) */
#define S4(o) ASH_KV_SIXTHS(o), ASH_KV_SIXTHS(2 * (o)), ASH_KV_SIXTHS(4 * (o)), ASH_KV_SIXTHS(8 * (o))
#define S21(o) S4(o), S4(16 * (o)), S4(256 * (o)), S4(4096 * (o)), S4(65536 * (o)), ASH_KV_SIXTHS(0x1p20f * (o))
const float ash_kv_v4_scale[256] = {0, S21(0x1p-13f), (0x1p8f), 0, S21(-0x1p-13f), (-0x1p8f)};

void ash_hadamard(float *x, int hd) {
    const int n = hd & -hd;
    const float s = 1.0f / sqrtf((float)n);
    for (float *p = x; p < x + hd; p += n) {
        for (int h = 1; h < n; h *= 2)
            for (int i = 0; i < n; i += 2 * h)
                for (int j = i; j < i + h; j++) {
                    float a = p[j], b = p[j + h];
                    p[j] = a + b, p[j + h] = a - b;
                }
        for (int i = 0; i < n; i++) p[i] *= s;
    }
}
