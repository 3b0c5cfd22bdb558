/* test_convert.c - every case's folder becomes the GGUF that expected.json describes (keys, types, values, tensors, data), also
 * from shards and in float16; folders that lie are refused with a sentence and leave nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ashlar/convert.h"
#include "ashlar/engine.h"
#include "ashlar/gguf.h"
#include "base/base.h"
#include "gguf/safetensors.h"

#include <jansson.h>
#include <math.h>

/* The one list of cases: folder, tokenizer folder, with a pooling module. */
static const struct {
    const char *name, *tok;
    bool embed;
} cases[] = {{"llama", "llama", false},         {"llama-tied", "llama", false},
             {"llama-yarn", "llama", false},    {"mistral-swa", "mistral", false},
             {"mixtral", "mistral", false},     {"qwen2", "qwen", false},
             {"qwen3", "qwen", false},          {"qwen3-moe", "qwen", false},
             {"phi3", "phi3", false},           {"phi3-longrope", "phi3", false},
             {"gemma2", "gemma", false},        {"gemma3", "gemma", false},
             {"gemma4-e", "gemma4", false},     {"gemma4-dense", "gemma4", false},
             {"gemma4-moe", "gemma4", false},   {"bert", "bert", true},
             {"gemma-embedding", "gemma", true}};

static const char *root(void) { return getenv("ASH_TEST_DATA") ? getenv("ASH_TEST_DATA") : "tests/data"; }

/* ---- scratch folders of links ---- */
static char dir[300], out[320];

static void link_all(const char *from) {
    char src[600], dst[900], abs[4096];
    DIR *d = opendir(from);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        snprintf(src, sizeof src, "%s/%s", from, e->d_name);
        snprintf(dst, sizeof dst, "%s/%s", dir, e->d_name);
        assert_non_null(realpath(src, abs));
        assert_int_equal(symlink(abs, dst), 0);
    }
    closedir(d);
}

static void drop(void) {
    char p[900];
    DIR *d = opendir(dir);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) {
        snprintf(p, sizeof p, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.') unlink(p);
    }
    closedir(d);
    rmdir(dir);
    unlink(out);
}

static void folder(size_t c) {
    char p[600];
    snprintf(dir, sizeof dir, "./test_convert_%d", (int)getpid());
    snprintf(out, sizeof out, "%s.gguf", dir);
    drop();
    assert_int_equal(mkdir(dir, 0700), 0);
    snprintf(p, sizeof p, "%s/convert/%s", root(), cases[c].name);
    link_all(p);
    snprintf(p, sizeof p, "%s/convert/tok-%s", root(), cases[c].tok);
    link_all(p);
    snprintf(p, sizeof p, "%s/convert/embed", root());
    if (cases[c].embed) link_all(p);
}

static size_t case_of(const char *name) {
    size_t c = 0;
    while (strcmp(cases[c].name, name) != 0) c++;
    return c;
}

static const char *in_dir(const char *name) {
    static char p[700];
    snprintf(p, sizeof p, "%s/%s", dir, name);
    return p;
}

static void replace(const char *name, const void *p, size_t n) {
    unlink(in_dir(name));
    assert_int_equal(ash_file_write_atomic(in_dir(name), p, n, NULL), ASH_OK);
}

/* One edit of config.json: `key` becomes the JSON `value`, or goes when that is NULL. */
static void edit_config(const char *key, const char *value) {
    json_t *o = json_load_file(in_dir("config.json"), 0, NULL);
    assert_non_null(o);
    if (value)
        json_object_set_new(o, key, json_loads(value, JSON_DECODE_ANY, NULL));
    else
        json_object_del(o, key);
    char *s = json_dumps(o, 0);
    replace("config.json", s, strlen(s));
    free(s);
    json_decref(o);
}

static ash_status go(int type, ash_convert_result *r, ash_error *err) {
    char name[64];
    ash_convert_opts o = ash_convert_defaults();
    o.type = type;
    snprintf(name, sizeof name, "tiny");
    o.name = name;
    *err = (ash_error){0};
    return ash_convert(r, dir, out, &o, err);
}

/* ---- comparing with expected.json ---- */
static void digest(const void *a, size_t na, const void *b, size_t nb, char hex[65]) {
    ash_sha256 s;
    ash_sha256_init(&s);
    ash_sha256_add(&s, a, na);
    if (nb) ash_sha256_add(&s, b, nb);
    ash_sha256_hex(&s, hex);
    hex[32] = 0;
}

