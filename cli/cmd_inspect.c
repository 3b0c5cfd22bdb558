/* cmd_inspect.c - `ashlar inspect`: what a GGUF file is made of, from its header alone. Strings come from
 * outside and are shown escaped, so that no file can write to the terminal. */
#include "cli.h"

#include "ashlar/gguf.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

static bool show_kv, show_tensors;

static const opt_def options[] = {
    {OPT_FLAG, 0, "kv", NULL, "List the metadata; long arrays and texts are abbreviated.", &show_kv},
    {OPT_FLAG, 0, "tensors", NULL, "List every tensor with type, shape, bytes and bits per weight.", &show_tensors},
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

typedef struct {
    uint64_t tensors, weights, bytes;
} tally;

typedef struct {
    tally all, block, embd, live;
    tally by_type[ASH_DTYPE_MAX];
    uint64_t file_bytes;
    bool tied;
} totals;

enum { FEW = 8, INLINE_ARRAY = 64, TEXT = 100 };

/* ---- figures ---- */
static uint64_t weights(const ash_gguf_tensor *t) { return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]; } /* checked at open */
static double bpw(tally t) { return t.weights ? 8.0 * (double)t.bytes / (double)t.weights : 0; }
static void add(tally *a, const ash_gguf_tensor *t) {
    a->tensors++;
    a->weights += weights(t);
    a->bytes += t->n_bytes;
}

static bool arch_u64(const ash_gguf *g, const char *suffix, uint64_t *out) {
    ash_str a;
    char key[160];
    if (!ash_gguf_get_str(g, "general.architecture", &a) || a.n > 64) return false;
    snprintf(key, sizeof key, "%.*s.%s", (int)a.n, a.p, suffix);
    return ash_gguf_get_u64(g, key, out);
}

/* Layers whose K and V are reused from an earlier one: their own projections never run. */
static bool is_dead(const char *name, uint64_t first_shared) {
    unsigned l;
    int n = 0;
    if (sscanf(name, "blk.%u.%n", &l, &n) != 1 || !n || l < first_shared) return false;
    return strncmp(name + n, "attn_k", 6) == 0 || strncmp(name + n, "attn_v", 6) == 0;
}

static totals count(const ash_gguf *g) {
    totals s = {.file_bytes = ash_gguf_file_bytes(g), .tied = ash_gguf_find_tensor(g, "output.weight") == NULL};
    uint64_t n_layer = 0, shared = 0, first_shared = UINT64_MAX;
    if (arch_u64(g, "block_count", &n_layer) && arch_u64(g, "attention.shared_kv_layers", &shared) && shared && shared <= n_layer)
        first_shared = n_layer - shared;
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        bool token = strncmp(t->name, "token_embd.", 11) == 0, ple = strncmp(t->name, "per_layer_token_embd.", 21) == 0;
        add(&s.all, t);
        add(&s.by_type[t->type], t);
        if (strncmp(t->name, "blk.", 4) == 0) add(&s.block, t);
        if (token || ple || strncmp(t->name, "output.", 7) == 0) add(&s.embd, t);
        if (!ple && !(token && !s.tied) && !is_dead(t->name, first_shared)) add(&s.live, t);
    }
    return s;
}

static double whole_bpw(const totals *s) { return s->all.weights ? 8.0 * (double)s->file_bytes / (double)s->all.weights : 0; }
static double embd_share(const totals *s) { return s->all.bytes ? (double)s->embd.bytes / (double)s->all.bytes : 0; }

/* ---- text ---- */
static void put_text(const char *p, size_t n, size_t max) {
    size_t k = n < max ? n : max;
    while (k < n && k && ((unsigned char)p[k] & 0xc0) == 0x80) k--;
    for (size_t i = 0; i < k; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c == '\n')
            fputs("\\n", stdout);
        else if (c == '\t')
            fputs("\\t", stdout);
        else if (c < 0x20 || c == 0x7f)
            printf("\\x%02x", c);
        else if (c == 0xc2 && i + 1 < k && (unsigned char)p[i + 1] < 0xa0)
            printf("\\x%02x", (unsigned char)p[++i]); /* C1 controls */
        else
            putchar(c);
    }
    if (k < n) printf("... (%zu bytes)", n);
}

static void put_int(uint64_t n) { /* 134,515,008 */
    char s[32], out[48];
    int len = snprintf(s, sizeof s, "%llu", (unsigned long long)n), k = 0;
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0) out[k++] = ',';
        out[k++] = s[i];
    }
    out[k] = 0;
    fputs(out, stdout);
}

