/* test_gguf_hostile.c - some hundreds of broken GGUF files, made here. Each must be refused with a status
 * of bad input and one clear sentence, and must not make the reader ask for more than 4 times the file
 * plus 64 KiB of memory. `test_gguf_hostile DIR` also writes the files to DIR (for fuzzing and for looking). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "ashlar/gguf.h"
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- a file under construction, with the places worth breaking ---- */
typedef enum { F_COUNT, F_LENGTH, F_TYPE, F_BOOL, F_NDIMS, F_DIM, F_DTYPE, F_OFFSET } field_kind;
typedef struct {
    size_t pos;
    field_kind kind;
} field;
typedef struct {
    ash_buf b;
    field f[256];
    size_t n_f;
    size_t border[512];
    size_t n_border;
    size_t n_tensors_pos, data;
} file;

static void mark(file *x, field_kind k) {
    assert_true(x->n_f < ASH_ARRAY_LEN(x->f));
    x->f[x->n_f++] = (field){x->b.n, k};
}
static void border(file *x) {
    assert_true(x->n_border < ASH_ARRAY_LEN(x->border));
    x->border[x->n_border++] = x->b.n;
}
static void u8(file *x, uint8_t v) { ash_buf_add(&x->b, &v, 1), border(x); }
static void u32(file *x, uint32_t v) { ash_buf_add(&x->b, &v, 4), border(x); }
static void u64(file *x, uint64_t v) { ash_buf_add(&x->b, &v, 8), border(x); }
static void bytes(file *x, const void *p, size_t n) { ash_buf_add(&x->b, p, n), border(x); }
static void str_n(file *x, const char *s, size_t n) {
    mark(x, F_LENGTH);
    u64(x, n);
    bytes(x, s, n);
}
static void str(file *x, const char *s) { str_n(x, s, strlen(s)); }
static void key(file *x, const char *s, uint32_t type) {
    str(x, s);
    mark(x, F_TYPE);
    u32(x, type);
}
static void header(file *x, uint64_t n_tensors, uint64_t n_kv) {
    *x = (file){0};
    bytes(x, "GGUF", 4);
    u32(x, 3);
    mark(x, F_COUNT);
    u64(x, n_tensors);
    mark(x, F_COUNT);
    u64(x, n_kv);
}
static void array(file *x, uint32_t type, uint64_t n) {
    mark(x, F_TYPE);
    u32(x, type);
    mark(x, F_COUNT);
    u64(x, n);
}
static void tensor(file *x, const char *name, uint32_t dtype, int n_dims, uint64_t a, uint64_t b, uint64_t offset) {
    str(x, name);
    mark(x, F_NDIMS);
    u32(x, (uint32_t)n_dims);
    mark(x, F_DIM);
    u64(x, a);
    if (n_dims > 1) {
        mark(x, F_DIM);
        u64(x, b);
    }
    mark(x, F_DTYPE);
    u32(x, dtype);
    mark(x, F_OFFSET);
    u64(x, offset);
}
static void data(file *x, size_t n) {
    while (x->b.n % 32) ash_buf_addc(&x->b, 0);
    x->data = x->b.n;
    for (size_t i = 0; i < n; i++) ash_buf_addc(&x->b, (char)i);
}

