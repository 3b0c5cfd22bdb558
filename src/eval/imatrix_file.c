/* imatrix_file.c - importance matrices in memory and as GGUF: general.type "imatrix", imatrix.datasets, .chunk_count,
 * .chunk_size; per weight tensor two float32 tensors NAME.in_sum2 [columns, matrices] and NAME.counts [1, matrices].
 * Where gradients were collected: NAME.grad_in [columns] and NAME.grad_out [rows] (docs/formats/imatrix.md).
 * Layout found from a file written by llama-imatrix; docs/formats/imatrix.md. */
#include "eval/imatrix.h"

#include <math.h>
#include <stdlib.h>

#define SUM2 ".in_sum2"
#define COUNTS ".counts"
#define GRAD_IN ".grad_in"
#define GRAD_OUT ".grad_out"

ash_status ash_im_add(ash_imatrix *im, const char *name, size_t name_len, uint64_t n, uint64_t n_mat, const double *sum2d, const float *sum2f,
                      const float *counts, ash_error *err) {
    if (im->n == im->cap) {
        size_t cap = im->cap ? 2 * im->cap : 64;
        ash_im_entry *e = ash_realloc(im->e, cap * sizeof *e);
        if (!e) return ash_fail(err, ASH_E_NOMEM, "out of memory for the importance matrix");
        im->e = e;
        im->cap = cap;
    }
    ash_im_entry *e = &im->e[im->n];
    *e = (ash_im_entry){.n = n, .n_mat = n_mat};
    uint64_t bytes;
    if (ash_mul_ovf(n, sizeof(float), &bytes)) return ash_fail(err, ASH_E_FORMAT, "an importance entry's size overflows");
    e->name = ash_arena_strndup(&im->arena, name, name_len);
    e->sum2 = ash_arena_alloc(&im->arena, bytes);
    e->mean = ash_arena_alloc(&im->arena, bytes);
    e->counts = ash_arena_alloc(&im->arena, n_mat * sizeof(float));
    if (!e->name || !e->sum2 || !e->mean || !e->counts) return ash_fail(err, ASH_E_NOMEM, "out of memory for the importance matrix");
    for (uint64_t i = 0; i < n; i++) e->sum2[i] = sum2d ? (float)sum2d[i] : sum2f[i];
    memcpy(e->counts, counts, n_mat * sizeof(float));
    im->n++;
    return ASH_OK;
}

ash_status ash_im_set_grad(ash_imatrix *im, ash_im_entry *e, const float *in, const float *out, uint64_t n_out, ash_error *err) {
    uint64_t bytes;
    if (n_out == 0 || ash_mul_ovf(n_out, sizeof(float), &bytes)) return ash_fail(err, ASH_E_FORMAT, "gradients of %s: bad size", e->name);
    for (uint64_t i = 0; i < e->n + n_out; i++) {
        const float v = i < e->n ? in[i] : out[i - e->n];
        if (!(v >= 0) || !isfinite(v)) return ash_fail(err, ASH_E_FORMAT, "gradients of %s: bad value", e->name);
    }
    e->grad_in = ash_arena_alloc(&im->arena, e->n * sizeof(float));
    e->grad_out = ash_arena_alloc(&im->arena, bytes);
    if (!e->grad_in || !e->grad_out) return ash_fail(err, ASH_E_NOMEM, "out of memory for the importance matrix");
    memcpy(e->grad_in, in, e->n * sizeof(float));
    memcpy(e->grad_out, out, bytes);
    e->n_out = n_out;
    return ASH_OK;
}

static int by_name(const void *a, const void *b) { return strcmp(((const ash_im_entry *)a)->name, ((const ash_im_entry *)b)->name); }

