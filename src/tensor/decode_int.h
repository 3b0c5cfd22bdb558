/* decode_int.h - the per-type row decoders behind ash_dtype_decode. n is a multiple of the type's
 * block; src needs no alignment. The float operations and their order are part of the contract: they
 * define the value a block stands for, bit for bit. */
#ifndef ASH_DECODE_INT_H
#define ASH_DECODE_INT_H

#include <stdint.h>

/* Types with a decoder. */
#define ASH_DECODER_LIST(X)                                                                                                                \
    X(F32) X(F16) X(BF16) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(IQ1_S) X(IQ1_M) X(IQ2_XXS)     \
    X(IQ2_XS) X(IQ2_S) X(IQ3_XXS) X(IQ3_S) X(IQ4_NL) X(IQ4_XS) X(TQ1_0) X(TQ2_0) X(MXFP4) X(NVFP4) X(Q1_0) X(Q2_0)

#define X(T) void ash_dec_##T(const void *src, float *dst, int64_t n);
ASH_DECODER_LIST(X)
#undef X

#endif
