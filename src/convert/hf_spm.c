/* hf_spm.c - tokenizer.model: the part of SentencePiece's protobuf that a vocabulary needs.
 * Messages (sentencepiece_model.proto): ModelProto { 1: pieces, 2: trainer_spec, 3: normalizer_spec }, SentencePiece
 * { 1: piece, 2: score (float), 3: type }, TrainerSpec { 3: model_type, 1 unigram, 2 BPE }, NormalizerSpec { 2: charsmap,
 * 3: add_dummy_prefix, 4: remove_extra_whitespaces }. Wire format: protobuf.dev/programming-guides/encoding. */
#include "convert/hf_int.h"

static bool varint(ash_rd *r, uint64_t *out) {
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        uint8_t b = ash_rd_u8(r);
        if (r->bad) return false;
        v |= (uint64_t)(b & 127) << shift;
        if (!(b & 128)) return *out = v, true;
    }
    r->bad = true;
    return false;
}

typedef struct {
    uint32_t field;
    int wire;
    uint64_t v;
    ash_rd sub;
} pb; /* one field: number, or bytes in `sub` */

static bool next(ash_rd *r, pb *f) {
    uint64_t tag;
    if (r->bad || !ash_rd_left(r) || !varint(r, &tag)) return false;
    f->field = (uint32_t)ASH_MIN(tag >> 3, (uint64_t)UINT32_MAX);
    f->wire = (int)(tag & 7);
    f->v = 0;
    f->sub = ash_rd_init(NULL, 0);
    switch (f->wire) {
    case 0: return varint(r, &f->v);
    case 1: f->v = ash_rd_u64(r); return !r->bad;
    case 5: f->v = ash_rd_u32(r); return !r->bad;
    case 2: {
        uint64_t n;
        if (!varint(r, &n)) return false;
        const void *p = ash_rd_bytes(r, n);
        f->sub = ash_rd_init(p, p ? n : 0);
        return !r->bad;
    }
    default: r->bad = true; return false; /* groups: not in this file */
    }
}

static ash_status piece(ash_hf *h, ash_hf_vocab *v, ash_rd r, ash_error *err) {
    pb f;
    ash_str text = {"", 0};
    float score = 0;
    uint64_t type = TT_NORMAL;
    while (next(&r, &f)) {
        if (f.field == 1 && f.wire == 2) text = (ash_str){f.sub.p ? (const char *)f.sub.p : "", (size_t)f.sub.n};
        if (f.field == 2 && f.wire == 5) {
            uint32_t u = (uint32_t)f.v;
            memcpy(&score, &u, sizeof score);
        }
        if (f.field == 3 && f.wire == 0) type = f.v;
    }
    if (r.bad || type < TT_NORMAL || type > TT_BYTE || !(score > -1e30f && score < 1e30f))
        return ash_fail(err, ASH_E_FORMAT, "tokenizer.model: piece %lld is malformed", (long long)v->n);
    ASH_TRY(ash_hf_vocab_grow(h, v, v->n + 1, err));
    char *copy = ash_arena_strndup(&h->arena, text.p, text.n);
    if (!copy) return ash_fail(err, ASH_E_NOMEM, "out of memory for the vocabulary");
    v->text[v->n] = (ash_str){copy, text.n};
    v->score[v->n] = score;
    v->type[v->n] = (int32_t)type;
    v->n++;
    return ASH_OK;
}

ash_status ash_hf_spm_parse(ash_hf *h, ash_hf_vocab *v, const void *p, size_t n, ash_error *err) {
    ash_rd r = ash_rd_init(p, n);
    pb f, g;
    uint64_t kind = 1;
    v->scores = true;
    while (next(&r, &f)) {
        if (f.wire != 2) continue;
        if (f.field == 1) ASH_TRY(piece(h, v, f.sub, err));
        if (f.field == 2)
            while (next(&f.sub, &g))
                if (g.field == 3 && g.wire == 0) kind = g.v;
        if (f.field == 3)
            while (next(&f.sub, &g)) {
                if (g.field == 2 && g.wire == 2 && g.sub.n) {
                    char *copy = ash_arena_strndup(&h->arena, (const char *)g.sub.p, (size_t)g.sub.n);
                    if (!copy) return ash_fail(err, ASH_E_NOMEM, "out of memory for the vocabulary");
                    v->charsmap = (ash_str){copy, (size_t)g.sub.n};
                }
                if (g.field == 3 && g.wire == 0) v->no_space_prefix = g.v == 0;
                if (g.field == 4 && g.wire == 0) v->drop_extra_space = g.v != 0;
            }
        if (f.sub.bad) r.bad = true;
    }
    if (r.bad)
        return ash_fail_at(err, ASH_E_FORMAT, r.pos, "tokenizer.model is no SentencePiece model (byte %llu)", (unsigned long long)r.pos);
    if (!v->n) return ash_fail(err, ASH_E_FORMAT, "tokenizer.model holds no pieces");
    if (kind != 1 && kind != 2) return ash_fail(err, ASH_E_UNSUPPORTED, "tokenizer.model is neither BPE nor unigram");
    v->model = kind == 2 ? "llama" : "t5";
    return ASH_OK;
}
