/* kv_avx512.c - kv_encode.inc and kv_decode.inc compiled for avx512. */
#define KV_FN(name) ash_k_##name##_avx512
#include "kern/kv_decode.inc"
#include "kern/kv_encode.inc"
