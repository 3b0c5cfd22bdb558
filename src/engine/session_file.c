/* session_file.c - sessions in files: the tokens, what the cache needs to go on, the latest snapshots of windows. Layout:
 * docs/formats/session.md. Parsing (everything that needs no model) is apart from applying, so that it can be fuzzed. */
#include "engine/session_int.h"
#include "model/adapter.h"

#define MAGIC "ASHSESS1"
enum { VERSION = 2, HEAD_BYTES = 8 + 6 * 4 + 5 * 8, KEEP_SNAPS = 4 };

static void put32(uint8_t **p, uint32_t v) {
    for (int i = 0; i < 4; i++) *(*p)++ = (uint8_t)(v >> (8 * i));
}
static void put64(uint8_t **p, uint64_t v) {
    put32(p, (uint32_t)v);
    put32(p, (uint32_t)(v >> 32));
}

/* Hash over the tensor directory, 64 bytes from the middle of every tensor, and the adapters with their scales. */
static uint64_t model_id(const ash_session *s) {
    const ash_gguf *g = s->m->gguf;
    uint64_t h[8] = {0};
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        const uint64_t n = ASH_MIN(t->n_bytes, (uint64_t)64);
        h[1] = ash_hash64(t->name, strlen(t->name));
        h[2] = (uint64_t)t->type;
        h[3] = ash_hash64(t->ne, sizeof t->ne);
        h[4] = n ? ash_hash64(t->data + (t->n_bytes - n) / 2, n) : 0;
        h[0] = ash_hash64(h, sizeof h);
    }
    for (int i = 0; i < s->fwd.n_lora; i++) {
        h[1] = ash_gguf_file_bytes(s->lora[i].a->gguf);
        h[2] = ash_hash64(&s->lora[i].scale, sizeof(float));
        const ash_gguf_tensor *t = ash_gguf_tensor_at(s->lora[i].a->gguf, 0);
        h[3] = t && t->n_bytes ? ash_hash64(t->data, t->n_bytes) : 0;
        h[0] = ash_hash64(h, sizeof h);
    }
    return h[0];
}

/* ---- pieces of the cache, counted or copied ---- */
typedef struct {
    uint8_t *out;
    const uint8_t *in;
    uint64_t n;
} stream;

static void count_piece(void *ctx, void *p, size_t n) {
    (void)p;
    ((stream *)ctx)->n += n;
}
static void save_piece(void *ctx, void *p, size_t n) {
    stream *s = ctx;
    memcpy(s->out, p, n);
    s->out += n;
}
static void load_piece(void *ctx, void *p, size_t n) {
    stream *s = ctx;
    memcpy(p, s->in, n);
    s->in += n;
}
static uint64_t pieces_bytes(const ash_kvcache *c) {
    stream s = {0};
    ash_kvcache_pieces(c, count_piece, &s);
    return s.n;
}

/* ---- save ---- */
/* The latest snapshots, oldest first; how many. */
static int latest(const ash_kvcache *c, const ash_snapshot *out[KEEP_SNAPS]) {
    int n = 0;
    uint64_t below = UINT64_MAX;
    for (; n < KEEP_SNAPS; n++) {
        const ash_snapshot *best = NULL;
        for (int i = 0; i < c->n_snaps; i++)
            if (c->snaps[i].n && c->snaps[i].n <= c->n && c->snaps[i].stamp < below && (!best || c->snaps[i].stamp > best->stamp))
                best = &c->snaps[i];
        if (!best) break;
        below = best->stamp;
        out[n] = best;
    }
    for (int i = 0; i < n / 2; i++) {
        const ash_snapshot *t = out[i];
        out[i] = out[n - 1 - i], out[n - 1 - i] = t;
    }
    return n;
}

