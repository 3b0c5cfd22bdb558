/* vocab_index.c - the lookup tables of a vocabulary: raw bytes of every token, raw bytes -> id, merge
 * pairs, score ranks, special tokens in order. All of it is built once at load from untrusted keys. */
#include "text/text_int.h"

#include <stdlib.h>

/* ---- the byte-level alphabet ----
 * GPT-2 (openai/gpt-2, encoder.py, bytes_to_unicode): printable Latin-1 bytes stand for themselves, the
 * 68 others, in order, for U+0100 + k. */
static bool printable(int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255); }

int ash_byte_of_char(uint32_t cp) {
    if (cp < 256) return printable((int)cp) ? (int)cp : -1;
    if (cp >= 256 + 68) return -1;
    int k = (int)cp - 256;
    if (k < 33) return k;            /* 0..32 */
    if (k < 67) return k - 33 + 127; /* 127..160 */
    return 173;
}

/* Stored text -> raw bytes; never longer. Characters outside of the alphabet stay as they are. */
static size_t raw_of(const ash_vocab *v, const char *p, size_t n, bool verbatim, char *out) {
    size_t m = 0;
    const char *end = p + n;
    if (verbatim) {
        if (n) memcpy(out, p, n);
        return n;
    }
    while (p < end) {
        if (v->kind != ASH_VK_BPE) {
            if (end - p >= 3 && memcmp(p, "\xe2\x96\x81", 3) == 0) {
                out[m++] = ' ';
                p += 3;
            } else
                out[m++] = *p++;
            continue;
        }
        uint32_t cp;
        int k = ash_utf8_next(p, end, &cp), b = k ? ash_byte_of_char(cp) : -1;
        if (b >= 0) {
            out[m++] = (char)b;
            p += k;
        } else
            for (int i = 0; i < ASH_MAX(k, 1); i++) out[m++] = *p++;
    }
    return m;
}

/* "<0xAB>" -> 0xAB, else -1 */
static int byte_token(ash_str s) {
    if (s.n != 6 || memcmp(s.p, "<0x", 3) != 0 || s.p[5] != '>') return -1;
    int b = 0;
    for (int i = 3; i < 5; i++) {
        char c = s.p[i];
        int d = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (d < 0) return -1;
        b = b * 16 + d;
    }
    return b;
}

/* ---- raw bytes -> id ---- */
static ash_str raw_str(const ash_vocab *v, int32_t t) { return (ash_str){v->raw + v->raw_off[t], v->raw_off[t + 1] - v->raw_off[t]}; }

const ash_raw_slot *ash_vocab_raw_slot_long(const ash_vocab *v, const char *p, size_t n, uint32_t h) {
    for (uint32_t i = h & v->slot_mask;; i = (i + 1) & v->slot_mask) {
        const ash_raw_slot *s = &v->slots[i];
        if (s->id < 0) return NULL;
        if ((uint32_t)s->key != h || s->len_rank >> 24 != ASH_MIN(n, (size_t)255) || (n >= 255 && raw_str(v, s->id).n != n)) continue;
        if (memcmp(v->raw + (s->key >> 32), p, n) == 0) return s;
    }
}

static void raw_insert(ash_vocab *v, int32_t t) {
    ash_str r = raw_str(v, t);
    uint64_t w;
    uint32_t h = ash_raw_hash(r.p, r.n, &w), i = h & v->slot_mask;
    const uint64_t key = r.n > 8 ? (uint64_t)v->raw_off[t] << 32 | h : w;
    for (; v->slots[i].id >= 0; i = (i + 1) & v->slot_mask)
        if (r.n > 8 ? (uint32_t)v->slots[i].key == h : v->slots[i].key == key) {
            ash_str o = raw_str(v, v->slots[i].id);
            if (o.n == r.n && memcmp(o.p, r.p, r.n) == 0) break; /* twice the same: the last one counts */
        }
    v->slots[i] = (ash_raw_slot){key, t, (uint32_t)ASH_MIN(r.n, (size_t)255) << 24};
}

