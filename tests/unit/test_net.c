/* test_net.c - archives that lie, index pages, the catalogue; fetching itself is tested from outside (cli/test_pull.sh). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ashlar/cache.h"
#include "net/archive.h"
#include "net/index.h"

static ash_status count(void *ctx, const void *p, size_t n, ash_error *err) {
    (void)p;
    (void)err;
    *(uint64_t *)ctx += n;
    return ASH_OK;
}

static void corpus(const char *name, ash_buf *b) {
    char p[600];
    const char *d = getenv("ASH_TEST_DATA");
    snprintf(p, sizeof p, "%s/../fuzz/corpus/%s", d ? d : "tests/data", name);
    assert_int_equal(ash_file_read(p, 1 << 20, b, NULL), ASH_OK);
}

/* Every prefix and every flipped byte of sound archives: a status, and never more bytes than announced. */
static void test_archives(void **state) {
    (void)state;
    static const char *const names[] = {"archive/deflate", "archive/stored", "archive/targz"};
    static const uint64_t bytes[] = {160, 5, 700};
    for (size_t k = 0; k < ASH_ARRAY_LEN(names); k++) {
        ash_buf b = {0};
        ash_archive *a;
        uint64_t n = 0;
        corpus(names[k], &b);
        assert_int_equal(ash_archive_open_mem(&a, b.p, b.n, NULL), ASH_OK);
        assert_int_equal(ash_archive_count(a), 1);
        assert_int_equal(ash_archive_at(a, 0)->bytes, bytes[k]);
        assert_int_equal(ash_archive_read(a, 0, count, &n, NULL), ASH_OK);
        assert_int_equal(n, bytes[k]);
        ash_archive_close(a);
        for (size_t cut = 0; cut < b.n; cut++) {
            char *p = malloc(cut + 1); /* its own block, so that reading past the end is seen */
            memcpy(p, b.p, cut);
            if (ash_archive_open_mem(&a, p, cut, NULL) == ASH_OK) {
                for (size_t i = 0; i < ash_archive_count(a); i++) ash_archive_read(a, i, count, &n, NULL);
                ash_archive_close(a);
            }
            free(p);
        }
        for (size_t at = 0; at < b.n; at++) {
            b.p[at] ^= 0x55;
            if (ash_archive_open_mem(&a, b.p, b.n, NULL) == ASH_OK) {
                for (size_t i = 0; i < ash_archive_count(a); i++) {
                    n = 0;
                    ash_status st = ash_archive_read(a, i, count, &n, NULL);
                    assert_true(n <= ash_archive_at(a, i)->bytes);
                    if (st == ASH_OK) assert_int_equal(n, ash_archive_at(a, i)->bytes);
                }
                ash_archive_close(a);
            }
            b.p[at] ^= 0x55;
        }
        ash_buf_free(&b);
    }
}

static void test_index(void **state) {
    (void)state;
    ash_index_file f;
    ash_error err;
    static const char page[] =
        "{\"files\":[{\"filename\":\"a_b-1.9.0-py3-none-any.whl\",\"url\":\"https://x/1.9\",\"hashes\":{},\"size\":7},"
        "{\"filename\":\"a_b-1.10.0-cp311-cp311-linux.whl\",\"url\":\"https://x/1.10c\",\"hashes\":{}},"
        "{\"filename\":\"a_b-1.10.0-py3-none-any.whl\",\"url\":\"../../p/1.10\",\"hashes\":{\"sha256\":\"zz\"}},"
        "{\"filename\":\"a-b-1.10.0.tar.gz\",\"url\":\"https://x/s\",\"hashes\":{}},"
        "{\"filename\":\"a_b-2.0b1-py3-none-any.whl\",\"url\":\"https://x/pre\",\"hashes\":{}},"
        "{\"filename\":\"a_b-3.0-py3-none-any.whl\",\"url\":\"https://x/yank\",\"hashes\":{},\"yanked\":true},"
        "{\"filename\":\"a_b_c-9.0-py3-none-any.whl\",\"url\":\"https://x/other\",\"hashes\":{}}]}";
    assert_int_equal(ash_index_parse(&f, "https://i/simple/a-b/", page, strlen(page), true, "A.b", &err), ASH_OK);
    assert_string_equal(f.url, "https://i/p/1.10");
    assert_string_equal(f.sha256, "");
    assert_int_equal(ash_index_parse(&f, "https://i/simple/a-b/", page, strlen(page), true, "a-b==1.9.0", &err), ASH_OK);
    assert_int_equal(f.bytes, 7);
    assert_int_equal(ash_index_parse(&f, "https://i/simple/a-b/", page, strlen(page), true, "a-b==3.0", &err),
                     ASH_OK); /* asked for by number */
    assert_int_equal(ash_index_parse(&f, "https://i/simple/a-b/", page, strlen(page), true, "a-b==4", &err), ASH_E_IO);
    assert_int_equal(ash_index_parse(&f, "https://i/", "[]", 2, true, "a-b", &err), ASH_E_FORMAT);
    assert_int_equal(ash_index_parse(&f, "https://i/", "", 0, false, "a b", &err), ASH_E_USAGE);
    ash_buf b = {0};
    corpus("index/html", &b);
    assert_int_equal(ash_index_parse(&f, "https://i/simple/tiny-model/", b.p + 1, b.n - 1, false, "tiny-model", &err), ASH_OK);
    assert_string_equal(f.url, "https://i/f/tiny_model-1.0.0-py3-none-any.whl");
    assert_int_equal(strlen(f.sha256), 64);
    ash_buf_free(&b);
}

/* The catalogue that ships is sound. */
static void test_catalogue(void **state) {
    (void)state;
    char p[600];
    ash_error err = {0};
    ash_catalogue *c;
    const char *d = getenv("ASH_TEST_DATA");
    snprintf(p, sizeof p, "%s/../../data/catalogue.json", d ? d : "tests/data");
    if (ash_catalogue_load(&c, p, &err) != ASH_OK) fail_msg("%s", err.msg);
    assert_true(ash_catalogue_count(c) >= 3);
    assert_int_equal(ash_catalogue_find(c, "gemma3-270m")->n_parts, 4);
    assert_null(ash_catalogue_find(c, "nothing"));
    ash_catalogue_free(c);
}

static void test_names(void **state) {
    (void)state;
    static const char *const good[] = {"a", "SmolLM2-135M.Q4_0", "x--y"}, *const wrong[] = {"", ".hidden", "..", "a/b", "a b", "\xc3\xa4"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(good); i++) assert_true(ash_cache_name_ok(good[i]));
    for (size_t i = 0; i < ASH_ARRAY_LEN(wrong); i++) assert_false(ash_cache_name_ok(wrong[i]));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_archives), cmocka_unit_test(test_index), cmocka_unit_test(test_catalogue),
                                       cmocka_unit_test(test_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
