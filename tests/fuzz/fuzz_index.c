/* fuzz_index.c - package index pages, JSON and HTML (first byte decides), and what is asked of them. */
#include "net/index.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    ash_index_file f;
    if (!n) return 0;
    ash_index_parse(&f, "https://index.example/simple/tiny-model/", (const char *)p + 1, n - 1, p[0] & 1,
                    p[0] & 2 ? "tiny_model==1.0.0" : "tiny-model", NULL);
    return 0;
}
