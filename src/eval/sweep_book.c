/* sweep_book.c - results of a sweep so far, and their checkpoint: "ASHSWEEP", version, job hash, counts, per unit its figures,
 * XXH3 of all before. Written after every pass, beside and renamed. */
#include "eval/sweep_int.h"

#include <math.h>

#define MAGIC "ASHSWEEP"

ash_status ash_book_init(ash_sweep_book *b, uint32_t n_units, uint32_t max_chunks, uint32_t n_probe, uint64_t job, ash_error *err) {
    *b = (ash_sweep_book){.n_units = n_units, .max_chunks = max_chunks, .n_probe = n_probe, .job = job};
    b->u = ash_calloc(n_units ? n_units : 1, sizeof *b->u);
    b->values = ash_calloc((size_t)n_units * max_chunks + 1, sizeof *b->values);
    b->probe = ash_calloc((size_t)ASH_SWEEP_PROBES * n_probe + 1, sizeof *b->probe);
    if (!b->u || !b->values || !b->probe) {
        ash_book_free(b);
        return ash_fail(err, ASH_E_NOMEM, "out of memory for the results of %u units", n_units);
    }
    for (uint32_t i = 0; i < n_units; i++) b->u[i].kld = b->values + (size_t)i * max_chunks;
    return ASH_OK;
}

void ash_book_free(ash_sweep_book *b) {
    ash_free(b->u);
    ash_free(b->values);
    ash_free(b->probe);
    *b = (ash_sweep_book){0};
}

ash_status ash_book_save(const ash_sweep_book *b, const char *path, ash_error *err) {
    ash_buf o = {0};
    uint32_t head[6] = {1, b->n_units, b->max_chunks, b->n_chunks, b->n_probe, b->probed};
    ash_buf_add(&o, MAGIC, 8);
    ash_buf_add(&o, head, sizeof head);
    ash_buf_add(&o, &b->job, 8);
    ash_buf_add(&o, &b->identity, 8);
    ash_buf_add(&o, &b->noise, 8);
    if (b->probed) ash_buf_add(&o, b->probe, (size_t)ASH_SWEEP_PROBES * b->n_probe * sizeof *b->probe);
    for (uint32_t i = 0; i < b->n_units; i++) {
        const ash_sweep_state *u = &b->u[i];
        uint32_t h[2] = {u->n, u->done | (uint32_t)u->encoded << 1};
        ash_buf_add(&o, h, sizeof h);
        ash_buf_add(&o, &u->rel_err, 8);
        ash_buf_add(&o, u->kld, u->n * sizeof *u->kld);
    }
    uint64_t sum = ash_buf_ok(&o) ? ash_hash64(o.p, o.n) : 0;
    ash_buf_add(&o, &sum, 8);
    ash_status st = ash_buf_ok(&o) ? ash_file_write_atomic(path, o.p, o.n, err) : ash_fail(err, ASH_E_NOMEM, "out of memory for the checkpoint");
    ash_buf_free(&o);
    return st;
}

ash_status ash_book_parse(ash_sweep_book *b, const void *p, size_t n, ash_error *err) {
    uint64_t sum;
    if (n < 8 + 24 + 24 + 8 || memcmp(p, MAGIC, 8) != 0) return ash_fail(err, ASH_E_FORMAT, "not a sweep checkpoint");
    memcpy(&sum, (const uint8_t *)p + n - 8, 8);
    if (sum != ash_hash64(p, n - 8)) return ash_fail(err, ASH_E_FORMAT, "the sweep checkpoint is damaged (checksum)");
    ash_rd r = ash_rd_init(p, n - 8);
    ash_rd_bytes(&r, 8);
    if (ash_rd_u32(&r) != 1) return ash_fail(err, ASH_E_UNSUPPORTED, "the sweep checkpoint has another version");
    uint32_t units = ash_rd_u32(&r), max_chunks = ash_rd_u32(&r), done = ash_rd_u32(&r), n_probe = ash_rd_u32(&r), probed = ash_rd_u32(&r);
    if (ash_rd_u64(&r) != b->job || units != b->n_units || max_chunks != b->max_chunks || n_probe != b->n_probe)
        return ash_fail(err, ASH_E_STATE, "the sweep checkpoint belongs to another job (model, text, units or options differ)");
    if (done > max_chunks || probed > 1) return ash_fail(err, ASH_E_FORMAT, "the sweep checkpoint is inconsistent");
    double identity = ash_rd_f64(&r), noise = ash_rd_f64(&r);
    for (uint32_t i = 0; probed && i < ASH_SWEEP_PROBES * n_probe; i++) b->probe[i] = ash_rd_f64(&r);
    for (uint32_t i = 0; i < units; i++) {
        ash_sweep_state *u = &b->u[i];
        uint32_t k = ash_rd_u32(&r), flags = ash_rd_u32(&r);
        if (k > done || flags > 3) return ash_fail_at(err, ASH_E_FORMAT, r.pos, "the sweep checkpoint is inconsistent at unit %u", i);
        u->rel_err = ash_rd_f64(&r);
        for (uint32_t c = 0; c < k; c++) u->kld[c] = ash_rd_f64(&r);
        u->n = k;
        u->done = flags & 1;
        u->encoded = flags >> 1;
        if (r.bad) return ash_fail_at(err, ASH_E_FORMAT, r.pos, "the sweep checkpoint ends early");
    }
    if (ash_rd_left(&r) != 0) return ash_fail_at(err, ASH_E_FORMAT, r.pos, "the sweep checkpoint has bytes left over");
    b->n_chunks = done;
    b->probed = probed;
    b->identity = identity;
    b->noise = noise;
    return ASH_OK;
}
