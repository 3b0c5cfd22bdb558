/* kv_block.c - see kv_block.h: sizes, the choice of kernel, 8-bit rows, and the rotation of values. */
#include "kern/kv_block.h"
#include "tensor/f16.h"

#include <math.h>

enum { Q8_BYTES = 34 };

size_t ash_kv_block_bytes(ash_keys_form form, int hd) {
    const size_t n = (size_t)ash_kv_padded(hd) * ASH_KV_BLOCK;
    switch (form) {
    case ASH_KEYS_Q8: return n / 32 * Q8_BYTES;
    case ASH_KEYS_K4:
    case ASH_KEYS_V4: return n / 16 * 9;
    default: return 0;
    }
}

static void q8_row(const float *x, int hd, uint8_t *out) {
    for (int c = 0; c < hd; c += 32, out += Q8_BYTES) {
        const int n = ASH_MIN(32, hd - c);
        float max = 0;
        for (int j = 0; j < n; j++) max = fmaxf(max, fabsf(x[c + j]));
        const uint16_t h = ash_f32_to_f16(fminf(max / 127, 65504));
        const float d = ash_f16_to_f32(h), inv = d > 0 ? 1 / d : 0;
        int8_t q[32] = {0};
        for (int j = 0; j < n; j++) q[j] = (int8_t)nearbyintf(fminf(fmaxf(x[c + j] * inv, -127), 127));
        memcpy(out, &h, 2);
        memcpy(out + 2, q, 32);
    }
}

void ash_kv_encode(const ash_kern *k, ash_keys_form form, const float *x, int64_t ldx, int hd, uint8_t *block) {
    if (form == ASH_KEYS_K4)
        k->k4_encode(x, ldx, hd, block);
    else if (form == ASH_KEYS_V4)
        k->v4_encode(x, ldx, hd, block);
    else
        for (int t = 0; t < ASH_KV_BLOCK; t++) q8_row(x + t * ldx, hd, block + (size_t)t * (size_t)ash_kv_padded(hd) / 32 * Q8_BYTES);
}

void ash_kv_decode(const ash_kern *k, ash_keys_form form, const uint8_t *block, int hd, int t0, int n, float *y, int64_t ldy) {
    const int hdp = ash_kv_padded(hd);
    if (form == ASH_KEYS_K4)
        k->k4_decode(block, hd, t0, n, y, ldy);
    else if (form == ASH_KEYS_V4)
        k->v4_decode(block, hd, t0, n, y, ldy);
    else
        for (int t = 0; t < n; t++) k->decode[ASH_Q8_0](block + (size_t)(t0 + t) * (size_t)hdp / 32 * Q8_BYTES, y + t * ldy, hdp);
}

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