/* Tokens that merging may produce. CONTROL never: text must not turn into control tokens unasked. */
static bool mergeable(const ash_vocab *v, int32_t t) {
    if (v->text[t].n == 0) return false;
    if (v->type[t] != ASH_TOK_NORMAL && v->type[t] != ASH_TOK_USER_DEFINED && v->type[t] != ASH_TOK_UNUSED) return false;
    /* A space in SPM text is always U+2581: a token spelled with a real one is only found as a special. */
    if (v->kind != ASH_VK_BPE && memchr(v->text[t].p, ' ', v->text[t].n)) return false;
    return true;
}

static uint32_t table_size(uint64_t n) {
    uint32_t size = 16;
    while ((uint64_t)size * 2 < n * 3) size *= 2; /* at most 2/3 full */
    return size;
}

static ash_status build_raw(ash_vocab *v, ash_error *err) {
    uint64_t total = 0;
    for (int32_t i = 0; i < v->n; i++)
        if (ash_add_ovf(total, ASH_MAX(v->text[i].n, (size_t)1), &total) || total > UINT32_MAX)
            return ash_fail(err, ASH_E_FORMAT, "key tokenizer.ggml.tokens holds more than 4 GiB of text");
    uint32_t size = table_size((uint64_t)v->n);
    v->raw = ash_alloc(total);
    v->raw_off = ash_alloc(((size_t)v->n + 1) * sizeof *v->raw_off);
    v->slots = ash_alloc(size * sizeof *v->slots);
    if (!v->raw || !v->raw_off || !v->slots) return ash_fail(err, ASH_E_NOMEM, "out of memory for a vocabulary of %d tokens", v->n);
    for (uint32_t i = 0; i < size; i++) v->slots[i] = (ash_raw_slot){.id = -1};
    v->slot_mask = size - 1;
    for (int i = 0; i < 256; i++) v->byte_id[i] = -1;
    uint32_t at = 0;
    for (int32_t i = 0; i < v->n; i++) {
        v->raw_off[i] = at;
        int b = v->type[i] == ASH_TOK_BYTE ? byte_token(v->text[i]) : -1;
        if (b >= 0) {
            v->raw[at++] = (char)b;
            v->byte_id[b] = i;
        } else
            at +=
                (uint32_t)raw_of(v, v->text[i].p, v->text[i].n, v->type[i] != ASH_TOK_NORMAL && v->type[i] != ASH_TOK_UNUSED, v->raw + at);
        v->raw_off[i + 1] = at;
        v->max_raw = ASH_MAX(v->max_raw, at - v->raw_off[i]);
    }
    /* user-defined first, so that a normal token of the same bytes wins */
    for (int pass = 0; pass < 2; pass++)
        for (int32_t i = 0; i < v->n; i++)
            if (mergeable(v, i) && (v->type[i] == ASH_TOK_USER_DEFINED) == (pass == 0)) raw_insert(v, i);
    if (v->kind == ASH_VK_BPE)
        for (int b = 0; b < 256; b++) {
            char c = (char)b;
            if (v->byte_id[b] < 0) v->byte_id[b] = ash_vocab_raw_find(v, &c, 1);
        }
    return ASH_OK;
}