static void kv_digest(const ash_gguf_kv *kv, char hex[65]) {
    static const size_t width[ASH_GV_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    uint8_t head[16], val[8];
    uint32_t t = kv->type, e = kv->elem_type;
    memcpy(head, &t, 4);
    if (kv->type == ASH_GV_STRING)
        digest(head, 4, kv->str.p, kv->str.n, hex);
    else if (kv->type == ASH_GV_ARRAY) {
        memcpy(head + 4, &e, 4);
        digest(head, 8, kv->data, (size_t)kv->data_bytes, hex);
    } else {
        float f = (float)kv->v.f;
        if (kv->type == ASH_GV_F32)
            memcpy(val, &f, 4);
        else
            memcpy(val, &kv->v.u, 8);
        digest(head, 4, val, width[kv->type], hex);
    }
}

static int compare(const char *name, const json_t *want) {
    ash_gguf *g;
    ash_error err = {0};
    int bad = 0;
    char hex[65];
    if (ash_gguf_open(&g, out, &err) != ASH_OK) fail_msg("%s: %s", name, err.msg);
    json_t *kvs = json_object_get(want, "kv"), *ts = json_object_get(want, "tensors");
    size_t named = 0;
    for (size_t i = 0; i < ash_gguf_n_kv(g); i++) {
        const ash_gguf_kv *kv = ash_gguf_kv_at(g, i);
        char key[256];
        snprintf(key, sizeof key, "%.*s", (int)kv->key.n, kv->key.p);
        const char *w = json_string_value(json_object_get(kvs, key));
        if (w) named++;
        if (strcmp(key, "general.name") == 0) continue;
        kv_digest(kv, hex);
        if (!w || strcmp(w, hex) != 0) bad++, print_error("%s: key %s %s\n", name, key, w ? "differs" : "is not expected");
    }
    if (named != json_object_size(kvs)) bad++, print_error("%s: %zu keys are missing\n", name, json_object_size(kvs) - named);
    if (ash_gguf_n_tensors(g) != json_object_size(ts))
        bad++, print_error("%s: %zu tensors, not %zu\n", name, ash_gguf_n_tensors(g), json_object_size(ts));
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        const json_t *w = json_object_get(ts, t->name), *ne = json_array_get(w, 1);
        bool same = w && json_integer_value(json_array_get(w, 0)) == (json_int_t)t->type && (int)json_array_size(ne) == t->n_dims;
        for (int d = 0; same && d < t->n_dims; d++) same = (uint64_t)json_integer_value(json_array_get(ne, (size_t)d)) == t->ne[d];
        digest(t->data, (size_t)t->n_bytes, NULL, 0, hex);
        if (!same || strcmp(json_string_value(json_array_get(w, 2)), hex) != 0)
            bad++, print_error("%s: tensor %s differs\n", name, t->name);
    }
    ash_gguf_close(g);
    return bad;
}

static void test_cases(void **state) {
    (void)state;
    char p[600];
    int bad = 0;
    snprintf(p, sizeof p, "%s/convert/expected.json", root());
    json_t *all = json_load_file(p, 0, NULL);
    assert_non_null(all);
    assert_int_equal(json_object_size(all), ASH_ARRAY_LEN(cases));
    for (size_t c = 0; c < ASH_ARRAY_LEN(cases); c++) {
        ash_error err;
        ash_convert_result r;
        folder(c);
        if (go(ASH_F32, &r, &err) != ASH_OK)
            bad++, print_error("%s: %s\n", cases[c].name, err.msg);
        else
            bad += compare(cases[c].name, json_object_get(all, cases[c].name));
    }
    json_decref(all);
    drop();
    assert_int_equal(bad, 0);
}

/* A safetensors file being put together. */
typedef struct {
    json_t *header;
    ash_buf data;
} st_writer;

