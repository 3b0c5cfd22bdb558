/* fuzz_layers.c - rules of layers and assignments to metadata on arbitrary text: a list that is ascending and inside, or one
 * sentence. The input's first byte is the number of layers; a newline ends the rule and begins the assignment. */
#include "ashlar/slice.h"

#include "gguf/gguf_int.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    if (n < 2) return 0;
    uint32_t n_layer = p[0] % 65u, *l, k;
    char *text = malloc(n);
    if (!text) return 0;
    memcpy(text, p + 1, n - 1);
    text[n - 1] = 0;
    char *nl = strchr(text, '\n');
    if (nl) *nl = 0;
    ash_error err = {0};
    ash_status st = ash_layers_parse(&l, &k, NULL, n_layer, text, 1, &err);
    if (st == ASH_OK) {
        if (k == 0 || k > n_layer) abort();
        for (uint32_t i = 0; i < k; i++)
            if (l[i] >= n_layer || (i && l[i] <= l[i - 1])) abort();
        ash_layers_free(l);
    } else if (st != ASH_E_USAGE || !err.msg[0]) {
        abort();
    }
    if (nl) {
        static const int32_t four[4] = {1, 2, 3, 4};
        ash_gguf_writer *w = NULL;
        ash_gguf *g = NULL;
        ash_buf b = {0};
        if (ash_gguf_writer_new(&w, NULL) == ASH_OK && ash_gguf_set_array(w, "a", ASH_GV_I32, four, 4, NULL) == ASH_OK && ash_gguf_set_f32(w, "f", 1, NULL) == ASH_OK &&
            ash_gguf_set_bool(w, "b", true, NULL) == ASH_OK && ash_gguf_writer_header(w, &b, NULL) == ASH_OK && ash_gguf_open_mem(&g, b.p, b.n, NULL) == ASH_OK)
            ash_gguf_assign(w, g, nl + 1, true, NULL);
        ash_gguf_close(g);
        ash_gguf_writer_free(w);
        ash_buf_free(&b);
    }
    free(text);
    return 0;
}
