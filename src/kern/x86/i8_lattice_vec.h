/* i8_lattice_vec.h - what kern/i8_lattice.inc needs beyond i8_vec.h, for AVX2 and AVX-512.
 *
 * AVX-512: lattice tables are 16-bit words (kern/i8_words.c), searched by permutations of 64 words at a time. A word's fields
 * are ordered so that one shift and one selection put four of them at the bottoms of the four bytes of a dword. */
#ifndef ASH_KERN_I8_LATTICE_VEC_X86_H
#define ASH_KERN_I8_LATTICE_VEC_X86_H

#include "kern/i8_words.h"
#include "kern/x86/i8_vec.h"
#include "tensor/codebooks.h"

#if defined(__AVX512F__)
#define I8_STAGED 0
#define XOR(a, b) _mm512_xor_si512(a, b)
#define ANDN(a, b) _mm512_andnot_si512(a, b)
#define ADD8(a, b) _mm512_add_epi8(a, b)
#define SUBS8(a, b) _mm512_subs_epu8(a, b)
#define AVG8(a, b) _mm512_avg_epu8(a, b)
#define EQ32(a, b) _mm512_movm_epi32(_mm512_cmpeq_epi32_mask(a, b))
#define CASTF(a) _mm512_castsi512_ps(a)
#define BYTES16(...) _mm512_broadcast_i32x4(_mm_setr_epi8(__VA_ARGS__))
#define WORDS(name) ash_i8_words.name

/* Codes of the levels with plus and with minus. */
typedef struct {
    vi plus, minus;
} book;
static const uint8_t levels_iq2[16] = ASH_I8_LEVELS_IQ2, levels_iq3xxs[16] = ASH_I8_LEVELS_IQ3XXS, levels_iq3s[16] = ASH_I8_LEVELS_IQ3S;
INLINE book signed_book(const uint8_t *levels, int zp) {
    vi v = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)levels));
    return (book){_mm512_add_epi8(SET1(zp), v), _mm512_sub_epi8(SET1(zp), v)};
}
#define SIGNED_BOOK(levels, zp) signed_book(levels, zp)

/* Words at two vectors of 16-bit indices of 6 to 11 bits: r from the tables' registers, which both share. m[i][j]: lanes of
 * index vector j with bit 6 + i set; bits 9 and 10, of which fewer selections are needed, as vectors (mask registers
 * are few). */
typedef struct {
    vi idx[2];
    __mmask32 m[3][2];
    vi v[2][2];
} search;
INLINE void words6(const uint16_t *t, const search *s, vi r[2]) {
    vi a = _mm512_load_si512(t), b = _mm512_load_si512(t + 32);
    UNROLL for (int j = 0; j < 2; j++) r[j] = _mm512_permutex2var_epi16(a, s->idx[j], b);
}
#define WORDS_STEP(n, prev)                                                                                                        \
    INLINE void words##n(const uint16_t *t, const search *s, vi r[2]) {                                                            \
        vi hi[2];                                                                                                                  \
        words##prev(t, s, r);                                                                                                      \
        words##prev(t + (1 << prev), s, hi);                                                                                       \
        UNROLL for (int j = 0; j < 2; j++)                                                                                         \
            r[j] = prev < 9 ? _mm512_mask_mov_epi16(r[j], s->m[prev < 9 ? prev - 6 : 0][j], hi[j])                                 \
                            : _mm512_ternarylogic_epi32(s->v[prev < 9 ? 0 : prev - 9][j], hi[j], r[j], 0xca);                      \
    }
WORDS_STEP(7, 6)
WORDS_STEP(8, 7)
WORDS_STEP(9, 8)
WORDS_STEP(10, 9)
WORDS_STEP(11, 10)
#undef WORDS_STEP
INLINE void words(const uint16_t *t, const int bits, vi a, vi b, vi r[2]) {
    search s = {.idx = {a, b}};
    UNROLL for (int j = 0; j < 2; j++) {
        UNROLL for (int i = 0; i < 3; i++) s.m[i][j] = _mm512_test_epi16_mask(s.idx[j], _mm512_set1_epi16((short)(64 << i)));
        UNROLL for (int i = 0; i < 2; i++) s.v[i][j] = _mm512_srai_epi16(_mm512_slli_epi16(s.idx[j], (unsigned)(6 - i)), 15);
    }
    if (bits == 8) words8(t, &s, r);
    else if (bits == 9) words9(t, &s, r);
    else if (bits == 10) words10(t, &s, r);
    else words11(t, &s, r);
}

/* The low half of each dword from a, the high half from b. */
INLINE vi halves(vi a, vi b) { return _mm512_ternarylogic_epi32(SET32(0xffff), a, b, 0xca); }

/* Levels of entries of 8 and of 4 at pairs of indices: of each pair that at the low index first; of an entry of 8
 * columns 0-3, then 4-7. */
