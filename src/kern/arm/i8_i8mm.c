/* i8_i8mm.c - i8_gemm.inc compiled for the i8mm extension. */
#include "kern/arm/i8_gemm.inc"
