/* kern_decl.h - declarations of every kernel function, made from list.inc: the kernel files include it
 * so that their definitions are checked against the list, dispatch.c and the parity tests use it. */
#ifndef ASH_KERN_DECL_H
#define ASH_KERN_DECL_H

#include "kern/kern.h"

#ifndef ASH_KERN_ATTR
#define ASH_KERN_ATTR
#endif

/* The signatures are typedefs of pointers to functions; typeof gives the function type behind them. */
#define ASH_KERN(slot, sig, avx2, avx512)                                                                                          \
    extern ASH_KERN_ATTR __typeof__(*(sig)0) ash_k_##slot##_ref, ash_k_##slot##_avx2, ash_k_##slot##_avx512;
#define ASH_KERN_T(slot, sig, DTYPE, avx2, avx512)                                                                                 \
    extern ASH_KERN_ATTR __typeof__(*(sig)0) ash_k_##slot##_##DTYPE##_ref, ash_k_##slot##_##DTYPE##_avx2, ash_k_##slot##_##DTYPE##_avx512;
#include "kern/list.inc"
#undef ASH_KERN
#undef ASH_KERN_T

#endif
