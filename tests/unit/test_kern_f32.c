/* test_kern_f32.c - float kernels: scalar reference against double arithmetic, and every CPU level
 * against the scalar reference, bit for bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "kern/kern_decl.h"
#include "kern/mathf.h"

#include <stdio.h>
#include <stdlib.h>

static double ulp(float got, double want) {
    int e;
    frexp(want, &e);
    return fabs((double)got - want) / ldexp(1.0, e - 24);
}

static void test_exp(void **s) {
    (void)s;
    double worst = 0;
    for (uint32_t u = 0; u < 0x42b17218; u += 977)
        for (int sg = 0; sg < 2; sg++) {
            float x = ash_bits_f32(u | (uint32_t)sg << 31);
            if (x < ASH_EXP_LO || x > ASH_EXP_HI) continue;
            double e = ulp(ash_expf(x), exp((double)x));
            worst = e > worst ? e : worst;
        }
    if (worst > 1.1) fail_msg("exp: %.3f ulp", worst);
    assert_true(ash_expf(-INFINITY) == 0 && ash_expf(-1000.0f) == 0 && isinf(ash_expf(1000.0f)) && isinf(ash_expf(INFINITY)));
    assert_true(isnan(ash_expf(NAN)) && ash_expf(0.0f) == 1 && ash_expf(ASH_EXP_LO) >= 0x1p-126f && isfinite(ash_expf(ASH_EXP_HI)));
}

static void test_activations(void **s) {
    (void)s;
    for (float x = -60; x < 60; x += 0.0137f) {
        double t = tanh((double)x), sl = (double)x / (1 + exp(-(double)x));
        double u = sqrt(2 / M_PI) * ((double)x + 0.044715 * (double)x * (double)x * (double)x), g = 0.5 * (double)x * (1 + tanh(u));
        assert_true(fabs((double)ash_tanhf(x) - t) <= 3e-7 * fabs(t));
        assert_true(fabs((double)ash_siluf(x) - sl) <= 3e-7 * fabs(sl) + 1e-37);
        assert_true(fabs((double)ash_geluf(x) - g) <= 2e-7 * fabs(g) + 1e-6 * fabs((double)x) * (fabs((double)x) < 6 ? 1 : 0) + 1e-15);
    }
    assert_true(ash_tanhf(1e30f) == 1 && ash_tanhf(-1e30f) == -1 && ash_geluf(1e30f) == 1e30f && ash_geluf(-1e30f) == 0);
    assert_true(ash_siluf(1e30f) == 1e30f && ash_siluf(-1e30f) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exp), cmocka_unit_test(test_activations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
