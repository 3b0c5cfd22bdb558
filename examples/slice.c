/* slice.c - slice.h: a model of some of the layers.
 * usage: slice MODEL LAYERS OUT     LAYERS as "first:2", "even", "!1" */
#include "example.h"

#include "ashlar/slice.h"

int main(int argc, char **argv) {
    ARGS(3, "MODEL LAYERS OUT");
    ash_model *m;
    uint32_t *layers, n;
    ash_slice_info i;
    OK(ash_model_load(&m, argv[1], &err));
    OK(ash_layers_parse(&layers, &n, m, (uint32_t)ash_model_n_layer(m), argv[2], 1, &err));
    OK(ash_slice_check(m, layers, n, &i, &err)); /* would these make a model? */
    OK(ash_slice_write(&i, m, layers, n, argv[3], false, NULL, &err));
    printf("%u of %u layers, %llu bytes\n", i.n_to, i.n_from, (unsigned long long)i.file_bytes);
    ash_layers_free(layers);
    ash_model_free(m);
}
