/* fuzz_imatrix.c - importance matrix files: parse anything, then look everything up. */
#include "ashlar/eval.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ash_imatrix *im = NULL;
    ash_error err;
    if (ash_imatrix_load_mem(&im, data, size, &err) == ASH_OK) {
        for (size_t i = 0; i < ash_imatrix_n(im); i++) {
            ash_imatrix_entry e = ash_imatrix_at(im, i);
            const float *w = ash_imatrix_weights(im, e.name, e.n);
            for (uint64_t k = 0; w && k < e.n; k++)
                if (!(w[k] >= 0)) abort();
        }
    }
    ash_imatrix_free(im);
    return 0;
}
