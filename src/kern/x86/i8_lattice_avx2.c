/* i8_lattice_avx2.c - i8_lattice.inc compiled for avx2. */
#include "kern/x86/i8_lattice_vec.h"

#include "kern/i8_run.inc"
#include "kern/i8_lattice.inc"
