/* fuzz_header.c - a GGUF header without its tensors, from arbitrary bytes: opened over zeros, every tensor's first and last byte read. */
#include "ashlar/gguf.h"

static volatile uint8_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    ash_gguf *g;
    if (ash_gguf_open_header(&g, p, n, NULL) != ASH_OK) return 0;
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        if (t->n_bytes) sink = t->data[0] ^ t->data[t->n_bytes - 1];
    }
    ash_gguf_close(g);
    return 0;
}
