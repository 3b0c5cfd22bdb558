/* pv_avx2.c - pv.inc compiled for avx2. */
#include "kern/pv.inc"
