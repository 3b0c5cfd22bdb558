/* decode.c - ash_dtype_decode: checks the row length and picks the type's decoder. */
#include "ashlar/tensor.h"
#include "tensor/decode_int.h"

typedef void (*decode_fn)(const void *src, float *dst, int64_t n);

static const decode_fn decoders[ASH_DTYPE_MAX] = {
#define X(T) [ASH_##T] = ash_dec_##T,
    ASH_DECODER_LIST(X)
#undef X
};

bool ash_dtype_decode(ash_dtype t, const void *src, float *dst, uint64_t n) {
    const ash_dtype_info *i = ash_dtype_get((int)t);
    if (!i || !decoders[t] || n % i->block_elems || n > INT64_MAX) return false;
    decoders[t](src, dst, (int64_t)n);
    return true;
}
