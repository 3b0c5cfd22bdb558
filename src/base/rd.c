/* rd.c - bounds-checked little-endian reader. */
#include "base/base.h"

const void *ash_rd_bytes(ash_rd *r, uint64_t n) {
    if (r->bad || n > r->n - r->pos) {
        r->bad = true;
        return NULL;
    }
    const void *p = r->p + r->pos;
    r->pos += n;
    return p;
}

#define RD(name, type)                                                                             \
    type name(ash_rd *r) {                                                                         \
        type v = 0;                                                                                \
        const void *p = ash_rd_bytes(r, sizeof v);                                                 \
        if (p) memcpy(&v, p, sizeof v);                                                            \
        return v;                                                                                  \
    }
RD(ash_rd_u8, uint8_t)
RD(ash_rd_u16, uint16_t)
RD(ash_rd_u32, uint32_t)
RD(ash_rd_u64, uint64_t)
RD(ash_rd_f32, float)
RD(ash_rd_f64, double)
#undef RD
