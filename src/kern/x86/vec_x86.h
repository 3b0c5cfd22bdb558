/* vec_x86.h - the vocabulary of kern/vec.h for AVX2 and AVX-512, by what the file is compiled for. */
#ifndef ASH_KERN_VEC_X86_H
#define ASH_KERN_VEC_X86_H

#include <immintrin.h>

#if defined(__AVX512F__)

#define VW 16
#define VREGS 32
#define VG 2
#define FN(name) ash_k_##name##_avx512
typedef __m512 vf;
typedef __m512i vi;
typedef __m512d vd; /* VW / 2 lanes */
#define vload(p) _mm512_loadu_ps(p)
#define vstore(p, v) _mm512_storeu_ps(p, v)
static inline __mmask16 vmask(int n) { return (__mmask16)((1u << n) - 1); }
static inline vf vloadn(const float *p, int n) { return _mm512_maskz_loadu_ps(vmask(n), p); }
static inline void vstoren(float *p, vf v, int n) { _mm512_mask_storeu_ps(p, vmask(n), v); }
#define vset1(x) _mm512_set1_ps(x)
#define vzero() _mm512_setzero_ps()
#define vadd(a, b) _mm512_add_ps(a, b)
#define vsub(a, b) _mm512_sub_ps(a, b)
#define vmul(a, b) _mm512_mul_ps(a, b)
#define vdiv(a, b) _mm512_div_ps(a, b)
#define vmax(a, b) _mm512_max_ps(a, b)
#define vfma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define vfms(a, b, c) _mm512_fmsub_ps(a, b, c)
#define vabs(a) _mm512_abs_ps(a)
#define vadd_shl23(p, t) \
    _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23)))
/* where a OP b: x, else y; comparisons with NaN are false */
#define vsel_lt(a, b, x, y) _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x)
#define vsel_nan(a, x, y) _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), y, x)
/* magnitude of a, sign of b */
#define vcopysign(a, b) \
    _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_set1_epi32((int)0x80000000), _mm512_castps_si512(b), _mm512_castps_si512(a), 0xca))
/* first n lanes of v, the rest from other */
static inline vf vkeepn(vf v, vf other, int n) { return _mm512_mask_blend_ps(vmask(n), other, v); }
#define vlo_d(v) _mm512_cvtps_pd(_mm512_castps512_ps256(v))
#define vhi_d(v) _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1))
#define vzero_d() _mm512_setzero_pd()
#define vset1_d(x) _mm512_set1_pd(x)
#define vadd_d(a, b) _mm512_add_pd(a, b)
#define vfma_d(a, b, c) _mm512_fmadd_pd(a, b, c)
#define vstore_d(p, v) _mm512_storeu_pd(p, v)
#define vload_f16(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define vstore_f16(p, v) _mm256_storeu_si256((__m256i *)(void *)(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))
static inline vf vload_f16n(const uint16_t *p, int n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vmask(n), p)); }
static inline float vhmax(vf v) { return _mm512_reduce_max_ps(v); }
#define vload_bf16(p) \
    _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(p))), 16))
static inline vf vquads_f32_(const char *p0, const char *p1, const char *p2, const char *p3) {
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps((const float *)(const void *)p0));
    v = _mm512_mask_broadcast_f32x4(v, 0x00f0, _mm_loadu_ps((const float *)(const void *)p1));
    v = _mm512_mask_broadcast_f32x4(v, 0x0f00, _mm_loadu_ps((const float *)(const void *)p2));
    return _mm512_mask_broadcast_f32x4(v, 0xf000, _mm_loadu_ps((const float *)(const void *)p3));
}
static inline __m256i vquads_16_(const char *p0, const char *p1, const char *p2, const char *p3) {
    __m256i h = _mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)(const void *)p0));
    h = _mm256_mask_broadcastq_epi64(h, 2, _mm_loadl_epi64((const __m128i *)(const void *)p1));
    h = _mm256_mask_broadcastq_epi64(h, 4, _mm_loadl_epi64((const __m128i *)(const void *)p2));
    return _mm256_mask_broadcastq_epi64(h, 8, _mm_loadl_epi64((const __m128i *)(const void *)p3));
}
#define vquads_f32(AT) vquads_f32_(AT(0), AT(1), AT(2), AT(3))
#define vquads_f16(AT) _mm512_cvtph_ps(vquads_16_(AT(0), AT(1), AT(2), AT(3)))
#define vquads_bf16(AT) _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(vquads_16_(AT(0), AT(1), AT(2), AT(3))), 16))
#define vzip_lo(a, b) _mm512_unpacklo_ps(a, b)
#define vzip_hi(a, b) _mm512_unpackhi_ps(a, b)
#define vzip_lo2(a, b) _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
#define vzip_hi2(a, b) _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
static inline vf vrope_pairs(vf x, vf cs) {
    vf other = _mm512_mul_ps(_mm512_permute_ps(x, 0xb1), _mm512_movehdup_ps(cs)); /* even: x1 s, odd: x0 s */
    return _mm512_fmaddsub_ps(x, _mm512_moveldup_ps(cs), other);
}
static inline void vsplit_pairs(vf a, vf b, vf *c, vf *s) {
    const vi even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    *c = _mm512_permutex2var_ps(a, even, b);
    *s = _mm512_permutex2var_ps(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b);
}
static inline void vcodes16(__m128i c, vf v[16 / VW]) { v[0] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(c)); }

#else

