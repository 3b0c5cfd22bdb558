/* kv4_avx512.c - kv4.inc compiled for avx512. */
#define KV4_FN(name) ash_k_##name##_avx512
#include "kern/kv4.inc"
