/* i8_types_avx2.c - unpack8 and gemv8 of the common types with AVX2. The plan is that of
 * i8_types_avx512.c with 8 rows side by side: 16 bytes of each row are transposed as dwords, a vector
 * lane is a row, and one body per type feeds a sink that stores (unpack8) or multiplies (gemv8). Sums of
 * byte products stay exact in 16 bits as explained in i8_avx2.c. Block layouts: tensor/blocks.h. */
#include "kern/i8_common.h"

#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))

typedef __m256i vi;
typedef __m256 vf;

#define SET1(b) _mm256_set1_epi8((char)(b))
#define AND(a, b) _mm256_and_si256(a, b)
#define OR(a, b) _mm256_or_si256(a, b)
#define SHR(a, n) _mm256_srli_epi32(a, n)
#define SHL(a, n) _mm256_slli_epi32(a, n)
/* n > 0: to the right, n < 0: to the left; masks after it make dword shifts act on bytes */
#define SHIFT(a, n) ((n) > 0 ? SHR(a, (n) > 0 ? (n) : 0) : (n) < 0 ? SHL(a, (n) < 0 ? -(n) : 0) : (a))

enum { COLS_MAX = 8192 /* columns whose per-group terms are prepared at a time */, ROWS = 8 };

/* Eight rows at a block: row r at p[r/4] + (r%4) * rb. */
typedef struct {
    const uint8_t *p[2];
    size_t rb;
} rows8;

typedef struct {
    bool dot;
    int N; /* vectors that may share a 16-bit sum, <= G/4; 0: signed full-range codes */
    /* dot: activations of this block's first column and per-group terms (as in gemm8) */
    const int8_t *a;
    const int32_t *zb;
    const float *d, *db;
    vf acc;
    /* unpack: this half (8 rows) of the panel */
    uint8_t *q;
    float *s, *m;
} sink;

/* Sums of a group: 16-bit ones under way, 32-bit ones. */
typedef struct {
    vi s16, s32;
} sums;

INLINE vi load2(const uint8_t *lo, const uint8_t *hi) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)lo)),
                                   _mm_loadu_si128((const __m128i *)(const void *)hi), 1);
}

/* 16 bytes at `off` of each row: v[i] = dword i of rows 0..7. */
INLINE void load_t(const rows8 *w, size_t off, vi v[4]) {
    vi x[4];
    UNROLL for (int j = 0; j < 4; j++) x[j] = load2(w->p[0] + off + (size_t)j * w->rb, w->p[1] + off + (size_t)j * w->rb);
    vi t0 = _mm256_unpacklo_epi32(x[0], x[1]), t1 = _mm256_unpacklo_epi32(x[2], x[3]);
    vi t2 = _mm256_unpackhi_epi32(x[0], x[1]), t3 = _mm256_unpackhi_epi32(x[2], x[3]);
    v[0] = _mm256_unpacklo_epi64(t0, t1);
    v[1] = _mm256_unpackhi_epi64(t0, t1);
    v[2] = _mm256_unpacklo_epi64(t2, t3);
    v[3] = _mm256_unpackhi_epi64(t2, t3);
}

/* Codes of columns 4*k4 .. +3 of the block, added to the group's sums. With N == 0 the codes are signed. */
INLINE sums put(sink *k, int k4, vi codes, sums s) {
    if (k->dot) {
        const int N = k->N ? k->N : 1;
        int32_t four;
        memcpy(&four, k->a + 4 * k4, 4);
        vi a = _mm256_set1_epi32(four);
        vi p = k->N ? _mm256_maddubs_epi16(codes, a) : _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(a, codes));
        s.s16 = k4 % N ? _mm256_add_epi16(s.s16, p) : p;
        if (k4 % N == N - 1) s.s32 = _mm256_add_epi32(s.s32, _mm256_madd_epi16(s.s16, _mm256_set1_epi16(1)));
    } else _mm256_store_si256((__m256i *)(void *)(k->q + 64 * k4), k->N ? codes : _mm256_xor_si256(codes, SET1(0x80)));
    return s;
}

