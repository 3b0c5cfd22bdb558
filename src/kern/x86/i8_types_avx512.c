/* i8_types_avx512.c - unpack8 and gemv8 of the common types with AVX-512 VNNI.
 *
 * Sixteen rows are read side by side: 16 bytes of each row are transposed as 4 x 4 dwords so that a
 * vector lane is a row and holds 4 consecutive bytes of its codes. That is the panel layout of kern.h,
 * so one body per type serves both: it hands each vector of 16 rows x 4 codes to a sink that stores it
 * (unpack8) or multiplies it at once (gemv8). Row starts have no alignment; nothing is read past a block.
 * Fewer than 16 rows: unpack8 leaves them to the reference, gemv8 runs them one by one with stride 0.
 * Block layouts: tensor/blocks.h. */
#include "kern/i8_common.h"

#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))

typedef __m512i vi;
typedef __m512 vf;

#define SET1(b) _mm512_set1_epi8((char)(b))
#define AND(a, b) _mm512_and_si512(a, b)
#define OR(a, b) _mm512_or_si512(a, b)
#define SHR(a, n) _mm512_srli_epi32(a, n)
#define SHL(a, n) _mm512_slli_epi32(a, n)
/* n > 0: to the right, n < 0: to the left; masks after it make dword shifts act on bytes */
#define SHIFT(a, n) ((n) > 0 ? SHR(a, (unsigned)((n) > 0 ? (n) : 0)) : (n) < 0 ? SHL(a, (unsigned)((n) < 0 ? -(n) : 0)) : (a))

enum { COLS_MAX = 8192 /* columns whose per-group terms are prepared at a time */ };

/* Sixteen rows at a block: row r at p[r/4] + (r%4) * rb. */
typedef struct {
    const uint8_t *p[4];
    size_t rb;
} rows16;

typedef struct {
    bool dot;
    /* dot: activations of this block's first column and per-group terms (as in gemm8) */
    const int8_t *a;
    const int32_t *zb;
    const float *d, *db;
    vf acc;
    /* unpack */
    uint8_t *q;
    float *s, *m;
} sink;

/* 16 bytes at `off` of each row: v[i] = dword i of rows 0..15. */
INLINE void load_t(const rows16 *w, size_t off, vi v[4]) {
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

/* Codes of columns 4*k4 .. +3 of the block, added to group sum `isum`. */
INLINE vi put(sink *k, int k4, vi codes, vi isum) {
    if (k->dot) {
        int32_t a;
        memcpy(&a, k->a + 4 * k4, 4);
        return _mm512_dpbusd_epi32(isum, codes, _mm512_set1_epi32(a));
    }
    _mm512_store_si512(k->q + 64 * k4, codes);
    return isum;
}

INLINE vi first(const sink *k, int g, bool has_zp) { return k->dot && has_zp ? _mm512_set1_epi32(k->zb[g]) : _mm512_setzero_si512(); }

/* Group g of the block is complete. G as in the type's form. */
INLINE void finish(sink *k, int g, int G, bool has_min, vi isum, vf s, vf m) {
    if (k->dot) {
        k->acc = _mm512_fmadd_ps(_mm512_mul_ps(s, _mm512_set1_ps(k->d[G == 32 ? g : g / 2])), _mm512_cvtepi32_ps(isum), k->acc);
        if (has_min) k->acc = _mm512_fmadd_ps(m, _mm512_set1_ps(k->db[g]), k->acc);
    } else {
        _mm512_store_ps(k->s + 16 * g, s);
        if (has_min) _mm512_store_ps(k->m + 16 * g, m);
    }
}

/* Low or high 16 bits of dwords as halves. */
INLINE vf half_lo(vi v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); }
INLINE vf half_hi(vi v) { return half_lo(SHR(v, 16)); }
INLINE vf neg(vf v) { return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(v), _mm512_set1_epi32((int)0x80000000u))); }
/* Byte j of each dword, unsigned. */
INLINE vi byte_of(vi v, int j) { return AND(SHIFT(v, 8 * j), _mm512_set1_epi32(255)); }

/* ---- the types: body(w, head, k). `head` points to HB bytes per row copied from offset HO of the
 * block beforehand by plain moves: short fields would cost more as vector inserts. ---- */

#define BODY(T) INLINE void body_##T(const rows16 *w, const uint8_t *head, sink *k)

INLINE vf head16(const uint8_t *head) { return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)head)); }

