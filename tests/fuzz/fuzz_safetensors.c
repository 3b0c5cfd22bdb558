/* fuzz_safetensors.c - the safetensors reader on arbitrary bytes; every tensor it accepts must lie inside the file. */
#include "gguf/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    ash_st *s;
    if (ash_st_open_mem(&s, p, n, NULL) != ASH_OK) return 0;
    uint64_t sum = 0;
    for (size_t i = 0; i < ash_st_count(s); i++) {
        const ash_st_tensor *t = ash_st_at(s, i);
        if (ash_st_find(s, t->name) == NULL) abort();
        for (uint64_t k = 0; k < t->n_bytes; k++) sum += t->data[k];
    }
    ash_st_close(s);
    return (int)(sum & 0); /* the reads are the point */
}
