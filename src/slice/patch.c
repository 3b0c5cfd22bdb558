/* patch.c - change metadata and say before what breaks: the hyperparameters of the new metadata are read as a model's, and
 * the shapes they ask for are compared with the tensors that are there. Owns the undo log (one JSON object per line:
 * the hashes of the header before and after, and the old bytes of every key). */
#include "ashlar/slice.h"

#include "gguf/gguf_int.h"
#include "model/arch.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

enum { LOG_LIMIT = 64 << 20 };

/* ---- shapes ---- */
typedef struct { uint64_t ne0, ne1; bool known; } shape;

static bool is(const char *s, const char *t) { return strcmp(s, t) == 0; }

/* What a tensor of layer `l` (NULL: of none) must be by the hyperparameters. `leaf` is its name without number and ".weight". */
static shape expected(const ash_model *m, const ash_layer *l, const char *leaf, const shape *now) {
    const ash_hparams *hp = &m->hp;
    const uint64_t e = (uint64_t)hp->n_embd, ple = (uint64_t)hp->n_ple;
    if (!l) {
        if (is(leaf, "token_embd") || is(leaf, "output")) return (shape){e, now->ne1, true};
        if (is(leaf, "output_norm")) return (shape){e, 1, true};
        if (is(leaf, "per_layer_token_embd")) return (shape){ple * (uint64_t)hp->n_layer, now->ne1, true};
        if (is(leaf, "per_layer_model_proj")) return (shape){e, ple * (uint64_t)hp->n_layer, true};
        if (is(leaf, "per_layer_proj_norm")) return (shape){ple, 1, true};
        if (is(leaf, "rope_freqs")) return (shape){(uint64_t)hp->rope[ASH_ROPE_FULL].n_rot / 2, 1, true};
        return (shape){0};
    }
    const uint64_t q = (uint64_t)l->n_head * (uint64_t)l->head_dim, kv = (uint64_t)l->n_head_kv * (uint64_t)l->head_dim, ff = (uint64_t)l->n_ff;
    if (is(leaf, "attn_q")) return (shape){e, q, true};
    if (is(leaf, "attn_k") || is(leaf, "attn_v")) return (shape){e, kv, true};
    if (is(leaf, "attn_qkv")) return (shape){e, q + 2 * kv, true};
    if (is(leaf, "attn_output")) return (shape){q, e, true};
    if (is(leaf, "attn_q_norm") || is(leaf, "attn_k_norm")) return (shape){(uint64_t)l->head_dim, 1, true};
    if (is(leaf, "ffn_gate")) return (shape){e, ff, true};
    if (is(leaf, "ffn_up")) return (shape){e, now->ne1 == 2 * ff ? 2 * ff : ff, true}; /* gate and up in one */
    if (is(leaf, "ffn_down")) return (shape){ff, e, true};
    if (is(leaf, "inp_gate")) return (shape){e, ple, true};
    if (is(leaf, "proj")) return (shape){ple, e, true};
    if (is(leaf, "attn_norm") || is(leaf, "ffn_norm") || is(leaf, "post_attention_norm") || is(leaf, "post_ffw_norm") || is(leaf, "post_norm")) return (shape){e, 1, true};
    return (shape){0};
}

static void tensor_conflict(const ash_model *m, const ash_gguf_tensor *t, ash_buf *b, size_t *n) {
    char leaf[64];
    const char *s = t->name;
    const ash_layer *l = NULL;
    if (strncmp(s, "blk.", 4) == 0) {
        char *end;
        long il = strtol(s + 4, &end, 10);
        if (*end != '.') return;
        if (il < 0 || il >= m->hp.n_layer) {
            ash_buf_addf(b, "%s: the model has no layer %ld any more\n", t->name, il);
            ++*n;
            return;
        }
        l = &m->layers[il];
        s = end + 1;
    }
    size_t len = strlen(s);
    if (len <= 7 || !is(s + len - 7, ".weight") || len - 7 >= sizeof leaf) return;
    memcpy(leaf, s, len - 7);
    leaf[len - 7] = 0;
    shape now = {t->ne[0], t->ne[1], true}, want = expected(m, l, leaf, &now);
    if (!want.known || (want.ne0 == now.ne0 && want.ne1 == now.ne1)) return;
    ash_buf_addf(b, "%s is %llu x %llu, and %llu x %llu would be expected\n", t->name, (unsigned long long)now.ne0, (unsigned long long)now.ne1, (unsigned long long)want.ne0,
                 (unsigned long long)want.ne1);
    ++*n;
}