/* v: 4 dwords of nibble pairs; low nibbles are columns 0-15 of the group at k4, high ones 16-31. Two
 * chains of sums (here and below) halve the latency of a group. */
INLINE vi nibbles(sink *k, int k4, const vi v[4], vi isum) {
    const vi low = SET1(15);
    vi sum2 = _mm512_setzero_si512();
    UNROLL for (int i = 0; i < 4; i++) {
        isum = put(k, k4 + i, AND(v[i], low), isum);
        sum2 = put(k, k4 + 4 + i, AND(SHR(v[i], 4), low), sum2);
    }
    return _mm512_add_epi32(isum, sum2);
}

BODY(Q4_0) {
    vi v[4];
    load_t(w, 2, v);
    finish(k, 0, 32, false, nibbles(k, 0, v, first(k, 0, true)), head16(head), _mm512_setzero_ps());
}

BODY(Q4_1) {
    vi v[4], h = _mm512_load_si512(head);
    load_t(w, 4, v);
    finish(k, 0, 32, true, nibbles(k, 0, v, first(k, 0, false)), half_lo(h), half_hi(h));
}

/* As nibbles, with the fifth bits of 32 columns in a dword. A permutation by 4 bits of the dword spreads
 * them to bit 4 of 4 bytes. */
INLINE vi nibbles5(sink *k, const vi v[4], vi qh, vi isum) {
    const vi low = SET1(15);
#define S4(n) ((n & 1) << 4 | (n >> 1 & 1) << 12 | (n >> 2 & 1) << 20 | (n >> 3 & 1) << 28)
    const vi spread = _mm512_setr_epi32(S4(0), S4(1), S4(2), S4(3), S4(4), S4(5), S4(6), S4(7), S4(8), S4(9), S4(10), S4(11), S4(12), S4(13),
                                        S4(14), S4(15));
#undef S4
    UNROLL for (int i = 0; i < 8; i++) {
        vi hi = _mm512_permutexvar_epi32(SHIFT(qh, 4 * i), spread);
        isum = put(k, i, OR(AND(SHIFT(v[i % 4], i / 4 * 4), low), hi), isum);
    }
    return isum;
}

/* heads of 8 bytes: dwords at bit `shift` of each qword */
INLINE vi head64(const uint8_t *head, unsigned shift) {
    __m256i a = _mm512_cvtepi64_epi32(_mm512_srli_epi64(_mm512_load_si512(head), shift));
    __m256i b = _mm512_cvtepi64_epi32(_mm512_srli_epi64(_mm512_load_si512(head + 64), shift));
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

BODY(Q5_0) {
    vi v[4];
    load_t(w, 6, v);
    vi isum = nibbles5(k, v, head64(head, 16), first(k, 0, true));
    finish(k, 0, 32, false, isum, half_lo(head64(head, 0)), _mm512_setzero_ps());
}

BODY(Q5_1) {
    vi v[4], dm = head64(head, 0);
    load_t(w, 8, v);
    finish(k, 0, 32, true, nibbles5(k, v, head64(head, 32), first(k, 0, false)), half_lo(dm), half_hi(dm));
}

BODY(Q8_0) {
    vi v[4], isum = first(k, 0, true);
    UNROLL for (int p = 0; p < 2; p++) {
        load_t(w, 2 + 16 * (size_t)p, v);
        UNROLL for (int i = 0; i < 4; i++) isum = put(k, 4 * p + i, _mm512_xor_si512(v[i], SET1(0x80)), isum);
    }
    finish(k, 0, 32, false, isum, head16(head), _mm512_setzero_ps());
}

BODY(IQ4_NL) {
    const vi book = _mm512_broadcast_i32x4(_mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59, -39, -15));
    const vi low = SET1(15);
    vi v[4], isum = first(k, 0, true);
    load_t(w, 2, v);
    UNROLL for (int i = 0; i < 8; i++) isum = put(k, i, _mm512_shuffle_epi8(book, AND(SHIFT(v[i % 4], i / 4 * 4), low)), isum);
    finish(k, 0, 32, false, isum, head16(head), _mm512_setzero_ps());
}

