/* unigram.c - the unigram model of SentencePiece (T5): of all splits into tokens, the one whose scores add up
 * highest, found by dynamic programming from left to right; and the compiled table that normalises the text
 * before. Linear: as many steps per character as there are tokens that begin there. */
#include "text/merge_int.h"

/* ---- normalisation ----
 * SentencePiece's precompiled_charsmap: u32 bytes of a trie, the trie, then the replacements, each ended by
 * a zero. The trie is a Darts-clone double array of 32-bit units: bits 0..7 and 31 label, 8 has-leaf, 10..30
 * offset (9: times 256); a leaf's value, bits 0..30, is the place of the replacement. The longest entry that
 * begins the text is replaced. */
static uint32_t le32(const char *p) {
    uint32_t x;
    memcpy(&x, p, 4); /* little-endian machines only, as in all of the program */
    return x;
}

/* Bytes of t[0..n) that an entry replaces, 0 for none; *to gets what by. */
static size_t charsmap_find(ash_str map, const char *t, size_t n, ash_str *to) {
    uint32_t bytes = le32(map.p), units = bytes / 4;
    const char *trie = map.p + 4, *text = trie + bytes;
    size_t n_text = map.n - 4 - bytes, best = 0;
    if (units == 0) return 0;
    uint32_t node = 0, u = le32(trie);
    node ^= (u >> 10) << ((u & 512) >> 6);
    for (size_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)t[i];
        node ^= c;
        if (node >= units) break;
        u = le32(trie + (size_t)node * 4);
        if ((u & 0x800000ffu) != c) break;
        node ^= (u >> 10) << ((u & 512) >> 6);
        if (!(u >> 8 & 1)) continue;
        if (node >= units) break;
        uint32_t at = le32(trie + (size_t)node * 4) & 0x7fffffff;
        if (at >= n_text) break;
        const char *zero = memchr(text + at, 0, n_text - at);
        if (!zero) break;
        best = i + 1;
        *to = (ash_str){text + at, (size_t)(zero - text) - at};
    }
    return best;
}

static void add_char(const ash_vocab *v, ash_buf *b, const char *p, size_t n) {
    if (n == 3 && memcmp(p, "\xe2\x96\x81", 3) == 0) p = " ", n = 1;
    if (v->squeeze && n == 1 && *p == ' ' && (b->n == 0 || b->p[b->n - 1] == ' ')) return;
    ash_buf_add(b, p, n);
}

static void normalise(const ash_vocab *v, const char *t, size_t n, ash_buf *b) {
    if (v->add_space_prefix) ash_buf_addc(b, ' ');
    for (size_t at = 0; at < n;) {
        ash_str to = {0};
        uint32_t cp;
        size_t k = v->charsmap.n ? charsmap_find(v->charsmap, t + at, n - at, &to) : 0;
        if (k == 0) {
            int c = ash_utf8_next(t + at, t + n, &cp);
            k = c ? (size_t)c : 1;
            to = c ? (ash_str){t + at, k} : (ash_str){"\xef\xbf\xbd", 3};
        }
        for (size_t i = 0; i < to.n;) { /* a replacement may be several characters */
            int c = ash_utf8_next(to.p + i, to.p + to.n, &cp);
            add_char(v, b, to.p + i, c ? (size_t)c : 1);
            i += c ? (size_t)c : 1;
        }
        at += k;
    }
    while (v->squeeze && b->n && b->p[b->n - 1] == ' ') b->n--;
}

/* ---- the best split ---- */
typedef struct {
    double score;
    int32_t id;
    uint32_t len;
} step; /* the last token of the best split that ends here */

ash_status ash_unigram(const ash_vocab *v, const char *t, size_t n, ash_buf *buf, ash_tokvec *out, ash_error *err) {
    ash_status st = ASH_OK;
    step *best = NULL;
    uint32_t *ends = NULL;
    const ash_prefix_index *x = ash_prefix_index_get(v);
    ash_buf_reset(buf);
    normalise(v, t, n, buf);
    n = buf->n;
    if (n > UINT32_MAX - 1) return ash_fail(err, ASH_E_LIMIT, "text of %llu bytes is longer than 2 GiB", (unsigned long long)n);
    best = ash_alloc((n + 1) * sizeof *best);
    ends = ash_alloc((n + 1) * sizeof *ends);
    if (!x || !ash_buf_ok(buf) || !best || !ends) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory while tokenizing");
        goto done;
    }
    const char *p = buf->p;
    for (size_t i = 0; i <= n; i++) best[i] = (step){0, -1, 0}; /* len 0: no split ends here */
    for (size_t at = 0; at < n;) {
        uint32_t cp;
        uint64_t work = 0;
        int c = ash_utf8_next(p + at, p + n, &cp);
        uint32_t k = c ? (uint32_t)c : 1;
        bool one = false;
        const double here = best[at].score;
        for (uint32_t e = ash_prefix_longest(x, v, p + at, n - at, &work); e != ASH_NO_PREFIX;
             e = ash_prefix_parent(x, e, (uint8_t)p[at])) {
            step *to = &best[at + x->ent[e].len];
            double s = here + (double)v->score[x->ent[e].id];
            one = one || x->ent[e].len == k;
            if (to->len == 0 || s > to->score) *to = (step){s, x->ent[e].id, x->ent[e].len};
        }
        step *to = &best[at + k];
        if (!one && (to->len == 0 || here + (double)v->unk_score > to->score)) *to = (step){here + (double)v->unk_score, -1, k};
        at += k;
    }
    size_t m = 0;
    for (size_t at = n; at > 0; at -= best[at].len) ends[m++] = (uint32_t)at;
    for (bool unk = false; m-- > 0;) {
        const step *s = &best[ends[m]];
        bool lost = s->id < 0;
        if (s->id >= 0) ash_tokvec_add(out, s->id);
        for (uint32_t i = 0; s->id < 0 && i < s->len; i++) { /* bytes, if there are tokens for them */
            int32_t b = v->byte_id[(uint8_t)p[ends[m] - s->len + i]];
            if (b >= 0) ash_tokvec_add(out, b), lost = false;
        }
        if (lost && !unk && v->unk >= 0) ash_tokvec_add(out, v->unk); /* several in a row are one */
        unk = lost;
    }
    if (out->oom) st = ash_fail(err, ASH_E_NOMEM, "out of memory while tokenizing");
done:
    ash_free(best);
    ash_free(ends);
    return st;
}