/* What the new metadata `kv` makes of g's tensors, line by line into b. */
static ash_status predict(const ash_gguf *g, const ash_gguf *kv, ash_patch_info *info, ash_buf *b, ash_error *err) {
    ash_gguf *both = NULL;
    ash_model *whole = NULL;
    ash_error why = {0};
    ash_str arch;
    ASH_TRY(ash_gguf_with_kv(&both, g, kv, err));
    ash_model m = {.gguf = both};
    m.arch = ash_gguf_get_str(both, "general.architecture", &arch) ? ash_arch_find(arch.p, arch.n) : NULL;
    info->checked = m.arch != NULL;
    if (!m.arch) goto done;
    if (ash_hparams_read(&m, &why) != ASH_OK) {
        ash_buf_addf(b, "%s\n", why.msg);
        info->n_conflicts++;
        goto done;
    }
    for (size_t i = 0; i < ash_gguf_n_tensors(both); i++) tensor_conflict(&m, ash_gguf_tensor_at(both, i), b, &info->n_conflicts);
    if (info->n_conflicts) goto done;
    /* the loader has the last word: missing tensors, experts, rope factors */
    ash_gguf *again = both;
    both = NULL; /* the model owns it */
    if (ash_model_load_gguf(&whole, again, &why) != ASH_OK) {
        ash_buf_addf(b, "%s\n", why.msg);
        info->n_conflicts++;
    }
done:
    ash_model_free(whole);
    ash_arena_free(&m.arena);
    ash_gguf_close(both);
    return ASH_OK;
}

/* ---- headers ---- */
static ash_status header_hash(const ash_gguf_writer *w, char sha[65], ash_error *err) {
    ash_buf b = {0};
    ash_status st = ash_gguf_writer_header(w, &b, err);
    if (st == ASH_OK) {
        ash_sha256 s;
        ash_sha256_init(&s);
        ash_sha256_add(&s, b.p, b.n);
        ash_sha256_hex(&s, sha);
    }
    ash_buf_free(&b);
    return st;
}

/* A writer with g's metadata and tensors as they lie. */
static ash_status writer_of(ash_gguf_writer **w, const ash_gguf *g, bool tensors, ash_error *err) {
    ASH_TRY(ash_gguf_writer_new(w, err));
    ASH_TRY(ash_gguf_copy_kv(*w, g, err));
    for (size_t i = 0; tensors && i < ash_gguf_n_tensors(g); i++) ASH_TRY(ash_gguf_writer_add_raw(*w, ash_gguf_tensor_at(g, i), err));
    return ASH_OK;
}

/* ---- undo log ---- */
static char *hex_of(const void *p, size_t n) {
    static const char digit[] = "0123456789abcdef";
    char *s = ash_alloc(2 * n + 1);
    if (!s) return NULL;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = ((const uint8_t *)p)[i];
        s[2 * i] = digit[c >> 4];
        s[2 * i + 1] = digit[c & 15];
    }
    s[2 * n] = 0;
    return s;
}

