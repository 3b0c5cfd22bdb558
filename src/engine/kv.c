/* kv.c - see kv.h. All memory is taken at the start; pages of snapshots and of unused context are touched when used. */
#include "engine/kv.h"

enum { MAX_SNAPS = 64 };

static uint64_t round64(uint64_t n) { return (n + 63) / 64 * 64; }

static int ring_cap(const ash_model *m, uint32_t n_ctx, uint32_t n_batch) {
    return (int)ASH_MIN((uint64_t)n_ctx, (uint64_t)m->hp.max_window + n_batch);
}
static int layer_cap(const ash_model *m, int il, uint32_t n_ctx, uint32_t n_batch) {
    return m->layers[il].window ? ring_cap(m, n_ctx, n_batch) : (int)n_ctx;
}
/* K or V of a layer; dims < 2^20, cap < 2^31, so no overflow */
static uint64_t half_bytes(const ash_model *m, int il, int cap, size_t es) {
    const ash_layer *l = &m->layers[il];
    return round64((uint64_t)l->n_head_kv * (uint64_t)l->head_dim * (uint64_t)cap * es);
}
static bool windowed(const ash_model *m, int il) { return m->layers[il].window && m->layers[il].kv_layer == il; }

static uint64_t one_snapshot(const ash_model *m, size_t es) {
    uint64_t sum = 0;
    for (int il = 0; il < m->hp.n_layer; il++)
        if (windowed(m, il)) sum += 2 * half_bytes(m, il, m->layers[il].window, es);
    return sum;
}

static int snap_count(const ash_model *m, size_t es, uint32_t n_ctx, uint32_t n_batch, uint64_t budget) {
    uint64_t one = one_snapshot(m, es);
    if (!one || ring_cap(m, n_ctx, n_batch) >= (int)n_ctx) return 0; /* nothing is ever dropped */
    return (int)ASH_MIN(budget / one, (uint64_t)MAX_SNAPS);
}

static uint64_t kv_bytes(const ash_model *m, uint32_t n_ctx, uint32_t n_batch, size_t es) {
    uint64_t sum = 0;
    for (int il = 0; il < m->hp.n_layer; il++)
        if (m->layers[il].kv_layer == il) sum += 2 * half_bytes(m, il, layer_cap(m, il, n_ctx, n_batch), es);
    return sum;
}

uint64_t ash_kvcache_bytes(const ash_model *m, uint32_t n_ctx, uint32_t n_batch, bool f16, uint64_t budget) {
    size_t es = f16 ? 2 : 4;
    return kv_bytes(m, n_ctx, n_batch, es) + (uint64_t)snap_count(m, es, n_ctx, n_batch, budget) * one_snapshot(m, es);
}

ash_status ash_kvcache_init(ash_kvcache *c, const ash_model *m, uint32_t n_ctx, uint32_t n_batch, bool f16, uint64_t budget, ash_error *err) {
    *c = (ash_kvcache){.m = m, .elem_bytes = f16 ? 2 : 4, .window = m->hp.max_window};
    uint64_t total = kv_bytes(m, n_ctx, n_batch, c->elem_bytes);
    c->layers = ash_calloc((size_t)m->hp.n_layer, sizeof *c->layers);
    c->mem = ash_alloc_aligned(total, 64);
    if (!c->layers || !c->mem) goto oom;
    char *p = c->mem;
    for (int il = 0; il < m->hp.n_layer; il++) {
        int src = m->layers[il].kv_layer, cap = layer_cap(m, il, n_ctx, n_batch);
        if (src != il) {
            c->layers[il] = c->layers[src];
            continue;
        }
        uint64_t half = half_bytes(m, il, cap, c->elem_bytes);
        c->layers[il] = (ash_kv){p, p + half, cap};
        p += 2 * half;
        if (m->layers[il].window) c->ring = cap;
    }
    c->n_snaps = snap_count(m, c->elem_bytes, n_ctx, n_batch, budget);
    if (c->n_snaps) {
        c->snap_bytes = one_snapshot(m, c->elem_bytes);
        c->snaps = ash_calloc((size_t)c->n_snaps, sizeof *c->snaps);
        c->snap_mem = ash_alloc_aligned((size_t)c->n_snaps * c->snap_bytes, 64);
        if (!c->snaps || !c->snap_mem) goto oom;
        for (int i = 0; i < c->n_snaps; i++) c->snaps[i].mem = (char *)c->snap_mem + (size_t)i * c->snap_bytes;
    }
    return ASH_OK;
oom:
    ash_kvcache_free(c);
    return ash_fail(err, ASH_E_NOMEM, "out of memory for a KV cache of %llu bytes", (unsigned long long)total);
}