INLINE void pairs8(const slab *w, const uint16_t *tab, const int bits, vi even, vi odds, const int at[4], vi m[8]) {
    (void)w, (void)at;
    vi e[2];
    words(tab, bits, even, odds, e);
    UNROLL for (int j = 0; j < 2; j++) {
        vi a = halves(e[j], SHL(e[j], 14)), b = halves(SHR(e[j], 16), SHR(e[j], 2));
        m[4 * j] = AND(a, SET1(3));
        m[4 * j + 1] = AND(SHR(a, 4), SET1(3));
        m[4 * j + 2] = AND(b, SET1(3));
        m[4 * j + 3] = AND(SHR(b, 4), SET1(3));
    }
}
INLINE void pairs4(const slab *w, const uint16_t *tab, const int bits, vi even, vi odds, const int at[4], vi m[4]) {
    (void)w, (void)at;
    vi e[2];
    words(tab, bits, even, odds, e);
    UNROLL for (int j = 0; j < 2; j++) {
        m[2 * j] = AND(halves(e[j], SHL(e[j], 12)), SET1(15));
        m[2 * j + 1] = AND(halves(SHR(e[j], 16), SHR(e[j], 4)), SET1(15));
    }
}

/* Columns 4*k4 .. +3 of a signed type. Nibble c of the sign bytes: bit set is minus. */
INLINE sums put_signed(sink *k, int k4, vi level, book b, vi signs, int c, sums s) {
    const char j = (char)(c / 2);
    const vi copy = BYTES16(j, j, j, j, (char)(j + 4), (char)(j + 4), (char)(j + 4), (char)(j + 4), (char)(j + 8), (char)(j + 8), (char)(j + 8),
                            (char)(j + 8), (char)(j + 12), (char)(j + 12), (char)(j + 12), (char)(j + 12));
    __mmask64 minus = _mm512_test_epi8_mask(_mm512_shuffle_epi8(signs, copy), SET32((int)(c % 2 ? 0x80402010u : 0x08040201u)));
    return put(k, k4, _mm512_mask_shuffle_epi8(LOOKUP(b.plus, level), minus, b.minus, level), s);
}

/* Codes of three levels -8, 0, 8 above `base`. */
INLINE vi tern(vi level, vi base) { return ADD8(LOOKUP(BYTES16(-8, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), level), base); }

INLINE vi head8(const uint8_t *head) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)head)); }

#else
#define I8_STAGED 1
#define XOR(a, b) _mm256_xor_si256(a, b)
#define ANDN(a, b) _mm256_andnot_si256(a, b)
#define ADD8(a, b) _mm256_add_epi8(a, b)
#define SUBS8(a, b) _mm256_subs_epu8(a, b)
#define AVG8(a, b) _mm256_avg_epu8(a, b)
#define EQ32(a, b) _mm256_cmpeq_epi32(a, b)
#define CASTF(a) _mm256_castsi256_ps(a)
#define BYTES16(...) _mm256_broadcastsi128_si256(_mm_setr_epi8(__VA_ARGS__))
#define WORDS(name) NULL

/* Entries of 8 bytes are staged in this order of rows, so that two in-lane shuffles part their halves. */
#define STAGED_ROW(r, size) ((size) == 8 ? ((r) & 1) | ((r) >> 1 & 1) << 2 | ((r) >> 2) << 1 : (r))

typedef struct {
    vi zp;
} book;
#define SIGNED_BOOK(levels, zp) ((book){SET1(zp)})

/* Entries of 8 and of 4, numbers at[] of the block. */
INLINE void pairs8(const slab *w, const uint16_t *tab, int bits, vi even, vi odds, const int at[4], vi m[8]) {
    (void)tab, (void)bits, (void)even, (void)odds;
    UNROLL for (int i = 0; i < 4; i++) {
        const float *p = (const float *)w->staged + at[i] * 2 * ROWS;
        __m256 a = _mm256_load_ps(p), b = _mm256_load_ps(p + 8);
        m[2 * i] = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
        m[2 * i + 1] = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd));
    }
}
INLINE void pairs4(const slab *w, const uint16_t *tab, int bits, vi even, vi odds, const int at[4], vi m[4]) {
    (void)tab, (void)bits, (void)even, (void)odds;
    UNROLL for (int i = 0; i < 4; i++) m[i] = _mm256_load_si256((const vi *)w->staged + at[i]);
}

/* Columns 4*k4 .. +3 of a signed type: magnitudes, and nibble c of the sign bytes (bit set is minus). The signs go to the
 * activations. */
INLINE sums put_signed(sink *k, int k4, vi mag, book b, vi signs, int c, sums s) {
    const char j = (char)(c / 2);
    const vi copy = BYTES16(j, j, j, j, (char)(j + 4), (char)(j + 4), (char)(j + 4), (char)(j + 4), (char)(j + 8), (char)(j + 8), (char)(j + 8),
                            (char)(j + 8), (char)(j + 12), (char)(j + 12), (char)(j + 12), (char)(j + 12));
    const vi bits = SET32((int)(c % 2 ? 0x80402010u : 0x08040201u));
    vi sign = OR(_mm256_cmpeq_epi8(AND(_mm256_shuffle_epi8(signs, copy), bits), bits), SET1(1));
    if (k->dot) return add_products(k, k4, _mm256_maddubs_epi16(mag, _mm256_sign_epi8(four_activations(k, k4), sign)), s);
    return put(k, k4, ADD8(_mm256_sign_epi8(mag, sign), b.zp), s);
}

/* Codes of levels -1, 0, 1 times 8 above `base`. */
INLINE vi tern(vi level, vi base) { return ADD8(AND(SHL(level, 3), SET1(0xf8)), base); }

INLINE vi head8(const uint8_t *head) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)head)); }
#endif

/* FP4 levels above 16; by nibble, 0x80 where the number of ones is odd */
#define FP4_BOOK() BYTES16(16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4)
#define PARITY() BYTES16(0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0)

#endif
