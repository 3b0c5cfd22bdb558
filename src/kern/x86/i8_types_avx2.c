/* i8_types_avx2.c - i8_types.inc compiled for avx2. */
#include "kern/x86/i8_vec.h"

#include "kern/i8_run.inc"
#include "kern/i8_types.inc"