void ash_kvcache_free(ash_kvcache *c) {
    ash_free(c->layers);
    ash_free(c->mem);
    ash_free(c->snaps);
    ash_free(c->snap_mem);
    *c = (ash_kvcache){0};
}

void ash_kvcache_grow(ash_kvcache *c, size_t added) {
    c->n += added;
    if (c->ring && c->n > (size_t)c->ring) c->lo = ASH_MAX(c->lo, c->n - (size_t)c->ring);
}

void ash_kvcache_clear(ash_kvcache *c) {
    c->n = c->lo = 0;
    for (int i = 0; i < c->n_snaps; i++) c->snaps[i].n = 0;
}

/* Copy positions [b, n) of the windowed layers between rings and a snapshot's memory, which holds `window` slots per head. */
static void copy_windows(const ash_kvcache *c, char *mem, size_t n, bool save) {
    const ash_model *m = c->m;
    for (int il = 0; il < m->hp.n_layer; il++) {
        if (!windowed(m, il)) continue;
        const ash_layer *l = &m->layers[il];
        size_t w = (size_t)l->window, row = (size_t)l->head_dim * c->elem_bytes, cap = (size_t)c->layers[il].cap;
        size_t b = n > w ? n - w : 0, half = half_bytes(m, il, l->window, c->elem_bytes);
        for (int kv = 0; kv < 2; kv++, mem += half) {
            char *ring = kv ? c->layers[il].v : c->layers[il].k;
            for (size_t h = 0; h < (size_t)l->n_head_kv; h++)
                for (size_t p = b; p < n;) {
                    size_t slot = p % cap, run = ASH_MIN(n - p, cap - slot);
                    char *in_ring = ring + (h * cap + slot) * row, *in_snap = mem + (h * w + (p - b)) * row;
                    memcpy(save ? in_snap : in_ring, save ? in_ring : in_snap, run * row);
                    p += run;
                }
        }
    }
}

void ash_kvcache_mark(ash_kvcache *c) {
    if (!c->n_snaps || !c->n) return;
    ash_snapshot *s = &c->snaps[0];
    for (int i = 0; i < c->n_snaps; i++) {
        if (c->snaps[i].n == c->n) return; /* the timeline up to here is the same, so is the snapshot */
        if (s->n && (!c->snaps[i].n || c->snaps[i].stamp < s->stamp)) s = &c->snaps[i];
    }
    s->n = c->n;
    s->stamp = ++c->stamp;
    copy_windows(c, s->mem, c->n, true);
}

size_t ash_kvcache_back(ash_kvcache *c, size_t limit, size_t same) {
    for (int i = 0; i < c->n_snaps; i++) /* those of another future are of no use any more */
        if (c->snaps[i].n > same) c->snaps[i].n = 0;
    if (limit >= c->n) return c->n;
    size_t first_key = limit + 1 > (size_t)c->window ? limit + 1 - (size_t)c->window : 0;
    if (!c->ring || first_key >= c->lo || limit == 0) {
        c->n = limit;
        if (limit == 0) c->lo = 0;
        return limit;
    }
    ash_snapshot *best = NULL;
    for (int i = 0; i < c->n_snaps; i++) /* a snapshot holds one position more than its successor needs: it serves n - 1 too */
        if (c->snaps[i].n && c->snaps[i].n <= limit + 1 && (!best || c->snaps[i].n > best->n)) best = &c->snaps[i];
    if (!best) {
        c->n = c->lo = 0;
        return 0;
    }
    copy_windows(c, best->mem, best->n, false);
    c->n = ASH_MIN(best->n, limit);
    c->lo = best->n > (size_t)c->window ? best->n - (size_t)c->window : 0;
    return c->n;
}
