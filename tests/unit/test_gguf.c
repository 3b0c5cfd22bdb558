/* test_gguf.c - the GGUF module on well-formed files: what is written is read back, copies and edits keep
 * every byte that did not change, getters convert only what fits, running out of memory is a status.
 * Broken files: test_gguf_hostile.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "ashlar/gguf.h"
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/ash-gguf-XXXXXX";
static char path[64], path2[64];

static ash_status build(const char *file, ash_error *err) {
    static const int32_t ids[] = {-1, 7, 2147483647};
    static const float fs[] = {0.5f, -2.0f};
    static const ash_str toks[] = {{"a", 1}, {"", 0}, {"\xe2\x96\x81x", 4}, {"\xff\x00z", 3}};
    uint64_t a[2] = {64, 3}, b[1] = {5}, c[4] = {256, 2, 1, 2};
    ash_gguf_writer *w = NULL;
    ash_status st;
    uint8_t *data = NULL;
    ASH_TRY_GOTO(ash_gguf_writer_new(&w, err), done);
    ASH_TRY_GOTO(ash_gguf_set_str(w, "general.architecture", "llama", 5, err), done);
    ASH_TRY_GOTO(ash_gguf_set_u32(w, "x.u32", 1, err), done);
    ASH_TRY_GOTO(ash_gguf_set_u64(w, "x.u64", UINT64_MAX, err), done);
    ASH_TRY_GOTO(ash_gguf_set_i32(w, "x.i32", -5, err), done);
    ASH_TRY_GOTO(ash_gguf_set_f32(w, "x.f32", 1e-5f, err), done);
    ASH_TRY_GOTO(ash_gguf_set_bool(w, "x.bool", true, err), done);
    ASH_TRY_GOTO(ash_gguf_set_array(w, "x.ids", ASH_GV_I32, ids, 3, err), done);
    ASH_TRY_GOTO(ash_gguf_set_array(w, "x.fs", ASH_GV_F32, fs, 2, err), done);
    ASH_TRY_GOTO(ash_gguf_set_array(w, "x.empty", ASH_GV_U8, NULL, 0, err), done);
    ASH_TRY_GOTO(ash_gguf_set_str_array(w, "x.toks", toks, 4, err), done);
    ASH_TRY_GOTO(ash_gguf_set_u32(w, "x.gone", 1, err), done);
    ASH_TRY_GOTO(ash_gguf_set_u32(w, "x.u32", 40, err), done); /* replaces in place */
    ASH_TRY_GOTO(ash_gguf_unset(w, "x.gone"), done);
    ASH_TRY_GOTO(ash_gguf_unset(w, "x.never"), done);
    ASH_TRY_GOTO(ash_gguf_add_tensor(w, "token_embd.weight", ASH_Q8_0, 2, a, err), done);
    ASH_TRY_GOTO(ash_gguf_add_tensor(w, "blk.0.norm", ASH_F32, 1, b, err), done);
    ASH_TRY_GOTO(ash_gguf_add_tensor(w, "blk.0.w", ASH_Q4_K, 4, c, err), done);
    size_t n = 204 + 20 + 4 * 144;
    if (!(data = ash_alloc(n))) {
        st = ash_fail(err, ASH_E_NOMEM, "test");
        goto done;
    }
    for (size_t i = 0; i < n; i++) data[i] = (uint8_t)(i * 7 + 1);
    ASH_TRY_GOTO(ash_gguf_writer_begin(w, file, err), done);
    for (size_t i = 0; i < n; i += 37) ASH_TRY_GOTO(ash_gguf_writer_data(w, data + i, ASH_MIN(n - i, (size_t)37), err), done);
    st = ash_gguf_writer_finish(w, err);
done:
    ash_free(data);
    ash_gguf_writer_free(w);
    return st;
}