static void st_add(st_writer *w, const char *name, const char *dtype, const uint64_t *shape, int n_dims, const void *p, size_t n) {
    json_t *s = json_array();
    for (int d = 0; d < n_dims; d++) json_array_append_new(s, json_integer((json_int_t)shape[d]));
    if (!w->header) w->header = json_object();
    json_object_set_new(
        w->header, name,
        json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", s, "data_offsets", (json_int_t)w->data.n, (json_int_t)(w->data.n + n)));
    ash_buf_add(&w->data, p, n);
}

static void st_write(st_writer *w, const char *name) {
    ash_buf file = {0};
    char *head = json_dumps(w->header, JSON_COMPACT);
    uint64_t n = strlen(head);
    ash_buf_add(&file, &n, 8);
    ash_buf_add(&file, head, (size_t)n);
    ash_buf_add(&file, w->data.p, w->data.n);
    replace(name, file.p, file.n);
    free(head);
    json_decref(w->header);
    ash_buf_free(&w->data);
    ash_buf_free(&file);
    *w = (st_writer){0};
}

/* Two shards and an index give the bytes of the single file. */
static void test_shards(void **state) {
    (void)state;
    ash_error err;
    ash_convert_result r;
    char one[65], two[65];
    folder(case_of("mixtral"));
    assert_int_equal(go(ASH_F16, &r, &err), ASH_OK);
    assert_int_equal(ash_sha256_file(out, one, NULL), ASH_OK);
    ash_st *s;
    assert_int_equal(ash_st_open(&s, in_dir("model.safetensors"), &err), ASH_OK);
    json_t *map = json_object();
    st_writer w = {0};
    for (size_t k = 0; k < 2; k++) {
        static const char *const name[] = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"};
        for (size_t i = k; i < ash_st_count(s); i += 2) {
            const ash_st_tensor *t = ash_st_at(s, i);
            st_add(&w, t->name, t->dtype_name, t->shape, t->n_dims, t->data, (size_t)t->n_bytes);
            json_object_set_new(map, t->name, json_string(name[k]));
        }
        st_write(&w, name[k]);
    }
    ash_st_close(s);
    json_t *index = json_pack("{s:o}", "weight_map", map);
    char *text = json_dumps(index, 0);
    replace("model.safetensors.index.json", text, strlen(text));
    unlink(in_dir("model.safetensors"));
    if (go(ASH_F16, &r, &err) != ASH_OK) fail_msg("%s", err.msg);
    assert_int_equal(ash_sha256_file(out, two, NULL), ASH_OK);
    assert_string_equal(one, two);
    unlink(in_dir("model-00002-of-00002.safetensors"));
    assert_int_equal(go(ASH_F16, &r, &err), ASH_E_IO);
    assert_non_null(strstr(err.msg, "model-00002-of-00002.safetensors"));
    char *evil = strdup(text), *at;
    assert_non_null(at = strstr(evil, "model-00001"));
    memcpy(at, "../../00001", 11);
    replace("model.safetensors.index.json", evil, strlen(evil));
    assert_int_equal(go(ASH_F16, &r, &err), ASH_E_FORMAT);
    free(evil);
    free(text);
    json_decref(index);
    drop();
}

static void test_types(void **state) {
    (void)state;
    ash_error err;
    ash_convert_result r;
    ash_gguf *g;
    folder(case_of("qwen3"));
    assert_int_equal(go(ASH_CONVERT_AUTO, &r, &err), ASH_OK);
    assert_int_equal(r.type, ASH_F16);
    assert_int_equal(ash_gguf_open(&g, out, &err), ASH_OK);
    assert_int_equal(ash_gguf_find_tensor(g, "blk.0.attn_q.weight")->type, ASH_F16);
    assert_int_equal(ash_gguf_find_tensor(g, "blk.0.attn_norm.weight")->type, ASH_F32);
    assert_int_equal(ash_gguf_file_bytes(g), r.file_bytes);
    ash_gguf_close(g);
    assert_int_equal(go(ASH_Q8_0, &r, &err), ASH_OK);
    assert_int_equal(ash_gguf_open(&g, out, &err), ASH_OK);
    assert_int_equal(ash_gguf_find_tensor(g, "blk.0.attn_q.weight")->type, ASH_Q8_0);
    assert_int_equal(ash_gguf_file_bytes(g), r.file_bytes);
    ash_gguf_close(g);
    DIR *d = opendir("."); /* the float file in between is gone */
    for (struct dirent *e; (e = readdir(d));) assert_null(strstr(e->d_name, ".gguf.float-"));
    closedir(d);
    drop();
}

/* A multimodal folder: the text model's numbers in text_config, its tensors under another prefix, other parts beside it. */
static void test_text_part(void **state) {
    (void)state;
    ash_error err;
    ash_convert_result r;
    ash_st *s;
    st_writer w = {0};
    char one[65], two[65], name[300];
    folder(case_of("gemma3"));
    assert_int_equal(go(ASH_F16, &r, &err), ASH_OK);
    assert_int_equal(ash_sha256_file(out, one, NULL), ASH_OK);
    assert_int_equal(ash_st_open(&s, in_dir("model.safetensors"), &err), ASH_OK);
    for (size_t i = 0; i < ash_st_count(s); i++) {
        const ash_st_tensor *t = ash_st_at(s, i);
        snprintf(name, sizeof name, "%s%s", i % 2 ? "language_model." : "model.language_model.",
                 i % 2 ? t->name : t->name + 6); /* both spellings occur */
        st_add(&w, name, t->dtype_name, t->shape, t->n_dims, t->data, (size_t)t->n_bytes);
    }
    st_add(&w, "vision_tower.patch.weight", "F16", (uint64_t[]){2}, 1, "\0\0\0\0", 4);
    ash_st_close(s);
    st_write(&w, "model.safetensors");
    json_t *conf = json_load_file(in_dir("config.json"), 0, NULL);
    json_t *whole =
        json_pack("{s:[s], s:{}, s:o}", "architectures", "Gemma3ForConditionalGeneration", "vision_config", "text_config", conf);
    char *text = json_dumps(whole, 0);
    replace("config.json", text, strlen(text));
    free(text);
    json_decref(whole);
    if (go(ASH_F16, &r, &err) != ASH_OK) fail_msg("%s", err.msg);
    assert_int_equal(ash_sha256_file(out, two, NULL), ASH_OK);
    assert_string_equal(one, two);
    assert_non_null(strstr(r.notes, "1 tensors of other parts"));
    drop();
}

/* nomic-bert has no folder from elsewhere: one is made from the golden file with the names of the published checkpoint. */
static void test_nomic(void **state) {
    (void)state;
    static const char *const names[][2] = {{"token_embd.weight", "embeddings.word_embeddings.weight"},
                                           {"token_types.weight", "embeddings.token_type_embeddings.weight"},
                                           {"token_embd_norm.", "emb_ln."},
                                           {"attn_qkv", "attn.Wqkv"},
                                           {"attn_output.", "attn.out_proj."},
                                           {"attn_output_norm", "norm1"},
                                           {"layer_output_norm", "norm2"},
                                           {"ffn_up", "mlp.fc11"},
                                           {"ffn_gate", "mlp.fc12"},
                                           {"ffn_down", "mlp.fc2"}};
    static const char config[] =
        "{\"architectures\":[\"NomicBertModel\"],\"n_layer\":3,\"n_embd\":64,\"n_head\":4,\"n_inner\":96,\"n_positions\":128,\"vocab_"
        "size\":256,"
        "\"type_vocab_size\":2,\"layer_norm_epsilon\":1e-12,\"rotary_emb_base\":1000,\"rotary_emb_fraction\":1.0,\"qkv_proj_bias\":false}";
    char p[600], name[200], leaf[100];
    ash_error err;
    ash_convert_result r;
    ash_gguf *g, *h;
    st_writer w = {0};
    folder(case_of("bert")); /* for its pooling module and vocabulary, cut to 256 */
    snprintf(p, sizeof p, "%s/golden/nomic-bert/model.gguf", root());
    assert_int_equal(ash_gguf_open(&g, p, &err), ASH_OK);
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        uint64_t shape[2] = {t->n_dims == 2 ? t->ne[1] : t->ne[0], t->ne[0]};
        int il = -1;
        const char *from = t->name;
        if (sscanf(t->name, "blk.%d.", &il) == 1) from = strchr(t->name + 4, '.') + 1;
        *name = 0;
        for (size_t k = 0; k < ASH_ARRAY_LEN(names); k++)
            if (strncmp(from, names[k][0], strlen(names[k][0])) == 0) {
                snprintf(leaf, sizeof leaf, "%s%s", names[k][1], from + strlen(names[k][0]));
                if (il >= 0)
                    snprintf(name, sizeof name, "encoder.layers.%d.%s", il, leaf);
                else
                    snprintf(name, sizeof name, "%s", leaf);
            }
        assert_true(*name);
        st_add(&w, name, ash_dtype_name(t->type), shape, t->n_dims, t->data, (size_t)t->n_bytes);
    }
    st_write(&w, "model.safetensors");
    replace("config.json", config, strlen(config));
    ash_buf vocab = {0};
    ash_buf_adds(&vocab, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n");
    for (int i = 5; i < 256; i++) ash_buf_addf(&vocab, "%sw%d\n", i % 3 ? "" : "##", i);
    replace("vocab.txt", vocab.p, vocab.n);
    ash_buf_free(&vocab);
    unlink(in_dir("tokenizer.json"));
    if (go(ASH_F16, &r, &err) != ASH_OK) fail_msg("%s", err.msg);
    assert_int_equal(ash_gguf_open(&h, out, &err), ASH_OK);
    assert_int_equal(ash_gguf_n_tensors(g), ash_gguf_n_tensors(h));
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i), *u = ash_gguf_find_tensor(h, t->name);
        assert_non_null(u);
        if (strcmp(t->name, "token_types.weight") == 0) continue; /* float32 in converted files */
        assert_int_equal(t->type, u->type);
        assert_memory_equal(t->ne, u->ne, sizeof t->ne);
        assert_memory_equal(t->data, u->data, t->n_bytes);
    }
    for (size_t i = 0; i < ash_gguf_n_kv(g); i++) {
        const ash_gguf_kv *a = ash_gguf_kv_at(g, i);
        snprintf(name, sizeof name, "%.*s", (int)a->key.n, a->key.p);
        if (strncmp(name, "nomic-bert.", 11) != 0) continue;
        const ash_gguf_kv *b = ash_gguf_find(h, name);
        assert_non_null(b);
        char x[65], y[65];
        kv_digest(a, x);
        kv_digest(b, y);
        assert_string_equal(x, y);
    }
    ash_str tok;
    uint64_t cursor = 0;
    const char *const first[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\xe2\x96\x81w5", "w6"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(first); i++)
        assert_true(ash_gguf_array_str(ash_gguf_find(h, "tokenizer.ggml.tokens"), &cursor, &tok) && tok.n == strlen(first[i]) &&
                    memcmp(tok.p, first[i], tok.n) == 0);
    ash_gguf_close(g);
    ash_gguf_close(h);
    drop();
}

