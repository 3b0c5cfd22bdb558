/* quant_error_bench.c - encoding error on real tensors against another program's file of the same type.
 *
 * usage: quant_error_bench SOURCE.gguf PEER.gguf TYPE [IMATRIX.gguf]
 * Every tensor that PEER holds in TYPE and SOURCE holds in a float type is encoded here from SOURCE's
 * values; both errors, weighted by the importance matrix when there is one, are divided by the
 * tensor's own (weighted) energy and summed. Prints one line; exit 1 when ours is the larger sum. */
#include "ashlar/gguf.h"
#include "base/base.h"
#include "quant/encode.h"

#include <stdio.h>
#include <stdlib.h>

/* Mean squared input per column from the pair NAME.in_sum2, NAME.counts; NULL when absent. */
static float *importance(const ash_gguf *g, const char *name, uint64_t n) {
    char key[256];
    snprintf(key, sizeof key, "%s.in_sum2", name);
    const ash_gguf_tensor *t = ash_gguf_find_tensor(g, key);
    if (!t || t->type != ASH_F32 || t->n_bytes != n * 4) return NULL;
    float *w = ash_alloc(n * 4);
    if (w) memcpy(w, t->data, n * 4); /* the count is one factor for all columns: no matter here */
    return w;
}

static double energy(const float *x, const float *y, const float *w, uint64_t rows, uint64_t n) {
    double e = 0;
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t i = 0; i < n; i++) {
            double d = (double)x[r * n + i] - (y ? (double)y[r * n + i] : 0.0);
            e += (w ? (double)w[i] : 1.0) * d * d;
        }
    return e;
}

static void decode(ash_dtype t, const uint8_t *b, float *y, uint64_t rows, uint64_t n) {
    uint64_t rb = ash_dtype_row_bytes(t, n);
    for (uint64_t r = 0; r < rows; r++) ash_dtype_decode(t, b + r * rb, y + r * n, n);
}

int main(int argc, char **argv) {
    ash_error err = {0};
    ash_gguf *src = NULL, *peer = NULL, *im = NULL;
    ash_dtype t;
    if (argc < 4 || !ash_dtype_parse(argv[3], &t) || !ash_quant_can(t)) {
        fprintf(stderr, "usage: quant_error_bench SOURCE.gguf PEER.gguf TYPE [IMATRIX.gguf]\n");
        return 2;
    }
    if (ash_gguf_open(&src, argv[1], &err) != ASH_OK || ash_gguf_open(&peer, argv[2], &err) != ASH_OK ||
        (argc > 4 && ash_gguf_open(&im, argv[4], &err) != ASH_OK)) {
        fprintf(stderr, "quant_error_bench: %s\n", err.msg);
        return 3;
    }
    double ours = 0, theirs = 0, worst = 0;
    int n_tensors = 0;
    for (size_t i = 0; i < ash_gguf_n_tensors(peer); i++) {
        const ash_gguf_tensor *p = ash_gguf_tensor_at(peer, i), *s = ash_gguf_find_tensor(src, p->name);
        if (p->type != t || !s || s->n_dims != 2 || s->ne[0] != p->ne[0] || s->ne[1] != p->ne[1]) continue;
        uint64_t n = s->ne[0], rows = s->ne[1];
        float *w = im ? importance(im, s->name, n) : NULL;
        if (im && !w) continue;
        float *x = ash_alloc(rows * n * 4), *y = ash_alloc(rows * n * 4);
        uint8_t *b = ash_alloc(rows * ash_dtype_row_bytes(t, n));
        if (!x || !y || !b) return 4;
        decode(s->type, s->data, x, rows, n);
        double all = energy(x, NULL, w, rows, n);
        if (ash_quant_rows(t, x, b, rows, n, w, NULL, &err) != ASH_OK) {
            fprintf(stderr, "quant_error_bench: %s: %s\n", s->name, err.msg);
            return 3;
        }
        decode(t, b, y, rows, n);
        double a = energy(x, y, w, rows, n) / all;
        decode(t, p->data, y, rows, n);
        double c = energy(x, y, w, rows, n) / all;
        ours += a, theirs += c, n_tensors++;
        worst = a / c > worst ? a / c : worst;
        ash_free(w);
        ash_free(x);
        ash_free(y);
        ash_free(b);
    }
    printf("%-7s %-10s %3d tensors  squared error: ours %.5e  peer %.5e  ratio %.4f  worst tensor %.4f\n", ash_dtype_name(t), im ? "weighted" : "plain",
           n_tensors, ours, theirs, ours / theirs, worst);
    ash_gguf_close(src);
    ash_gguf_close(peer);
    ash_gguf_close(im);
    return n_tensors == 0 ? 3 : ours > theirs;
}