ash_status ash_im_finish(ash_imatrix *im, ash_error *err) {
    if (im->n) qsort(im->e, im->n, sizeof *im->e, by_name);
    for (size_t i = 0; i < im->n; i++) {
        ash_im_entry *e = &im->e[i];
        if (i && strcmp(e->name, im->e[i - 1].name) == 0) return ash_fail(err, ASH_E_FORMAT, "importance of %s appears twice", e->name);
        uint64_t per = e->n / e->n_mat;
        for (uint64_t m = 0; m < e->n_mat; m++) {
            float c = e->counts[m];
            if (!(c >= 0) || !isfinite(c)) return ash_fail(err, ASH_E_FORMAT, "importance of %s: bad count", e->name);
            for (uint64_t j = 0; j < per; j++) {
                float s = e->sum2[m * per + j];
                if (!(s >= 0) || !isfinite(s)) return ash_fail(err, ASH_E_FORMAT, "importance of %s: bad value in column %llu", e->name, (unsigned long long)j);
                e->mean[m * per + j] = c > 0 ? s / c : 0;
            }
        }
    }
    return ASH_OK;
}

ash_im_entry *ash_im_find(const ash_imatrix *im, const char *name) {
    ash_im_entry key = {.name = (char *)(uintptr_t)name};
    return im->n ? bsearch(&key, im->e, im->n, sizeof *im->e, by_name) : NULL;
}

void ash_imatrix_free(ash_imatrix *im) {
    if (!im) return;
    ash_arena_free(&im->arena);
    ash_free(im->e);
    ash_free(im->dataset);
    ash_free(im);
}

static bool ends_with(const char *s, const char *tail, size_t *stem) {
    size_t n = strlen(s), k = strlen(tail);
    if (n <= k || memcmp(s + n - k, tail, k) != 0) return false;
    *stem = n - k;
    return true;
}

/* Gradients, of entries that are there. */
static ash_status read_grads(ash_imatrix *im, const ash_gguf *g, ash_error *err) {
    char buf[256];
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *a = ash_gguf_tensor_at(g, i), *b;
        size_t stem;
        if (!ends_with(a->name, GRAD_IN, &stem)) continue;
        if (stem + sizeof GRAD_OUT > sizeof buf) return ash_fail(err, ASH_E_FORMAT, "tensor %s: the name is too long", a->name);
        memcpy(buf, a->name, stem);
        memcpy(buf + stem, GRAD_OUT, sizeof GRAD_OUT);
        b = ash_gguf_find_tensor(g, buf);
        buf[stem] = 0;
        ash_im_entry *e = ash_im_find(im, buf);
        if (!b || !e) return ash_fail(err, ASH_E_FORMAT, "tensor %s goes with %s" GRAD_OUT " and %s" SUM2, a->name, buf, buf);
        if (a->type != ASH_F32 || b->type != ASH_F32 || a->n_dims != 1 || b->n_dims != 1 || a->ne[0] != e->n || e->n_out || a->n_bytes / 4 < e->n || b->n_bytes / 4 < b->ne[0])
            return ash_fail(err, ASH_E_FORMAT, "tensor %s: its shape does not fit", a->name);
        float *in = ash_alloc(e->n * 4), *out = ash_alloc((b->ne[0] + 1) * 4);
        ash_status st = in && out ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory");
        if (st == ASH_OK) {
            memcpy(in, a->data, e->n * 4);
            memcpy(out, b->data, b->ne[0] * 4);
            st = ash_im_set_grad(im, e, in, out, b->ne[0], err);
        }
        ash_free(in);
        ash_free(out);
        ASH_TRY(st);
    }
    return ASH_OK;
}

