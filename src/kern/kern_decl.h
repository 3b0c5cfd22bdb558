/* kern_decl.h - declarations of every kernel function, made from list.inc: the kernel files include it
 * so that their definitions are checked against the list, dispatch.c and the parity tests use it. */
#ifndef ASH_KERN_DECL_H
#define ASH_KERN_DECL_H

#include "kern/kern.h"

#ifndef ASH_KERN_ATTR
#define ASH_KERN_ATTR
#endif

/* The signatures are typedefs of pointers to functions; typeof gives the function type behind them. */
#define ASH_KERN_FNS(sig, name) \
    extern ASH_KERN_ATTR __typeof__(*(sig)0) name##_ref, name##_avx2, name##_avx512, name##_neon, name##_dotprod, name##_i8mm;
#define ASH_KERN(slot, sig, ...) ASH_KERN_FNS(sig, ash_k_##slot)
#define ASH_KERN_T(slot, sig, DTYPE, ...) ASH_KERN_FNS(sig, ash_k_##slot##_##DTYPE)
#include "kern/list.inc"
#undef ASH_KERN
#undef ASH_KERN_T

#endif
