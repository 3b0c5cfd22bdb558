/* i8_vec.h - the vocabulary of kern/i8_types.inc for AVX2 (8 rows side by side; sums of byte products stay
 * exact in 16 bits as explained in i8_avx2.c) and AVX-512 VNNI (16 rows). */
#ifndef ASH_KERN_I8_VEC_X86_H
#define ASH_KERN_I8_VEC_X86_H

#include "kern/i8_common.h"

#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#define FN8(name) ash_k_##name##_avx512
enum { ROWS = 16 };
typedef __m512i vi;
typedef __m512 vf;
typedef vi sums;
#define SET1(b) _mm512_set1_epi8((char)(b))
#define SET32(x) _mm512_set1_epi32(x)
#define AND(a, b) _mm512_and_si512(a, b)
#define OR(a, b) _mm512_or_si512(a, b)
#define SHR(a, n) _mm512_srli_epi32(a, (unsigned)(n))
#define SHL(a, n) _mm512_slli_epi32(a, (unsigned)(n))
#define SAR(a, n) _mm512_srai_epi32(a, n)
#define SUB32(a, b) _mm512_sub_epi32(a, b)
#define CVT(a) _mm512_cvtepi32_ps(a)
#define MULF(a, b) _mm512_mul_ps(a, b)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define SET1F(x) _mm512_set1_ps(x)
#define ZEROF() _mm512_setzero_ps()
#define LOADF(p) _mm512_loadu_ps(p)
#define STOREF(p, v) _mm512_storeu_ps(p, v)
#define FIRSTF(v) _mm512_cvtss_f32(v)
#define LOOKUP(table, i) _mm512_shuffle_epi8(table, i)
/* full-range codes stay unsigned */
#define FULL(v) _mm512_xor_si512(v, SET1(0x80))
#define FULL_ZP true
#define BOOK() _mm512_broadcast_i32x4(_mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59, -39, -15))
#define SHARE(L) 0
#else
#define FN8(name) ash_k_##name##_avx2
enum { ROWS = 8 };
typedef __m256i vi;
typedef __m256 vf;
typedef struct {
    vi s16, s32;
} sums;
#define SET1(b) _mm256_set1_epi8((char)(b))
#define SET32(x) _mm256_set1_epi32(x)
#define AND(a, b) _mm256_and_si256(a, b)
#define OR(a, b) _mm256_or_si256(a, b)
#define SHR(a, n) _mm256_srli_epi32(a, n)
#define SHL(a, n) _mm256_slli_epi32(a, n)
#define SAR(a, n) _mm256_srai_epi32(a, n)
#define SUB32(a, b) _mm256_sub_epi32(a, b)
#define CVT(a) _mm256_cvtepi32_ps(a)
#define MULF(a, b) _mm256_mul_ps(a, b)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define SET1F(x) _mm256_set1_ps(x)
#define ZEROF() _mm256_setzero_ps()
#define LOADF(p) _mm256_loadu_ps(p)
#define STOREF(p, v) _mm256_storeu_ps(p, v)
#define FIRSTF(v) _mm256_cvtss_f32(v)
#define LOOKUP(table, i) _mm256_shuffle_epi8(table, i)
/* full-range codes are made signed */
#define FULL(v) (v)
#define FULL_ZP false
#define BOOK() _mm256_broadcastsi128_si256(_mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113))
#define SHARE(L) (L).N
#endif

/* ROWS rows at a block: row r at p[r/4] + (r%4) * rb. */
typedef struct {
    const uint8_t *p[ROWS / 4];
    size_t rb;
    const void *staged; /* what the type's stage function wrote */
} slab;

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

#if defined(__AVX512F__)
INLINE slab slab_at(const uint8_t *w, size_t rb) { return (slab){{w, w + 4 * rb, w + 8 * rb, w + 12 * rb}, rb, NULL}; }

