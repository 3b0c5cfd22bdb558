/* fuzz_gguf.c - any bytes as a GGUF: open, then walk everything an accepted file offers. */
#include "ashlar/gguf.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    ash_gguf *g;
    ash_error e;
    if (ash_gguf_open_mem(&g, p, n, &e) != ASH_OK) {
        if (!e.msg[0]) abort();
        return 0;
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < ash_gguf_n_kv(g); i++) {
        const ash_gguf_kv *kv = ash_gguf_kv_at(g, i);
        uint64_t cur = 0;
        int64_t x;
        double f;
        ash_str s;
        if (kv->type == ASH_GV_ARRAY) {
            while (ash_gguf_array_str(kv, &cur, &s)) sum += s.n ? (uint8_t)s.p[s.n - 1] : 0;
            for (uint64_t j = 0; j < kv->n && j < 1000; j++) {
                if (ash_gguf_array_i64(kv, j, &x)) sum += (uint64_t)x;
                if (ash_gguf_array_f64(kv, j, &f)) sum += f > 0;
            }
        } else if (kv->type == ASH_GV_STRING && kv->str.n) sum += (uint8_t)kv->str.p[kv->str.n - 1];
    }
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        if (ash_gguf_find_tensor(g, t->name) != t) abort();
        sum += t->data[0] + t->data[t->n_bytes - 1];
    }
    /* What is accepted can be copied, and the copy has the same header content. */
    ash_gguf_writer *w;
    if (ash_gguf_writer_new(&w, &e) == ASH_OK) {
        if (ash_gguf_copy_kv(w, g, &e) != ASH_OK) abort();
        for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
            const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
            if (ash_gguf_add_tensor(w, t->name, t->type, t->n_dims, t->ne, &e) != ASH_OK) abort();
        }
        sum += ash_gguf_writer_bytes(w);
        ash_gguf_writer_free(w);
    }
    ash_gguf_close(g);
    return sum == 12345; /* keep the reads */
}
