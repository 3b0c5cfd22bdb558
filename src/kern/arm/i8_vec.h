/* i8_vec.h - the vocabulary of kern/i8_types.inc for 64-bit ARM, 4 rows side by side. With the dot product
 * extension a vector of 4 x 4 codes is one instruction; without it byte products are added up in 16 bits, of
 * two rows each, as long as they fit: N products of codes <= qmax with |a| <= 127 need N * 127 * qmax <= 32767. */
#ifndef ASH_KERN_I8_VEC_ARM_H
#define ASH_KERN_I8_VEC_ARM_H

#include "kern/i8_common.h"
#include "tensor/codebooks.h"

#include <arm_neon.h>
#include <string.h>

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))

#if defined(__ARM_FEATURE_DOTPROD)
#define FN8(name) ash_k_##name##_dotprod
#else
#define FN8(name) ash_k_##name##_neon
#endif
enum { ROWS = 4 };
typedef uint32x4_t vi;
typedef float32x4_t vf;
#define SET1(b) vreinterpretq_u32_u8(vdupq_n_u8((uint8_t)(b)))
#define SET32(x) vdupq_n_u32((uint32_t)(x))
/* operators on vectors, as shift counts need not be literals then */
#define AND(a, b) ((a) & (b))
#define OR(a, b) ((a) | (b))
#define SHR(a, n) ((a) >> (uint32_t)(n))
#define SHL(a, n) ((a) << (uint32_t)(n))
#define SAR(a, n) vreinterpretq_u32_s32(vreinterpretq_s32_u32(a) >> (n))
#define SUB32(a, b) vsubq_u32(a, b)
#define CVT(a) vcvtq_f32_s32(vreinterpretq_s32_u32(a))
#define MULF(a, b) vmulq_f32(a, b)
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define SET1F(x) vdupq_n_f32(x)
#define ZEROF() vdupq_n_f32(0)
#define LOADF(p) vld1q_f32(p)
#define STOREF(p, v) vst1q_f32(p, v)
#define FIRSTF(v) vgetq_lane_f32(v, 0)
#define LOOKUP(table, i) vreinterpretq_u32_s8(vqtbl1q_s8(vreinterpretq_s8_u32(table), vreinterpretq_u8_u32(i)))
/* full-range codes are made signed */
#define FULL(v) (v)
#define FULL_ZP false
#define BOOK() vreinterpretq_u32_s8(vld1q_s8(ash_iq4nl_values))
/* layout's N is for sums of pairs: here twice as many fit, at most the whole group */
#define SHARE(L) ASH_MIN(2 * (L).N, (L).G / 4)

/* Four rows at a block: row r at p + r * rb. */
typedef struct {
    const uint8_t *p;
    size_t rb;
    const void *staged; /* what the type's stage function wrote */
} slab;
INLINE slab slab_at(const uint8_t *w, size_t rb) { return (slab){w, rb, NULL}; }

typedef struct {
    bool dot;
    bool full; /* full-range codes */
    int N;     /* dot: vectors that may share a 16-bit sum, <= G/4 */
    /* dot: activations of this block's first column and per-group terms (as in gemm8) */
    const int8_t *a;
    const int32_t *zb;
    const float *d, *db;
    vf acc;
    /* unpack: these rows of the panel */
    uint8_t *q;
    float *s, *m;
} sink;

/* 16 bytes at `off` of each row: v[i] = dword i of rows 0..3. */
INLINE void load_t(const slab *w, size_t off, vi v[4]) {
    vi x[4];
    UNROLL for (int j = 0; j < 4; j++) x[j] = vreinterpretq_u32_u8(vld1q_u8(w->p + off + (size_t)j * w->rb));
    uint64x2_t t0 = vreinterpretq_u64_u32(vzip1q_u32(x[0], x[1])), t1 = vreinterpretq_u64_u32(vzip1q_u32(x[2], x[3]));
    uint64x2_t t2 = vreinterpretq_u64_u32(vzip2q_u32(x[0], x[1])), t3 = vreinterpretq_u64_u32(vzip2q_u32(x[2], x[3]));
    v[0] = vreinterpretq_u32_u64(vzip1q_u64(t0, t1));
    v[1] = vreinterpretq_u32_u64(vzip2q_u64(t0, t1));
    v[2] = vreinterpretq_u32_u64(vzip1q_u64(t2, t3));
    v[3] = vreinterpretq_u32_u64(vzip2q_u64(t2, t3));
}