static int nibble(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

static uint8_t *bytes_of(const char *hex, size_t *n) {
    size_t len = strlen(hex);
    uint8_t *p = len % 2 ? NULL : ash_alloc(len / 2);
    for (size_t i = 0; p && i < len / 2; i++) {
        int a = nibble(hex[2 * i]), b = nibble(hex[2 * i + 1]);
        if (a < 0 || b < 0) {
            ash_free(p);
            return NULL;
        }
        p[i] = (uint8_t)(a << 4 | b);
    }
    *n = len / 2;
    return p;
}

/* A key's old value, or null for one that was not there. */
static json_t *old_value(const ash_gguf *g, const char *key) {
    const ash_gguf_kv *kv = ash_gguf_find(g, key);
    json_t *o = json_pack("{s:s}", "key", key);
    if (!kv) {
        json_object_set_new(o, "type", json_null());
        return o;
    }
    char *hex = kv->type == ASH_GV_STRING ? hex_of(kv->str.p, kv->str.n) : kv->type == ASH_GV_ARRAY ? hex_of(kv->data, kv->data_bytes) : hex_of(&kv->v, sizeof kv->v);
    json_object_set_new(o, "type", json_integer(kv->type));
    if (kv->type == ASH_GV_ARRAY) {
        json_object_set_new(o, "elem", json_integer(kv->elem_type));
        json_object_set_new(o, "n", json_integer((json_int_t)kv->n));
    }
    json_object_set_new(o, "bytes", hex ? json_string(hex) : NULL);
    ash_free(hex);
    return o;
}

/* The log with one more line, replaced as a whole: a log that is cut in the middle would be worth nothing. */
static ash_status append_log(const char *log, json_t *line, ash_error *err) {
    ash_buf b = {0};
    ash_error none = {0};
    ash_status st = ash_file_read(log, LOG_LIMIT, &b, &none);
    if (st != ASH_OK && st != ASH_E_IO) { /* a missing log is an empty one */
        ash_buf_free(&b);
        return ash_fail(err, st, "%s", none.msg);
    }
    char *s = json_dumps(line, JSON_COMPACT);
    if (s) {
        ash_buf_adds(&b, s);
        ash_buf_addc(&b, '\n');
    }
    st = s && ash_buf_ok(&b) ? ash_file_write_atomic(log, b.p, b.n, err) : ash_fail(err, ASH_E_NOMEM, "out of memory writing %s", log);
    free(s);
    ash_buf_free(&b);
    return st;
}

/* ---- patch ---- */
void ash_patch_info_free(ash_patch_info *i) {
    if (!i) return;
    ash_free(i->conflicts);
    *i = (ash_patch_info){0};
}

static ash_status log_of(json_t **line, const ash_gguf *g, const ash_gguf_writer *w, const char *const *assignments, size_t n, ash_error *err) {
    char before[65], after[65];
    ash_gguf_writer *old = NULL;
    json_t *keys = json_array();
    ash_status st;
    ASH_TRY_GOTO(writer_of(&old, g, true, err), done);
    ASH_TRY_GOTO(header_hash(old, before, err), done);
    ASH_TRY_GOTO(header_hash(w, after, err), done);
    for (size_t i = 0; i < n; i++) {
        char *key;
        const char *value;
        uint64_t which;
        ASH_TRY_GOTO(ash_gguf_assigned_key(assignments[i], &key, &value, &which, err), done);
        bool seen = false;
        size_t k;
        json_t *e;
        json_array_foreach(keys, k, e) seen |= strcmp(json_string_value(json_object_get(e, "key")), key) == 0;
        if (!seen) json_array_append_new(keys, old_value(g, key));
        ash_free(key);
    }
    *line = json_pack("{s:s, s:s, s:O}", "before", before, "after", after, "keys", keys);
    if (!*line) st = ash_fail(err, ASH_E_NOMEM, "out of memory for the undo log");
done:
    json_decref(keys);
    ash_gguf_writer_free(old);
    return st;
}

ash_status ash_patch(ash_patch_info *info, const char *path, const char *const *assignments, size_t n, const ash_patch_opts *o, ash_error *err) {
    ash_gguf *g = NULL, *kv = NULL;
    ash_gguf_writer *w = NULL, *alone = NULL;
    ash_buf header = {0}, lines = {0};
    json_t *line = NULL;
    ash_status st;
    *info = (ash_patch_info){0};
    ASH_TRY_GOTO(ash_gguf_open(&g, path, err), done);
    ASH_TRY_GOTO(writer_of(&w, g, true, err), done);
    ASH_TRY_GOTO(writer_of(&alone, g, false, err), done);
    for (size_t i = 0; i < n; i++) {
        ASH_TRY_GOTO(ash_gguf_assign(w, g, assignments[i], true, err), done);
        ASH_TRY_GOTO(ash_gguf_assign(alone, g, assignments[i], true, err), done);
    }
    ASH_TRY_GOTO(ash_gguf_writer_header(alone, &header, err), done);
    ASH_TRY_GOTO(ash_gguf_open_mem(&kv, header.p, header.n, err), done);
    ash_buf_adds(&lines, "");
    ASH_TRY_GOTO(predict(g, kv, info, &lines, err), done);
    if (!ash_buf_ok(&lines)) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a list of conflicts");
        goto done;
    }
    info->conflicts = lines.p;
    lines = (ash_buf){0};
    if (o->dry_run) goto done;
    if (info->n_conflicts && !o->force) {
        const char *nl = strchr(info->conflicts, '\n');
        st = ash_fail(err, ASH_E_RANGE, "nothing was written: %.*s%s", (int)(nl ? nl - info->conflicts : 0), info->conflicts, info->n_conflicts > 1 ? " (and more)" : "");
        goto done;
    }
    if (!o->out && o->log) {
        ASH_TRY_GOTO(log_of(&line, g, w, assignments, n, err), done);
        ASH_TRY_GOTO(append_log(o->log, line, err), done); /* first: a log of a change that did not happen is refused by its hash */
    }
    ASH_TRY_GOTO(ash_gguf_write_over(g, w, o->out ? o->out : path, err), done);
    info->written = true;
done:
    json_decref(line);
    ash_buf_free(&header);
    ash_buf_free(&lines);
    ash_gguf_writer_free(w);
    ash_gguf_writer_free(alone);
    ash_gguf_close(kv);
    ash_gguf_close(g);
    if (st != ASH_OK && st != ASH_E_RANGE) ash_patch_info_free(info);
    return st;
}

