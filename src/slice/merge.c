/* merge.c - layers of one file in another: blk.N.* of the named layers from the donor, all else from the anchor, byte for
 * byte. Owns the comparison that says whether two files may be mixed, and the one that proves the result. */
#include "ashlar/slice.h"

#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct {
    ash_gguf *a, *d;
    const uint32_t *layers;
    uint32_t n;
} mix;

/* Whether tensor `name` belongs to a layer that is taken from the donor. */
static bool from_donor(const mix *x, const char *name) {
    if (strncmp(name, "blk.", 4) != 0 || name[4] < '0' || name[4] > '9') return false;
    char *end;
    unsigned long il = strtoul(name + 4, &end, 10);
    if (*end != '.') return false;
    for (uint32_t i = 0; i < x->n; i++)
        if (x->layers[i] == il) return true;
    return false;
}

static bool same_value(const ash_gguf_kv *a, const ash_gguf_kv *b) {
    if (a->type != b->type) return false;
    if (a->type == ASH_GV_STRING) return a->str.n == b->str.n && (a->str.n == 0 || memcmp(a->str.p, b->str.p, a->str.n) == 0);
    if (a->type == ASH_GV_ARRAY)
        return a->elem_type == b->elem_type && a->n == b->n && a->data_bytes == b->data_bytes && (a->data_bytes == 0 || memcmp(a->data, b->data, a->data_bytes) == 0);
    return a->v.u == b->v.u; /* all scalars of one type are stored in the same bits */
}

static ash_status check_metadata(const mix *x, ash_merge_info *info, ash_error *err) {
    ash_str a, d;
    char key[96];
    if (!ash_gguf_get_str(x->a, "general.architecture", &a) || !ash_gguf_get_str(x->d, "general.architecture", &d))
        return ash_fail(err, ASH_E_FORMAT, "key general.architecture is missing");
    if (a.n != d.n || memcmp(a.p, d.p, a.n) != 0)
        return ash_fail(err, ASH_E_FORMAT, "the anchor is a %.*s and the donor a %.*s", (int)ASH_MIN(a.n, (size_t)40), a.p, (int)ASH_MIN(d.n, (size_t)40), d.p);
    if (a.n > 40) return ash_fail(err, ASH_E_FORMAT, "key general.architecture is too long");
    uint64_t na, nd;
    snprintf(key, sizeof key, "%.*s.block_count", (int)a.n, a.p);
    if (!ash_gguf_get_u64(x->a, key, &na) || !ash_gguf_get_u64(x->d, key, &nd)) return ash_fail(err, ASH_E_FORMAT, "key %s is missing", key);
    if (na != nd) return ash_fail(err, ASH_E_FORMAT, "the anchor has %llu layers and the donor %llu", (unsigned long long)na, (unsigned long long)nd);
    const ash_gguf_kv *ta = ash_gguf_find(x->a, "tokenizer.ggml.tokens"), *td = ash_gguf_find(x->d, "tokenizer.ggml.tokens");
    if (ta && td && !same_value(ta, td)) return ash_fail(err, ASH_E_FORMAT, "the vocabularies of anchor and donor differ");
    /* what may differ, and is the anchor's from now on */
    size_t at = 0;
    for (size_t i = 0; i < ash_gguf_n_kv(x->a) + ash_gguf_n_kv(x->d); i++) {
        bool second = i >= ash_gguf_n_kv(x->a);
        const ash_gguf_kv *kv = second ? ash_gguf_kv_at(x->d, i - ash_gguf_n_kv(x->a)) : ash_gguf_kv_at(x->a, i);
        if (kv->key.n <= a.n || kv->key.n >= sizeof key || memcmp(kv->key.p, a.p, a.n) != 0 || kv->key.p[a.n] != '.') continue;
        memcpy(key, kv->key.p, kv->key.n);
        key[kv->key.n] = 0;
        const ash_gguf_kv *other = ash_gguf_find(second ? x->a : x->d, key);
        if (other && (second || same_value(kv, other))) continue;
        int w = snprintf(info->note + at, sizeof info->note - at, "%s%s", at ? ", " : "", key);
        if (w < 0 || at + (size_t)w >= sizeof info->note) break;
        at += (size_t)w;
    }
    return ASH_OK;
}

