/* test_solve.c - the budget solver against brute force on small instances, and its promises on large ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#include "ashlar/plan.h"
#include "base/base.h"

/* Least damage by trying everything. */
static double brute(const ash_unit *u, size_t n, uint64_t budget) {
    int c[8] = {0};
    double best = INFINITY;
    for (;;) {
        uint64_t b = 0;
        double d = 0;
        for (size_t i = 0; i < n; i++) b += u[i].opts[c[i]].bytes, d += u[i].opts[c[i]].damage;
        if (b <= budget && d < best) best = d;
        size_t i = 0;
        while (i < n && ++c[i] == u[i].n) c[i++] = 0;
        if (i == n) return best;
    }
}

static void check(const ash_unit *u, size_t n, uint64_t budget, const int *choice, const ash_solution *s) {
    uint64_t b = 0;
    double d = 0;
    for (size_t i = 0; i < n; i++) {
        assert_in_range(choice[i], 0, u[i].n - 1);
        b += u[i].opts[choice[i]].bytes, d += u[i].opts[choice[i]].damage;
    }
    assert_true(b == s->bytes && b <= budget);
    assert_true(fabs(d - s->damage) <= 1e-12 * (1 + d));
    assert_true(s->bound <= s->damage);
}

static void small_instances_are_optimal(void **state) {
    (void)state;
    ash_rng r;
    ash_rng_seed(&r, 7);
    for (int round = 0; round < 400; round++) {
        ash_option o[6][5];
        ash_unit u[6];
        size_t n = 1 + ash_rng_below(&r, 6);
        uint64_t lo = 0, hi = 0;
        for (size_t i = 0; i < n; i++) {
            uint64_t mn = UINT64_MAX, mx = 0;
            u[i] = (ash_unit){o[i], 1 + (int)ash_rng_below(&r, 5)};
            for (int k = 0; k < u[i].n; k++) {
                o[i][k] = (ash_option){32 * (1 + ash_rng_below(&r, 40)), ash_rng_below(&r, 4) ? ash_rng_f64(&r) : 0};
                mn = ASH_MIN(mn, o[i][k].bytes), mx = ASH_MAX(mx, o[i][k].bytes);
            }
            lo += mn, hi += mx;
        }
        uint64_t budget = lo + ash_rng_below(&r, hi - lo + 64);
        int choice[6];
        ash_solution s;
        assert_int_equal(ash_solve(u, n, budget, choice, &s, NULL), ASH_OK);
        check(u, n, budget, choice, &s);
        assert_true(s.exact);
        assert_true(fabs(s.damage - brute(u, n, budget)) < 1e-12);
    }
}

static void impossible_budget_names_the_least(void **state) {
    (void)state;
    ash_option a[] = {{100, 1}, {64, 2}}, b[] = {{32, 0}};
    ash_unit u[] = {{a, 2}, {b, 1}};
    int choice[2];
    ash_solution s;
    ash_error err = {0};
    assert_int_equal(ash_solve(u, 2, 95, choice, &s, &err), ASH_E_LIMIT);
    assert_int_equal(s.bytes, 96);
    assert_non_null(strstr(err.msg, "96"));
    assert_int_equal(ash_solve(u, 2, 96, choice, &s, &err), ASH_OK);
    assert_int_equal(choice[0], 1);
}

/* A model-like instance: 211 units, 12 types; then sizes with no common divisor, where the grid must be coarse. */
static void large_instances_fill_the_budget(void **state) {
    (void)state;
    static ash_option o[300][12];
    ash_unit u[300];
    int choice[300];
    const double bits[12] = {2.625, 3.4375, 4.25, 4.5, 4.5, 5, 5.5, 5.5, 6, 6.5625, 8.5, 16};
    ash_rng r;
    for (int odd = 0; odd < 2; odd++) {
        size_t n = odd ? 300 : 211;
        uint64_t lo = 0, hi = 0;
        ash_rng_seed(&r, 11);
        for (size_t i = 0; i < n; i++) {
            uint64_t w = 256 * (400 + ash_rng_below(&r, 4000)) * (i == 0 ? 30 : 1);
            double c = exp(4 * ash_rng_f64(&r)) * (double)w;
            for (int k = 0; k < 12; k++) {
                o[i][k].bytes = (uint64_t)((double)w * bits[k] / 8) + (odd ? ash_rng_below(&r, 999) : 0);
                o[i][k].damage = c * exp2(-2 * bits[k]) * (0.8 + 0.4 * ash_rng_f64(&r));
            }
            u[i] = (ash_unit){o[i], 12};
            lo += o[i][0].bytes, hi += o[i][11].bytes;
        }
        for (int f = 1; f < 8; f++) {
            uint64_t budget = lo + (hi - lo) / 16 * (uint64_t)f;
            ash_solution s;
            double t = ash_now();
            assert_int_equal(ash_solve(u, n, budget, choice, &s, NULL), ASH_OK);
            check(u, n, budget, choice, &s);
            assert_true((double)(budget - s.bytes) <= 1e-3 * (double)budget);
            assert_true(s.damage - s.bound <= 2e-3 * s.damage);
            if (getenv("ASH_VERBOSE")) print_message("n %zu: %.3f s, left %llu, gap %.2e, exact %d\n", n, ash_now() - t, (unsigned long long)(budget - s.bytes), (s.damage - s.bound) / s.damage, s.exact);
        }
    }
}