/* ---- undo ---- */
static ash_status put_back(ash_gguf_writer *w, const json_t *e, ash_error *err) {
    const char *key = json_string_value(json_object_get(e, "key")), *hex = json_string_value(json_object_get(e, "bytes"));
    const json_t *type = json_object_get(e, "type");
    if (!key) return ash_fail(err, ASH_E_FORMAT, "the undo log has an entry without a key");
    if (json_is_null(type)) return ash_gguf_unset(w, key);
    size_t n = 0;
    uint8_t *p = hex ? bytes_of(hex, &n) : NULL;
    json_int_t t = json_integer_value(type), elem = json_integer_value(json_object_get(e, "elem")), count = json_integer_value(json_object_get(e, "n"));
    ash_gguf_kv kv = {.key = {key, strlen(key)}, .type = (ash_gv_type)t};
    ash_status st = ASH_OK;
    bool ok = p && json_is_integer(type) && t >= 0 && t < ASH_GV_COUNT;
    if (ok && t == ASH_GV_STRING) {
        kv.str = (ash_str){(const char *)p, n};
    } else if (ok && t == ASH_GV_ARRAY) {
        uint64_t want;
        ok = elem >= 0 && elem < ASH_GV_COUNT && ash_gv_size((ash_gv_type)elem) && count >= 0 && !ash_mul_ovf((uint64_t)count, ash_gv_size((ash_gv_type)elem), &want) && want == n;
        kv.elem_type = (ash_gv_type)elem;
        kv.n = (uint64_t)count;
        kv.data = p;
        kv.data_bytes = n;
    } else if (ok) {
        ok = n == sizeof kv.v;
        if (ok) memcpy(&kv.v, p, n);
    }
    st = ok ? ash_gguf_copy_kv_one(w, &kv, err) : ash_fail(err, ASH_E_FORMAT, "the undo log's entry for key %.80s cannot be read", key);
    ash_free(p);
    return st;
}

ash_status ash_patch_undo(const char *path, const char *log, ash_error *err) {
    ash_buf b = {0};
    ash_gguf *g = NULL;
    ash_gguf_writer *w = NULL;
    json_t *line = NULL;
    ash_status st;
    char sha[65];
    ASH_TRY_GOTO(ash_file_read(log, LOG_LIMIT, &b, err), done);
    while (b.n && b.p[b.n - 1] == '\n') b.n--;
    size_t at = b.n;
    while (at && b.p[at - 1] != '\n') at--;
    line = b.n ? json_loadb(b.p + at, b.n - at, 0, NULL) : NULL;
    const char *before = json_string_value(json_object_get(line, "before")), *after = json_string_value(json_object_get(line, "after"));
    const json_t *keys = json_object_get(line, "keys");
    if (!before || !after || !json_is_array(keys)) {
        st = b.n ? ash_fail(err, ASH_E_FORMAT, "%s: the last line is no undo record", log) : ash_fail(err, ASH_E_STATE, "%s is empty: nothing to undo", log);
        goto done;
    }
    ASH_TRY_GOTO(ash_gguf_open(&g, path, err), done);
    ASH_TRY_GOTO(writer_of(&w, g, true, err), done);
    ASH_TRY_GOTO(header_hash(w, sha, err), done);
    if (strcmp(sha, after) != 0 && strcmp(sha, before) == 0) { /* logged, and then the write failed */
        st = ash_file_write_atomic(log, b.p, at, err);
        if (st == ASH_OK) st = ash_fail(err, ASH_E_STATE, "%s: the last patch was never written; its record is taken out of the log", path);
        goto done;
    }
    if (strcmp(sha, after) != 0) {
        st = ash_fail(err, ASH_E_STATE, "%s: its metadata is not what the last patch made of it", path);
        goto done;
    }
    for (size_t i = json_array_size(keys); i-- > 0;) ASH_TRY_GOTO(put_back(w, json_array_get(keys, i), err), done);
    ASH_TRY_GOTO(header_hash(w, sha, err), done);
    if (strcmp(sha, before) != 0) {
        st = ash_fail(err, ASH_E_FORMAT, "%s: the last record does not lead back to where it came from", log);
        goto done;
    }
    ASH_TRY_GOTO(ash_gguf_write_over(g, w, path, err), done);
    st = ash_file_write_atomic(log, b.p, at, err);
done:
    json_decref(line);
    ash_gguf_writer_free(w);
    ash_gguf_close(g);
    ash_buf_free(&b);
    return st;
}
