/* i8_lattice_neon.c - i8_lattice.inc compiled for 64-bit ARM. */
#include "kern/arm/i8_lattice_vec.h"

#include "kern/i8_run.inc"
#include "kern/i8_lattice.inc"
