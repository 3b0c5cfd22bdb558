/* i8_lattice_vec.h - what kern/i8_lattice.inc needs beyond i8_vec.h, for 64-bit ARM. */
#ifndef ASH_KERN_I8_LATTICE_VEC_ARM_H
#define ASH_KERN_I8_LATTICE_VEC_ARM_H

#include "kern/arm/i8_vec.h"
#include "tensor/codebooks.h"

#define I8_STAGED 1
#define U8(a) vreinterpretq_u8_u32(a)
#define V8(a) vreinterpretq_u32_u8(a)
#define XOR(a, b) ((a) ^ (b))
#define ANDN(a, b) (~(a) & (b))
#define ADD8(a, b) V8(vaddq_u8(U8(a), U8(b)))
#define SUBS8(a, b) V8(vqsubq_u8(U8(a), U8(b)))
#define AVG8(a, b) V8(vrhaddq_u8(U8(a), U8(b)))
#define EQ32(a, b) vceqq_u32(a, b)
#define CASTF(a) vreinterpretq_f32_u32(a)
#define WORDS(name) NULL
#define STAGED_ROW(r, size) (r)

typedef struct {
    vi zp;
} book;
#define SIGNED_BOOK(levels, zp) ((book){SET1(zp)})

/* FP4 levels above 16; by nibble, 0x80 where the number of ones is odd */
static inline vi fp4_book(void) {
    const uint8x16_t v = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};
    return V8(v);
}
static inline vi parity_book(void) {
    const uint8x16_t v = {0, 128, 128, 0, 128, 0, 0, 128, 128, 0, 0, 128, 0, 128, 128, 0};
    return V8(v);
}
#define FP4_BOOK() fp4_book()
#define PARITY() parity_book()

/* Entries of 8 (columns 0-3, then 4-7) and of 4, numbers at[] of the block. */
INLINE void pairs8(const slab *w, const uint16_t *tab, int bits, vi even, vi odds, const int at[4], vi m[8]) {
    (void)tab, (void)bits, (void)even, (void)odds;
    UNROLL for (int i = 0; i < 4; i++) {
        const uint8_t *p = (const uint8_t *)w->staged + at[i] * 8 * ROWS;
        vi a = V8(vld1q_u8(p)), b = V8(vld1q_u8(p + 16));
        m[2 * i] = vuzp1q_u32(a, b);
        m[2 * i + 1] = vuzp2q_u32(a, b);
    }
}
INLINE void pairs4(const slab *w, const uint16_t *tab, int bits, vi even, vi odds, const int at[4], vi m[4]) {
    (void)tab, (void)bits, (void)even, (void)odds;
    UNROLL for (int i = 0; i < 4; i++) m[i] = V8(vld1q_u8((const uint8_t *)w->staged + at[i] * 4 * ROWS));
}

/* Columns 4*k4 .. +3 of a signed type: magnitudes, and nibble c of the sign bytes (bit set is minus). */
INLINE sums put_signed(sink *k, int k4, vi mag, book b, vi signs, int c, sums s) {
    const uint8x16_t each = {0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12};
    uint8x16_t copy = vqtbl1q_u8(U8(signs), vaddq_u8(each, vdupq_n_u8((uint8_t)(c / 2))));
    uint8x16_t minus = vtstq_u8(copy, U8(SET32(c % 2 ? 0x80402010u : 0x08040201u)));
    vi code = V8(vsubq_u8(veorq_u8(U8(mag), minus), minus));
    return put(k, k4, k->dot ? code : ADD8(code, b.zp), s);
}

/* Codes of levels -1, 0, 1 times 8 above `base`. */
INLINE vi tern(vi level, vi base) { return ADD8(AND(SHL(level, 3), SET1(0xf8)), base); }

INLINE vi head8(const uint8_t *head) { return vmovl_u16(vget_low_u16(vmovl_u8(vld1_u8(head)))); }

#endif