ash_status ash_session_save(const ash_session *s, const char *path, ash_error *err) {
    ash_kvcache c = s->kv; /* of windows only what the next token needs is written */
    c.n = ASH_MIN(c.n, s->n_tokens);
    if (c.ring) c.lo = ASH_MIN(ASH_MAX(c.lo, c.n > (size_t)c.window ? c.n - (size_t)c.window : 0), c.n);
    const ash_snapshot *snaps[KEEP_SNAPS];
    const int n_snaps = latest(&c, snaps);
    uint64_t total = HEAD_BYTES + (uint64_t)c.n * 4 + pieces_bytes(&c) + (uint64_t)n_snaps * (8 + c.snap_bytes) + 8;
    uint8_t *mem = ash_alloc(total), *p = mem;
    if (!mem) return ash_fail(err, ASH_E_NOMEM, "out of memory for a session file of %llu bytes", (unsigned long long)total);
    memcpy(p, MAGIC, 8), p += 8;
    put32(&p, VERSION);
    put32(&p, (uint32_t)c.plan.k);
    put32(&p, (uint32_t)c.plan.v);
    put32(&p, s->fwd.mode == ASH_MM_FAST ? 1 : 0);
    put32(&p, s->fwd.rope_long ? 1 : 0);
    put32(&p, (uint32_t)n_snaps);
    put64(&p, model_id(s));
    put64(&p, c.n);
    put64(&p, c.lo);
    put64(&p, c.tail_lo);
    put64(&p, c.snap_bytes);
    for (size_t i = 0; i < c.n; i++) put32(&p, (uint32_t)s->tokens[i]);
    stream out = {.out = p};
    ash_kvcache_pieces(&c, save_piece, &out);
    p = out.out;
    for (int i = 0; i < n_snaps; i++) {
        put64(&p, snaps[i]->n);
        memcpy(p, snaps[i]->mem, c.snap_bytes);
        p += c.snap_bytes;
    }
    put64(&p, ash_hash64(mem, total - 8));
    ash_status st = ash_file_write_atomic(path, mem, total, err);
    ash_free(mem);
    return st;
}

/* ---- load ---- */
ash_status ash_session_parse(ash_session_head *h, const void *p, size_t n, ash_error *err) {
    const char *what = "session file";
    *h = (ash_session_head){0};
    ash_rd rd = ash_rd_init(p, n);
    const void *magic = ash_rd_bytes(&rd, 8);
    if (!magic || memcmp(magic, MAGIC, 8) != 0) return ash_fail(err, ASH_E_FORMAT, "%s: not a session file", what);
    const uint32_t version = ash_rd_u32(&rd);
    if (!rd.bad && version != VERSION)
        return ash_fail(err, ASH_E_UNSUPPORTED, "%s: version %u (this program reads %d)", what, version, (int)VERSION);
    if (n < HEAD_BYTES + 8) return ash_fail(err, ASH_E_FORMAT, "%s: the file ends within its header", what);
    ash_rd end = ash_rd_init((const uint8_t *)p + n - 8, 8);
    if (ash_rd_u64(&end) != ash_hash64(p, n - 8))
        return ash_fail(err, ASH_E_FORMAT, "%s: the checksum does not match, the file is damaged", what);
    h->key_type = ash_rd_u32(&rd);
    h->value_type = ash_rd_u32(&rd);
    h->precision = ash_rd_u32(&rd);
    h->rope_long = ash_rd_u32(&rd);
    h->n_snaps = ash_rd_u32(&rd);
    h->model = ash_rd_u64(&rd);
    h->n = ash_rd_u64(&rd);
    h->lo = ash_rd_u64(&rd);
    h->tail_lo = ash_rd_u64(&rd);
    h->snap_bytes = ash_rd_u64(&rd);
    if (h->n > ASH_MIN((uint64_t)1 << 28, (n - HEAD_BYTES - 8) / 4))
        return ash_fail(err, ASH_E_FORMAT, "%s: %llu tokens in a file of %zu bytes", what, (unsigned long long)h->n, n);
    h->tokens = ash_rd_bytes(&rd, h->n * 4);
    h->data_bytes = n - 8 - rd.pos;
    h->data = (const uint8_t *)p + rd.pos;
    if (h->lo > h->n || h->tail_lo > h->n || h->rope_long > 1 || h->n_snaps > KEEP_SNAPS || h->snap_bytes > h->data_bytes)
        return ash_fail(err, ASH_E_FORMAT, "%s: its header contradicts itself", what);
    return ASH_OK;
}

static uint64_t le64(const uint8_t *p) {
    ash_rd r = ash_rd_init(p, 8);
    return ash_rd_u64(&r);
}

