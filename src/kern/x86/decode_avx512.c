/* decode_avx512.c - decode.inc compiled for avx512. */
#include "kern/x86/decode.inc"