INLINE sums first(const sink *k, int g, bool has_zp) {
    vi zero = _mm256_setzero_si256();
    return (sums){zero, k->dot && has_zp ? _mm256_set1_epi32(k->zb[g]) : zero};
}

/* Group g of the block is complete. G as in the type's form. */
INLINE void finish(sink *k, int g, int G, bool has_min, sums sum, vf s, vf m) {
    if (k->dot) {
        k->acc = _mm256_fmadd_ps(_mm256_mul_ps(s, _mm256_set1_ps(k->d[G == 32 ? g : g / 2])), _mm256_cvtepi32_ps(sum.s32), k->acc);
        if (has_min) k->acc = _mm256_fmadd_ps(m, _mm256_set1_ps(k->db[g]), k->acc);
    } else {
        _mm256_store_ps(k->s + 16 * g, s);
        if (has_min) _mm256_store_ps(k->m + 16 * g, m);
    }
}

/* Low or high 16 bits of dwords as halves. */
INLINE vf half_lo(vi v) {
    vi x = AND(v, _mm256_set1_epi32(0xffff));
    x = _mm256_permute4x64_epi64(_mm256_packus_epi32(x, x), 0x08);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(x));
}
INLINE vf half_hi(vi v) { return half_lo(SHR(v, 16)); }
INLINE vf neg(vf v) { return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f)); }
/* Byte j of each dword, unsigned. */
INLINE vi byte_of(vi v, int j) { return AND(SHIFT(v, 8 * j), _mm256_set1_epi32(255)); }

/* ---- the types: body(w, head, k). `head` points to HB bytes per row copied from offset HO of the
 * block beforehand by plain moves: short fields would cost more as vector inserts. ---- */

#define LOAD(p) _mm256_load_si256((const __m256i *)(const void *)(p))
#define BODY(T) INLINE void body_##T(const rows8 *w, const uint8_t *head, sink *k)

INLINE vf head16(const uint8_t *head) { return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(const void *)head)); }

/* v: 4 dwords of nibble pairs; low nibbles are columns 0-15 of the group at k4, high ones 16-31. */
INLINE sums nibbles(sink *k, int k4, const vi v[4], sums isum) {
    const vi low = SET1(15);
    UNROLL for (int i = 0; i < 4; i++) isum = put(k, k4 + i, AND(v[i], low), isum);
    UNROLL for (int i = 0; i < 4; i++) isum = put(k, k4 + 4 + i, AND(SHR(v[i], 4), low), isum);
    return isum;
}

BODY(Q4_0) {
    vi v[4];
    load_t(w, 2, v);
    finish(k, 0, 32, false, nibbles(k, 0, v, first(k, 0, true)), head16(head), _mm256_setzero_ps());
}

BODY(Q4_1) {
    vi v[4], h = LOAD(head);
    load_t(w, 4, v);
    finish(k, 0, 32, true, nibbles(k, 0, v, first(k, 0, false)), half_lo(h), half_hi(h));
}

/* As nibbles, with the fifth bits of 32 columns in a dword: byte i/2 holds those of vectors i and i+1,
 * copied to all four bytes and tested bit by bit. */
INLINE sums nibbles5(sink *k, const vi v[4], vi qh, sums isum) {
    const vi low = SET1(15), five = SET1(16);
    UNROLL for (int i = 0; i < 8; i++) {
        const char c = (char)(i / 2);
        const vi copy = _mm256_broadcastsi128_si256(
            _mm_setr_epi8(c, c, c, c, (char)(c + 4), (char)(c + 4), (char)(c + 4), (char)(c + 4), (char)(c + 8), (char)(c + 8), (char)(c + 8),
                          (char)(c + 8), (char)(c + 12), (char)(c + 12), (char)(c + 12), (char)(c + 12)));
        const vi bits = _mm256_set1_epi32((int)(i % 2 ? 0x80402010u : 0x08040201u));
        vi hi = AND(_mm256_cmpeq_epi8(AND(_mm256_shuffle_epi8(qh, copy), bits), bits), five);
        isum = put(k, i, OR(AND(SHIFT(v[i % 4], i / 4 * 4), low), hi), isum);
    }
    return isum;
}

