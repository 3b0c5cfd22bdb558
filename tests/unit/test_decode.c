/* test_decode.c - every block type decodes to the stored values bit for bit; float16 round trips. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "ashlar/tensor.h"
#include "base/base.h"
#include "tensor/codebooks.h"
#include "tensor/decode_int.h"
#include "tensor/f16.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 4, COLS = 512 };

static void read_file(const char *name, const char *ext, void *p, size_t n) {
    char path[512];
    snprintf(path, sizeof path, "%s/quant-blocks/%s%s", getenv("ASH_TEST_DATA"), name, ext);
    ash_map m;
    assert_int_equal(ash_map_open(&m, path, NULL), ASH_OK);
    assert_int_equal(m.n, n);
    memcpy(p, m.p, n);
    ash_map_close(&m);
}

static void check_type(ash_dtype t) {
    const char *name = ash_dtype_name(t);
    static float want[ROWS * COLS], got[ROWS * COLS];
    static uint8_t blocks[ROWS * COLS * 4 + 1];
    size_t row = ash_dtype_row_bytes(t, COLS);
    assert_true(row > 0);
    read_file(name, ".f32", want, sizeof want);
    for (int mis = 0; mis < 2; mis++) { /* aligned and not */
        read_file(name, ".bin", blocks + mis, ROWS * row);
        memset(got, 0x55, sizeof got);
        for (int r = 0; r < ROWS; r++) assert_true(ash_dtype_decode(t, blocks + mis + r * row, got + r * COLS, COLS));
        for (int i = 0; i < ROWS * COLS; i++)
            if (ash_f32_bits(got[i]) != ash_f32_bits(want[i]))
                fail_msg("%s: row %d column %d: %.9g, not %.9g", name, i / COLS, i % COLS, (double)got[i], (double)want[i]);
    }
}

static void test_golden(void **s) {
    (void)s;
    int n = 0;
#define X(T) if (ASH_##T != ASH_F32) check_type(ASH_##T), n++;
    ASH_DECODER_LIST(X)
#undef X
    assert_int_equal(n, 27);
}

static void test_reject(void **s) {
    (void)s;
    float y[256];
    uint8_t b[256] = {0};
    assert_false(ash_dtype_decode(ASH_Q4_K, b, y, 255));
    assert_false(ash_dtype_decode(ASH_I32, b, y, 1));
    assert_false(ash_dtype_decode((ash_dtype)4, b, y, 32));
    assert_false(ash_dtype_decode((ash_dtype)-1, b, y, 32));
    assert_true(ash_dtype_decode(ASH_Q4_K, b, y, 0));
}

static void test_f16(void **s) {
    (void)s;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = ash_f16_to_f32((uint16_t)h);
        bool nan = (h & 0x7c00) == 0x7c00 && (h & 0x3ff);
        assert_int_equal(nan, f != f);
        assert_int_equal(ash_f32_to_f16(f), nan ? (h | 0x200) : h);
        float b = ash_bf16_to_f32((uint16_t)h);
        assert_int_equal(ash_f32_to_bf16(b), b != b ? (h | 0x40) : h);
        /* midpoint to the next value goes to the even one, one bit to either side does not */
        uint32_t m = h & 0x7fff;
        if (m >= 0x7bff) continue;
        float next = ash_f16_to_f32((uint16_t)(h + 1)), mid = 0.5f * (f + next);
        assert_int_equal(ash_f32_to_f16(mid), h & 1 ? h + 1 : h);
        assert_int_equal(ash_f32_to_f16(nextafterf(mid, f)), h);
        assert_int_equal(ash_f32_to_f16(nextafterf(mid, next)), h + 1);
    }
    assert_int_equal(ash_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(ash_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(ash_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(ash_f32_to_f16(1e-30f), 0);
    assert_int_equal(ash_f32_to_bf16(ash_bits_f32(0x3f808000)), 0x3f80);
    assert_int_equal(ash_f32_to_bf16(ash_bits_f32(0x3f818000)), 0x3f82);
}

static void test_codebooks(void **s) {
    (void)s;
    for (uint32_t i = 0; i < 128; i++) assert_int_equal(__builtin_popcount(ash_ksigns(i)) & 1, 0);
    assert_true(ash_e8m0_half(0) == 0x1p-128f && ash_e8m0_half(1) == 0x1p-127f && ash_e8m0_half(128) == 1.0f && ash_e8m0_half(254) == 0x1p126f);
    assert_true(ash_ue4m3_half(0) == 0 && ash_ue4m3_half(1) == 0x1p-10f && ash_ue4m3_half(0x38) == 0.5f && ash_ue4m3_half(0x7e) == 224.0f);
    assert_int_equal(ash_iq1_grid[0], 0xffffffffffffffffu);
}

int main(void) {
    const struct CMUnitTest t[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_reject), cmocka_unit_test(test_f16),
                                   cmocka_unit_test(test_codebooks)};
    return cmocka_run_group_tests(t, NULL, NULL);
}
