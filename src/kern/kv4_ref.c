/* kv4_ref.c - kv4.inc compiled for the architecture's base level. */
#define KV4_FN(name) ash_k_##name##_ref
#include "kern/kv4.inc"
