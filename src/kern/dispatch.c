/* dispatch.c - builds the kernel tables, one per CPU level, from list.inc. A slot that a level does not
 * provide keeps the function of the level below; a level the machine lacks is clamped to what it has. */
#include "kern/kern_decl.h"

#include <pthread.h>

/* TAKE<flag>(statement): only where the list says the function exists, and its levels do */
#define TAKE0(stmt)
#if defined(__x86_64__)
#define TAKE1(stmt) stmt
#else
#define TAKE1(stmt)
#endif
#define SET(field, level, fn, flag2, flag512)                                       \
    do {                                                                            \
        field = fn##_ref;                                                           \
        TAKE##flag2(if (level >= ASH_CPU_AVX2) field = fn##_avx2;)                  \
        TAKE##flag512(if (level >= ASH_CPU_AVX512) field = fn##_avx512;)            \
    } while (0)

static ash_kern tables[ASH_CPU_COUNT];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill(ash_kern *k, ash_cpu_level level) {
    k->level = level;
#define ASH_KERN(slot, sig, avx2, avx512) SET(k->slot, level, ash_k_##slot, avx2, avx512);
#define ASH_KERN_T(slot, sig, DTYPE, avx2, avx512) SET(k->slot[ASH_##DTYPE], level, ash_k_##slot##_##DTYPE, avx2, avx512);
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