static const char *type_name(ash_gv_type t) {
    static const char *const names[ASH_GV_COUNT] = {"u8",   "i8",  "u16",   "i16", "u32", "i32", "f32",
                                                    "bool", "str", "array", "u64", "i64", "f64"};
    return (unsigned)t < ASH_GV_COUNT ? names[t] : "?";
}

static void put_kv(const ash_gguf_kv *kv) {
    printf("  ");
    put_text(kv->key.p, kv->key.n, TEXT);
    printf(" (%s", type_name(kv->type));
    if (kv->type == ASH_GV_ARRAY) printf(" of %llu %s", (unsigned long long)kv->n, type_name(kv->elem_type));
    printf(") = ");
    uint64_t cur = 0;
    ash_str str;
    switch (kv->type) {
    case ASH_GV_STRING: put_text(kv->str.p, kv->str.n, TEXT); break;
    case ASH_GV_BOOL: fputs(kv->v.u ? "true" : "false", stdout); break;
    case ASH_GV_F32: printf("%.8g", kv->v.f); break;
    case ASH_GV_F64: printf("%.17g", kv->v.f); break;
    case ASH_GV_I8:
    case ASH_GV_I16:
    case ASH_GV_I32:
    case ASH_GV_I64: printf("%lld", (long long)kv->v.i); break;
    case ASH_GV_ARRAY:
        putchar('[');
        for (uint64_t i = 0; i < kv->n && i < FEW; i++) {
            double f;
            if (i) fputs(", ", stdout);
            if (ash_gguf_array_str(kv, &cur, &str))
                put_text(str.p, str.n, 24);
            else if (ash_gguf_array_f64(kv, i, &f))
                printf("%.8g", f);
            else
                fputs("...", stdout);
        }
        fputs(kv->n > FEW ? ", ...]" : "]", stdout);
        break;
    default: printf("%llu", (unsigned long long)kv->v.u); break;
    }
    putchar('\n');
}

static void put_tally(const char *label, tally t, double bits) {
    char b[32];
    printf("%-13s", label);
    put_int(t.weights);
    printf(" weights, %s, %.3f bpw\n", cli_bytes(t.bytes, b), bits);
}

static void print_text(const ash_gguf *g, const totals *s) {
    static const struct {
        const char *key, *label;
    } shape[] = {{"block_count", "layers"},         {"embedding_length", "embedding"},       {"feed_forward_length", "ffn"},
                 {"attention.head_count", "heads"}, {"attention.head_count_kv", "kv heads"}, {"attention.sliding_window", "window"},
                 {"context_length", "context"}};
    ash_str str;
    char b[32];
    uint64_t u;
    printf("file         ");
    put_text(ash_gguf_path(g), strlen(ash_gguf_path(g)), 4096);
    printf("\nsize         ");
    put_int(s->file_bytes);
    printf(" bytes (%s)\n", cli_bytes(s->file_bytes, b));
    printf("format       GGUF v%u, alignment %llu, %zu keys, %zu tensors, data at %llu\n", ash_gguf_version(g),
           (unsigned long long)ash_gguf_alignment(g), ash_gguf_n_kv(g), ash_gguf_n_tensors(g), (unsigned long long)ash_gguf_data_offset(g));
    if (ash_gguf_get_str(g, "general.architecture", &str)) {
        printf("architecture ");
        put_text(str.p, str.n, TEXT);
        putchar('\n');
    }
    if (ash_gguf_get_str(g, "general.name", &str)) {
        printf("name         ");
        put_text(str.p, str.n, TEXT);
        putchar('\n');
    }
    bool any = false;
    for (size_t i = 0; i < sizeof shape / sizeof shape[0]; i++)
        if (arch_u64(g, shape[i].key, &u)) {
            printf("%s%s %llu", any ? ", " : "shape        ", shape[i].label, (unsigned long long)u);
            any = true;
        }
    const ash_gguf_kv *vocab = ash_gguf_find(g, "tokenizer.ggml.tokens");
    if (vocab && vocab->type == ASH_GV_ARRAY) {
        printf("%svocabulary %llu", any ? ", " : "shape        ", (unsigned long long)vocab->n);
        any = true;
    }
    if (any) printf("%s\n", s->all.tensors ? s->tied ? ", tied head" : ", own head" : "");
    if (ash_gguf_get_u64(g, "split.count", &u) && u > 1)
        printf("split        one part of %llu; figures are for this part\n", (unsigned long long)u);
    if (s->all.tensors) {
        tally whole = s->all;
        whole.bytes = s->file_bytes;
        put_tally("whole file", whole, whole_bpw(s));
        put_tally("blocks", s->block, bpw(s->block));
        put_tally("live", s->live, bpw(s->live));
        printf("embeddings   ");
        put_int(s->embd.weights);
        printf(" weights, %s, %.3f bpw, %.1f %% of the tensor bytes\n", cli_bytes(s->embd.bytes, b), bpw(s->embd), 100 * embd_share(s));
        printf("\n%-8s %8s %15s %12s %7s %7s\n", "type", "tensors", "weights", "size", "share", "bpw");
        for (int i = 0; i < ASH_DTYPE_MAX; i++)
            if (s->by_type[i].tensors)
                printf("%-8s %8llu %15llu %12s %6.1f%% %7.3f\n", ash_dtype_name((ash_dtype)i), (unsigned long long)s->by_type[i].tensors,
                       (unsigned long long)s->by_type[i].weights, cli_bytes(s->by_type[i].bytes, b),
                       100.0 * (double)s->by_type[i].bytes / (double)s->all.bytes, bpw(s->by_type[i]));
    }
    if (show_kv) {
        printf("\nmetadata\n");
        for (size_t i = 0; i < ash_gguf_n_kv(g); i++) put_kv(ash_gguf_kv_at(g, i));
    }
    if (show_tensors) {
        printf("\n%-40s %-8s %-24s %12s %7s\n", "tensor", "type", "shape", "bytes", "bpw");
        for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
            const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
            char dims[96] = "";
            for (int d = 0, k = 0; d < t->n_dims; d++)
                k += snprintf(dims + k, sizeof dims - (size_t)k, "%s%llu", d ? " x " : "", (unsigned long long)t->ne[d]);
            put_text(t->name, strlen(t->name), TEXT);
            printf("%*s %-8s %-24s %12llu %7.3f\n", strlen(t->name) < 40 ? (int)(40 - strlen(t->name)) : 0, "", ash_dtype_name(t->type),
                   dims, (unsigned long long)t->n_bytes, ash_dtype_bpw(t->type));
        }
    }
}

