/* dispatch.c - builds the kernel tables, one per CPU level, from list.inc. A slot that a level does not
 * provide keeps the function of the level below; a level the machine lacks is clamped to what it has. */
#include "kern/kern_decl.h"

#include <pthread.h>

#if defined(__x86_64__)
#define HAVE_X86 1
#else
#define HAVE_X86 0
#endif
/* fn##suffix only where the list says it exists */
#define PICK_0(fn) NULL
#if HAVE_X86
#define PICK_1(fn) fn
#else
#define PICK_1(fn) NULL
#endif
#define PICK(flag, fn) PICK_##flag(fn)
#define SET(field, level, ref, flag2, fn2, flag512, fn512)                                                                         \
    do {                                                                                                                           \
        field = ref;                                                                                                               \
        if (level >= ASH_CPU_AVX2 && PICK(flag2, fn2)) field = PICK(flag2, fn2);                                                   \
        if (level >= ASH_CPU_AVX512 && PICK(flag512, fn512)) field = PICK(flag512, fn512);                                         \
    } while (0)

static ash_kern tables[ASH_CPU_COUNT];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill(ash_kern *k, ash_cpu_level level) {
    k->level = level;
#define ASH_KERN(slot, sig, avx2, avx512)                                                                                          \
    SET(k->slot, level, ash_k_##slot##_ref, avx2, ash_k_##slot##_avx2, avx512, ash_k_##slot##_avx512);
#define ASH_KERN_T(slot, sig, DTYPE, avx2, avx512)                                                                                 \
    SET(k->slot[ASH_##DTYPE], level, ash_k_##slot##_##DTYPE##_ref, avx2, ash_k_##slot##_##DTYPE##_avx2, avx512,                    \
        ash_k_##slot##_##DTYPE##_avx512);
#include "kern/list.inc"
#undef ASH_KERN
#undef ASH_KERN_T
}

static void init(void) {
    for (int l = 0; l < ASH_CPU_COUNT; l++) fill(&tables[l], (ash_cpu_level)l);
}

const ash_kern *ash_kern_get(ash_cpu_level level) {
    pthread_once(&once, init);
    ash_cpu_level have = ash_cpu_detect();
    return &tables[level < have ? level : have];
}
