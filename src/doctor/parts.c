/* parts.c - models split over files (NAME-00001-of-00003.gguf; keys split.no, split.count, split.tensors.count as gguf-split writes them):
 * whether the other parts are there, whole, and of one set. */
#include "doctor/doctor_int.h"

#include <stdio.h>
#include <stdlib.h>

enum { PARTS_MOST = 1000 };
typedef unsigned long long ull;

/* "...-00002-of-00005.gguf": where the number begins, or NULL. */
static const char *numbered(const char *path) {
    const size_t n = strlen(path);
    if (n < 20) return NULL;
    const char *p = path + n - 20; /* -00002-of-00005.gguf */
    if (p[0] != '-' || memcmp(p + 6, "-of-", 4) != 0 || strcmp(p + 15, ".gguf") != 0) return NULL;
    for (int i = 0; i < 5; i++)
        if (p[1 + i] < '0' || p[1 + i] > '9' || p[10 + i] < '0' || p[10 + i] > '9') return NULL;
    return p;
}

/* Tensors of part i (from 0) of n, beside `path`; false after a finding. */
static bool look(ash_doctor *d, char *buf, size_t cap, const char *at, uint64_t i, uint64_t n, uint64_t *tensors) {
    ash_gguf *g;
    ash_error e = {0};
    uint64_t lost = 0, no = 0, count = 0;
    char file[32];
    snprintf(buf, cap, "%.*s-%05llu-of-%05llu.gguf", (int)(at - d->path), d->path, (ull)(i + 1), (ull)n);
    snprintf(file, sizeof file, "part %llu of %llu", (ull)(i + 1), (ull)n);
    if (ash_gguf_open_cut(&g, buf, &lost, &e) != ASH_OK) {
        ash_doc_say(d, ASH_DOC_SHARD, file, "%s", e.msg);
        return false;
    }
    *tensors += ash_gguf_n_tensors(g);
    const bool same = ash_gguf_get_u64(g, "split.no", &no) && ash_gguf_get_u64(g, "split.count", &count) && no == i && count == n;
    ash_gguf_close(g);
    if (lost)
        ash_doc_say(d, ASH_DOC_SHARD, file, "%llu bytes are missing at its end", (ull)lost);
    else if (!same)
        ash_doc_say(d, ASH_DOC_SHARD, file, "its split.no is %llu and its split.count %llu", (ull)no, (ull)count);
    return !lost && same;
}

ash_status ash_doc_parts(ash_doctor *d, ash_error *err) {
    uint64_t count = 0, no = 0, all = 0, seen = ash_gguf_n_tensors(d->g);
    if (!ash_gguf_get_u64(d->g, "split.count", &count) || count < 2) return ASH_OK;
    d->part = true;
    if (!ash_gguf_get_u64(d->g, "split.no", &no) || no >= count || count > PARTS_MOST) {
        ash_doc_say(d, ASH_DOC_SHARD, "split.no", "part %llu of %llu", (ull)no, (ull)count);
        return ASH_OK;
    }
    const char *at = numbered(d->path);
    if (!at) {
        ash_doc_say(d, ASH_DOC_PART, "split.count", "part %llu of %llu; its name does not say so, and the others were not looked for",
                    (ull)no + 1, (ull)count);
        return ASH_OK;
    }
    if (strtoull(at + 10, NULL, 10) != count || strtoull(at + 1, NULL, 10) != no + 1) {
        ash_doc_say(d, ASH_DOC_SHARD, "split.no", "part %llu of %llu, but its name says %.14s", (ull)no + 1, (ull)count, at + 1);
        return ASH_OK;
    }
    const size_t cap = strlen(d->path) + 1;
    char *buf = ash_alloc(cap);
    if (!buf) return ash_fail(err, ASH_E_NOMEM, "out of memory looking for parts");
    bool ok = true;
    for (uint64_t i = 0; i < count; i++)
        if (i != no) ok &= look(d, buf, cap, at, i, count, &seen);
    if (ok && ash_gguf_get_u64(d->g, "split.tensors.count", &all) && all != seen)
        ash_doc_say(d, ASH_DOC_SHARD, "split.tensors.count", "%llu tensors are said to be there, the parts have %llu", (ull)all, (ull)seen);
    if (ok) ash_doc_say(d, ASH_DOC_PART, "split.count", "part %llu of %llu", (ull)no + 1, (ull)count);
    ash_free(buf);
    return ASH_OK;
}