/* A small valid file with one of everything. */
static void good(file *x) {
    header(x, 4, 16);
    key(x, "general.architecture", 8), str(x, "llama");
    key(x, "general.alignment", 4), u32(x, 32);
    key(x, "k.u8", 0), u8(x, 1);
    key(x, "k.i8", 1), u8(x, 255);
    key(x, "k.u16", 2), bytes(x, "\1\0", 2);
    key(x, "k.i16", 3), bytes(x, "\1\0", 2);
    key(x, "k.i32", 5), u32(x, 7);
    key(x, "k.f32", 6), u32(x, 0x3f800000);
    key(x, "k.bool", 7);
    mark(x, F_BOOL), u8(x, 1);
    key(x, "k.u64", 10), u64(x, 7);
    key(x, "k.i64", 11), u64(x, 7);
    key(x, "k.f64", 12), u64(x, 0);
    key(x, "k.ints", 9), array(x, 5, 3), u32(x, 1), u32(x, 2), u32(x, 3);
    key(x, "k.strs", 9), array(x, 8, 3), str(x, "a"), str(x, ""), str(x, "\xe2\x96\x81");
    key(x, "k.bools", 9), array(x, 7, 2);
    mark(x, F_BOOL), u8(x, 0), u8(x, 1);
    key(x, "k.nested", 9), array(x, 9, 2), array(x, 0, 1), u8(x, 9), array(x, 8, 1), str(x, "deep");
    tensor(x, "token_embd.weight", 0, 2, 8, 4, 0);        /* 128 bytes */
    tensor(x, "blk.0.attn_q.weight", 2, 2, 32, 2, 128);   /* 36 */
    tensor(x, "blk.0.attn_norm.weight", 0, 1, 8, 0, 192); /* 32 */
    tensor(x, "output.weight", 1, 2, 8, 2, 224);          /* 32 */
    data(x, 256);
}

/* ---- the checks ---- */
static size_t n_broken;
static const char *dump_dir;

static void broken_bytes(const void *p, size_t n, const char *what, unsigned long long detail) {
    /* An exact-size heap copy: with the address sanitizer one byte too far is an error. */
    uint8_t *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    if (n) memcpy(copy, p, n);
    ash_error e = {0};
    ash_gguf *g = NULL;
    uint64_t before = ash_alloc_bytes();
    ash_status st = ash_gguf_open_mem(&g, copy, n, &e);
    uint64_t took = ash_alloc_bytes() - before;
    bool bad =
        (st != ASH_E_FORMAT && st != ASH_E_UNSUPPORTED) || e.code != st || !e.msg[0] || strchr(e.msg, '\n') || took > 4 * n + 65536 || g;
    if (bad)
        print_error("%s (%llu), %zu bytes: status %d, \"%s\", %llu bytes asked for\n", what, detail, n, st, e.msg,
                    (unsigned long long)took);
    assert_false(bad);
    assert_int_equal(ash_gguf_open_mem(&g, copy, n, NULL), st); /* no error record: the same verdict */
    free(copy);
    if (dump_dir) {
        char path[512];
        snprintf(path, sizeof path, "%s/%03zu-%s.gguf", dump_dir, n_broken, what);
        for (char *c = path + strlen(dump_dir) + 1; *c; c++)
            if (*c == ' ' || *c == '/') *c = '-';
        assert_int_equal(ash_file_write_atomic(path, p, n, NULL), ASH_OK);
    }
    n_broken++;
}
static void broken(file *x, const char *what, unsigned long long detail) {
    assert_true(ash_buf_ok(&x->b));
    broken_bytes(x->b.p, x->b.n, what, detail);
}
static void done(file *x, const char *what) {
    broken(x, what, 0);
    ash_buf_free(&x->b);
}
static void put(file *x, size_t pos, const void *v, size_t n) { memcpy(x->b.p + pos, v, n); }

static void test_good(void **s) {
    (void)s;
    file x;
    ash_gguf *g;
    ash_error e;
    good(&x);
    assert_int_equal(ash_gguf_open_mem(&g, x.b.p, x.b.n, &e), ASH_OK);
    const ash_gguf_kv *kv = ash_gguf_find(g, "k.nested");
    assert_true(kv && kv->elem_type == ASH_GV_ARRAY && kv->n == 2 && kv->data_bytes == 12 + 1 + 12 + 8 + 4);
    ash_gguf_close(g);
    if (dump_dir) {
        char path[512];
        snprintf(path, sizeof path, "%s/good.gguf", dump_dir);
        assert_int_equal(ash_file_write_atomic(path, x.b.p, x.b.n, NULL), ASH_OK);
    }
    uint32_t two = 2;
    put(&x, 4, &two, 4); /* version 2 has the same layout */
    assert_int_equal(ash_gguf_open_mem(&g, x.b.p, x.b.n, &e), ASH_OK);
    ash_gguf_close(g);
    ash_buf_free(&x.b);
    header(&x, 0, 0); /* nothing in it, but a GGUF */
    assert_int_equal(ash_gguf_open_mem(&g, x.b.p, x.b.n, &e), ASH_OK);
    ash_gguf_close(g);
    ash_buf_free(&x.b);
}