static void test_roundtrip(void **s) {
    (void)s;
    ash_error e;
    assert_int_equal(build(path, &e), ASH_OK);
    ash_gguf *g;
    assert_int_equal(ash_gguf_open(&g, path, &e), ASH_OK);
    assert_int_equal(ash_gguf_version(g), 3);
    assert_int_equal(ash_gguf_alignment(g), 32);
    assert_int_equal(ash_gguf_n_kv(g), 10);
    assert_int_equal(ash_gguf_n_tensors(g), 3);
    assert_string_equal(ash_gguf_path(g), path);
    assert_null(ash_gguf_find(g, "x.gone"));
    assert_null(ash_gguf_kv_at(g, 10));
    uint64_t u;
    int64_t i;
    double f;
    bool b;
    ash_str str;
    assert_true(ash_gguf_get_u64(g, "x.u32", &u) && u == 40);
    assert_true(ash_gguf_get_u64(g, "x.u64", &u) && u == UINT64_MAX);
    assert_false(ash_gguf_get_i64(g, "x.u64", &i));
    assert_false(ash_gguf_get_u64(g, "x.i32", &u));
    assert_true(ash_gguf_get_i64(g, "x.i32", &i) && i == -5);
    assert_true(ash_gguf_get_f64(g, "x.i32", &f) && f == -5);
    assert_true(ash_gguf_get_f64(g, "x.f32", &f) && f == (double)1e-5f);
    assert_false(ash_gguf_get_u64(g, "x.f32", &u));
    assert_true(ash_gguf_get_bool(g, "x.bool", &b) && b);
    assert_false(ash_gguf_get_bool(g, "x.u32", &b));
    assert_true(ash_gguf_get_str(g, "general.architecture", &str) && str.n == 5 && !memcmp(str.p, "llama", 5));
    const ash_gguf_kv *kv = ash_gguf_find(g, "x.ids");
    assert_true(kv && kv->n == 3 && ash_gguf_array_i64(kv, 0, &i) && i == -1 && ash_gguf_array_i64(kv, 2, &i) && i == 2147483647);
    assert_false(ash_gguf_array_i64(kv, 3, &i));
    kv = ash_gguf_find(g, "x.fs");
    assert_true(ash_gguf_array_f64(kv, 0, &f) && f == 0.5);
    assert_false(ash_gguf_array_i64(kv, 0, &i)); /* 0.5 is no integer */
    assert_true(ash_gguf_array_i64(kv, 1, &i) && i == -2);
    kv = ash_gguf_find(g, "x.toks");
    uint64_t cur = 0;
    size_t n[4], k = 0;
    while (ash_gguf_array_str(kv, &cur, &str)) n[k++] = str.n;
    assert_true(k == 4 && n[0] == 1 && n[1] == 0 && n[2] == 4 && n[3] == 3);
    const ash_gguf_tensor *t = ash_gguf_find_tensor(g, "blk.0.w");
    assert_true(t && t->type == ASH_Q4_K && t->n_dims == 4 && t->ne[0] == 256 && t->ne[3] == 2 && t->n_bytes == 576);
    for (size_t j = 0; j < 576; j++) assert_int_equal(t->data[j], (uint8_t)((224 + j) * 7 + 1));
    assert_null(ash_gguf_find_tensor(g, "blk.0"));
    ash_gguf_close(g);
}

/* Copying all metadata and tensors gives the same file. */
static ash_status copy(const char *from, const char *to, ash_error *err) {
    ash_gguf *g = NULL;
    ash_gguf_writer *w = NULL;
    ash_status st;
    ASH_TRY_GOTO(ash_gguf_open(&g, from, err), done);
    ASH_TRY_GOTO(ash_gguf_writer_new(&w, err), done);
    ASH_TRY_GOTO(ash_gguf_copy_kv(w, g, err), done);
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        ASH_TRY_GOTO(ash_gguf_add_tensor(w, t->name, t->type, t->n_dims, t->ne, err), done);
    }
    uint64_t size = ash_gguf_writer_bytes(w);
    ASH_TRY_GOTO(ash_gguf_writer_begin(w, to, err), done);
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        ASH_TRY_GOTO(ash_gguf_writer_data(w, t->data, t->n_bytes, err), done);
    }
    st = ash_gguf_writer_finish(w, err);
    struct stat sb;
    if (st == ASH_OK && (stat(to, &sb) != 0 || (uint64_t)sb.st_size != size)) st = ash_fail(err, ASH_E_INTERNAL, "size forecast is wrong");
done:
    ash_gguf_writer_free(w);
    ash_gguf_close(g);
    return st;
}

static void assert_same(const char *a, const char *b) {
    char x[65], y[65];
    assert_int_equal(ash_sha256_file(a, x, NULL), ASH_OK);
    assert_int_equal(ash_sha256_file(b, y, NULL), ASH_OK);
    assert_string_equal(x, y);
}

static void test_copy(void **s) {
    (void)s;
    ash_error e;
    assert_int_equal(build(path, &e), ASH_OK);
    assert_int_equal(copy(path, path2, &e), ASH_OK);
    assert_same(path, path2);
    const char *real = getenv("ASHLAR_TEST_MODELS"); /* space-separated paths of real models, optional */
    char *list = ash_strdup(real ? real : ""), *save = NULL;
    for (char *m = strtok_r(list, " ", &save); m; m = strtok_r(NULL, " ", &save)) {
        assert_int_equal(copy(m, path2, &e), ASH_OK);
        assert_same(m, path2);
    }
    ash_free(list);
}

