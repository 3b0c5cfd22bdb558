/* i8_common.h - what the 8-bit kernels of all levels share: the step from a group's integer sum to the
 * float accumulator that kern.h prescribes. Static inlines only: kernel files are compiled with their
 * own ISA flags. */
#ifndef ASH_KERN_I8_COMMON_H
#define ASH_KERN_I8_COMMON_H

#include "kern/kern_decl.h"

#include <math.h>

/* One group's contribution, exactly as kern.h prescribes. */
static inline float i8_step(float acc, float s, float m, bool has_min, int32_t isum, float d, int32_t bsum) {
    acc = fmaf(s * d, (float)isum, acc);
    if (has_min) acc = fmaf(m, d * (float)bsum, acc);
    return acc;
}

/* The panel after p, and the activations after the first n tokens. */
static inline ash_panel8 i8_panel_next(ash_panel8 p, int K, int G, bool has_min) {
    p.q += (size_t)K * ASH_PANEL_ROWS;
    p.s += (size_t)(K / G) * ASH_PANEL_ROWS;
    if (has_min) p.m += (size_t)(K / G) * ASH_PANEL_ROWS;
    return p;
}

static inline ash_act8 i8_tokens_next(ash_act8 a, int64_t n) {
    a.q += n * a.ld_q;
    a.d += n * a.ld_d;
    a.b += n * a.ld_b;
    return a;
}

#endif