static void test_truncated(void **s) {
    (void)s;
    file x;
    good(&x);
    size_t header_end = x.border[x.n_border - 1];
    for (size_t i = 0; i < x.n_border; i++) {
        broken_bytes(x.b.p, x.border[i], "truncated at border", x.border[i]);
        if (x.border[i] > 1) broken_bytes(x.b.p, x.border[i] - 1, "truncated before border", x.border[i] - 1);
    }
    for (size_t n = 0; n < 24; n++) broken_bytes(x.b.p, n, "truncated in header", n);
    for (size_t n = header_end; n < x.data; n += 5) broken_bytes(x.b.p, n, "truncated in padding", n);
    for (size_t n = x.data; n < x.data + 256; n += 17) broken_bytes(x.b.p, n, "truncated in data", n);
    broken_bytes(x.b.p, x.b.n - 1, "one byte short", 0);
    ash_buf_free(&x.b);
}

static void test_fields(void **s) {
    (void)s;
    static const uint64_t huge[] = {1ull << 20, 1ull << 31, 1ull << 32,     1ull << 60,     1ull << 61,
                                    1ull << 63, UINT64_MAX, UINT64_MAX - 7, UINT64_MAX - 31};
    static const uint32_t types[] = {13, 14, 99, 0x7fffffff, 0x80000000, 0xffffffff};
    static const uint32_t dtypes[] = {4, 5, 9, 15, 31, 36, 43, 1000, 0x7fffffff, 0xffffffff};
    static const uint64_t offsets[] = {1, 31, 33, 100, 256, 1ull << 40, 1ull << 63, UINT64_MAX - 31, UINT64_MAX};
    file x;
    good(&x);
    char *keep = malloc(x.b.n);
    assert_non_null(keep);
    memcpy(keep, x.b.p, x.b.n);
    for (size_t i = 0; i < x.n_f; i++) {
        size_t at = x.f[i].pos;
        switch (x.f[i].kind) {
        case F_COUNT:
        case F_LENGTH:
            for (size_t j = 0; j < ASH_ARRAY_LEN(huge); j++)
                put(&x, at, &huge[j], 8), broken(&x, x.f[i].kind == F_COUNT ? "huge count" : "huge length", at);
            for (uint64_t over = 0; over < 2; over++) { /* just past the end */
                uint64_t v = x.b.n - at - 8 + 1 + over;
                put(&x, at, &v, 8), broken(&x, "length just past the end", at);
            }
            break;
        case F_TYPE:
            for (size_t j = 0; j < ASH_ARRAY_LEN(types); j++) put(&x, at, &types[j], 4), broken(&x, "unknown value type", at);
            break;
        case F_BOOL:
            for (int v = 2; v < 256; v += 84) put(&x, at, &(uint8_t){(uint8_t)v}, 1), broken(&x, "bool neither 0 nor 1", at);
            break;
        case F_NDIMS:
            for (uint32_t v = 5; v; v = v < 100 ? v * 11 : v < 0xffff ? 0xffffffff : 0)
                put(&x, at, &v, 4), broken(&x, "too many dimensions", at);
            break;
        case F_DIM: {
            uint64_t zero = 0;
            put(&x, at, &zero, 8), broken(&x, "zero dimension", at);
            for (size_t j = 0; j < ASH_ARRAY_LEN(huge); j++) put(&x, at, &huge[j], 8), broken(&x, "huge dimension", at);
            break;
        }
        case F_DTYPE:
            for (size_t j = 0; j < ASH_ARRAY_LEN(dtypes); j++) put(&x, at, &dtypes[j], 4), broken(&x, "unknown tensor type", at);
            put(&x, at, &(uint32_t){12}, 4), broken(&x, "row no multiple of 256", at);
            break;
        case F_OFFSET:
            for (size_t j = 0; j < ASH_ARRAY_LEN(offsets); j++) put(&x, at, &offsets[j], 8), broken(&x, "impossible offset", at);
            break;
        }
        memcpy(x.b.p, keep, x.b.n);
    }
    free(keep);
    ash_buf_free(&x.b);
}