/* heads of 8 bytes: dwords at bit `shift` of each qword */
INLINE vi head64(const uint8_t *head, int shift) {
    __m256 a = _mm256_castsi256_ps(_mm256_srli_epi64(LOAD(head), shift)), b = _mm256_castsi256_ps(_mm256_srli_epi64(LOAD(head + 32), shift));
    return _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88)), 0xd8);
}

BODY(Q5_0) {
    vi v[4];
    load_t(w, 6, v);
    sums isum = nibbles5(k, v, head64(head, 16), first(k, 0, true));
    finish(k, 0, 32, false, isum, half_lo(head64(head, 0)), _mm256_setzero_ps());
}

BODY(Q5_1) {
    vi v[4], dm = head64(head, 0);
    load_t(w, 8, v);
    finish(k, 0, 32, true, nibbles5(k, v, head64(head, 32), first(k, 0, false)), half_lo(dm), half_hi(dm));
}

BODY(Q8_0) {
    vi v[4];
    sums isum = first(k, 0, false);
    UNROLL for (int p = 0; p < 2; p++) {
        load_t(w, 2 + 16 * (size_t)p, v);
        UNROLL for (int i = 0; i < 4; i++) isum = put(k, 4 * p + i, v[i], isum);
    }
    finish(k, 0, 32, false, isum, head16(head), _mm256_setzero_ps());
}

BODY(IQ4_NL) {
    const vi book = _mm256_broadcastsi128_si256(_mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
    const vi low = SET1(15);
    vi v[4];
    sums isum = first(k, 0, false);
    load_t(w, 2, v);
    UNROLL for (int i = 0; i < 8; i++) isum = put(k, i, _mm256_shuffle_epi8(book, AND(SHIFT(v[i % 4], i / 4 * 4), low)), isum);
    finish(k, 0, 32, false, isum, head16(head), _mm256_setzero_ps());
}

BODY(IQ4_XS) {
    (void)head;
    const vi book = _mm256_broadcastsi128_si256(_mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
    const vi low = SET1(15);
    vi h[4];
    load_t(w, 0, h);
    vf d = half_lo(h[0]);
    vi hi = SHR(h[0], 16), lo = h[1];
    UNROLL for (int g = 0; g < 8; g++) {
        vi v[4];
        sums isum = first(k, g, false);
        load_t(w, 8 + 16 * (size_t)g, v);
        UNROLL for (int i = 0; i < 8; i++) isum = put(k, 8 * g + i, _mm256_shuffle_epi8(book, AND(SHIFT(v[i % 4], i / 4 * 4), low)), isum);
        vi sc = OR(AND(SHIFT(lo, 4 * g), _mm256_set1_epi32(15)), AND(SHIFT(hi, 2 * g - 4), _mm256_set1_epi32(0x30)));
        vf s = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_sub_epi32(sc, _mm256_set1_epi32(32))));
        finish(k, g, 32, false, isum, s, s);
    }
}

BODY(Q2_K) {
    vi sc[4], dm = LOAD(head);
    vf d = half_lo(dm), dmin = neg(half_hi(dm));
    load_t(w, 0, sc);
    UNROLL for (int h = 0; h < 2; h++) {
        vi v[2][4];
        load_t(w, 16 + 32 * (size_t)h, v[0]);
        load_t(w, 32 + 32 * (size_t)h, v[1]);
        UNROLL for (int j = 0; j < 8; j++) {
            int g = 8 * h + j;
            sums isum = first(k, g, false);
            UNROLL for (int i = 0; i < 4; i++) isum = put(k, 4 * g + i, AND(SHIFT(v[j % 2][i], j / 2 * 2), SET1(3)), isum);
            vi b = byte_of(sc[g / 4], g % 4);
            vf s = _mm256_mul_ps(d, _mm256_cvtepi32_ps(AND(b, _mm256_set1_epi32(15))));
            finish(k, g, 16, true, isum, s, _mm256_mul_ps(dmin, _mm256_cvtepi32_ps(SHR(b, 4))));
        }
    }
}

