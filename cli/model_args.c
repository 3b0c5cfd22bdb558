/* model_args.c - see model_args.h. */
#include "model_args.h"

#include "ashlar/quant.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

long cli_parse_tokens(const char *s, ash_token **out) {
    size_t cap = 1;
    for (const char *c = s; *c; c++) cap += *c == ',';
    ash_token *t = malloc(cap * sizeof *t);
    if (!t) return -1;
    long n = 0;
    while (*s) {
        char *end;
        errno = 0;
        long long v = strtoll(s, &end, 10);
        if (end == s || (*end && *end != ',') || (*end == ',' && !end[1])) return free(t), -1;
        t[n++] = errno || v < 0 || v > INT32_MAX ? -1 : (ash_token)v;
        s = *end ? end + 1 : end;
    }
    *out = t;
    return n;
}

/* "F:0.5" -> "F", 0.5. A colon with anything but a number after it belongs to the name. */
static char *split_scale(const char *arg, float *scale) {
    char *path = malloc(strlen(arg) + 1);
    if (!path) return NULL;
    strcpy(path, arg);
    *scale = 1.0f;
    char *colon = strrchr(path, ':'), *end;
    if (!colon || colon == path || !colon[1]) return path;
    float v = strtof(colon + 1, &end);
    if (*end || !isfinite(v)) return path;
    *scale = v;
    *colon = 0;
    return path;
}

ash_status cli_loras_load(cli_loras *l, const opt_list *args, ash_model *m, ash_session_opts *o, ash_error *err) {
    for (int i = 0; i < args->n; i++) {
        char *path = split_scale(args->v[i], &l->scale[i]);
        ash_status st = path ? ash_adapter_load(&l->a[i], m, path, err) : ash_fail(err, ASH_E_NOMEM, "out of memory");
        free(path);
        if (st != ASH_OK) return st;
        l->n++;
    }
    o->adapters = (const ash_adapter *const *)l->a;
    o->adapter_scales = l->scale;
    o->n_adapters = l->n;
    return ASH_OK;
}

void cli_loras_free(cli_loras *l) {
    for (int i = 0; i < l->n; i++) ash_adapter_free(l->a[i]);
    l->n = 0;
}

const char *g_cache_k, *g_cache_v;

ash_status cli_cache_types(ash_kv_type *k, ash_kv_type *v, ash_error *err) {
    *k = *v = ASH_KV_AUTO;
    const char *bad = g_cache_k && !ash_kv_type_parse(g_cache_k, k) ? g_cache_k : g_cache_v && !ash_kv_type_parse(g_cache_v, v) ? g_cache_v : NULL;
    if (bad) return ash_fail(err, ASH_E_USAGE, "\"%s\" is no type of a KV cache; there are f32, f16, q8_0, q4_0", bad);
    return ASH_OK;
}

int cli_parse_types(const char *opt, const char *s, ash_dtype *t, int max) {
    int n = 0;
    char name[32];
    while (*s) {
        size_t k = strcspn(s, ",");
        if (k == 0 || k >= sizeof name || n >= max) return cli_usage("%s takes up to %d names such as Q4_K,IQ4_NL", opt, max), -1;
        memcpy(name, s, k);
        name[k] = 0;
        if (!ash_dtype_parse(name, &t[n])) return cli_usage("unknown type \"%.40s\"", name), -1;
        if (!ash_quant_can(t[n])) return cli_usage("there is no encoder for %s", ash_dtype_name(t[n])), -1;
        n++;
        s += k + (s[k] == ',');
    }
    return n ? n : (cli_usage("%s takes names such as Q4_K,IQ4_NL", opt), -1);
}

ash_status cli_weights_place(const cli_weights *w, ash_model *m, ash_error *err) {
    unsigned how = (w->populate ? ASH_WEIGHTS_POPULATE : 0) | (w->mlock ? ASH_WEIGHTS_LOCK : 0) | (w->huge ? ASH_WEIGHTS_HUGE : 0);
    return how ? ash_model_place(m, how, err) : ASH_OK;
}
