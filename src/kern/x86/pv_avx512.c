/* pv_avx512.c - pv.inc compiled for avx512. */
#include "kern/pv.inc"
