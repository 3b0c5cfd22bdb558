/* gguf_edit.c - change metadata of a file: a new header with the old tensor descriptions, and the data
 * section copied byte for byte (its offsets are relative, so no tensor moves inside it). Written beside
 * and renamed. The type of an existing key decides how a value is read. */
#include "gguf/gguf_int.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

static ash_status bad_value(ash_error *err, const char *key, const char *value, ash_gv_type t) {
    return ash_fail(err, ASH_E_RANGE, "key %.80s: \"%.80s\" is no value of type %s", key, value, ash_gv_name(t));
}

/* Value text into kv->v by kv->type. */
static ash_status parse_scalar(ash_gguf_kv *kv, const char *key, const char *value, ash_error *err) {
    static const struct {
        int64_t min;
        uint64_t max;
    } range[ASH_GV_COUNT] = {
        [ASH_GV_U8] = {0, UINT8_MAX},          [ASH_GV_I8] = {INT8_MIN, INT8_MAX},   [ASH_GV_U16] = {0, UINT16_MAX},
        [ASH_GV_I16] = {INT16_MIN, INT16_MAX}, [ASH_GV_U32] = {0, UINT32_MAX},       [ASH_GV_I32] = {INT32_MIN, INT32_MAX},
        [ASH_GV_U64] = {0, UINT64_MAX},        [ASH_GV_I64] = {INT64_MIN, INT64_MAX}};
    char *end;
    errno = 0;
    switch (kv->type) {
    case ASH_GV_BOOL:
        if (!strcmp(value, "true") || !strcmp(value, "1"))
            kv->v.u = 1;
        else if (!strcmp(value, "false") || !strcmp(value, "0"))
            kv->v.u = 0;
        else
            return bad_value(err, key, value, kv->type);
        return ASH_OK;
    case ASH_GV_F32:
    case ASH_GV_F64:
        kv->v.f = strtod(value, &end);
        if (end == value || *end || (errno == ERANGE && isinf(kv->v.f)) ||
            (kv->type == ASH_GV_F32 && isfinite(kv->v.f) && !isfinite((float)kv->v.f)))
            return bad_value(err, key, value, kv->type);
        if (kv->type == ASH_GV_F32) kv->v.f = (double)(float)kv->v.f;
        return ASH_OK;
    default: break;
    }
    /* Integers: a sign, then decimal or 0x digits; strtoull alone would accept and wrap "-1". */
    const char *digits = value + (*value == '-');
    if (*digits < '0' || *digits > '9') return bad_value(err, key, value, kv->type);
    if (*value == '-') {
        long long x = strtoll(value, &end, 0);
        if (*end || errno || x < range[kv->type].min) return bad_value(err, key, value, kv->type);
        kv->v.i = x;
    } else {
        unsigned long long x = strtoull(value, &end, 0);
        if (*end || errno || x > range[kv->type].max) return bad_value(err, key, value, kv->type);
        kv->v.u = x;
    }
    return ASH_OK;
}

static ash_status assign(ash_gguf_writer *w, const ash_gguf *g, const char *text, ash_error *err) {
    const char *eq = strchr(text, '=');
    if (!eq || eq == text) return ash_fail(err, ASH_E_USAGE, "\"%.80s\" is no KEY=VALUE", text);
    char *key = ash_strndup(text, (size_t)(eq - text));
    if (!key) return ash_fail(err, ASH_E_NOMEM, "out of memory editing metadata");
    const char *value = eq + 1;
    ash_status s = ASH_OK;
    ash_gguf_kv kv = {.key = {key, (size_t)(eq - text)}, .type = ASH_GV_STRING};
    const ash_gguf_kv *old = ash_gguf_find(g, key);
    if (strcmp(key, "general.alignment") == 0)
        s = ash_fail(err, ASH_E_UNSUPPORTED, "general.alignment cannot be edited: every tensor would move");
    else if (old && old->type == ASH_GV_ARRAY)
        s = ash_fail(err, ASH_E_UNSUPPORTED, "key %.80s is an array; only single values can be edited", key);
    else if (old)
        kv.type = old->type;
    else {
        static const ash_gv_type named[] = {ASH_GV_U32,    ASH_GV_I32, ASH_GV_F32, ASH_GV_BOOL,
                                            ASH_GV_STRING, ASH_GV_U64, ASH_GV_I64, ASH_GV_F64};
        for (size_t i = 0; i < ASH_ARRAY_LEN(named); i++) {
            const char *n = ash_gv_name(named[i]);
            size_t k = strlen(n);
            if (strncmp(value, n, k) == 0 && value[k] == ':') {
                kv.type = named[i];
                value += k + 1;
                break;
            }
        }
    }
    if (s == ASH_OK && kv.type == ASH_GV_STRING)
        s = ash_gguf_set_str(w, key, value, strlen(value), err);
    else if (s == ASH_OK) {
        s = parse_scalar(&kv, key, value, err);
        if (s == ASH_OK) s = ash_gguf_set_scalar(w, &kv, err);
    }
    ash_free(key);
    return s;
}

ash_status ash_gguf_edit(const char *path, const char *const *assignments, size_t n, ash_error *err) {
    ash_gguf *g = NULL;
    ash_gguf_writer *w = NULL;
    ash_outfile *out = NULL;
    ash_buf b = {0};
    ash_status st;
    ASH_TRY_GOTO(ash_gguf_open(&g, path, err), done);
    ASH_TRY_GOTO(ash_gguf_writer_new(&w, err), done);
    ASH_TRY_GOTO(ash_gguf_copy_kv(w, g, err), done);
    for (size_t i = 0; i < n; i++) ASH_TRY_GOTO(assign(w, g, assignments[i], err), done);
    for (size_t i = 0; i < g->n_tensors; i++) ASH_TRY_GOTO(ash_gguf_writer_add_raw(w, &g->tensor[i], err), done);
    ASH_TRY_GOTO(ash_gguf_writer_header(w, &b, err), done);
    ASH_TRY_GOTO(ash_outfile_open(&out, path, err), done);
    ASH_TRY_GOTO(ash_outfile_write(out, b.p, b.n, err), done);
    if (g->n > g->data_offset) ASH_TRY_GOTO(ash_outfile_write(out, g->p + g->data_offset, (size_t)(g->n - g->data_offset), err), done);
    st = ash_outfile_commit(&out, err);
done:
    ash_outfile_abort(out);
    ash_buf_free(&b);
    ash_gguf_writer_free(w);
    ash_gguf_close(g);
    return st;
}
