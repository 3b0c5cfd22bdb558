/* elem_neon.c - elem.inc compiled for 64-bit ARM. */
#include "kern/elem.inc"