/* ---- JSON ---- */
static json_t *js_text(const char *p, size_t n) { /* bytes that are not UTF-8 become U+FFFD */
    json_t *j = json_stringn(p, n);
    if (j) return j;
    char *fixed = malloc(3 * n + 1);
    size_t k = 0;
    if (!fixed) return NULL;
    for (size_t i = 0; i < n;) {
        size_t len = 1;
        json_t *one = NULL;
        for (; len <= 4 && i + len <= n; len++)
            if ((one = json_stringn(p + i, len))) break;
        if (one)
            memcpy(fixed + k, p + i, len);
        else {
            len = 1;
            memcpy(fixed + k, "\xef\xbf\xbd", 3);
        }
        k += one ? len : 3;
        i += len;
        json_decref(one);
    }
    j = json_stringn(fixed, k);
    free(fixed);
    return j;
}

static json_t *js_u64(uint64_t u) {
    if (u <= INT64_MAX) return json_integer((json_int_t)u);
    char s[32];
    snprintf(s, sizeof s, "%llu", (unsigned long long)u);
    return json_string(s);
}

static json_t *js_f64(double f) { return isfinite(f) ? json_real(f) : json_string(isnan(f) ? "nan" : f > 0 ? "inf" : "-inf"); }

static json_t *js_elements(const ash_gguf_kv *kv, uint64_t n) {
    json_t *a = json_array();
    uint64_t cur = 0;
    for (uint64_t i = 0; i < n; i++) {
        int64_t x;
        double f;
        ash_str str;
        bool is_float = kv->elem_type == ASH_GV_F32 || kv->elem_type == ASH_GV_F64;
        if (ash_gguf_array_str(kv, &cur, &str))
            json_array_append_new(a, js_text(str.p, str.n));
        else if (kv->elem_type == ASH_GV_BOOL && ash_gguf_array_i64(kv, i, &x))
            json_array_append_new(a, json_boolean(x));
        else if (!is_float && ash_gguf_array_i64(kv, i, &x))
            json_array_append_new(a, json_integer(x));
        else if (ash_gguf_array_f64(kv, i, &f))
            json_array_append_new(a, js_f64(f));
        else
            json_array_append_new(a, json_null());
    }
    return a;
}

static json_t *js_value(const ash_gguf_kv *kv) {
    switch (kv->type) {
    case ASH_GV_STRING: return js_text(kv->str.p, kv->str.n);
    case ASH_GV_BOOL: return json_boolean(kv->v.u);
    case ASH_GV_F32:
    case ASH_GV_F64: return js_f64(kv->v.f);
    case ASH_GV_I8:
    case ASH_GV_I16:
    case ASH_GV_I32:
    case ASH_GV_I64: return json_integer(kv->v.i);
    case ASH_GV_ARRAY:
        if (kv->n <= INLINE_ARRAY) return js_elements(kv, kv->n);
        return json_pack("{s:s, s:o, s:o}", "array_of", type_name(kv->elem_type), "n", js_u64(kv->n), "first", js_elements(kv, FEW));
    default: return js_u64(kv->v.u);
    }
}

