/* pv_neon.c - pv.inc compiled for 64-bit ARM. */
#include "kern/pv.inc"
