/* decode_avx512.c - decode.inc compiled for avx512. */
#include "kern/decode.inc"
