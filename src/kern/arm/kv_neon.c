/* kv_neon.c - kv_decode.inc for NEON; the encoders' plain loops are good enough as compiled for the base level. */
#include "kern/kv_decode.inc"
