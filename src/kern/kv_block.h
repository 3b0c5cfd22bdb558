/* kv_block.h - quantized blocks of the KV cache: 32 consecutive tokens of one head, in one of four forms. hd' is the head
 * dimension rounded up to 32; what is beyond hd is zero. Keys have their tokens side by side, for a score is a chain over
 * dimensions; values have dimensions side by side, for an output is a chain over tokens, and so consecutive blocks are one run
 * of rows. All numbers are little-endian.
 *
 *   K8  keys     f16 s[hd'/32][32 tokens], int8 q[hd'][32 tokens]; x = q * s: the Q8_0 of GGUF files, turned       8.5 bits
 *   V8  values   per token hd'/32 Q8_0 blocks: f16 scale, 32 int8                                                 8.5 bits
 *   K4  keys     uint8 s[hd'], int8 z[hd'], codes [hd'][16]: token j (low), 16 + j (high)                         4.5 bits
 *                x = (code + z[d]) * 2^(s[d]/8 - 24): every channel has a range of its own over the 32 tokens, for a few
 *                channels of keys are far larger, and farther from zero, than the rest (KIVI, arXiv 2402.02750)
 *   V4  values   per token uint8 s[hd'/16], codes [hd'/2]: dimension c + j (low), c + 16 + j (high), c a multiple of 32
 *                x = (code - 8) * s, s of 16 values: bit 7 sign, else 0: 0, u: 2^((u - 79)/6). Values are rotated
 *                before (ash_hadamard), which spreads outliers (QuaRot, arXiv 2404.00456)                         4.5 bits
 */
#ifndef ASH_KERN_KV_BLOCK_H
#define ASH_KERN_KV_BLOCK_H

#include "kern/kern.h"

#define ASH_KV_BLOCK 32 /* tokens */
#define ASH_KV_PAD 32   /* dimensions */

static inline int ash_kv_padded(int hd) { return (hd + ASH_KV_PAD - 1) / ASH_KV_PAD * ASH_KV_PAD; }
/* Bytes of a block of hd dimensions; 0 for the plain forms. */
size_t ash_kv_block_bytes(ash_keys_form form, int hd);
/* 32 tokens, ldx apart, into a block. */
void ash_kv_encode(const ash_kern *k, ash_keys_form form, const float *x, int64_t ldx, int hd, uint8_t *block);
/* Values of the scale bytes, and the steps of an octave from `o` on. */
extern const float ash_kv_k4_scale[256], ash_kv_v4_scale[256];
#define ASH_KV_EIGHTHS(o) \
    (o), 0x1.172b84p+0f * (o), 0x1.306fe0p+0f * (o), 0x1.4bfdaep+0f * (o), 0x1.6a09e6p+0f * (o), 0x1.8ace54p+0f * (o), 0x1.ae89fap+0f * (o), 0x1.d5818ep+0f * (o)
#define ASH_KV_SIXTHS(o) (o), 0x1.1f59acp+0f * (o), 0x1.428a30p+0f * (o), 0x1.6a09e6p+0f * (o), 0x1.965feap+0f * (o), 0x1.c823e0p+0f * (o)
/* In place: normalised Walsh-Hadamard transform (its own inverse) of pieces as long as the largest power of two in hd. */
void ash_hadamard(float *x, int hd);

#endif