/* A PEFT adapter gives the tensors of the golden one; half an adapter is refused. */
static void test_adapter(void **state) {
    (void)state;
    char p[600], base[600];
    ash_error err = {0};
    ash_convert_result r;
    ash_convert_opts o = ash_convert_defaults();
    ash_gguf *g, *h;
    folder(case_of("llama"));
    snprintf(p, sizeof p, "%s/convert/lora-llama", root());
    snprintf(base, sizeof base, "%s/convert/llama", root());
    o.base = base;
    if (ash_convert(&r, p, out, &o, &err) != ASH_OK) fail_msg("%s", err.msg);
    snprintf(p, sizeof p, "%s/golden/llama/lora/adapter.gguf", root());
    assert_int_equal(ash_gguf_open(&g, p, &err), ASH_OK);
    assert_int_equal(ash_gguf_open(&h, out, &err), ASH_OK);
    assert_int_equal(ash_gguf_n_kv(g), ash_gguf_n_kv(h));
    assert_int_equal(ash_gguf_n_tensors(g), ash_gguf_n_tensors(h));
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i), *u = ash_gguf_find_tensor(h, t->name);
        assert_non_null(u);
        assert_memory_equal(t->ne, u->ne, sizeof t->ne);
        assert_int_equal(t->type, u->type);
        assert_memory_equal(t->data, u->data, t->n_bytes);
    }
    double alpha = 0;
    assert_true(ash_gguf_get_f64(h, "adapter.lora.alpha", &alpha) && alpha == 8);
    ash_gguf_close(g);
    ash_gguf_close(h);
    unlink(out);
    st_writer w = {0};
    static const float zero[64];
    st_add(&w, "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", "F32", (uint64_t[]){1, 64}, 2, zero, sizeof zero);
    st_write(&w, "adapter_model.safetensors");
    static const char conf[] = "{\"peft_type\": \"LORA\", \"r\": 1, \"lora_alpha\": 2}",
                      dora[] = "{\"peft_type\": \"LORA\", \"r\": 1, \"lora_alpha\": 2, \"use_dora\": true}";
    replace("adapter_config.json", conf, strlen(conf));
    o.base = dir;
    assert_int_equal(ash_convert(&r, dir, out, &o, &err), ASH_E_FORMAT);
    assert_non_null(strstr(err.msg, "layers.0.mlp.up_proj.lora_B.weight is missing"));
    replace("adapter_config.json", dora, strlen(dora));
    assert_int_equal(ash_convert(&r, dir, out, &o, &err), ASH_E_UNSUPPORTED);
    assert_int_equal(access(out, F_OK), -1);
    drop();
}