/* ---- merges of byte-level BPE: "left right" in rank order ---- */
static ash_status build_merges(ash_vocab *v, const ash_gguf *g, ash_error *err) {
    const ash_gguf_kv *kv = ash_gguf_find(g, "tokenizer.ggml.merges");
    ash_buf raw = {0};
    ash_status st = ASH_OK;
    if (!kv || kv->type != ASH_GV_ARRAY || (kv->elem_type != ASH_GV_STRING && kv->n))
        return ash_fail(err, ASH_E_FORMAT, "key tokenizer.ggml.merges is %s", kv ? "not an array of strings" : "absent");
    if (kv->n > (1u << 24)) return ash_fail(err, ASH_E_FORMAT, "key tokenizer.ggml.merges has %llu entries", (unsigned long long)kv->n);
    uint32_t size = table_size(kv->n);
    v->merges = ash_alloc(size * sizeof *v->merges);
    if (!v->merges) return ash_fail(err, ASH_E_NOMEM, "out of memory for %llu merges", (unsigned long long)kv->n);
    for (uint32_t i = 0; i < size; i++) v->merges[i].rank = UINT32_MAX;
    v->merge_mask = size - 1;
    v->n_ranks = (uint32_t)kv->n;
    uint64_t cursor = 0;
    ash_str s;
    for (uint32_t r = 0; r < (uint32_t)kv->n; r++) {
        if (!ash_gguf_array_str(kv, &cursor, &s)) {
            st = ash_fail(err, ASH_E_FORMAT, "key tokenizer.ggml.merges ends at entry %u", r);
            goto done;
        }
        const char *sp = s.n > 1 ? memchr(s.p + 1, ' ', s.n - 1) : NULL;
        if (!sp || sp + 1 == s.p + s.n) {
            st =
                ash_fail(err, ASH_E_FORMAT, "key tokenizer.ggml.merges, entry %u (\"%.*s\"): not two parts", r, (int)ASH_MIN(s.n, 40), s.p);
            goto done;
        }
        ash_buf_reset(&raw);
        ash_buf_add(&raw, s.p, s.n); /* room for both parts; raw is never longer */
        if (!ash_buf_ok(&raw)) {
            st = ash_fail(err, ASH_E_NOMEM, "out of memory for merges");
            goto done;
        }
        size_t na = raw_of(v, s.p, (size_t)(sp - s.p), false, raw.p);
        size_t nb = raw_of(v, sp + 1, (size_t)(s.p + s.n - sp - 1), false, raw.p + na);
        int32_t a = ash_vocab_raw_find(v, raw.p, na), b = ash_vocab_raw_find(v, raw.p + na, nb), ab = ash_vocab_raw_find(v, raw.p, na + nb);
        if (a < 0 || b < 0 || ab < 0) {
            st = ash_fail(err, ASH_E_FORMAT, "key tokenizer.ggml.merges, entry %u (\"%.*s\"): a part or the result is not a token", r,
                          (int)ASH_MIN(s.n, 40), s.p);
            goto done;
        }
        uint64_t key = (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
        uint32_t i = ash_merge_hash(key) & v->merge_mask;
        while (v->merges[i].rank != UINT32_MAX && v->merges[i].key != key) i = (i + 1) & v->merge_mask;
        if (v->merges[i].rank == UINT32_MAX) v->merges[i] = (ash_merge_slot){key, r, ab}; /* of two, the better rank */
    }
done:
    ash_buf_free(&raw);
    return st;
}

/* ---- SPM: scores to dense ranks ---- */
/* Order-preserving bits of a float, best (highest) first. */
static uint32_t score_key(float f) {
    uint32_t u;
    if (f == 0.0f) f = 0.0f; /* -0 equals 0 */
    memcpy(&u, &f, 4);
    u = u & 0x80000000u ? ~u : u | 0x80000000u;
    return ~u;
}

static int cmp_u64(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static ash_status build_ranks(ash_vocab *v, const ash_gguf *g, ash_error *err) {
    const ash_gguf_kv *kv = ash_gguf_find(g, "tokenizer.ggml.scores");
    if (!kv || kv->type != ASH_GV_ARRAY || kv->n != (uint64_t)v->n)
        return ash_fail(err, ASH_E_FORMAT, "key tokenizer.ggml.scores is %s", kv ? "not as long as tokenizer.ggml.tokens" : "absent");
    v->rank = ash_alloc((size_t)v->n * sizeof *v->rank);
    uint64_t *order = ash_alloc((size_t)v->n * sizeof *order);
    ash_status st = ASH_OK;
    if (!v->rank || !order) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for scores");
        goto done;
    }
    bool sorted = true;
    for (int32_t i = 0; i < v->n; i++) {
        double s;
        if (!ash_gguf_array_f64(kv, (uint64_t)i, &s) || s != s) {
            st = ash_fail(err, ASH_E_FORMAT, "key tokenizer.ggml.scores, entry %d: not a number", i);
            goto done;
        }
        order[i] = (uint64_t)score_key((float)s) << 32 | (uint32_t)i;
        sorted = sorted && (i == 0 || order[i - 1] <= order[i]);
    }
    if (!sorted) qsort(order, (size_t)v->n, sizeof *order, cmp_u64);
    uint32_t r = 0;
    for (int32_t i = 0; i < v->n; i++) {
        if (i > 0 && order[i] >> 32 != order[i - 1] >> 32) r++;
        v->rank[(uint32_t)order[i]] = r;
    }
    v->n_ranks = r + 1;
done:
    ash_free(order);
    return st;
}

/* ---- unigram: scores as they are ---- */
static ash_status build_scores(ash_vocab *v, const ash_gguf *g, ash_error *err) {
    const ash_gguf_kv *kv = ash_gguf_find(g, "tokenizer.ggml.scores");
    if (!kv || kv->type != ASH_GV_ARRAY || kv->n != (uint64_t)v->n)
        return ash_fail(err, ASH_E_FORMAT, "key tokenizer.ggml.scores is %s", kv ? "not as long as tokenizer.ggml.tokens" : "absent");
    v->score = ash_alloc((size_t)v->n * sizeof *v->score);
    if (!v->score) return ash_fail(err, ASH_E_NOMEM, "out of memory for scores");
    float least = 0;
    for (int32_t i = 0; i < v->n; i++) {
        double s;
        if (!ash_gguf_array_f64(kv, (uint64_t)i, &s) || !(s > -1e30 && s < 1e30))
            return ash_fail(err, ASH_E_FORMAT, "key tokenizer.ggml.scores, entry %d: not a number", i);
        v->score[i] = (float)s;
        if (v->type[i] == ASH_TOK_NORMAL && v->score[i] < least) least = v->score[i];
    }
    v->unk_score = least - 10; /* SentencePiece's kUnkPenalty */
    return ASH_OK;
}

/* About 16 bits an entry: one lookup in twenty passes in vain. */
static ash_status build_maybe(ash_vocab *v, ash_error *err) {
    uint32_t size = (v->merges ? v->merge_mask : v->slot_mask) + 1, bits = 6;
    while (bits < 27 && 1u << bits < size * 8u) bits++;
    v->maybe_shift = 32 - bits;
    uint64_t *m = ash_calloc((size_t)1 << (bits - 6), sizeof *m);
    if (!m) return ash_fail(err, ASH_E_NOMEM, "out of memory for a vocabulary");
    for (uint32_t i = 0; i < size; i++) {
        bool used = v->merges ? v->merges[i].rank != UINT32_MAX : v->slots[i].id >= 0;
        if (!used) continue;
        uint64_t w;
        ash_str r = v->merges ? (ash_str){0} : raw_str(v, v->slots[i].id);
        uint32_t h = v->merges ? ash_merge_hash(v->merges[i].key) : ash_raw_hash(r.p, r.n, &w);
        m[h >> v->maybe_shift >> 6] |= 1ull << (h >> v->maybe_shift & 63);
    }
    v->maybe = m;
    return ASH_OK;
}

/* What two ASCII bytes make. Where symbols are characters, also: which bytes stand side by side in some
 * token, and the tokens of one ASCII character. */
static ash_status build_pairs(ash_vocab *v, ash_error *err) {
    bool chars = v->kind != ASH_VK_BPE;
    v->pair2 = ash_alloc(128 * 128 * sizeof *v->pair2);
    v->joins = chars ? ash_calloc(65536 / 8, 1) : NULL;
    if (!v->pair2 || (chars && !v->joins)) return ash_fail(err, ASH_E_NOMEM, "out of memory for a vocabulary");
    for (int i = 0; i < 128 * 128; i++) v->pair2[i] = (ash_pair2){0, -1};
    memset(v->char_id, 0xff, sizeof v->char_id);
    for (uint32_t i = 0; chars && i <= v->slot_mask; i++) {
        if (v->slots[i].id < 0 || !(v->slots[i].len_rank >> 24)) continue;
        ash_str r = raw_str(v, v->slots[i].id);
        const uint8_t *p = (const uint8_t *)r.p;
        for (size_t k = 1; k < r.n; k++) {
            uint32_t bit = (uint32_t)p[k - 1] * 256 + p[k];
            v->joins[bit >> 3] |= (uint8_t)(1 << (bit & 7));
        }
        if (r.n == 1 && p[0] < 128) v->char_id[p[0]] = v->slots[i].id;
        if (r.n == 2 && (p[0] | p[1]) < 128 && v->rank) v->pair2[p[0] * 128 + p[1]] = (ash_pair2){v->rank[v->slots[i].id], v->slots[i].id};
    }
    for (int i = 0; v->merges && i < 128 * 128; i++) {
        const int32_t *one = chars ? v->char_id : v->byte_id;
        ash_pair2 *q = &v->pair2[i];
        int32_t a = one[i / 128], b = one[i % 128];
        if (a < 0 || b < 0 || !ash_merge_find(v, a, b, &q->key, &q->id)) q->id = -1;
    }
    return ASH_OK;
}

ash_token ash_vocab_find(const ash_vocab *v, const char *text, size_t n) {
    size_t len = 0;
    if (n == 0) return -1;
    int32_t t = ash_special_at(&v->specials[1][0], text, n, &len);
    if (t >= 0 && len == n) return t;
    for (uint32_t i = 0; i < v->specials[1][1].n; i++) { /* few, and here as they are stored */
        t = v->specials[1][1].id[i];
        if (v->text[t].n == n && memcmp(v->text[t].p, text, n) == 0) return t;
    }
    char small[256], *raw = n <= sizeof small ? small : ash_alloc(n);
    if (!raw) return -1;
    t = ash_vocab_raw_find(v, raw, raw_of(v, text, n, false, raw));
    if (raw != small) ash_free(raw);
    if (t >= 0 && v->text[t].n == n && memcmp(v->text[t].p, text, n) == 0) return t;
    int b = byte_token((ash_str){text, n});
    t = b >= 0 ? v->byte_id[b] : -1;
    return t >= 0 && v->text[t].n == n && memcmp(v->text[t].p, text, n) == 0 ? t : -1;
}

/* Added tokens that the text may hold without being found there (they want to be words of their own, or a space in front, or are BERT's, which are
 * looked for before the text is normalised) are no pieces of the model: lookups pass over their places (length 0). Merges may still make them. */
static void unlist_added(ash_vocab *v) {
    for (uint32_t i = 0; i <= v->slot_mask; i++) {
        ash_raw_slot *s = &v->slots[i];
        if (s->id < 0 || v->type[s->id] != ASH_TOK_USER_DEFINED) continue;
        const bool choosy = v->how && v->how[s->id] & (ASH_SPECIAL_WORD | ASH_SPECIAL_NORMAL);
        if (choosy || (v->kind == ASH_VK_WPM && v->raw[v->raw_off[s->id]] != ' ')) s->key = UINT64_MAX, s->len_rank = 0;
    }
}

ash_status ash_vocab_index(ash_vocab *v, const ash_gguf *g, ash_error *err) {
    ASH_TRY(build_raw(v, err));
    if (v->kind == ASH_VK_BPE || v->kind == ASH_VK_CPE) ASH_TRY(build_merges(v, g, err));
    if (v->kind == ASH_VK_SPM) ASH_TRY(build_ranks(v, g, err));
    unlist_added(v);
    for (uint32_t i = 0; v->rank && i <= v->slot_mask; i++)
        if (v->slots[i].id >= 0 && v->slots[i].len_rank >> 24) v->slots[i].len_rank |= v->rank[v->slots[i].id];
    if (v->kind == ASH_VK_UGM) ASH_TRY(build_scores(v, g, err));
    ASH_TRY(build_maybe(v, err));
    ASH_TRY(build_pairs(v, err));
    ash_free(v->rank); /* the slots have them */
    v->rank = NULL;
    return ASH_OK;
}
