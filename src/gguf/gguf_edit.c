/* gguf_edit.c - change metadata of a file: a new header with the old tensor descriptions, and the data
 * section copied byte for byte (its offsets are relative, so no tensor moves inside it). Written beside
 * and renamed. */
#include "gguf/gguf_int.h"

ash_status ash_gguf_write_over(const ash_gguf *g, ash_gguf_writer *w, const char *path, ash_error *err) {
    ash_outfile *out = NULL;
    ash_buf b = {0};
    ash_status st;
    ASH_TRY_GOTO(ash_gguf_writer_header(w, &b, err), done);
    ASH_TRY_GOTO(ash_outfile_open(&out, path, err), done);
    ASH_TRY_GOTO(ash_outfile_write(out, b.p, b.n, err), done);
    if (g->n > g->data_offset) ASH_TRY_GOTO(ash_outfile_write(out, g->p + g->data_offset, (size_t)(g->n - g->data_offset), err), done);
    st = ash_outfile_commit(&out, err);
done:
    ash_outfile_abort(out);
    ash_buf_free(&b);
    return st;
}

ash_status ash_gguf_edit(const char *path, const char *const *assignments, size_t n, ash_error *err) {
    ash_gguf *g = NULL;
    ash_gguf_writer *w = NULL;
    ash_status st;
    ASH_TRY_GOTO(ash_gguf_open(&g, path, err), done);
    ASH_TRY_GOTO(ash_gguf_writer_new(&w, err), done);
    ASH_TRY_GOTO(ash_gguf_copy_kv(w, g, err), done);
    for (size_t i = 0; i < n; i++) ASH_TRY_GOTO(ash_gguf_assign(w, g, assignments[i], false, err), done);
    for (size_t i = 0; i < g->n_tensors; i++) ASH_TRY_GOTO(ash_gguf_writer_add_raw(w, &g->tensor[i], err), done);
    st = ash_gguf_write_over(g, w, path, err);
done:
    ash_gguf_writer_free(w);
    ash_gguf_close(g);
    return st;
}

static void *copy_of(const void *p, size_t n) {
    void *q = ash_alloc(n);
    if (q && n) memcpy(q, p, n);
    return q;
}

ash_status ash_gguf_with_kv(ash_gguf **out, const ash_gguf *g, const ash_gguf *kv, ash_error *err) {
    *out = NULL;
    ash_gguf *r = ash_calloc(1, sizeof *r);
    if (!r) return ash_fail(err, ASH_E_NOMEM, "out of memory changing metadata");
    size_t names = 0;
    for (size_t i = 0; i < g->n_tensors; i++) names += strlen(g->tensor[i].name) + 1;
    *r = (ash_gguf){.p = g->p, .n = g->n, .version = g->version, .alignment = g->alignment, .data_offset = g->data_offset, .n_kv = kv->n_kv, .n_tensors = g->n_tensors};
    r->kv = copy_of(kv->kv, kv->n_kv * sizeof *kv->kv);
    r->kv_order = copy_of(kv->kv_order, kv->n_kv * sizeof *kv->kv_order);
    r->tensor = copy_of(g->tensor, g->n_tensors * sizeof *g->tensor);
    r->tensor_order = copy_of(g->tensor_order, g->n_tensors * sizeof *g->tensor_order);
    r->names = ash_alloc(names);
    if (!r->kv || !r->kv_order || !r->tensor || !r->tensor_order || !r->names) {
        ash_gguf_close(r);
        return ash_fail(err, ASH_E_NOMEM, "out of memory changing metadata");
    }
    char *p = r->names;
    for (size_t i = 0; i < g->n_tensors; i++) {
        size_t n = strlen(g->tensor[i].name) + 1;
        memcpy(p, g->tensor[i].name, n);
        r->tensor[i].name = p;
        p += n;
    }
    *out = r;
    return ASH_OK;
}
