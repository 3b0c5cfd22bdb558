/* i8_lattice_dotprod.c - the matrix-vector half of i8_lattice.inc compiled for the dot product extension. */
#define I8_GEMV_ONLY
#include "kern/arm/i8_lattice_vec.h"

#include "kern/i8_run.inc"
#include "kern/i8_lattice.inc"