static json_t *js_tally(tally t, uint64_t bytes) {
    return json_pack("{s:o, s:o, s:o, s:f}", "tensors", js_u64(t.tensors), "weights", js_u64(t.weights), "bytes", js_u64(bytes), "bpw",
                     t.weights ? 8.0 * (double)bytes / (double)t.weights : 0.0);
}

static int print_json(const ash_gguf *g, const totals *s) {
    json_t *o = json_object(), *kvs = json_object(), *types = json_object(), *tensors = json_array();
    ash_str str;
    json_object_set_new(o, "file", js_text(ash_gguf_path(g), strlen(ash_gguf_path(g))));
    json_object_set_new(o, "file_bytes", js_u64(s->file_bytes));
    json_object_set_new(o, "gguf_version", json_integer(ash_gguf_version(g)));
    json_object_set_new(o, "alignment", js_u64(ash_gguf_alignment(g)));
    json_object_set_new(o, "data_offset", js_u64(ash_gguf_data_offset(g)));
    json_object_set_new(o, "architecture", ash_gguf_get_str(g, "general.architecture", &str) ? js_text(str.p, str.n) : json_null());
    json_object_set_new(o, "n_kv", js_u64(ash_gguf_n_kv(g)));
    json_object_set_new(o, "n_tensors", js_u64(s->all.tensors));
    json_object_set_new(o, "n_weights", js_u64(s->all.weights));
    json_object_set_new(o, "tied_head", json_boolean(s->tied));
    json_object_set_new(o, "whole", js_tally(s->all, s->file_bytes));
    json_object_set_new(o, "blocks", js_tally(s->block, s->block.bytes));
    json_object_set_new(o, "live", js_tally(s->live, s->live.bytes));
    json_object_set_new(o, "embeddings", js_tally(s->embd, s->embd.bytes));
    json_object_set_new(o, "embedding_share", json_real(embd_share(s)));
    for (int i = 0; i < ASH_DTYPE_MAX; i++)
        if (s->by_type[i].tensors) json_object_set_new(types, ash_dtype_name((ash_dtype)i), js_tally(s->by_type[i], s->by_type[i].bytes));
    json_object_set_new(o, "types", types);
    for (size_t i = 0; i < ash_gguf_n_kv(g); i++) {
        const ash_gguf_kv *kv = ash_gguf_kv_at(g, i);
        char key[256];
        snprintf(key, sizeof key, "%.*s", (int)(kv->key.n < 200 ? kv->key.n : 200), kv->key.p);
        if (json_object_set_new(kvs, key, js_value(kv)) != 0)
            json_object_set_new_nocheck(kvs, "?", json_null()); /* cut inside a character */
    }
    json_object_set_new(o, "metadata", kvs);
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        json_t *shape = json_array();
        for (int d = 0; d < t->n_dims; d++) json_array_append_new(shape, js_u64(t->ne[d]));
        json_array_append_new(tensors, json_pack("{s:o, s:s, s:o, s:o, s:o, s:f}", "name", js_text(t->name, strlen(t->name)), "type",
                                                 ash_dtype_name(t->type), "shape", shape, "offset", js_u64(t->offset), "bytes",
                                                 js_u64(t->n_bytes), "bpw", ash_dtype_bpw(t->type)));
    }
    json_object_set_new(o, "tensors", tensors);
    int rc = json_dumpf(o, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    json_decref(o);
    putchar('\n');
    return rc == 0 ? 0 : cli_fail(NULL, ASH_E_NOMEM);
}

static int run(int argc, char **argv) {
    (void)argc;
    ash_error err = {0};
    ash_gguf *g;
    ash_status st = ash_gguf_open(&g, argv[0], &err);
    if (st != ASH_OK) return cli_fail(&err, st);
    totals s = count(g);
    int rc = 0;
    if (g_json)
        rc = print_json(g, &s);
    else
        print_text(g, &s);
    ash_gguf_close(g);
    return rc;
}

const ash_cmd cmd_inspect = {
    .name = "inspect",
    .usage = "MODEL [--kv] [--tensors] [--json]",
    .summary = "Show what a GGUF file is made of: sizes, types, bits per weight, metadata.",
    .details = "Reads the header only. Bits per weight are given three ways, because a type's name says little: over the whole "
               "file, over the blocks (tensors named blk.*), and over the live weights, those that are multiplied for every "
               "token (without lookup tables and projections that never run). --json always lists metadata and tensors; "
               "arrays of more than 64 elements are abbreviated.",
    .opts = options,
    .min_args = 1,
    .max_args = 1,
    .json = true,
    .run = run};