static void test_edit(void **s) {
    (void)s;
    ash_error e;
    assert_int_equal(build(path, &e), ASH_OK);
    assert_int_equal(copy(path, path2, &e), ASH_OK);
    const char *none[] = {"x.u32=40"};
    assert_int_equal(ash_gguf_edit(path2, none, 1, &e), ASH_OK);
    assert_same(path, path2);
    const char *good[] = {
        "x.u32=4294967295", "x.f32=0.25",  "x.i32=-7",      "x.bool=false",    "general.architecture=a longer name than before",
        "new.s=text=1",     "new.u=u32:5", "new.f=f32:1.5", "new.b=bool:true", "new.q=str:u32:5"};
    assert_int_equal(ash_gguf_edit(path2, good, ASH_ARRAY_LEN(good), &e), ASH_OK);
    ash_gguf *g, *h;
    assert_int_equal(ash_gguf_open(&g, path, &e), ASH_OK);
    assert_int_equal(ash_gguf_open(&h, path2, &e), ASH_OK);
    uint64_t u;
    int64_t i;
    double f;
    bool b;
    ash_str str;
    assert_true(ash_gguf_get_u64(h, "x.u32", &u) && u == UINT32_MAX);
    assert_true(ash_gguf_get_i64(h, "x.i32", &i) && i == -7);
    assert_true(ash_gguf_get_f64(h, "x.f32", &f) && f == 0.25);
    assert_true(ash_gguf_get_bool(h, "x.bool", &b) && !b);
    assert_true(ash_gguf_get_u64(h, "new.u", &u) && u == 5);
    assert_true(ash_gguf_get_f64(h, "new.f", &f) && f == 1.5);
    assert_true(ash_gguf_get_bool(h, "new.b", &b) && b);
    assert_true(ash_gguf_get_str(h, "new.s", &str) && str.n == 6 && !memcmp(str.p, "text=1", 6));
    assert_true(ash_gguf_get_str(h, "new.q", &str) && str.n == 5 && !memcmp(str.p, "u32:5", 5));
    assert_int_equal(ash_gguf_n_kv(h), ash_gguf_n_kv(g) + 5);
    for (size_t k = 0; k < ash_gguf_n_tensors(g); k++) {
        const ash_gguf_tensor *a = ash_gguf_tensor_at(g, k), *c = ash_gguf_tensor_at(h, k);
        assert_true(a->n_bytes == c->n_bytes && a->offset == c->offset && !memcmp(a->data, c->data, a->n_bytes));
    }
    ash_gguf_close(g);
    ash_gguf_close(h);
    static const struct {
        const char *text;
        ash_status want;
    } bad[] = {{"x.u32=-1", ASH_E_RANGE},   {"x.u32=4294967296", ASH_E_RANGE},
               {"x.u32=", ASH_E_RANGE},     {"x.u32=1x", ASH_E_RANGE},
               {"x.bool=yes", ASH_E_RANGE}, {"x.f32=1e999", ASH_E_RANGE},
               {"x.i32= 5", ASH_E_RANGE},   {"x.ids=1", ASH_E_UNSUPPORTED},
               {"x.u32", ASH_E_USAGE},      {"=1", ASH_E_USAGE},
               {"n=u32:abc", ASH_E_RANGE},  {"x.f32=nope", ASH_E_RANGE},
               {"n\xff=1", ASH_E_FORMAT},   {"general.alignment=64", ASH_E_UNSUPPORTED}};
    char before[65], after[65];
    assert_int_equal(ash_sha256_file(path2, before, NULL), ASH_OK);
    for (size_t k = 0; k < ASH_ARRAY_LEN(bad); k++) {
        const char *a[] = {bad[k].text};
        e.msg[0] = 0;
        assert_int_equal(ash_gguf_edit(path2, a, 1, &e), bad[k].want);
        assert_true(e.msg[0] != 0);
    }
    assert_int_equal(ash_sha256_file(path2, after, NULL), ASH_OK);
    assert_string_equal(before, after);
}