/* Without tokenizer.model the scores come from the merges; the order they imply is the same. */
static void test_scores_from_merges(void **state) {
    (void)state;
    ash_error err;
    ash_convert_result r;
    ash_gguf *a, *b;
    char keep[400];
    folder(case_of("gemma3"));
    assert_int_equal(go(ASH_F16, &r, &err), ASH_OK);
    snprintf(keep, sizeof keep, "%s.first", out);
    assert_int_equal(rename(out, keep), 0);
    unlink(in_dir("tokenizer.model"));
    assert_int_equal(go(ASH_F16, &r, &err), ASH_OK);
    assert_int_equal(ash_gguf_open(&a, keep, &err), ASH_OK);
    assert_int_equal(ash_gguf_open(&b, out, &err), ASH_OK);
    assert_int_equal(ash_gguf_n_kv(a), ash_gguf_n_kv(b));
    const ash_gguf_kv *x = ash_gguf_find(a, "tokenizer.ggml.scores"), *y = ash_gguf_find(b, "tokenizer.ggml.scores"),
                      *t = ash_gguf_find(a, "tokenizer.ggml.token_type");
    double best = 0, mine = 0; /* scores of merged pieces fall together: same order, ties apart */
    for (uint64_t i = 0; i < x->n; i++) {
        double p, q;
        int64_t type = 0;
        assert_true(ash_gguf_array_f64(x, i, &p) && ash_gguf_array_f64(y, i, &q) && ash_gguf_array_i64(t, i, &type));
        if (type != 1) continue;
        if (p < best) assert_true(q <= mine);
        best = p, mine = q;
    }
    x = ash_gguf_find(a, "tokenizer.ggml.token_type"), y = ash_gguf_find(b, "tokenizer.ggml.token_type");
    assert_memory_equal(x->data, y->data, x->data_bytes);
    ash_gguf_close(a);
    ash_gguf_close(b);
    unlink(keep);
    drop();
}