static void test_header(void **s) {
    (void)s;
    static const char *const other[] = {"",
                                        "G",
                                        "GGU",
                                        "GGUG",
                                        "\n",
                                        "hello, world\n",
                                        "ggmlxxxxxxxx",
                                        "lmggxxxx",
                                        "tjggxxxxxxxx",
                                        "PK\3\4",
                                        "FUGG\3",
                                        "<!DOCTYPE html><html>",
                                        "version https://git-lfs.github.com/spec/v1\n",
                                        "{\"a\":1}",
                                        "\177ELF",
                                        "gguf\3"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(other); i++) broken_bytes(other[i], strlen(other[i]), "not a GGUF", i);
    broken_bytes("\x40\0\0\0\0\0\0\0{\"__metadata__\":{}}", 26, "safetensors", 0);
    static const uint32_t versions[] = {0, 1, 4, 5, 100, 0xffff, 0x03000000, 0x02000000, 0x00030000, 0xffffffff};
    file x;
    good(&x);
    for (size_t i = 0; i < ASH_ARRAY_LEN(versions); i++) put(&x, 4, &versions[i], 4), broken(&x, "version", versions[i]);
    ash_buf_free(&x.b);
    uint8_t noise[512];
    ash_rng r;
    ash_rng_seed(&r, 1);
    for (int i = 0; i < 20; i++) { /* noise behind a good header start */
        for (size_t j = 0; j < sizeof noise; j++) noise[j] = (uint8_t)ash_rng_u64(&r);
        memcpy(noise, "GGUF\3\0\0\0", 8);
        broken_bytes(noise, sizeof noise, "noise", (unsigned)i);
        memset(noise + 8, 0, 16);
        noise[16] = 3; /* three keys of noise */
        broken_bytes(noise, sizeof noise, "noise with counts", (unsigned)i);
    }
}

static void test_strings(void **s) {
    (void)s;
    static const struct {
        const char *p;
        size_t n;
    } bad[] = {{"", 0},
               {"a\0b", 3},
               {"\0", 1},
               {"\xff", 1},
               {"a\x80", 2},
               {"\xc3", 1},
               {"\xc0\xaf", 2},
               {"\xed\xa0\x80", 3},
               {"\xf4\x90\x80\x80", 4},
               {"\xe2\x96", 2},
               {"\xf8\x88\x80\x80\x80", 5}};
    file x;
    for (size_t i = 0; i < ASH_ARRAY_LEN(bad); i++) {
        header(&x, 0, 1);
        str_n(&x, bad[i].p, bad[i].n), u32(&x, 4), u32(&x, 1);
        done(&x, "bad key");
        header(&x, 1, 0);
        str_n(&x, bad[i].p, bad[i].n), u32(&x, 1), u64(&x, 8), u32(&x, 0), u64(&x, 0);
        data(&x, 32);
        done(&x, "bad tensor name");
    }
    char *big = malloc(70000);
    assert_non_null(big);
    memset(big, 'k', 70000);
    header(&x, 0, 1);
    str_n(&x, big, 65536), u32(&x, 4), u32(&x, 1);
    done(&x, "overlong key");
    for (size_t n = 65; n < 70000; n *= 9) {
        header(&x, 1, 0);
        str_n(&x, big, n), u32(&x, 1), u64(&x, 8), u32(&x, 0), u64(&x, 0);
        data(&x, 32);
        done(&x, "overlong tensor name");
    }
    free(big);
    for (int apart = 0; apart < 2; apart++) {
        header(&x, 0, apart ? 3 : 2);
        key(&x, "same", 4), u32(&x, 1);
        if (apart) key(&x, "other", 4), u32(&x, 1);
        key(&x, "same", 8), str(&x, "text");
        done(&x, "duplicate key");
    }
    header(&x, 3, 0);
    tensor(&x, "b", 0, 1, 8, 0, 0), tensor(&x, "a", 0, 1, 8, 0, 32), tensor(&x, "b", 0, 1, 8, 0, 64);
    data(&x, 96);
    done(&x, "duplicate tensor");
}

