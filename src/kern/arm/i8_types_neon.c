/* i8_types_neon.c - i8_types.inc compiled for 64-bit ARM. */
#include "kern/arm/i8_vec.h"

#include "kern/i8_run.inc"
#include "kern/i8_types.inc"
