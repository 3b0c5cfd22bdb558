/* decode_ref.c - scalar decode of every type for the kernel table: the row decoders of src/tensor. */
#include "kern/kern_decl.h"
#include "tensor/decode_int.h"

#define X(TYPE)                                                                                                                    \
    void ash_k_decode_##TYPE##_ref(const void *src, float *dst, int64_t n) { ash_dec_##TYPE(src, dst, n); }
ASH_DECODER_LIST(X)