BODY(IQ4_XS) {
    (void)head;
    const vi book = _mm512_broadcast_i32x4(_mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59, -39, -15));
    const vi low = SET1(15);
    vi h[4];
    load_t(w, 0, h);
    vf d = half_lo(h[0]);
    vi hi = SHR(h[0], 16), lo = h[1];
    UNROLL for (int g = 0; g < 8; g++) {
        vi v[4], isum = first(k, g, true);
        load_t(w, 8 + 16 * (size_t)g, v);
        UNROLL for (int i = 0; i < 8; i++) isum = put(k, 8 * g + i, _mm512_shuffle_epi8(book, AND(SHIFT(v[i % 4], i / 4 * 4), low)), isum);
        vi sc = OR(AND(SHIFT(lo, 4 * g), _mm512_set1_epi32(15)), AND(SHIFT(hi, 2 * g - 4), _mm512_set1_epi32(0x30)));
        vf s = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_sub_epi32(sc, _mm512_set1_epi32(32))));
        finish(k, g, 32, false, isum, s, s);
    }
}

BODY(Q2_K) {
    vi sc[4], dm = _mm512_load_si512(head);
    vf d = half_lo(dm), dmin = neg(half_hi(dm));
    load_t(w, 0, sc);
    UNROLL for (int h = 0; h < 2; h++) {
        vi v[2][4];
        load_t(w, 16 + 32 * (size_t)h, v[0]);
        load_t(w, 32 + 32 * (size_t)h, v[1]);
        UNROLL for (int j = 0; j < 8; j++) {
            int g = 8 * h + j;
            vi isum = first(k, g, false);
            UNROLL for (int i = 0; i < 4; i++) isum = put(k, 4 * g + i, AND(SHIFT(v[j % 2][i], j / 2 * 2), SET1(3)), isum);
            vi b = byte_of(sc[g / 4], g % 4);
            vf s = _mm512_mul_ps(d, _mm512_cvtepi32_ps(AND(b, _mm512_set1_epi32(15))));
            finish(k, g, 16, true, isum, s, _mm512_mul_ps(dmin, _mm512_cvtepi32_ps(SHR(b, 4))));
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
            vi isum = first(k, g, true);
            UNROLL for (int i = 0; i < 4; i++) {
                vi c = OR(AND(SHIFT(v[j % 2][i], j / 2 * 2), SET1(3)), AND(SHIFT(hm[j % 2][i], bit - 2), SET1(4)));
                isum = put(k, 4 * g + i, c, isum);
            }
            vf s = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_sub_epi32(byte_of(sc[g / 4], g % 4), _mm512_set1_epi32(32))));
            finish(k, g, 16, false, isum, s, s);
        }
    }
}

/* Q4_K and Q5_K */
INLINE void body_k45(const rows16 *w, sink *k, const bool five) {
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
            vi isum = first(k, g, false);
            UNROLL for (int i = 0; i < 8; i++) {
                vi x = AND(SHIFT(v[i / 4][i % 4], 4 * n), SET1(15));
                if (five) x = OR(x, AND(SHIFT(qh[i / 4][i % 4], g - 4), SET1(16)));
                isum = put(k, 8 * g + i, x, isum);
            }
            vf s = _mm512_mul_ps(d, _mm512_cvtepi32_ps(byte_of(sc[g / 4], g % 4)));
            finish(k, g, 32, true, isum, s, _mm512_mul_ps(dmin, _mm512_cvtepi32_ps(byte_of(mn[g / 4], g % 4))));
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
        vi isum[8];
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
            vi b = _mm512_srai_epi32(SHL(sc[g / 4], (unsigned)(24 - g % 4 * 8)), 24);
            vf s = _mm512_mul_ps(d, _mm512_cvtepi32_ps(b));
            finish(k, g, 16, false, isum[j], s, s);
        }
    }
}

/* ---- drivers ---- */
typedef void (*body_fn)(const rows16 *w, const uint8_t *head, sink *k);

typedef struct {
    int B, BB;  /* columns and bytes of a block */
    int G, zp;
    bool has_min;
    int HO, HB; /* head: offset, bytes (0, 2, 4, 8) */
} layout;

/* Head of one block: 16 rows x HB bytes. */
INLINE void copy_head(const layout L, const uint8_t *w, size_t rb, uint8_t *head) {
    const uint8_t *p = w + L.HO;
    UNROLL for (int r = 0; r < 16; r++, p += rb) memcpy(head + r * L.HB, p, (size_t)L.HB);
}

/* Blocks [0, n) of 16 rows at w through the sink, whose pointers move on. `ahead`: where to prefetch. Heads are
 * copied some blocks ahead of their use, so that the narrow stores have left the store buffer by then. */
