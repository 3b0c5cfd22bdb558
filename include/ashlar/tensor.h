/* ashlar/tensor.h - element types and block layouts. Ids equal GGUF's (ggml_type). */
#ifndef ASHLAR_TENSOR_H
#define ASHLAR_TENSOR_H

#include "ashlar/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The one list of element types: name, GGUF id, elements per block, bytes per block, quantized.
 * Layouts: src/tensor/blocks.h. Source: the GGUF specification and ggml's public type table. */
#define ASH_DTYPE_LIST(X)                                                                          \
    X(F32, 0, 1, 4, 0)                                                                             \
    X(F16, 1, 1, 2, 0)                                                                             \
    X(Q4_0, 2, 32, 18, 1)                                                                          \
    X(Q4_1, 3, 32, 20, 1)                                                                          \
    X(Q5_0, 6, 32, 22, 1)                                                                          \
    X(Q5_1, 7, 32, 24, 1)                                                                          \
    X(Q8_0, 8, 32, 34, 1)                                                                          \
    X(Q2_K, 10, 256, 84, 1)                                                                        \
    X(Q3_K, 11, 256, 110, 1)                                                                       \
    X(Q4_K, 12, 256, 144, 1)                                                                       \
    X(Q5_K, 13, 256, 176, 1)                                                                       \
    X(Q6_K, 14, 256, 210, 1)                                                                       \
    X(IQ2_XXS, 16, 256, 66, 1)                                                                     \
    X(IQ2_XS, 17, 256, 74, 1)                                                                      \
    X(IQ3_XXS, 18, 256, 98, 1)                                                                     \
    X(IQ1_S, 19, 256, 50, 1)                                                                       \
    X(IQ4_NL, 20, 32, 18, 1)                                                                       \
    X(IQ3_S, 21, 256, 110, 1)                                                                      \
    X(IQ2_S, 22, 256, 82, 1)                                                                       \
    X(IQ4_XS, 23, 256, 136, 1)                                                                     \
    X(I8, 24, 1, 1, 0)                                                                             \
    X(I16, 25, 1, 2, 0)                                                                            \
    X(I32, 26, 1, 4, 0)                                                                            \
    X(I64, 27, 1, 8, 0)                                                                            \
    X(F64, 28, 1, 8, 0)                                                                            \
    X(IQ1_M, 29, 256, 56, 1)                                                                       \
    X(BF16, 30, 1, 2, 0)                                                                           \
    X(TQ1_0, 34, 256, 54, 1)                                                                       \
    X(TQ2_0, 35, 256, 66, 1)                                                                       \
    X(MXFP4, 39, 32, 17, 1)                                                                        \
    X(NVFP4, 40, 64, 36, 1)                                                                        \
    X(Q1_0, 41, 128, 18, 1)                                                                        \
    X(Q2_0, 42, 64, 18, 1)

typedef enum {
#define X(name, id, elems, bytes, quantized) ASH_##name = id,
    ASH_DTYPE_LIST(X)
#undef X
    ASH_DTYPE_MAX = 43 /* ids are below this; not all are used */
} ash_dtype;

typedef struct {
    const char *name;      /* "Q4_K" */
    int id;
    uint32_t block_elems;
    uint32_t block_bytes;
    bool quantized;
} ash_dtype_info;

/* NULL for an id that is not in the list. */
ASH_API const ash_dtype_info *ash_dtype_get(int id);
/* Case-insensitive, "q4_k" or "Q4_K". false when unknown. */
ASH_API bool ash_dtype_parse(const char *name, ash_dtype *out);
ASH_API const char *ash_dtype_name(ash_dtype t); /* "?" when unknown */
/* Bytes of a row of n elements; 0 when n is no multiple of the block size. */
ASH_API uint64_t ash_dtype_row_bytes(ash_dtype t, uint64_t n);
/* Bits per weight, e.g. 4.5 for Q4_K. */
ASH_API double ash_dtype_bpw(ash_dtype t);

/* Decode one row of n elements (a multiple of the block size) to float32: the scalar reference,
 * bit-exact with the published formats. Any type of the list but the integers and F64 (false). */
ASH_API bool ash_dtype_decode(ash_dtype t, const void *src, float *dst, uint64_t n);

#ifdef __cplusplus
}
#endif
#endif
