/* vec_neon.h - the vocabulary of kern/vec.h for 64-bit ARM: Advanced SIMD as in every ARMv8-A core. */
#ifndef ASH_KERN_VEC_NEON_H
#define ASH_KERN_VEC_NEON_H

#include <arm_neon.h>
#include <string.h>

#define VW 4
#define VREGS 32
#define VG 4
#define FN(name) ash_k_##name##_neon
typedef float32x4_t vf;
typedef uint32x4_t vi;
typedef float64x2_t vd;
#define vload(p) vld1q_f32(p)
#define vstore(p, v) vst1q_f32(p, v)
static inline vf vloadn(const float *p, int n) {
    if (n >= VW) return vld1q_f32(p);
    float t[VW] = {0};
    for (int i = 0; i < n; i++) t[i] = p[i];
    return vld1q_f32(t);
}
static inline void vstoren(float *p, vf v, int n) {
    if (n >= VW) {
        vst1q_f32(p, v);
        return;
    }
    float t[VW];
    vst1q_f32(t, v);
    for (int i = 0; i < n; i++) p[i] = t[i];
}
#define vset1(x) vdupq_n_f32(x)
#define vzero() vdupq_n_f32(0)
#define vadd(a, b) vaddq_f32(a, b)
#define vsub(a, b) vsubq_f32(a, b)
#define vmul(a, b) vmulq_f32(a, b)
#define vdiv(a, b) vdivq_f32(a, b)
/* a > b ? a : b: FMAX would let a NaN win */
static inline vf vmax(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
#define vfma(a, b, c) vfmaq_f32(c, a, b)
#define vfms(a, b, c) vfmaq_f32(vnegq_f32(c), a, b)
#define vabs(a) vabsq_f32(a)
#define vadd_shl23(p, t) vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(p), vshlq_n_u32(vreinterpretq_u32_f32(t), 23)))
#define vsel_lt(a, b, x, y) vbslq_f32(vcltq_f32(a, b), x, y)
static inline vf vsel_nan(vf a, vf x, vf y) { return vbslq_f32(vceqq_f32(a, a), y, x); }
#define vcopysign(a, b) vbslq_f32(vdupq_n_u32(0x80000000u), b, a)
static inline vf vkeepn(vf v, vf other, int n) {
    const uint32x4_t lane = {0, 1, 2, 3};
    return vbslq_f32(vcltq_u32(lane, vdupq_n_u32((uint32_t)n)), v, other);
}
#define vlo_d(v) vcvt_f64_f32(vget_low_f32(v))
#define vhi_d(v) vcvt_high_f64_f32(v)
#define vzero_d() vdupq_n_f64(0)
#define vset1_d(x) vdupq_n_f64(x)
#define vadd_d(a, b) vaddq_f64(a, b)
#define vfma_d(a, b, c) vfmaq_f64(c, a, b)
#define vstore_d(p, v) vst1q_f64(p, v)
/* halves through memcpy: their addresses may be odd */
static inline uint16x4_t vhalves(const void *p) {
    uint16x4_t h;
    memcpy(&h, p, 8);
    return h;
}
#define vload_f16(p) vcvt_f32_f16(vreinterpret_f16_u16(vhalves(p)))
#define vstore_f16(p, v)                                                \
    do {                                                                \
        uint16x4_t h_ = vreinterpret_u16_f16(vcvt_f16_f32(v));          \
        memcpy(p, &h_, 8);                                              \
    } while (0)
static inline vf vload_f16n(const uint16_t *p, int n) {
    uint16_t t[VW] = {0};
    for (int i = 0; i < n; i++) t[i] = p[i];
    return vload_f16(t);
}
static inline float vhmax(vf v) { return vmaxvq_f32(v); }
#define vload_bf16(p) vreinterpretq_f32_u32(vshll_n_u16(vhalves(p), 16))
static inline vf vfloats(const void *p) {
    vf v;
    memcpy(&v, p, 16);
    return v;
}
#define vquads_f32(AT) vfloats(AT(0))
#define vquads_f16(AT) vload_f16(AT(0))
#define vquads_bf16(AT) vload_bf16(AT(0))
#define vzip_lo(a, b) vzip1q_f32(a, b)
#define vzip_hi(a, b) vzip2q_f32(a, b)
#define vzip_lo2(a, b) vreinterpretq_f32_f64(vzip1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)))
#define vzip_hi2(a, b) vreinterpretq_f32_f64(vzip2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)))
static inline vf vrope_pairs(vf x, vf cs) {
    const uint32x4_t minus_even = {0x80000000u, 0, 0x80000000u, 0};
    vf other = vmulq_f32(vrev64q_f32(x), vtrn2q_f32(cs, cs)); /* even: x1 s, odd: x0 s */
    other = vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(other), minus_even));
    return vfmaq_f32(other, x, vtrn1q_f32(cs, cs));
}
static inline void vsplit_pairs(vf a, vf b, vf *c, vf *s) {
    *c = vuzp1q_f32(a, b);
    *s = vuzp2q_f32(a, b);
}

/* ---- 16 bytes ---- */
typedef uint8x16_t vb;
static inline vb bload(const void *p) { return vld1q_u8(p); }
static inline void vcodes16(vb c, vf v[16 / VW]) {
    int16x8_t lo = vmovl_s8(vget_low_s8(vreinterpretq_s8_u8(c))), hi = vmovl_high_s8(vreinterpretq_s8_u8(c));
    v[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo)));
    v[1] = vcvtq_f32_s32(vmovl_high_s16(lo));
    v[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi)));
    v[3] = vcvtq_f32_s32(vmovl_high_s16(hi));
}
#define bor(a, b) vorrq_u8(a, b)
#define bsubc(a, c) vsubq_u8(a, vdupq_n_u8(c))
#define bshl(a, n) vshlq_n_u8(a, n)
#define blookup(table, i) vqtbl1q_u8(table, i)
static inline vb blo4(vb v) { return vandq_u8(v, vdupq_n_u8(15)); }
static inline vb bhi4(vb v) { return vshrq_n_u8(v, 4); }
static inline vb bfield(vb v, int s, int m) { return vandq_u8(vshlq_u8(v, vdupq_n_s8((int8_t)-s)), vdupq_n_u8((uint8_t)m)); }
static inline vb bmask16(uint32_t bits) {
    const vb sel = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201ull));
    return vtstq_u8(vcombine_u8(vdup_n_u8((uint8_t)bits), vdup_n_u8((uint8_t)(bits >> 8))), sel);
}
static inline vb bbits16(uint32_t bits) { return vandq_u8(bmask16(bits), vdupq_n_u8(16)); }
static inline vb bnegate(vb v, uint32_t bits) { return vsubq_u8(veorq_u8(v, bmask16(bits)), bmask16(bits)); }
static inline vb bpair(uint64_t lo, uint64_t hi) { return vcombine_u8(vcreate_u8(lo), vcreate_u8(hi)); }
#define bzero16() vdupq_n_u8(0)
#define badd(a, b) vaddq_u8(a, b)
#define bavg(a, b) vrhaddq_u8(a, b)
#define bsubs1(a) vqsubq_u8(a, vdupq_n_u8(1))
static inline float vhalf(uint16_t h) {
    __fp16 f;
    memcpy(&f, &h, 2);
    return (float)f;
}

#endif
