/* kv_avx2.c - kv_encode.inc and kv_decode.inc compiled for avx2. */
#define KV_FN(name) ash_k_##name##_avx2
#include "kern/kv_decode.inc"
#include "kern/kv_encode.inc"
