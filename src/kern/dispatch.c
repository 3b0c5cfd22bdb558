/* dispatch.c - builds the kernel tables, one per CPU level, from list.inc. A slot that a level does not
 * provide keeps the function of the level below; a level the machine lacks is clamped to what it has. */
#include "kern/i8_words.h"
#include "kern/kern_decl.h"

#include <pthread.h>

/* TAKE<flag>(statement): only where the list says the function exists */
#define TAKE0(stmt)
#define TAKE1(stmt) stmt
#if defined(__x86_64__)
#define SET(field, level, fn, a2, a512, n, d, i8)                                   \
    do {                                                                            \
        field = fn##_ref;                                                           \
        TAKE##a2(if (level >= ASH_CPU_AVX2) field = fn##_avx2;)                     \
        TAKE##a512(if (level >= ASH_CPU_AVX512) field = fn##_avx512;)               \
    } while (0)
#elif defined(__aarch64__)
#define SET(field, level, fn, a2, a512, n, d, i8)                                   \
    do {                                                                            \
        field = fn##_ref;                                                           \
        TAKE##n(if (level >= ASH_CPU_NEON) field = fn##_neon;)                      \
        TAKE##d(if (level >= ASH_CPU_DOTPROD) field = fn##_dotprod;)                \
        TAKE##i8(if (level >= ASH_CPU_I8MM) field = fn##_i8mm;)                     \
    } while (0)
#else
#define SET(field, level, fn, ...) field = fn##_ref
#endif

static ash_kern tables[ASH_CPU_COUNT];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill(ash_kern *k, ash_cpu_level level) {
    k->level = level;
#define ASH_KERN(slot, sig, a2, a512, n, d, i8) SET(k->slot, level, ash_k_##slot, a2, a512, n, d, i8);
#define ASH_KERN_T(slot, sig, DTYPE, a2, a512, n, d, i8) SET(k->slot[ASH_##DTYPE], level, ash_k_##slot##_##DTYPE, a2, a512, n, d, i8);
#include "kern/list.inc"
#undef ASH_KERN
#undef ASH_KERN_T
}

static void init(void) {
    ash_i8_words_init();
    for (int l = 0; l < ASH_CPU_COUNT; l++) fill(&tables[l], (ash_cpu_level)l);
}

const ash_kern *ash_kern_get(ash_cpu_level level) {
    pthread_once(&once, init);
    ash_cpu_level have = ash_cpu_detect();
    return &tables[level < have ? level : have];
}
