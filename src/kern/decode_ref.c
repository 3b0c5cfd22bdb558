/* decode_ref.c - scalar decode of every type for the kernel table: the reference of src/tensor behind the
 * kernels' signature. */
#include "kern/kern_decl.h"

#define DECODE(TYPE)                                                                                                               \
    void ash_k_decode_##TYPE##_ref(const void *src, float *dst, int64_t n) { (void)ash_dtype_decode(ASH_##TYPE, src, dst, (uint64_t)n); }
DECODE(F32)
DECODE(F16)
DECODE(Q4_0)
DECODE(Q4_1)
DECODE(Q5_0)
DECODE(Q5_1)
DECODE(Q8_0)
DECODE(Q2_K)
DECODE(Q3_K)
DECODE(Q4_K)
DECODE(Q5_K)
DECODE(Q6_K)
DECODE(IQ2_XXS)
DECODE(IQ2_XS)
DECODE(IQ3_XXS)
DECODE(IQ1_S)
DECODE(IQ4_NL)
DECODE(IQ3_S)
DECODE(IQ2_S)
DECODE(IQ4_XS)
DECODE(IQ1_M)
DECODE(BF16)
DECODE(TQ1_0)
DECODE(TQ2_0)
DECODE(MXFP4)
DECODE(NVFP4)
DECODE(Q1_0)
DECODE(Q2_0)
