/* test_base.c - foundation: buffers, arenas, reader, files, pool, hashes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void test_errors(void **s) {
    (void)s;
    ash_error e;
    assert_int_equal(ash_fail(&e, ASH_E_RANGE, "id %d\n", 7), ASH_E_RANGE);
    assert_string_equal(e.msg, "id 7?");
    assert_int_equal(ash_error_prefix(&e, "tensor %s", "x"), ASH_E_RANGE);
    assert_string_equal(e.msg, "tensor x: id 7?");
    assert_int_equal(ash_status_exit(ASH_E_LIMIT), 4);
    assert_string_equal(ash_status_name(ASH_E_NOMEM), "E_NOMEM");
}

static void test_reader(void **s) {
    (void)s;
    const uint8_t b[] = {1, 2, 3, 4, 5};
    ash_rd r = ash_rd_init(b, sizeof b);
    assert_int_equal(ash_rd_u32(&r), 0x04030201);
    assert_int_equal(ash_rd_u16(&r), 0);
    assert_true(r.bad);
    assert_int_equal(r.pos, 4);
    assert_int_equal(ash_rd_u8(&r), 0); /* sticky */
}

static void test_oom(void **s) {
    (void)s;
    ash_buf b = {0};
    ash_buf_adds(&b, "abc");
    ash_alloc_fail_after(1);
    for (int i = 0; i < 100; i++) ash_buf_adds(&b, "0123456789");
    ash_alloc_fail_after(0);
    assert_false(ash_buf_ok(&b));
    assert_memory_equal(b.p, "abc", 3);
    ash_buf_free(&b);
}

static void test_outfile(void **s) {
    (void)s;
    char dir[] = "/tmp/ash-test-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/f", dir);
    ash_error e;
    assert_int_equal(ash_file_write_atomic(path, "old", 3, &e), ASH_OK);
    ash_outfile *f;
    assert_int_equal(ash_outfile_open(&f, path, &e), ASH_OK);
    assert_int_equal(ash_outfile_write(f, "new content", 11, &e), ASH_OK);
    ash_outfile_abort(f);
    ash_map m;
    assert_int_equal(ash_map_open(&m, path, &e), ASH_OK);
    assert_int_equal(m.n, 3);
    ash_map_close(&m);
    assert_int_equal(ash_outfile_open(&f, "/no/such/dir/f", &e), ASH_E_IO);
    unlink(path);
    assert_int_equal(rmdir(dir), 0); /* no temporary left behind */
}

static void count(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    atomic_fetch_add((_Atomic int64_t *)ctx, e - b);
}

static void test_pool(void **s) {
    (void)s;
    for (int n = 1; n <= 4; n++) {
        ash_pool *p;
        assert_int_equal(ash_pool_new(&p, n, NULL), ASH_OK);
        _Atomic int64_t sum = 0;
        for (int i = 0; i < 2000; i++) ash_pool_run(p, 37, 3, count, &sum);
        assert_int_equal(sum, 2000 * 37);
        if (n == 2) usleep(20000); /* let the worker park */
        ash_pool_run(p, 1000, 1, count, &sum);
        assert_int_equal(sum, 2000 * 37 + 1000);
        ash_pool_free(p);
    }
}

static void test_sha(void **s) {
    (void)s;
    ash_sha256 h;
    char hex[65];
    ash_sha256_init(&h);
    ash_sha256_add(&h, "abc", 3);
    ash_sha256_hex(&h, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    ash_sha256_init(&h);
    for (int i = 0; i < 1000; i++) ash_sha256_add(&h, "0123456789abcdefg", 17);
    ash_sha256_hex(&h, hex);
    assert_int_equal(h.n % 64, 0);
}

int main(void) {
    const struct CMUnitTest t[] = {cmocka_unit_test(test_errors), cmocka_unit_test(test_reader), cmocka_unit_test(test_oom),
                                   cmocka_unit_test(test_outfile), cmocka_unit_test(test_pool), cmocka_unit_test(test_sha)};
    return cmocka_run_group_tests(t, NULL, NULL);
}