INLINE void run(const layout L, body_fn body, const uint8_t *w, size_t rb, int n, const uint8_t *ahead, sink *k) {
    enum { RING = 16 };
    const int lead = L.B == 32 ? 8 : 1;
    const size_t hb = (size_t)(16 * L.HB);
    uint8_t head[RING * 16 * 8] __attribute__((aligned(64)));
    if (L.HB)
        for (int b = 0; b < lead && b < n; b++) copy_head(L, w + b * L.BB, rb, head + (size_t)b * hb);
    for (int b = 0; b < n; b++) {
        if (ahead) {
            for (int i = 0; i < 16 * L.BB; i += 64) _mm_prefetch((const char *)ahead + i, _MM_HINT_T0);
            ahead += 16 * L.BB;
        }
        if (L.HB && b + lead < n) copy_head(L, w + lead * L.BB, rb, head + (size_t)((b + lead) % RING) * hb);
        rows16 r = {{w, w + 4 * rb, w + 8 * rb, w + 12 * rb}, rb};
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

INLINE void unpack8(const layout L, body_fn body, ash_unpack8_fn ref, const void *w, size_t rb, int n_rows, int K, ash_panel8 out) {
    if (n_rows < ASH_PANEL_ROWS) {
        ref(w, rb, n_rows, K, out);
        return;
    }
    sink k = {.dot = false, .q = out.q, .s = out.s, .m = out.m};
    run(L, body, w, rb, K / L.B, (const uint8_t *)w + 16 * rb, &k);
}

INLINE void gemv8(const layout L, body_fn body, const uint8_t *w, size_t rb, int64_t n_rows, int K, ash_act8 a, float *y) {
    int32_t zb[COLS_MAX / 16] __attribute__((aligned(64)));
    float db[COLS_MAX / 16] __attribute__((aligned(64)));
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
        for (int64_t r = 0; r < n_rows;) { /* whole slabs of 16, then single rows with stride 0 */
            bool slab = n_rows - r >= 16;
            sink k = {.dot = true, .a = a.q + k0, .zb = zb, .d = d, .db = db};
            if (slab) k.acc = k0 ? _mm512_loadu_ps(y + r) : _mm512_setzero_ps();
            else k.acc = _mm512_set1_ps(k0 ? y[r] : 0);
            const uint8_t *p = at + (size_t)r * rb;
            run(L, body, p, slab ? rb : 0, kn / L.B, slab ? p + 16 * rb : NULL, &k);
            if (slab) _mm512_storeu_ps(y + r, k.acc);
            else y[r] = _mm512_cvtss_f32(k.acc);
            r += slab ? 16 : 1;
        }
    }
}

#define TYPE(T, ...)                                                                                                   \
    void ash_k_unpack8_##T##_avx512(const void *w, size_t row_bytes, int n_rows, int K, ash_panel8 out) {             \
        unpack8((layout){__VA_ARGS__}, body_##T, ash_k_unpack8_##T##_ref, w, row_bytes, n_rows, K, out);               \
    }                                                                                                                  \
    void ash_k_gemv8_##T##_avx512(const void *w, size_t row_bytes, int64_t n_rows, int K, ash_act8 a, float *y) {     \
        gemv8((layout){__VA_ARGS__}, body_##T, w, row_bytes, n_rows, K, a, y);                                         \
    }

/*   type    B   BB   G   zp  min    HO  HB */
TYPE(Q4_0,   32, 18,  32, 8,   false, 0,  2)
TYPE(Q4_1,   32, 20,  32, 0,   true,  0,  4)
TYPE(Q5_0,   32, 22,  32, 16,  false, 0,  8)
TYPE(Q5_1,   32, 24,  32, 0,   true,  0,  8)
TYPE(Q8_0,   32, 34,  32, 128, false, 0,  2)
TYPE(IQ4_NL, 32, 18,  32, 128, false, 0,  2)
TYPE(Q2_K,   256, 84,  16, 0,  true,  80, 4)
TYPE(Q3_K,   256, 110, 16, 4,  false, 0,  0)
TYPE(Q4_K,   256, 144, 32, 0,  true,  0,  0)
TYPE(Q5_K,   256, 176, 32, 0,  true,  0,  0)
TYPE(Q6_K,   256, 210, 16, 32, false, 208, 2)
TYPE(IQ4_XS, 256, 136, 32, 128, false, 0, 0)
