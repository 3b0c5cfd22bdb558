/* dtype.c - the table of element types. */
#include "ashlar/tensor.h"

#include <strings.h>

static const ash_dtype_info table[ASH_DTYPE_MAX] = {
#define X(name, id, elems, bytes, quantized) [id] = {#name, id, elems, bytes, quantized},
    ASH_DTYPE_LIST(X)
#undef X
};

const ash_dtype_info *ash_dtype_get(int id) {
    return id >= 0 && id < ASH_DTYPE_MAX && table[id].name ? &table[id] : NULL;
}

bool ash_dtype_parse(const char *name, ash_dtype *out) {
    for (int i = 0; i < ASH_DTYPE_MAX; i++)
        if (table[i].name && strcasecmp(name, table[i].name) == 0) return *out = (ash_dtype)i, true;
    return false;
}

const char *ash_dtype_name(ash_dtype t) {
    const ash_dtype_info *i = ash_dtype_get((int)t);
    return i ? i->name : "?";
}

uint64_t ash_dtype_row_bytes(ash_dtype t, uint64_t n) {
    const ash_dtype_info *i = ash_dtype_get((int)t);
    if (!i || n % i->block_elems) return 0;
    uint64_t b = n / i->block_elems, out;
    return __builtin_mul_overflow(b, (uint64_t)i->block_bytes, &out) ? 0 : out;
}

double ash_dtype_bpw(ash_dtype t) {
    const ash_dtype_info *i = ash_dtype_get((int)t);
    return i ? 8.0 * i->block_bytes / i->block_elems : 0;
}