/* Whether the file goes with the session; the cache as it will be after, in *c. */
static ash_status check_head(const ash_session *s, const ash_session_head *h, ash_kvcache *c, ash_error *err) {
    const char *what = "session file";
    *c = s->kv;
    if (h->model != model_id(s)) return ash_fail(err, ASH_E_STATE, "%s: it was made with another model or other adapters", what);
    if (h->key_type != (uint32_t)c->plan.k || h->value_type != (uint32_t)c->plan.v)
        return ash_fail(err, ASH_E_STATE, "%s: its cache holds %s keys and %s values, this session's %s and %s", what,
                        ash_kv_type_name((ash_kv_type)h->key_type), ash_kv_type_name((ash_kv_type)h->value_type),
                        ash_kv_type_name(c->plan.k), ash_kv_type_name(c->plan.v));
    if (h->precision != (s->fwd.mode == ASH_MM_FAST ? 1u : 0u))
        return ash_fail(err, ASH_E_STATE, "%s: it was made at another precision", what);
    if (h->n > s->n_ctx)
        return ash_fail(err, ASH_E_LIMIT, "%s: its %llu tokens do not fit the context of %u", what, (unsigned long long)h->n, s->n_ctx);
    c->n = (size_t)h->n, c->lo = (size_t)h->lo, c->tail_lo = (size_t)h->tail_lo;
    const size_t w = (size_t)c->window, need = c->n + 1 > w ? c->n + 1 - w : 0, span = c->n / ASH_KV_SPAN * ASH_KV_SPAN;
    bool good = c->lo <= need && c->n - c->lo <= (c->ring ? w : c->n);
    if (c->quantized) good = good && c->n - c->tail_lo <= ASH_KV_SPAN && (c->tail_lo <= span || c->n <= ASH_KV_SINK);
    for (uint64_t i = 0; i < h->n; i++) {
        const uint8_t *t = h->tokens + 4 * i;
        const uint32_t id = (uint32_t)t[0] | (uint32_t)t[1] << 8 | (uint32_t)t[2] << 16 | (uint32_t)t[3] << 24;
        good = good && id < (uint32_t)s->m->hp.n_vocab;
    }
    if (h->n_snaps) good = good && h->snap_bytes == (c->snap_bytes ? c->snap_bytes : h->snap_bytes);
    if (!good || h->data_bytes != pieces_bytes(c) + h->n_snaps * (8 + h->snap_bytes))
        return ash_fail(err, ASH_E_FORMAT, "%s: its parts do not add up", what);
    return ASH_OK;
}

ash_status ash_session_load(ash_session *s, const char *path, ash_error *err) {
    ash_map map;
    ash_session_head h;
    ash_kvcache c;
    ASH_TRY(ash_map_open(&map, path, err));
    ash_status st = ash_session_parse(&h, map.p, map.n, err);
    if (st == ASH_OK) st = check_head(s, &h, &c, err);
    if (st != ASH_OK) {
        ash_map_close(&map);
        return ash_error_prefix(err, "%s", path);
    }
    ash_kvcache_clear(&s->kv);
    s->kv.n = c.n, s->kv.lo = c.lo, s->kv.tail_lo = c.tail_lo;
    stream in = {.in = h.data};
    ash_kvcache_pieces(&s->kv, load_piece, &in);
    for (uint32_t i = 0, at = 0; i < h.n_snaps; i++, in.in += 8 + h.snap_bytes) {
        const uint64_t n = le64(in.in);
        if (n < 1 || n > h.n || (int)at >= s->kv.n_snaps) continue; /* less room for snapshots here */
        s->kv.snaps[at].n = (size_t)n;
        s->kv.snaps[at].stamp = ++s->kv.stamp;
        memcpy(s->kv.snaps[at++].mem, in.in + 8, s->kv.snap_bytes);
    }
    for (uint64_t i = 0; i < h.n; i++) {
        ash_rd r = ash_rd_init(h.tokens + 4 * i, 4);
        s->tokens[i] = (ash_token)ash_rd_u32(&r);
    }
    s->n_tokens = (size_t)h.n;
    s->fwd.rope_long = h.rope_long != 0;
    s->have_logits = false;
    ash_map_close(&map);
    return ASH_OK;
}
