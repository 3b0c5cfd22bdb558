/* decode_neon.c - decode.inc compiled for 64-bit ARM. */
#include "kern/decode.inc"