INLINE int8x16_t four_activations(const sink *k, int k4) {
    int32_t four;
    memcpy(&four, k->a + 4 * k4, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
INLINE void put_codes(const sink *k, int k4, vi codes) { vst1q_u8(k->q + 64 * k4, vreinterpretq_u8_u32(k->full ? codes ^ SET1(0x80) : codes)); }

/* put: codes of columns 4*k4 .. +3 of the block, added to the group's sums. */
#if defined(__ARM_FEATURE_DOTPROD)
typedef int32x4_t sums;
INLINE sums put(sink *k, int k4, vi codes, sums s) {
    if (k->dot) return vdotq_s32(s, vreinterpretq_s8_u32(codes), four_activations(k, k4));
    put_codes(k, k4, codes);
    return s;
}
INLINE sums first(const sink *k, int g, bool has_zp) { return vdupq_n_s32(k->dot && has_zp ? k->zb[g] : 0); }
INLINE vi total(sums s) { return vreinterpretq_u32_s32(s); }
#else
typedef struct { /* of rows 0, 1 and of rows 2, 3 */
    int16x8_t s16[2];
    int32x4_t s32[2];
} sums;
INLINE sums put(sink *k, int k4, vi codes, sums s) {
    if (!k->dot) {
        put_codes(k, k4, codes);
        return s;
    }
    const int N = k->N;
    int8x16_t c = vreinterpretq_s8_u32(codes), a = four_activations(k, k4);
    if (k4 % N) {
        s.s16[0] = vmlal_s8(s.s16[0], vget_low_s8(c), vget_low_s8(a));
        s.s16[1] = vmlal_high_s8(s.s16[1], c, a);
    } else {
        s.s16[0] = vmull_s8(vget_low_s8(c), vget_low_s8(a));
        s.s16[1] = vmull_high_s8(c, a);
    }
    if (k4 % N == N - 1) {
        s.s32[0] = vpadalq_s16(s.s32[0], s.s16[0]);
        s.s32[1] = vpadalq_s16(s.s32[1], s.s16[1]);
    }
    return s;
}
INLINE sums first(const sink *k, int g, bool has_zp) {
    int32x4_t z = vdupq_n_s32(0), b = z;
    if (k->dot && has_zp) b = vreinterpretq_s32_u64(vdupq_n_u64((uint32_t)k->zb[g])); /* once per row: lanes are added in pairs */
    return (sums){{vreinterpretq_s16_s32(z), vreinterpretq_s16_s32(z)}, {b, b}};
}
INLINE vi total(sums s) { return vreinterpretq_u32_s32(vpaddq_s32(s.s32[0], s.s32[1])); }
#endif

/* v: 4 dwords of nibble pairs; low nibbles are columns 0-15 of the group at k4, high ones 16-31. */
INLINE sums nibbles(sink *k, int k4, const vi v[4], sums isum) {
    UNROLL for (int i = 0; i < 4; i++) isum = put(k, k4 + i, AND(v[i], SET1(15)), isum);
    UNROLL for (int i = 0; i < 4; i++)
        isum = put(k, k4 + 4 + i, vreinterpretq_u32_u8(vshrq_n_u8(vreinterpretq_u8_u32(v[i]), 4)), isum);
    return isum;
}

/* Low or high 16 bits of dwords as halves. */
INLINE vf half_lo(vi v) { return vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(v))); }
INLINE vf half_hi(vi v) { return vcvt_f32_f16(vreinterpret_f16_u16(vshrn_n_u32(v, 16))); }
INLINE vf neg(vf v) { return vnegq_f32(v); }
INLINE vf head16(const uint8_t *head) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(head))); }
INLINE vi head32(const uint8_t *head) { return vreinterpretq_u32_u8(vld1q_u8(head)); }
/* heads of 8 bytes: dwords at bit `shift` of each qword */
INLINE vi head64(const uint8_t *head, uint64_t shift) {
    uint64x2_t a = vreinterpretq_u64_u8(vld1q_u8(head)) >> shift, b = vreinterpretq_u64_u8(vld1q_u8(head + 16)) >> shift;
    return vuzp1q_u32(vreinterpretq_u32_u64(a), vreinterpretq_u32_u64(b));
}

/* Bits 4i .. 4i+3 of each dword as bit 4 of its 4 bytes: byte i/2 is copied to all four and tested bit by bit. */
INLINE vi fifth(vi qh, int i) {
    const uint8x16_t each = {0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12};
    uint8x16_t copy = vqtbl1q_u8(vreinterpretq_u8_u32(qh), vaddq_u8(each, vdupq_n_u8((uint8_t)(i / 2))));
    uint8x16_t bits = vreinterpretq_u8_u32(vdupq_n_u32(i % 2 ? 0x80402010u : 0x08040201u));
    return vreinterpretq_u32_u8(vandq_u8(vtstq_u8(copy, bits), vdupq_n_u8(16)));
}

#endif