BODY(Q3_K) {
    (void)head;
    /* bytes 94-109: two of the codes, 12 of scales, d */
    vi t[4], hm[2][4], sc[4];
    load_t(w, 94, t);
    vi a0 = OR(SHR(t[0], 16), SHL(t[1], 16)), a1 = OR(SHR(t[1], 16), SHL(t[2], 16)), a2 = OR(SHR(t[2], 16), SHL(t[3], 16));
    vf d = half_hi(t[3]);
    UNROLL for (int i = 0; i < 4; i++)
        sc[i] = OR(AND(SHIFT(i % 2 ? a1 : a0, i / 2 * 4), SET1(15)), AND(SHIFT(a2, 2 * i - 4), SET1(0x30)));
    load_t(w, 0, hm[0]);
    load_t(w, 16, hm[1]);
    UNROLL for (int h = 0; h < 2; h++) {
        vi v[2][4];
        load_t(w, 32 + 32 * (size_t)h, v[0]);
        load_t(w, 48 + 32 * (size_t)h, v[1]);
        UNROLL for (int j = 0; j < 8; j++) {
            int g = 8 * h + j, bit = 4 * h + j / 2;
            sums isum = first(k, g, true);
            UNROLL for (int i = 0; i < 4; i++) {
                vi c = OR(AND(SHIFT(v[j % 2][i], j / 2 * 2), SET1(3)), AND(SHIFT(hm[j % 2][i], bit - 2), SET1(4)));
                isum = put(k, 4 * g + i, c, isum);
            }
            vf s = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_sub_epi32(byte_of(sc[g / 4], g % 4), _mm256_set1_epi32(32))));
            finish(k, g, 16, false, isum, s, s);
        }
    }
}

/* Q4_K and Q5_K */
INLINE void body_k45(const rows8 *w, sink *k, const bool five) {
    vi t[4], qh[2][4];
    load_t(w, 0, t);
    vf d = half_lo(t[0]), dmin = neg(half_hi(t[0]));
    vi top_s = AND(SHR(t[1], 2), SET1(0x30)), top_m = AND(SHR(t[2], 2), SET1(0x30));
    vi sc[2] = {AND(t[1], SET1(63)), OR(AND(t[3], SET1(15)), top_s)};
    vi mn[2] = {AND(t[2], SET1(63)), OR(AND(SHR(t[3], 4), SET1(15)), top_m)};
    if (five) {
        load_t(w, 16, qh[0]);
        load_t(w, 32, qh[1]);
    }
    const size_t codes = five ? 48 : 16;
    UNROLL for (int c = 0; c < 4; c++) {
        vi v[2][4];
        load_t(w, codes + 32 * (size_t)c, v[0]);
        load_t(w, codes + 16 + 32 * (size_t)c, v[1]);
        UNROLL for (int n = 0; n < 2; n++) {
            int g = 2 * c + n;
            sums isum = first(k, g, false);
            UNROLL for (int i = 0; i < 8; i++) {
                vi x = AND(SHIFT(v[i / 4][i % 4], 4 * n), SET1(15));
                if (five) x = OR(x, AND(SHIFT(qh[i / 4][i % 4], g - 4), SET1(16)));
                isum = put(k, 8 * g + i, x, isum);
            }
            vf s = _mm256_mul_ps(d, _mm256_cvtepi32_ps(byte_of(sc[g / 4], g % 4)));
            finish(k, g, 32, true, isum, s, _mm256_mul_ps(dmin, _mm256_cvtepi32_ps(byte_of(mn[g / 4], g % 4))));
        }
    }
}

BODY(Q4_K) {
    (void)head;
    body_k45(w, k, false);
}

BODY(Q5_K) {
    (void)head;
    body_k45(w, k, true);
}