static ash_status check_tensors(const mix *x, ash_error *err) {
    for (size_t i = 0; i < ash_gguf_n_tensors(x->a); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(x->a, i);
        if (!from_donor(x, t->name)) continue;
        const ash_gguf_tensor *d = ash_gguf_find_tensor(x->d, t->name);
        if (!d) return ash_fail(err, ASH_E_FORMAT, "tensor %s is missing in the donor", t->name);
        if (d->n_dims != t->n_dims || memcmp(d->ne, t->ne, sizeof d->ne) != 0)
            return ash_fail(err, ASH_E_FORMAT, "tensor %s is %llu x %llu in the anchor and %llu x %llu in the donor", t->name, (unsigned long long)t->ne[0],
                            (unsigned long long)t->ne[1], (unsigned long long)d->ne[0], (unsigned long long)d->ne[1]);
    }
    for (size_t i = 0; i < ash_gguf_n_tensors(x->d); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(x->d, i);
        if (from_donor(x, t->name) && !ash_gguf_find_tensor(x->a, t->name)) return ash_fail(err, ASH_E_FORMAT, "tensor %s is missing in the anchor", t->name);
    }
    return ASH_OK;
}

static const ash_gguf_tensor *source(const mix *x, const ash_gguf_tensor *t) { return from_donor(x, t->name) ? ash_gguf_find_tensor(x->d, t->name) : t; }

static ash_status compare(const mix *x, const char *path, ash_error *err) {
    ash_gguf *r = NULL;
    ASH_TRY(ash_gguf_open(&r, path, err));
    ash_status st = ASH_OK;
    for (size_t i = 0; st == ASH_OK && i < ash_gguf_n_tensors(x->a); i++) {
        const ash_gguf_tensor *want = source(x, ash_gguf_tensor_at(x->a, i)), *got = ash_gguf_tensor_at(r, i);
        if (strcmp(got->name, want->name) != 0 || got->type != want->type || got->n_bytes != want->n_bytes || memcmp(got->data, want->data, want->n_bytes) != 0)
            st = ash_fail(err, ASH_E_IO, "%s: tensor %s is not what was written", path, want->name);
    }
    ash_gguf_close(r);
    if (st != ASH_OK) remove(path);
    return st;
}

ash_status ash_merge(ash_merge_info *info_out, const char *anchor, const char *donor, const uint32_t *layers, uint32_t n, const char *out, const ash_progress *progress,
                     ash_error *err) {
    mix x = {.layers = layers, .n = n};
    ash_merge_info info = {0};
    ash_gguf_writer *w = NULL;
    ash_status st;
    ASH_TRY_GOTO(ash_gguf_open(&x.a, anchor, err), done);
    ASH_TRY_GOTO(ash_gguf_open(&x.d, donor, err), done);
    ASH_TRY_GOTO(check_metadata(&x, &info, err), done);
    ASH_TRY_GOTO(check_tensors(&x, err), done);
    ASH_TRY_GOTO(ash_sha256_file(anchor, info.sha_anchor, err), done);
    ASH_TRY_GOTO(ash_sha256_file(donor, info.sha_donor, err), done);
    info.identity = strcmp(info.sha_anchor, info.sha_donor) == 0;
    ASH_TRY_GOTO(ash_gguf_writer_new(&w, err), done);
    ASH_TRY_GOTO(ash_gguf_copy_kv(w, x.a, err), done);
    if (!info.identity) {
        ASH_TRY_GOTO(ash_gguf_set_str(w, "ashlar.merge.anchor_sha256", info.sha_anchor, 64, err), done);
        ASH_TRY_GOTO(ash_gguf_set_str(w, "ashlar.merge.donor_sha256", info.sha_donor, 64, err), done);
        ASH_TRY_GOTO(ash_gguf_set_array(w, "ashlar.merge.layers", ASH_GV_U32, layers, n, err), done);
    }
    info.n_tensors = ash_gguf_n_tensors(x.a);
    for (size_t i = 0; i < info.n_tensors; i++) {
        const ash_gguf_tensor *t = source(&x, ash_gguf_tensor_at(x.a, i));
        if (from_donor(&x, t->name)) info.n_donor++, info.donor_bytes += t->n_bytes;
        ASH_TRY_GOTO(ash_gguf_add_tensor(w, t->name, t->type, t->n_dims, t->ne, err), done);
    }
    info.file_bytes = ash_gguf_writer_bytes(w);
    ASH_TRY_GOTO(ash_gguf_writer_begin(w, out, err), done);
    for (size_t i = 0; i < info.n_tensors; i++) {
        const ash_gguf_tensor *t = source(&x, ash_gguf_tensor_at(x.a, i));
        ASH_TRY_GOTO(ash_gguf_writer_data(w, t->data, t->n_bytes, err), done);
        if (progress && progress->fn && !progress->fn(progress->ctx, "merge", (double)(i + 1), (double)info.n_tensors, NULL)) {
            st = ash_fail(err, ASH_E_CANCELLED, "cancelled");
            goto done;
        }
    }
    ASH_TRY_GOTO(ash_gguf_writer_finish(w, err), done);
    ASH_TRY_GOTO(compare(&x, out, err), done);
    if (info_out) *info_out = info;
done:
    ash_gguf_writer_free(w);
    ash_gguf_close(x.a);
    ash_gguf_close(x.d);
    return st;
}