static void test_alignment(void **s) {
    (void)s;
    static const uint32_t values[] = {0, 1, 2, 3, 4, 7, 24, 31, 33, 48, 1u << 21, 1u << 31, 0xffffffff};
    file x;
    for (size_t i = 0; i < ASH_ARRAY_LEN(values); i++) {
        header(&x, 0, 1);
        key(&x, "general.alignment", 4), u32(&x, values[i]);
        done(&x, "alignment");
    }
    header(&x, 0, 1);
    key(&x, "general.alignment", 10), u64(&x, 1ull << 40);
    done(&x, "alignment u64");
    header(&x, 0, 1);
    key(&x, "general.alignment", 8), str(&x, "32");
    done(&x, "alignment text");
    header(&x, 0, 1);
    key(&x, "general.alignment", 6), u32(&x, 0x42000000);
    done(&x, "alignment float");
}

static void test_ranges(void **s) {
    (void)s;
    static const uint64_t where[][2] = {{0, 0}, {32, 32}, {0, 32}, {64, 32}, {96, 64}, {32, 0}}; /* of two 64-byte tensors */
    file x;
    for (size_t i = 0; i < ASH_ARRAY_LEN(where); i++) {
        header(&x, 2, 0);
        tensor(&x, "a", 0, 1, 16, 0, where[i][0]), tensor(&x, "b", 0, 1, 16, 0, where[i][1]);
        data(&x, 256);
        done(&x, "overlap");
    }
    header(&x, 5, 0); /* out of order, one pair overlaps */
    tensor(&x, "a", 0, 1, 16, 0, 256), tensor(&x, "b", 0, 1, 16, 0, 0), tensor(&x, "c", 0, 1, 24, 0, 128), tensor(&x, "d", 0, 1, 16, 0, 64),
        tensor(&x, "e", 0, 1, 16, 0, 192);
    data(&x, 512);
    done(&x, "overlap out of order");
    static const uint64_t dims[][2] = {
        {1ull << 32, 1ull << 32}, {1ull << 62, 4}, {1ull << 61, 2}, {3, UINT64_MAX / 3 + 1}, {1ull << 40, 1ull << 20}};
    for (size_t i = 0; i < ASH_ARRAY_LEN(dims); i++)
        for (uint32_t type = 0; type < 3; type++) {
            header(&x, 1, 0);
            tensor(&x, "a", type, 2, dims[i][0], dims[i][1], 0);
            data(&x, 64);
            done(&x, "dimensions overflow");
        }
}