BODY(Q6_K) {
    vi sc[4];
    load_t(w, 192, sc);
    vf d = head16(head);
    UNROLL for (int h = 0; h < 2; h++) {
        sums isum[8];
        UNROLL for (int j = 0; j < 8; j++) isum[j] = first(k, 8 * h + j, true);
        UNROLL for (int p = 0; p < 2; p++) { /* columns 16p .. 16p+15 of each 32 */
            vi l0[4], l1[4], qh[4];
            load_t(w, 64 * (size_t)h + 16 * (size_t)p, l0);
            load_t(w, 64 * (size_t)h + 32 + 16 * (size_t)p, l1);
            load_t(w, 128 + 32 * (size_t)h + 16 * (size_t)p, qh);
            UNROLL for (int s = 0; s < 4; s++) {
                int j = 2 * s + p;
                UNROLL for (int i = 0; i < 4; i++) {
                    vi lo = AND(SHIFT(s % 2 ? l1[i] : l0[i], s / 2 * 4), SET1(15));
                    isum[j] = put(k, 4 * (8 * h + j) + i, OR(lo, AND(SHIFT(qh[i], 2 * s - 4), SET1(0x30))), isum[j]);
                }
            }
        }
        UNROLL for (int j = 0; j < 8; j++) {
            int g = 8 * h + j;
            vi b = _mm256_srai_epi32(SHL(sc[g / 4], 24 - g % 4 * 8), 24);
            vf s = _mm256_mul_ps(d, _mm256_cvtepi32_ps(b));
            finish(k, g, 16, false, isum[j], s, s);
        }
    }
}

/* ---- drivers ---- */
typedef void (*body_fn)(const rows8 *w, const uint8_t *head, sink *k);

typedef struct {
    int B, BB;  /* columns and bytes of a block */
    int G, zp, N;
    bool has_min;
    int HO, HB; /* head: offset, bytes (0, 2, 4, 8) */
} layout;

/* Head of one block: 8 rows x HB bytes. */
INLINE void copy_head(const layout L, const uint8_t *w, size_t rb, uint8_t *head) {
    const uint8_t *p = w + L.HO;
    UNROLL for (int r = 0; r < ROWS; r++, p += rb) memcpy(head + r * L.HB, p, (size_t)L.HB);
}

/* Blocks [0, n) of 8 rows at w through the sink, whose pointers move on. `ahead`: where to prefetch. Heads are
 * copied some blocks ahead of their use, so that the narrow stores have left the store buffer by then. */
INLINE void run(const layout L, body_fn body, const uint8_t *w, size_t rb, int n, const uint8_t *ahead, sink *k) {
    enum { RING = 16 };
    const int lead = L.B == 32 ? 8 : 1;
    const size_t hb = (size_t)(ROWS * L.HB);
    uint8_t head[RING * ROWS * 8] __attribute__((aligned(32)));
    if (L.HB)
        for (int b = 0; b < lead && b < n; b++) copy_head(L, w + b * L.BB, rb, head + (size_t)b * hb);
    for (int b = 0; b < n; b++) {
        if (ahead) {
            for (int i = 0; i < ROWS * L.BB; i += 64) _mm_prefetch((const char *)ahead + i, _MM_HINT_T0);
            ahead += ROWS * L.BB;
        }
        if (L.HB && b + lead < n) copy_head(L, w + lead * L.BB, rb, head + (size_t)((b + lead) % RING) * hb);
        rows8 r = {{w, w + 4 * rb}, rb};
        body(&r, head + (size_t)(b % RING) * hb, k);
        w += L.BB;
        if (k->dot) {
            k->a += L.B;
            k->zb += L.B / L.G;
            k->d += L.B / 32;
            if (L.has_min) k->db += L.B / L.G;
        } else {
            k->q += L.B * 16;
            k->s += L.B / L.G * 16;
            if (L.has_min) k->m += L.B / L.G * 16;
        }
    }
}