static void refused(const char *with, ash_status want) {
    ash_error err;
    ash_convert_result r;
    unlink(out);
    ash_status st = go(ASH_F16, &r, &err);
    if (st != want || !strstr(err.msg, with)) fail_msg("want \"%s\" (%d), got %d: %s", with, want, st, err.msg);
    assert_int_equal(access(out, F_OK), -1);
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *name, *key, *value, *with;
        ash_status st;
    } edits[] = {{"qwen3", "hidden_size", "128", "is 512 x 64, config.json says 512 x 128", ASH_E_FORMAT},
                 {"qwen3", "hidden_size", "1e300", "hidden_size", ASH_E_RANGE},
                 {"qwen3", "hidden_size", "-4", "hidden_size", ASH_E_RANGE},
                 {"qwen3", "hidden_size", "\"64\"", "hidden_size", ASH_E_RANGE},
                 {"qwen3", "num_hidden_layers", "4", "3 entries for 4 layers", ASH_E_FORMAT},
                 {"llama", "num_hidden_layers", "4", "layers.3.input_layernorm.weight is missing", ASH_E_FORMAT},
                 {"llama", "num_hidden_layers", "2", "layers.2.", ASH_E_UNSUPPORTED},
                 {"qwen3", "num_hidden_layers", "1000000000", "num_hidden_layers", ASH_E_RANGE},
                 {"qwen3", "num_attention_heads", NULL, "num_attention_heads is missing", ASH_E_FORMAT},
                 {"qwen3", "num_key_value_heads", "3", "do not divide", ASH_E_RANGE},
                 {"qwen3", "architectures", "[\"Mamba2ForCausalLM\"]", "Mamba2ForCausalLM", ASH_E_UNSUPPORTED},
                 {"qwen3", "architectures", "7", "no architecture", ASH_E_FORMAT},
                 {"qwen3", "quantization_config", "{\"quant_method\": \"awq\"}", "awq", ASH_E_UNSUPPORTED},
                 {"qwen3", "use_sliding_window", "true", "use_sliding_window", ASH_E_UNSUPPORTED},
                 {"qwen3", "rope_parameters", "{\"rope_type\": \"dynamic\", \"factor\": 2}", "\"dynamic\"", ASH_E_UNSUPPORTED},
                 {"qwen3", "rope_parameters", "{\"rope_type\": \"yarn\"}", "without a factor", ASH_E_RANGE},
                 {"qwen3", "vocab_size", "16", "vocab_size of 16", ASH_E_FORMAT},
                 {"llama-tied", "tie_word_embeddings", "false", "lm_head.weight is missing", ASH_E_FORMAT},
                 {"qwen3-moe", "num_local_experts", "9", "8 x 64, config.json says 9 x 64", ASH_E_FORMAT},
                 {"qwen3-moe", "num_experts_per_tok", "9", "9 of 8 experts", ASH_E_RANGE},
                 {"gemma3", "layer_types", "[\"full_attention\"]", "1 entries for 7 layers", ASH_E_FORMAT},
                 {"phi3-longrope", "rope_parameters", "{\"rope_type\": \"longrope\", \"long_factor\": [1]}", "long_factor", ASH_E_FORMAT}};
    for (size_t i = 0; i < ASH_ARRAY_LEN(edits); i++) {
        folder(case_of(edits[i].name));
        edit_config(edits[i].key, edits[i].value);
        refused(edits[i].with, edits[i].st);
    }
    folder(case_of("qwen3"));
    unlink(in_dir("model.safetensors"));
    refused("holds no model.safetensors", ASH_E_IO);
    replace("pytorch_model.bin", "x", 1);
    refused("pickled", ASH_E_IO);
    folder(case_of("qwen3"));
    unlink(in_dir("tokenizer.json"));
    refused("holds no tokenizer.json", ASH_E_IO);
    replace("tokenizer.json", "{\"model\": ", 10);
    refused("tokenizer.json, line 1", ASH_E_FORMAT);
    static const char odd[] =
        "{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\w+\"}, "
        "\"behavior\": \"Isolated\"},"
        "{\"type\": \"ByteLevel\", \"use_regex\": false}]}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}}";
    replace("tokenizer.json", odd, strlen(odd));
    refused("unknown pre-tokenizer split(\\w+,Isolated)", ASH_E_UNSUPPORTED);
    static const char twice[] = "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}}";
    replace("tokenizer.json", twice, strlen(twice));
    refused("have id 0", ASH_E_FORMAT);
    static const char far[] = "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 900000000000}, \"merges\": []}}";
    replace("tokenizer.json", far, strlen(far));
    refused("out of range", ASH_E_RANGE);
    folder(case_of("mistral-swa"));
    replace("tokenizer.model", "\x0a\xff\xff\xff\xff\x0f", 6);
    refused("no SentencePiece model", ASH_E_FORMAT);
    drop();
}