static void test_alignment(void **s) {
    (void)s;
    ash_error e;
    ash_gguf_writer *w;
    uint64_t ne[1] = {3};
    float x[3] = {1, 2, 3};
    assert_int_equal(ash_gguf_writer_new(&w, &e), ASH_OK);
    assert_int_equal(ash_gguf_set_u32(w, "general.alignment", 24, &e), ASH_E_RANGE);
    assert_int_equal(ash_gguf_set_u32(w, "general.alignment", 4096, &e), ASH_OK);
    assert_int_equal(ash_gguf_add_tensor(w, "a", ASH_F32, 1, ne, &e), ASH_OK);
    assert_int_equal(ash_gguf_add_tensor(w, "a", ASH_F32, 1, ne, &e), ASH_E_USAGE);
    assert_int_equal(ash_gguf_add_tensor(w, "q", ASH_Q4_0, 1, ne, &e), ASH_E_RANGE);
    assert_int_equal(ash_gguf_add_tensor(w, "", ASH_F32, 1, ne, &e), ASH_E_RANGE);
    assert_int_equal(ash_gguf_add_tensor(w, "b", ASH_F32, 1, ne, &e), ASH_OK);
    assert_int_equal(ash_gguf_writer_bytes(w), 3 * 4096);
    assert_int_equal(ash_gguf_writer_data(w, x, 12, &e), ASH_E_STATE);
    assert_int_equal(ash_gguf_writer_begin(w, path, &e), ASH_OK);
    assert_int_equal(ash_gguf_set_u32(w, "late", 1, &e), ASH_E_STATE);
    assert_int_equal(ash_gguf_writer_data(w, x, 12, &e), ASH_OK);
    assert_int_equal(ash_gguf_writer_finish(w, &e), ASH_E_STATE); /* b is missing */
    assert_int_equal(ash_gguf_writer_data(w, x, 12, &e), ASH_OK);
    assert_int_equal(ash_gguf_writer_finish(w, &e), ASH_OK);
    ash_gguf_writer_free(w);
    ash_gguf *g;
    assert_int_equal(ash_gguf_open(&g, path, &e), ASH_OK);
    assert_int_equal(ash_gguf_alignment(g), 4096);
    assert_int_equal(ash_gguf_tensor_at(g, 1)->offset, 4096);
    ash_gguf_close(g);
}

/* An unfinished file leaves what was there before. */
static void test_unfinished(void **s) {
    (void)s;
    ash_error e;
    assert_int_equal(build(path, &e), ASH_OK);
    assert_int_equal(copy(path, path2, &e), ASH_OK);
    ash_gguf_writer *w;
    uint64_t ne[1] = {1000};
    assert_int_equal(ash_gguf_writer_new(&w, &e), ASH_OK);
    assert_int_equal(ash_gguf_add_tensor(w, "a", ASH_F32, 1, ne, &e), ASH_OK);
    assert_int_equal(ash_gguf_writer_begin(w, path2, &e), ASH_OK);
    ash_gguf_writer_free(w);
    assert_same(path, path2);
}

/* Let every allocation fail in turn: always E_NOMEM, never a crash or (under asan) a leak. */
static void test_oom(void **s) {
    (void)s;
    ash_error e;
    assert_int_equal(build(path, &e), ASH_OK);
    const char *set[] = {"x.u32=2", "new=str:abc"};
    for (int what = 0; what < 4; what++) {
        ash_status st = ASH_E_NOMEM;
        uint64_t n;
        for (n = 1; st != ASH_OK && n < 2000; n++) {
            ash_gguf *g = NULL;
            ash_alloc_fail_after(n);
            if (what == 0)
                st = ash_gguf_open(&g, path, &e);
            else if (what == 1)
                st = build(path2, &e);
            else if (what == 2)
                st = copy(path, path2, &e);
            else
                st = ash_gguf_edit(path2, set, 2, &e);
            ash_alloc_fail_after(0);
            ash_gguf_close(g);
            assert_true(st == ASH_OK || st == ASH_E_NOMEM);
        }
        assert_int_equal(st, ASH_OK);
        assert_true(n > 5);
    }
}

static int setup(void **s) {
    (void)s;
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/a.gguf", dir);
    snprintf(path2, sizeof path2, "%s/b.gguf", dir);
    return 0;
}
static int teardown(void **s) {
    (void)s;
    unlink(path);
    unlink(path2);
    return rmdir(dir); /* fails when a temporary was left behind */
}

int main(void) {
    const struct CMUnitTest t[] = {cmocka_unit_test(test_roundtrip), cmocka_unit_test(test_copy),       cmocka_unit_test(test_edit),
                                   cmocka_unit_test(test_alignment), cmocka_unit_test(test_unfinished), cmocka_unit_test(test_oom)};
    return cmocka_run_group_tests(t, setup, teardown);
}
