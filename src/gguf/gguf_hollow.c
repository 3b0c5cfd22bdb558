/* gguf_hollow.c - a header without its tensors: files cut off after the header, and headers made from a config.json. The header is
 * copied in front of zeros as long as the whole file would be, so that everything that takes a file's shapes takes these, too. */
#include "gguf/gguf_int.h"

enum { MAX_SHIFT = 46 }; /* 64 TiB: beyond every model, within the address space */

/* The header at p, with tensors that may lie anywhere: how long it is, and how long the file should be. */
static ash_status measure(const void *p, uint64_t n, uint64_t *head, uint64_t *total, ash_error *err) {
    ash_gguf *g = ash_calloc(1, sizeof *g);
    if (!g) return ash_fail(err, ASH_E_NOMEM, "out of memory opening a GGUF");
    g->p = p;
    g->n = n;
    g->unranged = true;
    ash_status st = ash_gguf_parse(g, err);
    if (st == ASH_OK) {
        *head = *total = g->data_offset;
        for (size_t i = 0; i < g->n_tensors; i++) *total = ASH_MAX(*total, g->data_offset + g->tensor[i].offset + g->tensor[i].n_bytes); /* checked */
        if (*total >> MAX_SHIFT) st = ash_fail(err, ASH_E_LIMIT, "the header describes %llu bytes of tensors", (unsigned long long)*total);
    }
    ash_gguf_close(g);
    return st;
}

ash_status ash_gguf_open_header(ash_gguf **out, const void *p, size_t n, ash_error *err) {
    uint64_t head = 0, total = 0;
    *out = NULL;
    ASH_TRY(measure(p, n, &head, &total, err));
    ash_gguf *g = ash_calloc(1, sizeof *g);
    if (!g) return ash_fail(err, ASH_E_NOMEM, "out of memory opening a GGUF");
    g->n_zero = total;
    ash_status st = ash_zero_map(total, &g->zero, err);
    if (st == ASH_OK) {
        memcpy(g->zero, p, (size_t)ASH_MIN(head, n));
        g->p = g->zero;
        g->n = total;
        st = ash_gguf_parse(g, err);
    }
    if (st != ASH_OK) ash_gguf_close(g);
    else *out = g;
    return st;
}

ash_status ash_gguf_open_cut(ash_gguf **out, const char *path, uint64_t *lost, ash_error *err) {
    ash_map m;
    *out = NULL;
    ASH_TRY(ash_map_open(&m, path, err));
    ash_status st = ash_gguf_open_header(out, m.p, m.n, err);
    if (st != ASH_OK && err) ash_error_prefix(err, "%s", path);
    if (st == ASH_OK && lost) *lost = (*out)->n > m.n ? (*out)->n - m.n : 0;
    ash_map_close(&m);
    return st;
}

bool ash_gguf_hollow(const ash_gguf *g) { return g->zero != NULL; }

void *ash_gguf_hollow_data(ash_gguf *g, const char *tensor) {
    const ash_gguf_tensor *t = g->zero ? ash_gguf_find_tensor(g, tensor) : NULL;
    return t ? (uint8_t *)g->zero + (t->data - g->p) : NULL;
}