static ash_status read_gguf(ash_imatrix *im, const ash_gguf *g, ash_error *err) {
    ash_str type;
    if (!ash_gguf_get_str(g, "general.type", &type) || type.n != 7 || memcmp(type.p, "imatrix", 7) != 0)
        return ash_fail(err, ASH_E_FORMAT, "no importance matrix: general.type is not \"imatrix\"");
    uint64_t v;
    if (ash_gguf_get_u64(g, "imatrix.chunk_count", &v) && v <= UINT32_MAX) im->chunks = (uint32_t)v;
    if (ash_gguf_get_u64(g, "imatrix.chunk_size", &v) && v <= UINT32_MAX) im->chunk_size = (uint32_t)v;
    const ash_gguf_kv *kv = ash_gguf_find(g, "imatrix.datasets");
    ash_str ds;
    uint64_t cur = 0;
    if (kv && kv->type == ASH_GV_ARRAY && kv->elem_type == ASH_GV_STRING && ash_gguf_array_str(kv, &cur, &ds)) {
        im->dataset = ash_strndup(ds.p, ds.n);
        if (!im->dataset) return ash_fail(err, ASH_E_NOMEM, "out of memory");
    }
    char buf[256];
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        size_t stem;
        if (!ends_with(t->name, SUM2, &stem)) {
            if (ends_with(t->name, GRAD_IN, &stem) || ends_with(t->name, GRAD_OUT, &stem)) continue; /* read_grads */
            if (!ends_with(t->name, COUNTS, &stem)) return ash_fail(err, ASH_E_FORMAT, "tensor %s has no place in an importance matrix", t->name);
            continue;
        }
        if (stem + sizeof COUNTS > sizeof buf) return ash_fail(err, ASH_E_FORMAT, "tensor %s: the name is too long", t->name);
        memcpy(buf, t->name, stem);
        memcpy(buf + stem, COUNTS, sizeof COUNTS);
        const ash_gguf_tensor *c = ash_gguf_find_tensor(g, buf);
        if (!c) return ash_fail(err, ASH_E_FORMAT, "tensor %s has no counts", t->name);
        if (t->type != ASH_F32 || c->type != ASH_F32) return ash_fail(err, ASH_E_FORMAT, "tensor %s: importance data must be F32", t->name);
        uint64_t n_mat = t->ne[1];
        if (t->ne[0] == 0 || n_mat == 0 || t->ne[2] != 1 || t->ne[3] != 1 || c->ne[0] != 1 || c->ne[1] != n_mat || c->ne[2] != 1 || c->ne[3] != 1)
            return ash_fail(err, ASH_E_FORMAT, "tensor %s: its shape and that of its counts do not fit", t->name);
        uint64_t n;
        if (ash_mul_ovf(t->ne[0], n_mat, &n) || t->n_bytes / 4 < n || c->n_bytes / 4 < n_mat)
            return ash_fail(err, ASH_E_FORMAT, "tensor %s: its size does not fit", t->name);
        /* data may be unaligned for float: copy through memcpy'd buffers */
        float *cp = ash_alloc(n_mat * 4), *sp = ash_alloc(n * 4);
        ash_status st = cp && sp ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory");
        if (st == ASH_OK) {
            memcpy(cp, c->data, n_mat * 4);
            memcpy(sp, t->data, n * 4);
            st = ash_im_add(im, t->name, stem, n, n_mat, NULL, sp, cp, err);
        }
        ash_free(cp);
        ash_free(sp);
        ASH_TRY(st);
    }
    ASH_TRY(ash_im_finish(im, err));
    return read_grads(im, g, err);
}

static ash_status load(ash_imatrix **out, ash_gguf *g, ash_error *err) {
    ash_imatrix *im = ash_calloc(1, sizeof *im);
    ash_status st = im ? read_gguf(im, g, err) : ash_fail(err, ASH_E_NOMEM, "out of memory");
    ash_gguf_close(g);
    if (st == ASH_OK) *out = im;
    else ash_imatrix_free(im);
    return st;
}

ash_status ash_imatrix_load(ash_imatrix **out, const char *path, ash_error *err) {
    *out = NULL;
    ash_gguf *g = NULL;
    ASH_TRY(ash_gguf_open(&g, path, err));
    ash_status st = load(out, g, err);
    if (st != ASH_OK) ash_error_prefix(err, "%s", path);
    return st;
}

ash_status ash_imatrix_load_mem(ash_imatrix **out, const void *p, size_t n, ash_error *err) {
    *out = NULL;
    ash_gguf *g = NULL;
    ASH_TRY(ash_gguf_open_mem(&g, p, n, err));
    return load(out, g, err);
}

