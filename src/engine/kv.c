/* kv.c - see kv.h. All memory is taken at the start; pages of snapshots and of unused context are touched when used. */
#include "engine/kv.h"

#include "kern/kv_block.h"

enum { MAX_SNAPS = 64 };

/* ---- types ---- */
static const struct {
    const char *name;
    ash_kv_type type;
} k_types[] = {{"auto", ASH_KV_AUTO}, {"f32", ASH_KV_F32}, {"f16", ASH_KV_F16}, {"q8_0", ASH_KV_Q8_0}, {"q4_0", ASH_KV_Q4_0}};

const char *ash_kv_type_name(ash_kv_type t) { return (size_t)t < ASH_ARRAY_LEN(k_types) ? k_types[t].name : "?"; }

bool ash_kv_type_parse(const char *s, ash_kv_type *t) {
    for (size_t i = 0; i < ASH_ARRAY_LEN(k_types); i++)
        if (strcmp(s, k_types[i].name) == 0) {
            *t = k_types[i].type;
            return true;
        }
    return false;
}

static ash_keys_form form_of(ash_kv_type t, bool v) {
    switch (t) {
    case ASH_KV_F32: return ASH_KEYS_F32;
    case ASH_KV_Q8_0: return v ? ASH_KEYS_V8 : ASH_KEYS_K8;
    case ASH_KV_Q4_0: return v ? ASH_KEYS_V4 : ASH_KEYS_K4;
    default: return ASH_KEYS_F16;
    }
}
static bool is_quantized(const ash_kv_plan *p) { return p->k >= ASH_KV_Q8_0 || p->v >= ASH_KV_Q8_0; }

/* ---- sizes: dims < 2^20, positions < 2^29, so no overflow in 64 bits ---- */
static uint64_t round64(uint64_t n) { return (n + 63) / 64 * 64; }
static uint64_t up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }
static size_t elem(ash_keys_form f) { return f == ASH_KEYS_F32 ? 4 : 2; }

static int layer_cap(const ash_model *m, int il, const ash_kv_plan *p) {
    const uint64_t w = (uint64_t)m->hp.max_window + p->n_batch;
    uint64_t cap = p->n_ctx;
    if (m->layers[il].window) cap = ASH_MIN(cap, is_quantized(p) ? w + ASH_KV_SPAN : w);
    return (int)(is_quantized(p) ? up(cap, ASH_KV_BLOCK) : cap);
}
static bool windowed(const ash_model *m, int il) { return m->layers[il].window && m->layers[il].kv_layer == il; }
static size_t row_of(const ash_layer *l) { return (size_t)l->n_head_kv * (size_t)l->head_dim; }

/* K or V of a layer from `mem` on (NULL: count only); bytes used. */
static uint64_t place_half(ash_kv_half *h, const ash_layer *l, int cap, ash_keys_form form, uint32_t n_batch, char *mem) {
    const size_t block = ash_kv_block_bytes(form, l->head_dim), row = row_of(l);
    uint64_t at;
    *h = (ash_kv_half){.form = form, .p = mem, .block = block};
    if (!block) return round64(row * (uint64_t)cap * elem(form));
    at = round64((uint64_t)l->n_head_kv * (uint64_t)(cap / ASH_KV_BLOCK) * block);
    if (mem) h->sink = (uint16_t *)(void *)(mem + at);
    at += round64(row * ASH_KV_SINK * 2);
    if (mem) h->tail = (uint16_t *)(void *)(mem + at);
    at += round64(row * ASH_KV_SPAN * 2);
    if (!l->kv_lent) return at;
    if (mem) h->fresh = (float *)(void *)(mem + at);
    return at + round64(row * (uint64_t)n_batch * sizeof(float));
}

static uint64_t place_layer(ash_kv *kv, const ash_model *m, int il, const ash_kv_plan *p, char *mem) {
    const ash_layer *l = &m->layers[il];
    kv->cap = layer_cap(m, il, p);
    const uint64_t n = place_half(&kv->k, l, kv->cap, form_of(p->k, false), p->n_batch, mem);
    return n + place_half(&kv->v, l, kv->cap, form_of(p->v, true), p->n_batch, mem ? mem + n : NULL);
}