INLINE void unpack8(const layout L, body_fn body, ash_unpack8_fn ref, const uint8_t *w, size_t rb, int n_rows, int K, ash_panel8 out) {
    if (n_rows < ASH_PANEL_ROWS) {
        ref(w, rb, n_rows, K, out);
        return;
    }
    for (int h = 0; h < 2; h++, w += ROWS * rb) {
        sink k = {.dot = false, .N = L.N, .q = out.q + 32 * h, .s = out.s + 8 * h, .m = L.has_min ? out.m + 8 * h : NULL};
        run(L, body, w, rb, K / L.B, w + ROWS * rb, &k);
    }
}

INLINE void gemv8(const layout L, body_fn body, const uint8_t *w, size_t rb, int64_t n_rows, int K, ash_act8 a, float *y) {
    int32_t zb[COLS_MAX / 16] __attribute__((aligned(32)));
    float db[COLS_MAX / 16] __attribute__((aligned(32)));
    for (int k0 = 0; k0 < K; k0 += COLS_MAX) {
        int kn = ASH_MIN(COLS_MAX, K - k0);
        const int16_t *b = a.b + k0 / 16;
        const float *d = a.d + k0 / 32;
        for (int g = 0; g < kn / L.G; g++) {
            int bsum = L.G == 32 ? b[2 * g] + b[2 * g + 1] : b[g];
            zb[g] = -L.zp * bsum;
            if (L.has_min) db[g] = d[L.G == 32 ? g : g / 2] * (float)bsum;
        }
        const uint8_t *at = w + (size_t)(k0 / L.B) * (size_t)L.BB;
        for (int64_t r = 0; r < n_rows;) { /* whole slabs of 8, then single rows with stride 0 */
            bool slab = n_rows - r >= ROWS;
            sink k = {.dot = true, .N = L.N, .a = a.q + k0, .zb = zb, .d = d, .db = db};
            if (slab) k.acc = k0 ? _mm256_loadu_ps(y + r) : _mm256_setzero_ps();
            else k.acc = _mm256_set1_ps(k0 ? y[r] : 0);
            const uint8_t *p = at + (size_t)r * rb;
            run(L, body, p, slab ? rb : 0, kn / L.B, slab ? p + ROWS * rb : NULL, &k);
            if (slab) _mm256_storeu_ps(y + r, k.acc);
            else y[r] = _mm256_cvtss_f32(k.acc);
            r += slab ? ROWS : 1;
        }
    }
}

#define TYPE(T, ...)                                                                                                \
    void ash_k_unpack8_##T##_avx2(const void *w, size_t row_bytes, int n_rows, int K, ash_panel8 out) {            \
        unpack8((layout){__VA_ARGS__}, body_##T, ash_k_unpack8_##T##_ref, w, row_bytes, n_rows, K, out);            \
    }                                                                                                               \
    void ash_k_gemv8_##T##_avx2(const void *w, size_t row_bytes, int64_t n_rows, int K, ash_act8 a, float *y) {    \
        gemv8((layout){__VA_ARGS__}, body_##T, w, row_bytes, n_rows, K, a, y);                                      \
    }

/*   type    B   BB   G   zp   N  min    HO  HB */
TYPE(Q4_0,   32, 18,  32, 8,   8, false, 0,  2)
TYPE(Q4_1,   32, 20,  32, 0,   8, true,  0,  4)
TYPE(Q5_0,   32, 22,  32, 16,  4, false, 0,  8)
TYPE(Q5_1,   32, 24,  32, 0,   4, true,  0,  8)
TYPE(Q8_0,   32, 34,  32, 128, 0, false, 0,  2)
TYPE(IQ4_NL, 32, 18,  32, 128, 0, false, 0,  2)
TYPE(Q2_K,   256, 84,  16, 0,  4, true,  80, 4)
TYPE(Q3_K,   256, 110, 16, 4,  4, false, 0,  0)
TYPE(Q4_K,   256, 144, 32, 0,  8, true,  0,  0)
TYPE(Q5_K,   256, 176, 32, 0,  4, true,  0,  0)
TYPE(Q6_K,   256, 210, 16, 32, 2, false, 208, 2)
TYPE(IQ4_XS, 256, 136, 32, 128, 0, false, 0, 0)
