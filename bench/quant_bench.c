/* quant_bench.c - encoder speed: million weights a second on one core, per type and CPU level.
 * usage: quant_bench [TYPE...]   (default: all types) */
#include "base/base.h"
#include "quant/encode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { COLS = 1536, ROWS = 256 };

/* processor time: the figure should not depend on what else runs */
static double cpu_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double speed(ash_cpu_level level, ash_dtype t, const float *x, const float *imp, void *dst) {
    double best = 0, spent = 0;
    uint64_t rows = 16;
    while (spent < 0.25) {
        double t0 = cpu_now();
        if (ash_quant_rows_at(level, t, x, dst, rows, COLS, imp, NULL, NULL) != ASH_OK) return 0;
        double dt = cpu_now() - t0, v = (double)rows * COLS / dt;
        best = v > best ? v : best;
        spent += dt;
        if (dt < 0.02 && rows < ROWS) rows *= 2;
    }
    return best * 1e-6;
}

int main(int argc, char **argv) {
    float *x = ash_alloc((size_t)ROWS * COLS * 4), *imp = ash_alloc(COLS * 4);
    void *dst = ash_alloc((size_t)ROWS * COLS * 4);
    if (!x || !imp || !dst) return 1;
    ash_rng r;
    ash_rng_seed(&r, 1);
    for (int i = 0; i < ROWS * COLS; i++) x[i] = (float)(sqrt(-2 * log(1 - ash_rng_f64(&r))) * cos(6.283185307 * ash_rng_f64(&r)) * 0.05);
    for (int i = 0; i < COLS; i++) imp[i] = (float)exp(2 * ash_rng_f64(&r));
    printf("M weights/s on one core (%s)\n%-8s", ash_cpu_model(), "type");
    for (int l = 0; l <= (int)ash_cpu_detect(); l++) printf(" %9s", ash_cpu_level_name((ash_cpu_level)l));
    printf("\n");
    for (int id = 0; id < ASH_DTYPE_MAX; id++) {
        if (!ash_quant_can((ash_dtype)id)) continue;
        bool want = argc < 2;
        for (int i = 1; i < argc; i++) {
            ash_dtype t;
            want |= ash_dtype_parse(argv[i], &t) && (int)t == id;
        }
        if (!want) continue;
        printf("%-8s", ash_dtype_name((ash_dtype)id));
        for (int l = 0; l <= (int)ash_cpu_detect(); l++) printf(" %9.1f", speed((ash_cpu_level)l, (ash_dtype)id, x, imp, dst));
        printf("\n");
    }
    ash_free(x);
    ash_free(imp);
    ash_free(dst);
    return 0;
}