/* Slots per head (plain) or blocks per head that a snapshot keeps of a windowed layer. */
static size_t snap_slots(const ash_layer *l, bool quantized) { return (size_t)l->window + (quantized ? ASH_KV_SPAN : 0); }
static size_t snap_blocks(const ash_layer *l) { return (size_t)l->window / ASH_KV_BLOCK + 2; }
static uint64_t snap_half(const ash_layer *l, ash_keys_form form, bool quantized) {
    const size_t block = ash_kv_block_bytes(form, l->head_dim);
    return round64(block ? (uint64_t)l->n_head_kv * snap_blocks(l) * block : row_of(l) * snap_slots(l, quantized) * elem(form));
}

static uint64_t one_snapshot(const ash_model *m, const ash_kv_plan *p) {
    uint64_t sum = 0;
    for (int il = 0; il < m->hp.n_layer; il++)
        if (windowed(m, il))
            sum += snap_half(&m->layers[il], form_of(p->k, false), is_quantized(p)) +
                   snap_half(&m->layers[il], form_of(p->v, true), is_quantized(p));
    return sum;
}

static int snap_count(const ash_model *m, const ash_kv_plan *p) {
    const uint64_t one = one_snapshot(m, p);
    if (!one || (uint64_t)m->hp.max_window + p->n_batch >= p->n_ctx) return 0; /* nothing is ever dropped */
    return (int)ASH_MIN(p->snapshot_bytes / one, (uint64_t)MAX_SNAPS);
}

static uint64_t kv_bytes(const ash_model *m, const ash_kv_plan *p) {
    uint64_t sum = 0;
    ash_kv kv;
    for (int il = 0; il < m->hp.n_layer; il++)
        if (m->layers[il].kv_layer == il) sum += place_layer(&kv, m, il, p, NULL);
    return sum;
}

uint64_t ash_kvcache_bytes(const ash_model *m, const ash_kv_plan *p) {
    return kv_bytes(m, p) + (uint64_t)snap_count(m, p) * one_snapshot(m, p);
}

