/* elem_avx2.c - elem.inc compiled for avx2. */
#include "kern/elem.inc"
