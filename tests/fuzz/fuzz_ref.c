/* fuzz_ref.c - reference files and sweep checkpoints. The checksum at the end of .aref and checkpoints is put right first,
 * so that the fuzzer gets behind it. */
#include "eval/ref.h"
#include "eval/sweep_int.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ash_error err;
    ash_eval_ref r = {0};
    uint8_t *copy = malloc(size + 1);
    if (!copy) return 0;
    memcpy(copy, data, size);
    if (size >= 8 && memcmp(copy, "_logits_", 8) == 0) {
        if (ash_base_parse(&r, copy, size, &err) == ASH_OK) {
            float *row = malloc(r.n_vocab * sizeof *row);
            size_t n = (size_t)r.n_chunks * ash_ref_per_chunk(&r);
            if (row) ash_base_row_decode(r.rows + (n - 1) * r.row_bytes, r.n_vocab, row);
            free(row);
        }
        ash_ref_clear(&r);
    } else if (size >= 8) {
        uint64_t sum = ash_hash64(copy, size - 8);
        memcpy(copy + size - 8, &sum, 8);
        if (memcmp(copy, "ASHSWEEP", 8) == 0) {
            ash_sweep_book b;
            if (ash_book_init(&b, 3, 4, 2, 0, NULL) == ASH_OK) {
                (void)ash_book_parse(&b, copy, size, &err);
                ash_book_free(&b);
            }
        } else {
            (void)ash_aref_parse(&r, copy, size, &err);
            ash_ref_clear(&r);
        }
    }
    free(copy);
    return 0;
}
