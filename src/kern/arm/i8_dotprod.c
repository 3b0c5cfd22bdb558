/* i8_dotprod.c - i8_gemm.inc compiled for the dotprod extension. */
#include "kern/arm/i8_gemm.inc"
