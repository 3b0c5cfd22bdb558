/* fuzz_archive.c - zip and tar.gz on arbitrary bytes: what opens is read, within limits. */
#include "net/archive.h"

static volatile uint8_t sink;

typedef struct {
    uint64_t left;
} budget;

static ash_status eat(void *ctx, const void *p, size_t n, ash_error *err) {
    budget *b = ctx;
    for (size_t i = 0; i < n; i++) sink ^= ((const uint8_t *)p)[i];
    if (n > b->left) return ash_fail(err, ASH_E_LIMIT, "enough");
    b->left -= n;
    return ASH_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    ash_archive *a;
    budget b = {4 << 20};
    if (ash_archive_open_mem(&a, p, n, NULL) != ASH_OK) return 0;
    for (size_t i = 0; i < ash_archive_count(a) && i < 16; i++) ash_archive_read(a, i, eat, &b, NULL);
    ash_archive_close(a);
    return 0;
}
