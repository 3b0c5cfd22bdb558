/* kv_block.h - quantized blocks of the KV cache: 32 consecutive tokens of one head, in one of three forms. hd' is the head
 * dimension rounded up to 32; what is beyond hd is zero. Two codes share a byte: dimensions c + j (low) and c + 16 + j
 * (high), c a multiple of 32, j < 16.
 *
 *   Q8  keys, values   per token hd'/32 Q8_0 blocks as in GGUF files: f16 scale, 32 int8           8.5 bits
 *   K4  keys           uint8 s[hd'], int8 z[hd'], codes [32 tokens][hd'/2]                          4.5 bits
 *                      x = (code + z[d]) * 2^(s[d]/8 - 24): every channel has a range of its own over the 32 tokens, for a few
 *                      channels of keys are far larger, and farther from zero, than the rest (KIVI, arXiv 2402.02750)
 *   V4  values         per token uint8 s[hd'/16], codes [hd'/2]                                     4.5 bits
 *                      x = (code - 8) * s, s of 16 values: bit 7 sign, else 0: 0, u: 2^((u - 79)/6). Values are rotated
 *                      before (ash_hadamard), which spreads outliers (QuaRot, arXiv 2404.00456)
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
/* Tokens [t0, t0 + n) of a block, hd' floats each, ldy apart. */
void ash_kv_decode(const ash_kern *k, ash_keys_form form, const uint8_t *block, int hd, int t0, int n, float *y, int64_t ldy);
/* In place: normalised Walsh-Hadamard transform (its own inverse) of pieces as long as the largest power of two in hd. */
void ash_hadamard(float *x, int hd);

#endif