static void test_nesting(void **s) {
    (void)s;
    static const int depths[] = {5, 6, 50, 5000};
    file x;
    for (size_t i = 0; i < ASH_ARRAY_LEN(depths); i++) {
        header(&x, 0, 1);
        str(&x, "deep"), u32(&x, 9);
        for (int d = 0; d < depths[i]; d++) {
            uint32_t t = 9;
            uint64_t n = 1;
            ash_buf_add(&x.b, &t, 4);
            ash_buf_add(&x.b, &n, 8);
        }
        u32(&x, 4), u64(&x, 0);
        done(&x, "nested too deep");
    }
    static const uint64_t counts[] = {1ull << 20, 1ull << 40, UINT64_MAX / 12, UINT64_MAX};
    for (size_t i = 0; i < ASH_ARRAY_LEN(counts); i++)
        for (uint32_t elem = 0; elem < 13; elem++) {
            header(&x, 0, 1);
            str(&x, "wide"), u32(&x, 9), u32(&x, elem), u64(&x, counts[i]);
            data(&x, 100);
            done(&x, "array count");
        }
    header(&x, 0, 1); /* a wide array of nested arrays, the last one cut */
    str(&x, "wide"), u32(&x, 9), u32(&x, 9), u64(&x, 1000);
    for (int j = 0; j < 999; j++) ash_buf_add(&x.b, "\0\0\0\0\0\0\0\0\0\0\0\0", 12);
    ash_buf_add(&x.b, "\4\0\0\0\1\0\0\0\0\0\0\0", 12);
    done(&x, "nested array cut");
}

/* The most entries a file can hold per byte: memory stays in proportion, time too. */
static void test_crowded(void **s) {
    (void)s;
    file x;
    for (int round = 0; round < 3; round++) {
        uint64_t n = 60000;
        header(&x, 0, n);
        for (uint64_t i = 0; i < n; i++) { /* bool keys of 3 bytes, the last one twice or cut */
            char k[3] = {(char)('a' + i % 50), (char)('a' - 60 + i / 50 % 80), (char)('!' + i / 4000)};
            uint64_t len = 3;
            uint32_t t = 7;
            if (round == 0 && i == n - 1) memcpy(k, x.b.p + 24 + 8, 3);
            ash_buf_add(&x.b, &len, 8), ash_buf_add(&x.b, k, 3), ash_buf_add(&x.b, &t, 4), ash_buf_addc(&x.b, 1);
        }
        if (round == 1) x.b.n--;
        if (round == 2) { /* more keys than the limit */
            uint64_t many = 70000;
            put(&x, 16, &many, 8);
        }
        done(&x, "crowded keys");
    }
    for (int round = 0; round < 2; round++) {
        uint64_t n = 100000;
        header(&x, n, 0);
        for (uint64_t i = 0; i < n; i++) { /* scalars with 4-byte names */
            char k[4] = {(char)('!' + i % 90), (char)('!' + i / 90 % 90), (char)('!' + i / 8100), 'x'};
            uint64_t len = 4, offset = i * 32;
            uint32_t head[2] = {0, 0}; /* no dimensions, F32 */
            ash_buf_add(&x.b, &len, 8), ash_buf_add(&x.b, k, 4), ash_buf_add(&x.b, head, 8), ash_buf_add(&x.b, &offset, 8);
        }
        if (round) x.b.n--;
        done(&x, "crowded tensors"); /* round 0: no data behind them */
    }
}

static void test_count(void **s) {
    (void)s;
    print_message("%zu broken files refused\n", n_broken);
    assert_true(n_broken >= 200);
}

int main(int argc, char **argv) {
    if (argc > 1) dump_dir = argv[1];
    const struct CMUnitTest t[] = {cmocka_unit_test(test_good),   cmocka_unit_test(test_truncated), cmocka_unit_test(test_fields),
                                   cmocka_unit_test(test_header), cmocka_unit_test(test_strings),   cmocka_unit_test(test_alignment),
                                   cmocka_unit_test(test_ranges), cmocka_unit_test(test_nesting),   cmocka_unit_test(test_crowded),
                                   cmocka_unit_test(test_count)};
    return cmocka_run_group_tests(t, NULL, NULL);
}