static ash_status write_entries(const ash_imatrix *im, ash_gguf_writer *w, const char *path, ash_error *err) {
    char buf[256];
    ash_str ds = {im->dataset ? im->dataset : "", im->dataset ? strlen(im->dataset) : 0};
    ASH_TRY(ash_gguf_set_str(w, "general.type", "imatrix", 7, err));
    ASH_TRY(ash_gguf_set_str_array(w, "imatrix.datasets", &ds, 1, err));
    ASH_TRY(ash_gguf_set_u32(w, "imatrix.chunk_count", im->chunks, err));
    ASH_TRY(ash_gguf_set_u32(w, "imatrix.chunk_size", im->chunk_size, err));
    for (int pass = 0; pass < 2; pass++) {
        if (pass) ASH_TRY(ash_gguf_writer_begin(w, path, err));
        for (size_t i = 0; i < im->n; i++) {
            const ash_im_entry *e = &im->e[i];
            uint64_t ns[2] = {e->n / e->n_mat, e->n_mat}, nc[2] = {1, e->n_mat};
            size_t len = strlen(e->name);
            if (len + sizeof SUM2 > sizeof buf) return ash_fail(err, ASH_E_RANGE, "%s: the name is too long", e->name);
            memcpy(buf, e->name, len);
            int dims = e->n_mat > 1 ? 2 : 1;
            if (pass) {
                ASH_TRY(ash_gguf_writer_data(w, e->sum2, e->n * 4, err));
                ASH_TRY(ash_gguf_writer_data(w, e->counts, e->n_mat * 4, err));
                if (e->n_out) {
                    ASH_TRY(ash_gguf_writer_data(w, e->grad_in, e->n * 4, err));
                    ASH_TRY(ash_gguf_writer_data(w, e->grad_out, e->n_out * 4, err));
                }
                continue;
            }
            memcpy(buf + len, SUM2, sizeof SUM2);
            ASH_TRY(ash_gguf_add_tensor(w, buf, ASH_F32, dims, ns, err));
            memcpy(buf + len, COUNTS, sizeof COUNTS);
            ASH_TRY(ash_gguf_add_tensor(w, buf, ASH_F32, dims, nc, err));
            if (!e->n_out) continue;
            if (len + sizeof GRAD_OUT > sizeof buf) return ash_fail(err, ASH_E_RANGE, "%s: the name is too long", e->name);
            memcpy(buf + len, GRAD_IN, sizeof GRAD_IN);
            ASH_TRY(ash_gguf_add_tensor(w, buf, ASH_F32, 1, &e->n, err));
            memcpy(buf + len, GRAD_OUT, sizeof GRAD_OUT);
            ASH_TRY(ash_gguf_add_tensor(w, buf, ASH_F32, 1, &e->n_out, err));
        }
    }
    return ash_gguf_writer_finish(w, err);
}

ash_status ash_imatrix_save(const ash_imatrix *im, const char *path, ash_error *err) {
    ash_gguf_writer *w = NULL;
    ASH_TRY(ash_gguf_writer_new(&w, err));
    ash_status st = write_entries(im, w, path, err);
    ash_gguf_writer_free(w);
    return st;
}

size_t ash_imatrix_n(const ash_imatrix *im) { return im->n; }
uint32_t ash_imatrix_chunks(const ash_imatrix *im) { return im->chunks; }
uint32_t ash_imatrix_chunk_size(const ash_imatrix *im) { return im->chunk_size; }

ash_imatrix_entry ash_imatrix_at(const ash_imatrix *im, size_t i) {
    const ash_im_entry *e = &im->e[i];
    return (ash_imatrix_entry){e->name, e->n, e->n_mat, e->sum2, e->counts};
}


const float *ash_imatrix_weights(const ash_imatrix *im, const char *tensor, uint64_t n) {
    const ash_im_entry *e = im ? ash_im_find(im, tensor) : NULL;
    if (!e || e->n != n) return NULL;
    for (uint64_t i = 0; i < e->n_mat; i++)
        if (e->counts[i] > 0) return e->mean;
    return NULL;
}

const float *ash_imatrix_counts(const ash_imatrix *im, const char *tensor, uint64_t n_mat) {
    const ash_im_entry *e = im ? ash_im_find(im, tensor) : NULL;
    return e && e->n_mat == n_mat ? e->counts : NULL;
}

bool ash_imatrix_sensitivity(const ash_imatrix *im, const char *tensor, uint64_t n_in, uint64_t n_out, const float **in, const float **out) {
    const ash_im_entry *e = im ? ash_im_find(im, tensor) : NULL;
    if (!e || !e->n_out || e->n != n_in || e->n_out != n_out) return false;
    *in = e->grad_in;
    *out = e->grad_out;
    return true;
}

bool ash_imatrix_has_gradients(const ash_imatrix *im) {
    for (size_t i = 0; i < im->n; i++)
        if (im->e[i].n_out) return true;
    return false;
}