/* 16 bytes at `off` of each row: v[i] = dword i of rows 0..15. */
INLINE void load_t(const slab *w, size_t off, vi v[4]) {
    vi x[4];
    UNROLL for (int j = 0; j < 4; j++) {
        size_t o = off + (size_t)j * w->rb;
        x[j] = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)(w->p[0] + o)));
        x[j] = _mm512_inserti32x4(x[j], _mm_loadu_si128((const __m128i *)(const void *)(w->p[1] + o)), 1);
        x[j] = _mm512_inserti32x4(x[j], _mm_loadu_si128((const __m128i *)(const void *)(w->p[2] + o)), 2);
        x[j] = _mm512_inserti32x4(x[j], _mm_loadu_si128((const __m128i *)(const void *)(w->p[3] + o)), 3);
    }
    vi t0 = _mm512_unpacklo_epi32(x[0], x[1]), t1 = _mm512_unpacklo_epi32(x[2], x[3]);
    vi t2 = _mm512_unpackhi_epi32(x[0], x[1]), t3 = _mm512_unpackhi_epi32(x[2], x[3]);
    v[0] = _mm512_unpacklo_epi64(t0, t1);
    v[1] = _mm512_unpackhi_epi64(t0, t1);
    v[2] = _mm512_unpacklo_epi64(t2, t3);
    v[3] = _mm512_unpackhi_epi64(t2, t3);
}

/* Codes of columns 4*k4 .. +3 of the block, added to the group's sum. */
INLINE sums put(sink *k, int k4, vi codes, sums isum) {
    if (k->dot) {
        int32_t a;
        memcpy(&a, k->a + 4 * k4, 4);
        return _mm512_dpbusd_epi32(isum, codes, _mm512_set1_epi32(a));
    }
    _mm512_store_si512(k->q + 64 * k4, codes);
    return isum;
}

INLINE sums first(const sink *k, int g, bool has_zp) { return k->dot && has_zp ? _mm512_set1_epi32(k->zb[g]) : _mm512_setzero_si512(); }
INLINE vi total(sums s) { return s; }

/* v: 4 dwords of nibble pairs; low nibbles are columns 0-15 of the group at k4, high ones 16-31. Two
 * chains of sums halve the latency of a group. */
INLINE sums nibbles(sink *k, int k4, const vi v[4], sums isum) {
    const vi low = SET1(15);
    vi sum2 = _mm512_setzero_si512();
    UNROLL for (int i = 0; i < 4; i++) {
        isum = put(k, k4 + i, AND(v[i], low), isum);
        sum2 = put(k, k4 + 4 + i, AND(SHR(v[i], 4), low), sum2);
    }
    return _mm512_add_epi32(isum, sum2);
}

/* Low or high 16 bits of dwords as halves. */
INLINE vf half_lo(vi v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); }
INLINE vf half_hi(vi v) { return half_lo(SHR(v, 16)); }
INLINE vf neg(vf v) { return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(v), _mm512_set1_epi32((int)0x80000000u))); }
INLINE vf head16(const uint8_t *head) { return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)head)); }
INLINE vi head32(const uint8_t *head) { return _mm512_load_si512(head); }
/* heads of 8 bytes: dwords at bit `shift` of each qword */
INLINE vi head64(const uint8_t *head, unsigned shift) {
    __m256i a = _mm512_cvtepi64_epi32(_mm512_srli_epi64(_mm512_load_si512(head), shift));
    __m256i b = _mm512_cvtepi64_epi32(_mm512_srli_epi64(_mm512_load_si512(head + 64), shift));
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

/* Bits 4i .. 4i+3 of each dword as bit 4 of its 4 bytes: a permutation by those bits spreads them. */
INLINE vi fifth(vi qh, int i) {
#define S4(n) ((n & 1) << 4 | (n >> 1 & 1) << 12 | (n >> 2 & 1) << 20 | (n >> 3 & 1) << 28)
    const vi spread = _mm512_setr_epi32(S4(0), S4(1), S4(2), S4(3), S4(4), S4(5), S4(6), S4(7), S4(8), S4(9), S4(10), S4(11), S4(12), S4(13),
                                        S4(14), S4(15));
#undef S4
    return _mm512_permutexvar_epi32(i ? SHR(qh, 4 * i) : qh, spread);
}

#else
INLINE slab slab_at(const uint8_t *w, size_t rb) { return (slab){{w, w + 4 * rb}, rb, NULL}; }

INLINE vi load2(const uint8_t *lo, const uint8_t *hi) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)lo)),
                                   _mm_loadu_si128((const __m128i *)(const void *)hi), 1);
}

