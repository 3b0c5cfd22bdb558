/* encode_row.c - tensor.h, quant.h: a row of a matrix in every type there is an encoder for, and how far off it is then.
 * usage: encode_row MODEL TENSOR */
#include "example.h"

#include "ashlar/gguf.h"
#include "ashlar/quant.h"
#include "ashlar/tensor.h"

int main(int argc, char **argv) {
    ARGS(2, "MODEL TENSOR");
    ash_gguf *g;
    OK(ash_gguf_open(&g, argv[1], &err));
    const ash_gguf_tensor *t = ash_gguf_find_tensor(g, argv[2]);
    if (!t) OK(ash_fail(&err, ASH_E_USAGE, "there is no tensor %s", argv[2]));
    const uint64_t n = t->ne[0];
    float *row = malloc(2 * n * sizeof *row), *back = row + n;
    void *code = malloc(n * 4);
    if (!row || !code || !ash_dtype_decode(t->type, t->data, row, n)) OK(ash_fail(&err, ASH_E_UNSUPPORTED, "%s cannot be decoded", argv[2]));
    printf("%-8s %8s %12s\n", "type", "bits", "rel. error");
    for (int id = 0; id < ASH_DTYPE_MAX; id++) {
        const ash_dtype_info *i = ash_dtype_get(id);
        if (!i || !ash_quant_can((ash_dtype)id) || n % i->block_elems) continue; /* rows are whole blocks */
        double e = 0, all = 0;
        OK(ash_quant_row((ash_dtype)id, row, code, n, NULL, &err)); /* NULL: all columns matter alike */
        ash_dtype_decode((ash_dtype)id, code, back, n);
        for (uint64_t k = 0; k < n; k++) {
            e += ((double)row[k] - (double)back[k]) * ((double)row[k] - (double)back[k]);
            all += (double)row[k] * (double)row[k];
        }
        printf("%-8s %8.4f %12.3e\n", i->name, ash_dtype_bpw((ash_dtype)id), all > 0 ? e / all : 0);
    }
    free(row);
    free(code);
    ash_gguf_close(g);
}
