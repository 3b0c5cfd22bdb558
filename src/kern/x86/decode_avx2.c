/* decode_avx2.c - decode.inc compiled for avx2. */
#include "kern/decode.inc"
