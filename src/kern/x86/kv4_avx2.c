/* kv4_avx2.c - kv4.inc compiled for avx2. */
#define KV4_FN(name) ash_k_##name##_avx2
#include "kern/kv4.inc"
