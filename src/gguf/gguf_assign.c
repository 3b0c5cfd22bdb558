/* gguf_assign.c - "KEY=VALUE" as a change of metadata. The type of an existing key decides how a value is read; elements of
 * numeric and bool arrays are named by number. */
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

/* kv->v as the stored bytes of an array's element. */
static void store_element(const ash_gguf_kv *kv, uint8_t *p) {
    if (kv->type == ASH_GV_F32) {
        float f = (float)kv->v.f;
        memcpy(p, &f, sizeof f);
    } else if (kv->type == ASH_GV_F64) {
        memcpy(p, &kv->v.f, 8);
    } else {
        memcpy(p, &kv->v.u, ash_gv_size(kv->type)); /* two's complement, little-endian: the low bytes */
    }
}

/* KEY[*]=V (which UINT64_MAX), KEY[3]=V: elements of the array as the writer has it by now. */
static ash_status assign_element(ash_gguf_writer *w, const char *key, uint64_t which, const char *value, ash_error *err) {
    ash_gv_type elem;
    uint64_t n;
    uint8_t *data = ash_gguf_writer_array(w, key, &elem, &n);
    uint32_t size = data ? ash_gv_size(elem) : 0;
    if (!data) return ash_fail(err, ASH_E_UNSUPPORTED, "key %.80s is no array", key);
    if (!size) return ash_fail(err, ASH_E_UNSUPPORTED, "key %.80s: elements of an array of %s cannot be changed", key, ash_gv_name(elem));
    if (which != UINT64_MAX && which >= n) return ash_fail(err, ASH_E_RANGE, "key %.80s has elements 0 to %lld", key, (long long)n - 1);
    ash_gguf_kv kv = {.type = elem};
    ASH_TRY(parse_scalar(&kv, key, value, err));
    for (uint64_t i = 0; i < n; i++)
        if (which == UINT64_MAX || which == i) store_element(&kv, data + i * size);
    return ASH_OK;
}

/* KEY=[V,V]: as many values as the array has. */
static ash_status assign_list(ash_gguf_writer *w, const char *key, const char *value, ash_error *err) {
    ash_gv_type elem;
    uint64_t n, i = 0;
    if (!ash_gguf_writer_array(w, key, &elem, &n)) return ash_fail(err, ASH_E_UNSUPPORTED, "key %.80s is no array", key);
    size_t len = strlen(value);
    if (len < 2 || value[len - 1] != ']') return bad_value(err, key, value, ASH_GV_ARRAY);
    const char *s = value + 1, *end = value + len - 1;
    for (; s <= end; i++) {
        const char *comma = memchr(s, ',', (size_t)(end - s)), *e = comma ? comma : end;
        char one[64];
        while (s < e && *s == ' ') s++;
        if ((size_t)(e - s) >= sizeof one) return bad_value(err, key, value, ASH_GV_ARRAY);
        memcpy(one, s, (size_t)(e - s));
        one[e - s] = 0;
        if (i < n) ASH_TRY(assign_element(w, key, i, one, err));
        s = e + 1;
    }
    if (i != n) return ash_fail(err, ASH_E_RANGE, "key %.80s has %llu elements, %llu are given", key, (unsigned long long)n, (unsigned long long)i);
    return ASH_OK;
}

ash_status ash_gguf_assigned_key(const char *text, char **key, const char **value, uint64_t *which, ash_error *err) {
    const char *eq = strchr(text, '=');
    *key = NULL;
    *which = UINT64_MAX - 1;
    if (!eq || eq == text) return ash_fail(err, ASH_E_USAGE, "\"%.80s\" is no KEY=VALUE", text);
    *value = eq + 1;
    const char *end = eq;
    if (eq[-1] == ']') {
        const char *open = eq - 1;
        while (open > text && *open != '[') open--;
        char *stop;
        if (open == text) return ash_fail(err, ASH_E_USAGE, "\"%.80s\" is no KEY[N]=VALUE", text);
        if (open[1] == '*' && open + 3 == eq) {
            *which = UINT64_MAX;
        } else {
            errno = 0;
            *which = open[1] >= '0' && open[1] <= '9' ? strtoull(open + 1, &stop, 10) : UINT64_MAX;
            if (*which >= UINT64_MAX - 1 || errno || stop != eq - 1) return ash_fail(err, ASH_E_USAGE, "\"%.80s\" is no KEY[N]=VALUE", text);
        }
        end = open;
    }
    *key = ash_strndup(text, (size_t)(end - text));
    return *key ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory editing metadata");
}

ash_status ash_gguf_assign(ash_gguf_writer *w, const ash_gguf *g, const char *text, bool arrays, ash_error *err) {
    char *key;
    const char *value;
    uint64_t which;
    ASH_TRY(ash_gguf_assigned_key(text, &key, &value, &which, err));
    ash_status s = ASH_OK;
    ash_gguf_kv kv = {.key = {key, strlen(key)}, .type = ASH_GV_STRING};
    const ash_gguf_kv *old = ash_gguf_find(g, key);
    bool array = which != UINT64_MAX - 1 || (old && old->type == ASH_GV_ARRAY);
    if (strcmp(key, "general.alignment") == 0)
        s = ash_fail(err, ASH_E_UNSUPPORTED, "general.alignment cannot be edited: every tensor would move");
    else if (array && !arrays)
        s = ash_fail(err, ASH_E_UNSUPPORTED, "key %.80s is an array; only single values can be edited", key);
    else if (array)
        s = which != UINT64_MAX - 1 ? assign_element(w, key, which, value, err)
            : *value == '['         ? assign_list(w, key, value, err)
                                    : ash_fail(err, ASH_E_UNSUPPORTED, "key %.80s is an array: set KEY[N]=, KEY[*]= or KEY=[...]", key);
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
    if (s == ASH_OK && !array && kv.type == ASH_GV_STRING)
        s = ash_gguf_set_str(w, key, value, strlen(value), err);
    else if (s == ASH_OK && !array) {
        s = parse_scalar(&kv, key, value, err);
        if (s == ASH_OK) s = ash_gguf_set_scalar(w, &kv, err);
    }
    ash_free(key);
    return s;
}