/* Everett: what lambda chooses is the best there is for the bytes it takes; and its gap to the optimum within the budget is at most one hull step, which
 * costs at most the largest difference of damages in a unit. Filling only helps. */
static void lagrange_is_optimal_for_its_own_bytes(void **state) {
    (void)state;
    ash_rng r;
    ash_rng_seed(&r, 5);
    for (int round = 0; round < 300; round++) {
        ash_option o[6][5];
        ash_unit u[6];
        size_t n = 1 + ash_rng_below(&r, 6);
        uint64_t lo = 0, hi = 0;
        double step = 0, scale = exp(40 * (ash_rng_f64(&r) - 0.5)); /* errors may be of any size */
        for (size_t i = 0; i < n; i++) {
            uint64_t mn = UINT64_MAX, mx = 0;
            double least = INFINITY, most = 0;
            u[i] = (ash_unit){o[i], 1 + (int)ash_rng_below(&r, 5)};
            for (int k = 0; k < u[i].n; k++) {
                o[i][k] = (ash_option){32 * (1 + ash_rng_below(&r, 40)), scale * (ash_rng_below(&r, 4) ? ash_rng_f64(&r) : 0)};
                mn = ASH_MIN(mn, o[i][k].bytes), mx = ASH_MAX(mx, o[i][k].bytes);
                least = fmin(least, o[i][k].damage), most = fmax(most, o[i][k].damage);
            }
            step = fmax(step, most - least);
            lo += mn, hi += mx;
        }
        uint64_t budget = lo + ash_rng_below(&r, hi - lo + 64);
        int choice[6];
        ash_solution s, f;
        const double tiny = 1e-9 * scale, best = brute(u, n, budget);
        assert_int_equal(ash_solve_lagrange(u, n, budget, false, choice, &s, NULL), ASH_OK);
        check(u, n, budget, choice, &s);
        assert_true(fabs(s.damage - brute(u, n, s.bytes)) <= tiny);
        assert_true(s.bound <= best + tiny);
        assert_true(s.damage - best <= step + tiny);
        assert_int_equal(ash_solve_lagrange(u, n, budget, true, choice, &f, NULL), ASH_OK);
        check(u, n, budget, choice, &f);
        assert_true(f.damage <= s.damage + tiny && f.damage >= best - tiny);
    }
}

static void lagrange_names_the_least_budget(void **state) {
    (void)state;
    ash_option a[] = {{100, 1}, {64, 2}}, b[] = {{32, 0}};
    ash_unit u[] = {{a, 2}, {b, 1}};
    int choice[2];
    ash_solution s;
    ash_error err = {0};
    ash_plan_method m;
    assert_int_equal(ash_solve_lagrange(u, 2, 95, true, choice, &s, &err), ASH_E_LIMIT);
    assert_int_equal(s.bytes, 96);
    assert_non_null(strstr(err.msg, "96"));
    assert_int_equal(ash_solve_lagrange(u, 2, 131, true, choice, &s, &err), ASH_OK);
    assert_true(choice[0] == 1 && s.damage == 2);
    assert_int_equal(ash_solve_lagrange(u, 2, 132, true, choice, &s, &err), ASH_OK);
    assert_true(choice[0] == 0 && s.damage == 1 && s.bytes == 132);
    assert_true(ash_plan_method_parse("lagrange", &m) && m == ASH_PLAN_LAGRANGE && ash_plan_method_parse("lagrange-rel", &m) && m == ASH_PLAN_LAGRANGE_REL);
    assert_false(ash_plan_method_parse("lagrang", &m));
}

static void bad_input_is_refused(void **state) {
    (void)state;
    ash_option nan_opt[] = {{1, NAN}}, neg[] = {{1, -1}};
    ash_unit u[] = {{nan_opt, 1}};
    int c;
    ash_solution s;
    assert_int_equal(ash_solve(u, 1, 10, &c, &s, NULL), ASH_E_USAGE);
    assert_int_equal(ash_solve_lagrange(u, 1, 10, true, &c, &s, NULL), ASH_E_USAGE);
    u[0].opts = neg;
    assert_int_equal(ash_solve(u, 1, 10, &c, &s, NULL), ASH_E_USAGE);
    u[0].n = 0;
    assert_int_equal(ash_solve(u, 1, 10, &c, &s, NULL), ASH_E_USAGE);
}

static void out_of_memory_is_a_status(void **state) {
    (void)state;
    ash_option a[] = {{100, 1}, {64, 2}, {32, 5}};
    ash_unit u[] = {{a, 3}, {a, 3}};
    int c[2];
    ash_solution s;
    for (uint64_t k = 1;; k++) {
        ash_alloc_fail_after(k);
        ash_status st = ash_solve(u, 2, 130, c, &s, NULL);
        ash_alloc_fail_after(0);
        if (st == ASH_OK) break;
        assert_int_equal(st, ASH_E_NOMEM);
        assert_true(k < 100);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_instances_are_optimal), cmocka_unit_test(impossible_budget_names_the_least),
        cmocka_unit_test(large_instances_fill_the_budget), cmocka_unit_test(lagrange_is_optimal_for_its_own_bytes),
        cmocka_unit_test(lagrange_names_the_least_budget), cmocka_unit_test(bad_input_is_refused),
        cmocka_unit_test(out_of_memory_is_a_status)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
