/* fuzz_session.c - session files, as far as they are read without a model. The checksum is put right first, so that the fuzzer
 * gets behind it. */
#include "engine/session_int.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ash_error err;
    ash_session_head h;
    uint8_t *copy = malloc(size + 1);
    if (!copy) return 0;
    if (size) memcpy(copy, data, size);
    if (size >= 8) {
        uint64_t sum = ash_hash64(copy, size - 8);
        for (int i = 0; i < 8; i++) copy[size - 8 + (size_t)i] = (uint8_t)(sum >> (8 * i));
    }
    if (ash_session_parse(&h, copy, size, &err) == ASH_OK) {
        uint8_t x = 0; /* every byte it hands out can be read */
        for (uint64_t i = 0; i < h.n * 4; i++) x ^= h.tokens[i];
        for (uint64_t i = 0; i < h.data_bytes; i++) x ^= h.data[i];
        if (x == 1) copy[size] = x;
    }
    free(copy);
    return 0;
}
