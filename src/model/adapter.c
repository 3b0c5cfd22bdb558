/* adapter.c - LoRA adapters in GGUF: general.type "adapter", adapter.type "lora", adapter.lora.alpha, and per adapted
 * tensor NAME.lora_a [K, rank] and NAME.lora_b [rank, rows]; the matrix becomes W + scale * alpha / rank * B A. (Layout as
 * convert_lora_to_gguf writes it.) A pair that has no place in the model is an error. */
#include "model/adapter.h"

#include <stdio.h>

enum { MAX_RANK = 4096 };

static ash_status as_mat(const ash_gguf_tensor *t, uint64_t n_cols, uint64_t n_rows, ash_mat *out, ash_error *err) {
    if (t->n_dims > 2 || t->ne[0] != n_cols || t->ne[1] != n_rows)
        return ash_fail(err, ASH_E_FORMAT, "tensor %s is %llu x %llu; %llu x %llu is expected", t->name, (unsigned long long)t->ne[1],
                        (unsigned long long)t->ne[0], (unsigned long long)n_rows, (unsigned long long)n_cols);
    const ash_dtype_info *d = ash_dtype_get((int)t->type);
    uint64_t rb = d ? ash_dtype_row_bytes(t->type, n_cols) : 0;
    bool number = d && (d->quantized || t->type == ASH_F32 || t->type == ASH_F16 || t->type == ASH_BF16);
    if (!rb || !number || t->n_bytes != rb * n_rows)
        return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %s: type %s is no weight type", t->name, ash_dtype_name(t->type));
    *out = (ash_mat){t->type, t->data, (size_t)rb, (int64_t)n_rows, (int)n_cols};
    return ASH_OK;
}

/* The pair for one matrix, or for the rows of a fused tensor that it is a view of. */
static void put(ash_lora_mat *to, const ash_mat *w, const ash_gguf_tensor *whole, ash_mat a, ash_mat b, float alpha) {
    size_t row0 = (size_t)(w->data - whole->data) / w->row_bytes;
    b.data += row0 * b.row_bytes;
    b.n_rows = w->n_rows;
    *to = (ash_lora_mat){a, b, alpha != 0 ? alpha / (float)a.n_rows : 1.0f};
}

static ash_status bind_pair(ash_adapter *ad, const ash_gguf_tensor *ta, const char *base, float alpha, ash_error *err) {
    const ash_model *m = ad->m;
    char name[160];
    snprintf(name, sizeof name, "%s.lora_b", base);
    const ash_gguf_tensor *tb = ash_gguf_find_tensor(ad->gguf, name), *whole = ash_gguf_find_tensor(m->gguf, base);
    if (!tb) return ash_fail(err, ASH_E_FORMAT, "tensor %s is missing", name);
    if (!whole) return ash_fail(err, ASH_E_FORMAT, "the adapter changes %s, which the model does not have", base);
    if (ta->ne[1] < 1 || ta->ne[1] > MAX_RANK)
        return ash_fail(err, ASH_E_RANGE, "tensor %s: rank %llu; 1 to %d is possible", ta->name, (unsigned long long)ta->ne[1],
                        (int)MAX_RANK);
    ash_mat a, b;
    ASH_TRY(as_mat(ta, whole->ne[0], ta->ne[1], &a, err));
    ASH_TRY(as_mat(tb, ta->ne[1], whole->ne[1], &b, err));
    ad->max_rank = ASH_MAX(ad->max_rank, (int)a.n_rows);
    bool placed = false;
    for (int il = 0; il < m->hp.n_layer; il++)
        for (int r = 0; r < ASH_W_COUNT; r++)
            if (m->layers[il].name[r] && strcmp(m->layers[il].name[r], base) == 0) {
                put(&ad->mats[(size_t)il * ASH_W_COUNT + (size_t)r], &m->layers[il].w[r], whole, a, b, alpha);
                placed = true;
            }
    if (!placed && !m->tied && strcmp(base, m->head_name) == 0) {
        put(&ad->head, &m->head, whole, a, b, alpha);
        placed = true;
    }
    return placed ? ASH_OK : ash_fail(err, ASH_E_UNSUPPORTED, "the adapter changes %s: adapters for that tensor are not supported", base);
}

static ash_status bind_all(ash_adapter *ad, ash_error *err) {
    const ash_gguf *g = ad->gguf;
    ash_str s;
    if (!ash_gguf_get_str(g, "general.type", &s) || s.n != 7 || memcmp(s.p, "adapter", 7) != 0)
        return ash_fail(err, ASH_E_FORMAT, "no adapter: general.type is not \"adapter\"");
    if (!ash_gguf_get_str(g, "adapter.type", &s) || s.n != 4 || memcmp(s.p, "lora", 4) != 0)
        return ash_fail(err, ASH_E_UNSUPPORTED, "adapter.type is not \"lora\"");
    const char *arch = ash_model_arch(ad->m);
    if (!ash_gguf_get_str(g, "general.architecture", &s) || s.n != strlen(arch) || memcmp(s.p, arch, s.n) != 0)
        return ash_fail(err, ASH_E_FORMAT, "the adapter is not made for architecture %s", arch);
    double alpha = 0;
    ash_gguf_get_f64(g, "adapter.lora.alpha", &alpha);
    if (!(alpha > -1e6 && alpha < 1e6)) return ash_fail(err, ASH_E_RANGE, "key adapter.lora.alpha is out of range");
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        char base[128];
        size_t n = strlen(t->name), k = strlen(".lora_a");
        bool a = n > k && strcmp(t->name + n - k, ".lora_a") == 0, b = n > k && strcmp(t->name + n - k, ".lora_b") == 0;
        if ((!a && !b) || n - k >= sizeof base)
            return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %s has no place in a LoRA adapter", t->name);
        memcpy(base, t->name, n - k);
        base[n - k] = 0;
        if (a) {
            ASH_TRY(bind_pair(ad, t, base, (float)alpha, err));
            continue;
        }
        base[n - k] = 0;
        char other[160];
        snprintf(other, sizeof other, "%s.lora_a", base);
        if (!ash_gguf_find_tensor(g, other)) return ash_fail(err, ASH_E_FORMAT, "tensor %s is missing", other);
    }
    return ASH_OK;
}

ash_status ash_adapter_load_gguf(ash_adapter **out, ash_model *m, ash_gguf *g, ash_error *err) {
    *out = NULL;
    ash_adapter *ad = ash_calloc(1, sizeof *ad);
    if (!ad) {
        ash_gguf_close(g);
        return ash_fail(err, ASH_E_NOMEM, "out of memory for an adapter");
    }
    ad->m = ash_model_ref(m);
    ad->gguf = g;
    ad->mats = ash_calloc((size_t)m->hp.n_layer * ASH_W_COUNT, sizeof *ad->mats);
    ash_status st = ad->mats ? bind_all(ad, err) : ash_fail(err, ASH_E_NOMEM, "out of memory for an adapter");
    if (st == ASH_OK) *out = ad;
    else ash_adapter_free(ad);
    return st;
}

ash_status ash_adapter_load(ash_adapter **out, ash_model *m, const char *path, ash_error *err) {
    *out = NULL;
    ash_gguf *g;
    ASH_TRY(ash_gguf_open(&g, path, err)); /* names the file already */
    ash_status st = ash_adapter_load_gguf(out, m, g, err);
    if (st != ASH_OK && err) ash_error_prefix(err, "%s", path);
    return st;
}

void ash_adapter_free(ash_adapter *a) {
    if (!a) return;
    ash_gguf_close(a->gguf);
    ash_free(a->mats);
    ash_model_free(a->m);
    ash_free(a);
}