/* 16 bytes at `off` of each row: v[i] = dword i of rows 0..7. */
INLINE void load_t(const slab *w, size_t off, vi v[4]) {
    vi x[4];
    UNROLL for (int j = 0; j < 4; j++) x[j] = load2(w->p[0] + off + (size_t)j * w->rb, w->p[1] + off + (size_t)j * w->rb);
    vi t0 = _mm256_unpacklo_epi32(x[0], x[1]), t1 = _mm256_unpacklo_epi32(x[2], x[3]);
    vi t2 = _mm256_unpackhi_epi32(x[0], x[1]), t3 = _mm256_unpackhi_epi32(x[2], x[3]);
    v[0] = _mm256_unpacklo_epi64(t0, t1);
    v[1] = _mm256_unpackhi_epi64(t0, t1);
    v[2] = _mm256_unpacklo_epi64(t2, t3);
    v[3] = _mm256_unpackhi_epi64(t2, t3);
}

INLINE vi four_activations(const sink *k, int k4) {
    int32_t four;
    memcpy(&four, k->a + 4 * k4, 4);
    return _mm256_set1_epi32(four);
}

/* Sums of pairs of products of columns 4*k4 .. +3. */
INLINE sums add_products(const sink *k, int k4, vi p, sums s) {
    const int N = k->N;
    s.s16 = k4 % N ? _mm256_add_epi16(s.s16, p) : p;
    if (k4 % N == N - 1) s.s32 = _mm256_add_epi32(s.s32, _mm256_madd_epi16(s.s16, _mm256_set1_epi16(1)));
    return s;
}

/* Codes of columns 4*k4 .. +3 of the block, added to the group's sums. Full-range codes are signed. */
INLINE sums put(sink *k, int k4, vi codes, sums s) {
    if (k->dot) {
        vi a = four_activations(k, k4);
        vi p = k->full ? _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(a, codes)) : _mm256_maddubs_epi16(codes, a);
        return add_products(k, k4, p, s);
    }
    _mm256_store_si256((__m256i *)(void *)(k->q + 64 * k4), k->full ? _mm256_xor_si256(codes, SET1(0x80)) : codes);
    return s;
}

INLINE sums first(const sink *k, int g, bool has_zp) {
    vi zero = _mm256_setzero_si256();
    return (sums){zero, k->dot && has_zp ? _mm256_set1_epi32(k->zb[g]) : zero};
}
INLINE vi total(sums s) { return s.s32; }

/* v: 4 dwords of nibble pairs; low nibbles are columns 0-15 of the group at k4, high ones 16-31. */
INLINE sums nibbles(sink *k, int k4, const vi v[4], sums isum) {
    const vi low = SET1(15);
    UNROLL for (int i = 0; i < 4; i++) isum = put(k, k4 + i, AND(v[i], low), isum);
    UNROLL for (int i = 0; i < 4; i++) isum = put(k, k4 + 4 + i, AND(SHR(v[i], 4), low), isum);
    return isum;
}

/* Low or high 16 bits of dwords as halves. */
INLINE vf half_lo(vi v) {
    vi x = AND(v, _mm256_set1_epi32(0xffff));
    x = _mm256_permute4x64_epi64(_mm256_packus_epi32(x, x), 0x08);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(x));
}
INLINE vf half_hi(vi v) { return half_lo(SHR(v, 16)); }
INLINE vf neg(vf v) { return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f)); }
INLINE vf head16(const uint8_t *head) { return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(const void *)head)); }
INLINE vi head32(const uint8_t *head) { return _mm256_load_si256((const __m256i *)(const void *)head); }
/* heads of 8 bytes: dwords at bit `shift` of each qword */
INLINE vi head64(const uint8_t *head, int shift) {
    __m256 a = _mm256_castsi256_ps(_mm256_srli_epi64(head32(head), shift)), b = _mm256_castsi256_ps(_mm256_srli_epi64(head32(head + 32), shift));
    return _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88)), 0xd8);
}

/* Bits 4i .. 4i+3 of each dword as bit 4 of its 4 bytes: byte i/2 is copied to all four and tested bit by bit. */
INLINE vi fifth(vi qh, int i) {
    const char c = (char)(i / 2);
    const vi copy = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(c, c, c, c, (char)(c + 4), (char)(c + 4), (char)(c + 4), (char)(c + 4), (char)(c + 8), (char)(c + 8), (char)(c + 8),
                      (char)(c + 8), (char)(c + 12), (char)(c + 12), (char)(c + 12), (char)(c + 12)));
    const vi bits = _mm256_set1_epi32((int)(i % 2 ? 0x80402010u : 0x08040201u));
    return AND(_mm256_cmpeq_epi8(AND(_mm256_shuffle_epi8(qh, copy), bits), bits), SET1(16));
}
#endif

#endif