ash_status ash_kvcache_init(ash_kvcache *c, const ash_model *m, const ash_kv_plan *p, ash_error *err) {
    *c = (ash_kvcache){.m = m, .plan = *p, .quantized = is_quantized(p), .window = m->hp.max_window};
    uint64_t total = kv_bytes(m, p);
    c->layers = ash_calloc((size_t)m->hp.n_layer, sizeof *c->layers);
    c->mem = ash_alloc_aligned(total, 64);
    if (!c->layers || !c->mem) goto oom;
    char *at = c->mem;
    for (int il = 0; il < m->hp.n_layer; il++) {
        int src = m->layers[il].kv_layer;
        if (src != il) {
            c->layers[il] = c->layers[src];
            continue;
        }
        at += place_layer(&c->layers[il], m, il, p, at);
        if (m->layers[il].window) c->ring = c->layers[il].cap;
    }
    c->n_snaps = snap_count(m, p);
    if (c->n_snaps) {
        c->snap_bytes = one_snapshot(m, p);
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
    if (c->n > ASH_KV_SPAN) c->tail_lo = ASH_MAX(c->tail_lo, c->n - ASH_KV_SPAN);
}

void ash_kvcache_clear(ash_kvcache *c) {
    c->n = c->lo = c->tail_lo = 0;
    for (int i = 0; i < c->n_snaps; i++) c->snaps[i].n = 0;
}

/* ---- snapshots ---- */
static size_t span_of(size_t n) { return n / ASH_KV_SPAN * ASH_KV_SPAN; }

/* Where a snapshot taken after n tokens lets the cache stand: its tail is not kept. */
static size_t snap_stand(const ash_kvcache *c, size_t n) { return c->quantized ? span_of(n) : n; }

/* Units [b, e) of one head (slots or blocks, `size` bytes each) between a ring of cap units and a run that starts with b. */
static void copy_ring(char *ring, size_t cap, char *run, size_t size, size_t b, size_t e, bool save) {
    for (size_t p = b; p < e;) {
        size_t slot = p % cap, n = ASH_MIN(e - p, cap - slot);
        char *in_ring = ring + slot * size, *in_run = run + (p - b) * size;
        memcpy(save ? in_run : in_ring, save ? in_ring : in_run, n * size);
        p += n;
    }
}

/* The windows before position n (quantized: before the span of n) between rings and a snapshot's memory. */
static void copy_windows(const ash_kvcache *c, char *mem, size_t n, bool save) {
    const ash_model *m = c->m;
    for (int il = 0; il < m->hp.n_layer; il++) {
        if (!windowed(m, il)) continue;
        const ash_layer *l = &m->layers[il];
        for (int i = 0; i < 2; i++) {
            const ash_kv_half *h = i ? &c->layers[il].v : &c->layers[il].k;
            size_t size = h->block, cap = (size_t)c->layers[il].cap / ASH_KV_BLOCK, keep = snap_blocks(l), e = span_of(n) / ASH_KV_BLOCK;
            size_t w = (size_t)l->window, b = (span_of(n) > w ? span_of(n) - w : 0) / ASH_KV_BLOCK;
            if (!h->block) {
                size = (size_t)l->head_dim * elem(h->form), cap = (size_t)c->layers[il].cap, keep = snap_slots(l, c->quantized);
                e = n, b = n > keep ? n - keep : 0;
            }
            for (size_t g = 0; g < (size_t)l->n_head_kv; g++)
                copy_ring(h->p + g * cap * size, cap, mem + g * keep * size, size, b, e, save);
            mem += snap_half(l, h->form, c->quantized);
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
    memset(s->mem, 0, c->snap_bytes); /* no byte of a session file is left to chance */
    copy_windows(c, s->mem, c->n, true);
}

/* Stand on the first n tokens, all that is needed being there. */
static size_t stand(ash_kvcache *c, size_t n, size_t lo) {
    c->n = n;
    c->lo = lo;
    c->tail_lo = ASH_MIN(c->tail_lo, n);
    return n;
}

size_t ash_kvcache_back(ash_kvcache *c, size_t limit, size_t same) {
    for (int i = 0; i < c->n_snaps; i++) /* those of another future are of no use any more */
        if (c->snaps[i].n > same) c->snaps[i].n = 0;
    if (limit >= c->n) return c->n;
    size_t n = limit;
    if (c->quantized && n > ASH_KV_SINK && c->tail_lo > span_of(n)) n = span_of(n);
    size_t first_key = n + 1 > (size_t)c->window ? n + 1 - (size_t)c->window : 0;
    if (!c->ring || first_key >= c->lo || n == 0) return stand(c, n, n ? c->lo : 0);
    ash_snapshot *best = NULL;
    for (int i = 0; i < c->n_snaps; i++) /* a snapshot holds one position more than its successor needs: it serves n - 1 too */
        if (c->snaps[i].n && snap_stand(c, c->snaps[i].n) <= limit + !c->quantized && (!best || c->snaps[i].n > best->n))
            best = &c->snaps[i];
    if (!best || !snap_stand(c, best->n)) return stand(c, 0, 0);
    copy_windows(c, best->mem, best->n, false);
    n = ASH_MIN(snap_stand(c, best->n), limit);
    const size_t held = snap_stand(c, best->n);
    return stand(c, n, held > (size_t)c->window ? held - (size_t)c->window : 0);
}

/* ---- pieces ---- */
/* Units [b, e) of a ring of cap units. */
static void ring_pieces(char *ring, size_t cap, size_t size, size_t b, size_t e, ash_kv_piece fn, void *ctx) {
    for (size_t p = b, n; p < e; p += n) {
        n = ASH_MIN(e - p, cap - p % cap);
        fn(ctx, ring + p % cap * size, n * size);
    }
}

void ash_kvcache_pieces(const ash_kvcache *c, ash_kv_piece fn, void *ctx) {
    for (int il = 0; il < c->m->hp.n_layer; il++) {
        const ash_layer *l = &c->m->layers[il];
        if (l->kv_layer != il) continue;
        const size_t from = l->window ? c->lo : 0, hd = (size_t)l->head_dim, cap = (size_t)c->layers[il].cap;
        for (int i = 0; i < 2; i++) {
            const ash_kv_half *h = i ? &c->layers[il].v : &c->layers[il].k;
            for (size_t g = 0; g < (size_t)l->n_head_kv; g++) {
                if (!h->block) {
                    const size_t size = hd * elem(h->form);
                    ring_pieces(h->p + g * cap * size, cap, size, from, c->n, fn, ctx);
                    continue;
                }
                const size_t nb = cap / ASH_KV_BLOCK, sink = ASH_KV_SINK / ASH_KV_BLOCK;
                ring_pieces(h->p + g * nb * h->block, nb, h->block, ASH_MAX(from / ASH_KV_BLOCK, sink), c->n / ASH_KV_BLOCK, fn, ctx);
                fn(ctx, h->sink + g * ASH_KV_SINK * hd, ASH_MIN(c->n, (size_t)ASH_KV_SINK) * hd * 2);
                ring_pieces((char *)(h->tail + g * ASH_KV_SPAN * hd), ASH_KV_SPAN, hd * 2, c->tail_lo, c->n, fn, ctx);
            }
        }
    }
}
