/* elem_avx512.c - elem.inc compiled for avx512. */
#include "kern/elem.inc"
