/* vec.h - one vocabulary for the SIMD forms of the float kernels, so that all come from one source (*.inc):
 * kern/x86/vec_x86.h (AVX2, AVX-512), kern/arm/vec_neon.h.
 *
 * vf is VW floats, vd VW/2 doubles, vb 16 bytes; VREGS registers hold them; VG vectors of rows side by side
 * keep a matrix-vector product busy. vloadn/vstoren touch only the first n (0..VW) elements, the rest read 0.
 * vmax and the selections treat NaN as kern/mathf.h's plain C does. The functions below that need a word:
 *   vquads_T(AT)        four values of type T from each of VW/4 places AT(0), AT(1), ..
 *   vzip_lo/hi[2]       interleave the low or high halves of each 4 lanes, by one or by two
 *   vrope_pairs(x, cs)  x0 y0 x1 y1 .. turned by c0 s0 c1 s1 ..: x c - y s, y c + x s (the first product fused)
 *   vsplit_pairs        c0 s0 c1 s1 .. in two vectors to one of c and one of s
 *   vcodes16            16 signed bytes as floats
 *   bfield(v, s, m)     bits s.. of each byte under mask m;  bbits16: bit j as 0 or 16 in byte j;  bpair: two 8-byte halves
 *   bnegate(v, bits)    -v in the bytes whose bit is set;  bavg: average rounded up;  bsubs1: v - 1, not below 0
 * The math functions run the operations of kern/mathf.h lane by lane.
 */
#ifndef ASH_KERN_VEC_H
#define ASH_KERN_VEC_H

#include "kern/kern_decl.h"
#include "kern/mathf.h"

#if defined(__x86_64__)
#include "kern/x86/vec_x86.h"
#else
#include "kern/arm/vec_neon.h"
#endif

#define VN64 (ASH_SUM_LANES / VW) /* vectors of the 64 lanes of a float sum */
#define VN16D (32 / VW)           /* vectors of the 16 lanes of a double sum */

/* ash_fold64 on registers: halves 32 and 16 (and 8 with AVX2) are whole vectors. */
static inline float vfold64(const vf *l) {
    float t[ASH_SUM_LANES];
    for (int i = 0; i < VN64; i++) vstore(t + i * VW, l[i]);
    return ash_fold64(t);
}

static inline vf vexp(vf x) {
    vf t = vfma(x, vset1(ASH_EXP_LOG2E), vset1(ASH_EXP_MAGIC));
    vf n = vsub(t, vset1(ASH_EXP_MAGIC));
    vf r = vfma(n, vset1(-ASH_EXP_LN2_HI), x);
    r = vfma(n, vset1(-ASH_EXP_LN2_LO), r);
    vf p = vfma(vset1(ASH_EXP_C0), r, vset1(ASH_EXP_C1));
    p = vfma(p, r, vset1(ASH_EXP_C2));
    p = vfma(p, r, vset1(ASH_EXP_C3));
    p = vfma(p, r, vset1(ASH_EXP_C4));
    p = vfma(p, r, vset1(ASH_EXP_C5));
    p = vadd(vfma(p, vmul(r, r), r), vset1(1.0f));
    vf y = vadd_shl23(p, t);
    y = vsel_lt(x, vset1(ASH_EXP_LO), vzero(), y);
    y = vsel_lt(vset1(ASH_EXP_HI), x, vset1(INFINITY), y);
    return vsel_nan(x, x, y);
}

static inline vf vtanh(vf x) {
    vf a = vabs(x), z = vmul(x, x);
    vf p = vfma(vset1(ASH_TANH_T0), z, vset1(ASH_TANH_T1));
    p = vfma(p, z, vset1(ASH_TANH_T2));
    p = vfma(p, z, vset1(ASH_TANH_T3));
    p = vfma(p, z, vset1(ASH_TANH_T4));
    vf small = vfma(vmul(p, z), x, x);
    vf big = vsub(vset1(1.0f), vdiv(vset1(2.0f), vadd(vexp(vmul(vset1(2.0f), a)), vset1(1.0f))));
    return vsel_lt(a, vset1(ASH_TANH_SMALL), small, vcopysign(big, x));
}

#endif
