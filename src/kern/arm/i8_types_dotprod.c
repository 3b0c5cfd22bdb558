/* i8_types_dotprod.c - the matrix-vector half of i8_types.inc compiled for the dot product extension. */
#define I8_GEMV_ONLY
#include "kern/arm/i8_vec.h"

#include "kern/i8_run.inc"
#include "kern/i8_types.inc"