/* ---- safetensors ---- */
static ash_status st_bytes(const char *header, uint64_t claim, size_t n_data, ash_error *err) {
    size_t n = strlen(header);
    uint8_t *p = calloc(1, 8 + n + n_data + 1);
    memcpy(p, &claim, 8);
    memcpy(p + 8, header, n);
    ash_st *s;
    *err = (ash_error){0};
    ash_status st = ash_st_open_mem(&s, p, 8 + n + n_data, err);
    ash_st_close(s);
    free(p);
    return st;
}

static void test_safetensors(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t n_data;
        ash_status st;
        const char *with;
    } t[] = {
        {"{}", 0, ASH_OK, ""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, ASH_OK, ""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, ASH_OK, ""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[0,0]},\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
         1, ASH_OK, ""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, ASH_E_FORMAT, "do not lie"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 9, ASH_E_FORMAT, "belong to no tensor"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, ASH_E_FORMAT, "do not hold"},
        {"{\"a\":{\"dtype\":\"Q9\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, ASH_E_UNSUPPORTED, "unknown type"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         12, ASH_E_FORMAT, "another one lies"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
         12, ASH_E_FORMAT, "a hole is before"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, ASH_E_FORMAT, "do not lie"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, ASH_E_FORMAT, "is no size"},
        {"{\"a\":{\"dtype\":\"F64\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0, ASH_E_FORMAT, ""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, ASH_E_FORMAT, "is no size"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, ASH_E_FORMAT, "is no size"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, ASH_E_UNSUPPORTED, "9 dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, ASH_E_FORMAT, "is missing"},
        {"{\"a\":7}", 0, ASH_E_FORMAT, "is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         4, ASH_E_FORMAT, "valid JSON"},
        {"[1]", 0, ASH_E_FORMAT, "no JSON object"},
        {"{\"a\":", 0, ASH_E_FORMAT, "valid JSON"}};
    ash_error err;
    for (size_t i = 0; i < ASH_ARRAY_LEN(t); i++) {
        ash_status st = st_bytes(t[i].header, strlen(t[i].header), t[i].n_data, &err);
        if (st != t[i].st || !strstr(err.msg, t[i].with)) fail_msg("%s: %d %s", t[i].header, st, err.msg);
    }
    assert_int_equal(st_bytes("{}", 3, 0, &err), ASH_E_FORMAT); /* header longer than the file */
    uint64_t before = ash_alloc_bytes();
    assert_int_equal(st_bytes("{}", UINT64_MAX, 0, &err), ASH_E_FORMAT);
    assert_int_equal(st_bytes("{}", 99999999, 0, &err), ASH_E_FORMAT);
    assert_true(ash_alloc_bytes() - before < 100000);
    ash_st *s;
    assert_int_equal(ash_st_open_mem(&s, "\1\0\0\0", 4, &err), ASH_E_FORMAT);
    assert_null(s);
    ash_buf deep = {0};
    for (int i = 0; i < 100000; i++) ash_buf_adds(&deep, "{\"a\":");
    assert_int_equal(st_bytes(deep.p, deep.n, 0, &err), ASH_E_FORMAT);
    ash_buf_free(&deep);
}

