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

#endif