#define VW 8
#define VREGS 16
#define VG 2
#define FN(name) ash_k_##name##_avx2
typedef __m256 vf;
typedef __m256i vi;
typedef __m256d vd;
#define vload(p) _mm256_loadu_ps(p)
#define vstore(p, v) _mm256_storeu_ps(p, v)
static inline __m256i vmask(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
static inline vf vloadn(const float *p, int n) { return _mm256_maskload_ps(p, vmask(n)); }
static inline void vstoren(float *p, vf v, int n) { _mm256_maskstore_ps(p, vmask(n), v); }
#define vset1(x) _mm256_set1_ps(x)
#define vzero() _mm256_setzero_ps()
#define vadd(a, b) _mm256_add_ps(a, b)
#define vsub(a, b) _mm256_sub_ps(a, b)
#define vmul(a, b) _mm256_mul_ps(a, b)
#define vdiv(a, b) _mm256_div_ps(a, b)
#define vmax(a, b) _mm256_max_ps(a, b)
#define vfma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define vfms(a, b, c) _mm256_fmsub_ps(a, b, c)
#define vabs(a) _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a)
#define vadd_shl23(p, t) \
    _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)))
#define vsel_lt(a, b, x, y) _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ))
#define vsel_nan(a, x, y) _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, a, _CMP_UNORD_Q))
#define vcopysign(a, b) _mm256_or_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a), _mm256_and_ps(_mm256_set1_ps(-0.0f), b))
static inline vf vkeepn(vf v, vf other, int n) { return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(vmask(n))); }
#define vlo_d(v) _mm256_cvtps_pd(_mm256_castps256_ps128(v))
#define vhi_d(v) _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1))
#define vzero_d() _mm256_setzero_pd()
#define vset1_d(x) _mm256_set1_pd(x)
#define vadd_d(a, b) _mm256_add_pd(a, b)
#define vfma_d(a, b, c) _mm256_fmadd_pd(a, b, c)
#define vstore_d(p, v) _mm256_storeu_pd(p, v)
#define vload_f16(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define vstore_f16(p, v) _mm_storeu_si128((__m128i *)(void *)(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))
static inline vf vload_f16n(const uint16_t *p, int n) {
    uint16_t t[8] = {0};
    memcpy(t, p, (size_t)n * 2);
    return vload_f16(t);
}
static inline float vhmax(vf v) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
#define vload_bf16(p) \
    _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p))), 16))
static inline vf vquads_f32_(const char *p0, const char *p1) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps((const float *)(const void *)p0)),
                                _mm_loadu_ps((const float *)(const void *)p1), 1);
}
static inline __m128i vquads_16_(const char *p0, const char *p1) {
    return _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)(const void *)p0), _mm_loadl_epi64((const __m128i *)(const void *)p1));
}
#define vquads_f32(AT) vquads_f32_(AT(0), AT(1))
#define vquads_f16(AT) _mm256_cvtph_ps(vquads_16_(AT(0), AT(1)))
#define vquads_bf16(AT) _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(vquads_16_(AT(0), AT(1))), 16))
#define vzip_lo(a, b) _mm256_unpacklo_ps(a, b)
#define vzip_hi(a, b) _mm256_unpackhi_ps(a, b)
#define vzip_lo2(a, b) _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)))
#define vzip_hi2(a, b) _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)))
static inline vf vrope_pairs(vf x, vf cs) {
    vf other = _mm256_mul_ps(_mm256_permute_ps(x, 0xb1), _mm256_movehdup_ps(cs)); /* even: x1 s, odd: x0 s */
    return _mm256_fmaddsub_ps(x, _mm256_moveldup_ps(cs), other);
}
static inline void vsplit_pairs(vf a, vf b, vf *c, vf *s) {
    vf e = _mm256_shuffle_ps(a, b, 0x88), o = _mm256_shuffle_ps(a, b, 0xdd);
    *c = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(e), 0xd8));
    *s = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(o), 0xd8));
}
static inline void vcodes16(__m128i c, vf v[16 / VW]) {
    v[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(c));
    v[1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(c, 8)));
}

#endif

/* ---- 16 bytes ---- */
typedef __m128i vb;
#define bload(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define bor(a, b) _mm_or_si128(a, b)
#define bsubc(a, c) _mm_sub_epi8(a, _mm_set1_epi8(c))
#define bshl(a, n) _mm_slli_epi16(a, n)
#define blookup(table, i) _mm_shuffle_epi8(table, i)
static inline vb blo4(vb v) { return _mm_and_si128(v, _mm_set1_epi8(15)); }
static inline vb bhi4(vb v) { return blo4(_mm_srli_epi16(v, 4)); }
static inline vb bfield(vb v, int s, int m) { return _mm_and_si128(_mm_srl_epi16(v, _mm_cvtsi32_si128(s)), _mm_set1_epi8((char)m)); }
static inline vb bmask16(uint32_t bits) {
    vb v = _mm_shuffle_epi8(_mm_cvtsi32_si128((int)bits), _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1));
    const vb sel = _mm_set1_epi64x((long long)0x8040201008040201ull);
    return _mm_cmpeq_epi8(_mm_and_si128(v, sel), sel);
}
static inline vb bbits16(uint32_t bits) { return _mm_and_si128(bmask16(bits), _mm_set1_epi8(16)); }
static inline vb bnegate(vb v, uint32_t bits) { return _mm_sub_epi8(_mm_xor_si128(v, bmask16(bits)), bmask16(bits)); }
static inline vb bpair(uint64_t lo, uint64_t hi) { return _mm_set_epi64x((long long)hi, (long long)lo); }
#define bzero16() _mm_setzero_si128()
#define badd(a, b) _mm_add_epi8(a, b)
#define bavg(a, b) _mm_avg_epu8(a, b)
#define bsubs1(a) _mm_subs_epu8(a, _mm_set1_epi8(1))
static inline float vhalf(uint16_t h) { return _cvtsh_ss(h); }

#endif