/* Every allocation that fails is a status, and nothing is left behind. */
/* EmbeddingGemma's matrices after pooling: the vectors are those of a second implementation (make_dense.py); modules that a file cannot
 * hold are left out with a note, and a shard that lies is refused. */
static void test_dense(void **s) {
    (void)s;
    char p[600];
    ash_error err;
    ash_convert_result r = {0};
    const size_t c = case_of("gemma-embedding");
    folder(c);
    snprintf(p, sizeof p, "%s/convert/dense", root());
    unlink(in_dir("modules.json"));
    unlink(in_dir("1_Pooling"));
    link_all(p);
    if (go(ASH_F32, &r, &err) != ASH_OK) fail_msg("%s", err.msg);
    ash_model *m = NULL;
    ash_session *se = NULL;
    ash_session_opts o = ash_session_defaults();
    o.n_ctx = 128;
    o.precision = ASH_PREC_EXACT;
    assert_int_equal(ash_model_load(&m, out, &err), ASH_OK);
    int64_t n = 0;
    assert_true(ash_gguf_get_i64(ash_model_gguf(m), "gemma-embedding.dense_2_feat_out", &n) && n == 96);
    assert_int_equal(ash_session_new(&se, m, &o, &err), ASH_OK);
    snprintf(p, sizeof p, "%s/golden/gemma-embedding/cases.json", root());
    json_t *cases_json = json_load_file(p, 0, NULL), *q;
    size_t i;
    json_array_foreach(json_object_get(cases_json, "sequences"), i, q) {
        const json_t *ids = json_object_get(q, "tokens");
        ash_token t[128];
        float got[64], want[64];
        double dot = 0, worst = 0;
        for (size_t k = 0; k < json_array_size(ids); k++) t[k] = (ash_token)json_integer_value(json_array_get(ids, k));
        assert_int_equal(ash_session_embed(se, t, json_array_size(ids), ASH_EMBED_AUTO, got, &err), ASH_OK);
        snprintf(p, sizeof p, "%s/convert/dense/embedding%zu.f32", root(), i);
        FILE *f = fopen(p, "rb");
        assert_non_null(f);
        assert_int_equal(fread(want, sizeof *want, 64, f), 64);
        fclose(f);
        for (int k = 0; k < 64; k++) {
            dot += (double)got[k] * (double)want[k];
            worst = fmax(worst, fabs((double)got[k] - (double)want[k]));
        }
        assert_true(dot > 1 - 1e-6);
        assert_true(worst < 1e-5);
    }
    assert_int_equal(i, 2);
    json_decref(cases_json);
    ash_session_free(se);
    ash_model_free(m);

    /* sizes that do not follow each other; a path that leaves the folder */
    static const char swapped[] = "[{\"type\": \"x.Dense\", \"path\": \"3_Dense\"}, {\"type\": \"x.Dense\", \"path\": \"2_Dense\"}]",
                      outside[] = "[{\"type\": \"x.Dense\", \"path\": \"../x\"}]";
    replace("modules.json", swapped, sizeof swapped - 1);
    assert_int_equal(go(ASH_F32, &r, &err), ASH_OK);
    assert_non_null(strstr(r.notes, "dense modules"));
    replace("modules.json", outside, sizeof outside - 1);
    assert_int_equal(go(ASH_F32, &r, &err), ASH_E_FORMAT);
    drop();
}

static void test_out_of_memory(void **state) {
    (void)state;
    ash_error err;
    ash_convert_result r;
    folder(case_of("bert"));
    int failures = 0;
    for (uint64_t n = 1; n < 100000; n = n < 200 ? n + 1 : n + n / 7) {
        ash_alloc_fail_after(n);
        ash_status st = go(ASH_F16, &r, &err);
        ash_alloc_fail_after(0);
        if (st == ASH_OK) break;
        assert_int_equal(st, ASH_E_NOMEM);
        assert_int_equal(access(out, F_OK), -1);
        failures++;
    }
    assert_true(failures > 20);
    drop();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases),
                                       cmocka_unit_test(test_shards),
                                       cmocka_unit_test(test_types),
                                       cmocka_unit_test(test_text_part),
                                       cmocka_unit_test(test_nomic),
                                       cmocka_unit_test(test_dense),
                                       cmocka_unit_test(test_adapter),
                                       cmocka_unit_test(test_scores_from_merges),
                                       cmocka_unit_test(test_refusals),
                                       cmocka_unit_test(test_safetensors),
                                       cmocka_unit_test(test_out_of_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
