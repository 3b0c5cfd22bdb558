/* merge_long.c - a long word (a megabyte without a space) into tokens, from left to right, in linear time.
 *
 * Let enc(x) be what merging makes of x, end in token A, and enc(y) begin with B. Then
 * enc(xy) = enc(x) enc(y) exactly if enc(AB) = A B: until a merge crosses the seam, both sides go on as
 * if alone; what happens inside A's bytes does not depend on what is left of them, as no merge ever
 * crosses A's left end, and likewise for B. So the first crossing merge, if there is one, happens in AB
 * too. It follows that tokens whose own bytes encode to themselves, and of which all neighbours stand
 * side by side in this sense, are the encoding of their joined bytes, and there is one such sequence only.
 * It is found by taking the longest token that fits behind the last one, and going back where none does.
 * The encoding of a prefix is unique, too, so a place that was left that way is never tried again. As there is
 * one such sequence only, any order of trying finds it: tokens whose last symbol will probably merge with what
 * follows come last.
 *
 * Do A and B stand? With their symbols' merges in order (a token's merges do not depend on its
 * neighbours), the pair at the seam is a.b, a from A's right edge, b from B's left edge. If each token's
 * keys never fall, A's and B's merges run interleaved by key (equal ones: A's first), and a pair at the
 * seam merges exactly if its key is better than that of the merge which ends it. So: go back in time from
 * (A, B), undoing the later of the two tokens' last merges at the edge, and look up one pair a step.
 * Tokens for which that does not hold ("odd") are encoded together with their neighbour. Either way the
 * answer is kept in a small table, with the vocabulary. */
#include "text/merge_int.h"

#define NOTHING ((1u << ASH_MEMO_VAL) - 1)
#define ENT_SYM (UINT32_MAX - 1) /* in place of an entry: the first symbol, which is none */

/* longest: the longest entry that begins there; start: | SKIPPED if one that is longer than ent and stands was not tried. */
typedef struct {
    uint32_t start, ent, longest;
} taken;
#define SKIPPED (1u << 31)

struct ash_long {
    const ash_vocab *v;
    const ash_prefix_index *x;
    uint64_t *dead; /* bit per byte: nothing fits from here on */
    size_t n_dead;
    taken *st;
    size_t st_cap;
    ash_symvec tmp;
    ash_bucket *bucket;
    bool oom;
};

ash_long *ash_long_new(const ash_vocab *v) {
    ash_long *l = ash_calloc(1, sizeof *l);
    if (!l) return NULL;
    l->v = v;
    l->x = ash_prefix_index_get(v);
    if (l->x) return l;
    ash_long_free(l);
    return NULL;
}

void ash_long_free(ash_long *l) {
    if (!l) return;
    ash_free(l->dead);
    ash_free(l->st);
    ash_free(l->tmp.p);
    ash_bucket_free(l->bucket);
    ash_free(l);
}

/* Plain encoding of p[start .. start + n) into l->tmp. */
static bool encode(ash_long *l, const char *p, uint32_t start, uint32_t n) {
    l->tmp.n = 0;
    if (n <= ASH_SHORT_MAX) {
        ash_sym s[ASH_SHORT_MAX];
        uint32_t k = ash_merge_short(l->v, p, start, n, s, NULL);
        for (uint32_t i = 0; i < k; i++)
            if (!ash_symvec_add(&l->tmp, s[i])) return !(l->oom = true);
        return true;
    }
    if (!l->bucket) l->bucket = ash_bucket_new(l->v);
    if (!l->bucket || !ash_bucket_merge(l->bucket, p, start, n, &l->tmp)) return !(l->oom = true);
    return true;
}

static inline uint64_t both(uint32_t a, uint32_t b) { return (uint64_t)a << ASH_MEMO_ENT | b; }
static inline uint32_t place(uint64_t both, uint32_t size) { return (uint32_t)((both * 0x9e3779b97f4a7c15u) >> 40) & (size - 1); }
/* The memo of seams: 32 bits an entry, so that more of it stays near. The pair of entries goes through a one-to-one map of its 38 bits; the
 * upper 16 are the place, the lower 22 stand in the entry above SEAM_STEPS bits: 1 + the steps from the longest entry to its first prefix
 * that stands, SEAM_NONE if none does; 0: empty. */
enum { SEAM_TAG = 2 * ASH_MEMO_ENT - 16, SEAM_STEPS = 10, SEAM_NONE = (1 << SEAM_STEPS) - 1 };
_Static_assert(ASH_SEAMS == 1 << 16 && SEAM_TAG + SEAM_STEPS <= 32, "an entry is the rest of a pair and its steps");
static inline uint64_t seam_of(uint32_t a, uint32_t b) { return both(a, b) * 0x9e3779b97f4a7c15u & ((1ull << 2 * ASH_MEMO_ENT) - 1); }
static inline uint32_t seam_place(uint64_t s) { return (uint32_t)(s >> SEAM_TAG); }
static inline uint32_t seam_tag(uint64_t s) { return (uint32_t)s & ((1u << SEAM_TAG) - 1); }
/* Steps kept for that seam, SEAM_NONE, or -1 if it is not there. */
static inline int seam_get(const ash_prefix_index *x, uint64_t s) {
    uint32_t m = atomic_load_explicit(&x->seam[seam_place(s)], memory_order_relaxed);
    return m >> SEAM_STEPS == seam_tag(s) ? (int)(m & SEAM_NONE) - 1 : -1;
}
static inline void seam_set(const ash_prefix_index *x, uint64_t s, uint32_t steps) {
    if (steps + 1 <= SEAM_NONE)
        atomic_store_explicit(&x->seam[seam_place(s)], seam_tag(s) << SEAM_STEPS | (steps + 1), memory_order_relaxed);
}
static inline uint64_t memo_get(_Atomic uint64_t *m) { return ~atomic_load_explicit(m, memory_order_relaxed); }
static inline void memo_set(_Atomic uint64_t *m, uint64_t both, uint32_t val) {
    atomic_store_explicit(m, ~(both << ASH_MEMO_VAL | val), memory_order_relaxed);
}

/* ---- how a token comes about ---- */
static uint32_t entry_of(const ash_long *l, int32_t id) {
    uint64_t work = 0;
    if (id < 0) return ASH_NO_PREFIX;
    uint32_t at = l->v->raw_off[id], n = l->v->raw_off[id + 1] - at;
    uint32_t e = n ? ash_prefix_longest(l->x, l->v, l->v->raw + at, n, &work) : ASH_NO_PREFIX;
    return e != ASH_NO_PREFIX && l->x->ent[e].id == id ? e : ASH_NO_PREFIX;
}

static uint32_t last_of(ash_long *l, uint32_t ent);

/* Four words, written by any thread, always with the same values; `last` comes last. */
static uint32_t find_out(ash_long *l, ash_prefix_ent *e) {
    const ash_vocab *v = l->v;
    uint32_t at = v->raw_off[e->id], n = e->len, last, edge = 0, a = ASH_NO_PREFIX, b = ASH_NO_PREFIX;
    ash_trace tr = {0};
    if (n <= ASH_SHORT_MAX) {
        ash_sym s[ASH_SHORT_MAX];
        uint32_t k = ash_merge_short(v, v->raw + at, 0, n, s, &tr);
        if (k != 1 || s[0].id != e->id)
            last = ASH_TI_NEVER;
        else if (tr.n == 0)
            last = ASH_TI_SYMBOL, edge = NOTHING;
        else {
            a = entry_of(l, tr.l);
            b = entry_of(l, tr.r);
            bool plain = tr.rising && a != ASH_NO_PREFIX && b != ASH_NO_PREFIX && last_of(l, a) < ASH_TI_ODD && last_of(l, b) < ASH_TI_ODD;
            last = plain ? tr.key + 1 : ASH_TI_ODD;
            if (plain) edge = last_of(l, b) == ASH_TI_SYMBOL ? last : atomic_load_explicit(&l->x->edge[b], memory_order_relaxed);
        }
    } else {
        if (!encode(l, v->raw + at, 0, n)) return ASH_TI_NEVER; /* out of memory */
        last = l->tmp.n == 1 && l->tmp.p[0].id == e->id ? ASH_TI_ODD : ASH_TI_NEVER;
    }
    atomic_store_explicit(&l->x->edge[e - l->x->ent], edge, memory_order_relaxed);
    atomic_store_explicit(&e->l, a, memory_order_relaxed);
    atomic_store_explicit(&e->r, b, memory_order_relaxed);
    atomic_store_explicit(&e->last, last, memory_order_release);
    return last;
}

static uint32_t last_of(ash_long *l, uint32_t ent) {
    uint32_t k = atomic_load_explicit(&l->x->ent[ent].last, memory_order_acquire);
    return ASH_LIKELY(k != ASH_TI_UNKNOWN) ? k : find_out(l, &l->x->ent[ent]);
}

/* ---- do two neighbours stand side by side? ---- */
static bool stands_odd(ash_long *l, const char *p, uint32_t start, uint32_t seam, uint32_t end) {
    return encode(l, p, start, end - start) && l->tmp.n == 2 && l->tmp.p[1].start == seam;
}

/* Key + 1 of what entries x and y, nx and ny bytes on either side of the seam, make; NOTHING (above all keys) if nothing. */
static inline uint32_t pair_key(ash_long *l, const bool spm, const char *p, uint32_t seam, uint32_t x, uint32_t nx, uint32_t y,
                                uint32_t ny) {
    const ash_prefix_ent *ent = l->x->ent;
    const uint64_t xy = both(x, y);
    _Atomic uint64_t *at = l->x->memo ? &l->x->memo[place(xy, ASH_PAIRS)] : NULL;
    const uint64_t m = at ? memo_get(at) : 0;
    if (at && m >> ASH_MEMO_VAL == xy) return m & NOTHING;
    uint32_t key;
    int32_t id;
    key = ash_pair_make(l->v, spm, p, seam - nx, nx, ent[x].id, ny, ent[y].id, &key, &id) ? key + 1 : NOTHING;
    if (at) memo_set(at, xy, key);
    return key;
}

/* Entries x and y, neither of them odd, on either side of the seam. No entry that begins where x does is longer than
 * x and `room` bytes. Which of the two goes back in time is as good as random: no branch there. */
static inline bool stands(ash_long *l, const bool spm, const char *p, uint32_t seam, uint32_t x, uint32_t y, uint32_t room) {
    const ash_prefix_ent *ent = l->x->ent, *ex = &ent[x], *ey = &ent[y];
    const uint8_t *s = (const uint8_t *)p + seam;
    const uint32_t one = s[0] & 31, two = ey->len > 1 ? ash_two(s[0], s[1]) : 0;
    uint32_t kx = last_of(l, x), ky = last_of(l, y), end = NOTHING; /* a pair with a key below `end` has time to merge */
    for (;;) {
        uint64_t may = ey->len > 1 ? ex->plus2 >> two : ex->plus1 >> one;
        if (may & (ey->len <= room) && pair_key(l, spm, p, seam, x, ex->len, y, ey->len) < end) return false;
        if ((kx | ky) == 0) return true;
        bool left = ky >= kx; /* y's last merge is the later: equal keys go from left to right */
        uint32_t to = atomic_load_explicit(left ? &ey->l : &ex->r, memory_order_relaxed), k = last_of(l, to);
        end = left ? ky + 1 : kx;
        room = left ? room : UINT32_MAX;
        x = left ? x : to;
        y = left ? to : y;
        kx = left ? kx : k;
        ky = left ? k : ky;
        ex = &ent[x];
        ey = &ent[y];
    }
}

/* ---- the word ---- */
typedef struct {
    const char *p;
    uint32_t n, pos;
    uint64_t work;
    bool spm;
} word;

static bool push(ash_long *l, size_t n, taken t) {
    if (ASH_UNLIKELY(n == l->st_cap)) {
        size_t cap = ASH_MAX(l->st_cap * 2, (size_t)1024);
        taken *p = ash_realloc(l->st, cap * sizeof *p);
        if (!p) return !(l->oom = true);
        l->st = p;
        l->st_cap = cap;
    }
    l->st[n] = t;
    return true;
}

static bool mark_dead(ash_long *l, uint32_t n, uint32_t pos) {
    if (!l->n_dead) { /* the first in this word */
        size_t need = (size_t)n / 64 + 1;
        uint64_t *d = ash_realloc(l->dead, need * sizeof *d);
        if (!d) return !(l->oom = true);
        memset(d, 0, need * sizeof *d);
        l->dead = d;
        l->n_dead = need;
    }
    l->dead[pos >> 6] |= 1ull << (pos & 63);
    return true;
}

static inline bool is_dead(const ash_long *l, uint32_t n, uint32_t at) { return l->n_dead && at < n && l->dead[at >> 6] >> (at & 63) & 1; }

/* A guess, to save going back: will the last symbol of entry e, which ends before `end`, merge with the next symbol before it
 * merges within e? That takes the first of a falling run of keys of which no second one is there to be faster. */
static inline bool doomed(const ash_long *l, const word *w, uint32_t e, uint32_t end) {
    if (end >= w->n) return false;
    const uint8_t *s = (const uint8_t *)w->p + end;
    if ((s[-1] | s[0]) >= 128) return false;
    ash_pair2 a = l->v->pair2[s[-1] * 128 + s[0]];
    if (a.id < 0 || a.key + 1 >= atomic_load_explicit(&l->x->edge[e], memory_order_relaxed)) return false;
    if (w->n - end < 2 || s[1] >= 128) return true;
    ash_pair2 b = l->v->pair2[s[0] * 128 + s[1]];
    if (b.id < 0 || b.key >= a.key) return true;
    if (w->n - end < 3 || s[2] >= 128) return false;
    ash_pair2 c = l->v->pair2[s[1] * 128 + s[2]];
    return c.id >= 0 && c.key < b.key;
}

typedef struct {
    uint32_t ent, start, room; /* what was taken before; bytes by which the longest entry there is longer */
    bool free, odd;            /* everything stands beside it; it is encoded together with its neighbour */
} left;

/* The prefix of entry e, which begins with byte c, that is so many steps up. */
static inline uint32_t up(const ash_prefix_index *x, uint32_t e, uint8_t c, uint32_t steps) {
    while (steps--) e = ash_prefix_parent(x, e, c);
    return e;
}

/* The first of e and its prefixes that stands beside b, or ASH_NO_PREFIX. It depends on the two entries only. */
static inline uint32_t standing(ash_long *l, const bool spm, word *w, const left *b, uint32_t e) {
    const ash_prefix_index *x = l->x;
    const uint8_t c = (uint8_t)w->p[w->pos];
    const bool kept = b->ent != ENT_SYM && x->seam;
    const uint64_t seam = kept ? seam_of(b->ent, e) : 0;
    const int m = kept ? seam_get(x, seam) : -1;
    if (m == SEAM_NONE - 1) return ASH_NO_PREFIX;
    if (m >= 0) return up(x, e, c, (uint32_t)m);
    uint32_t steps = 0;
    for (; e != ASH_NO_PREFIX; e = ash_prefix_parent(x, e, c), steps++) {
        uint32_t last = last_of(l, e);
        w->work++;
        if (last == ASH_TI_NEVER) continue;
        if (b->free) break;
        if (b->odd || last == ASH_TI_ODD ? (!spm && b->ent == ENT_SYM) || stands_odd(l, w->p, b->start, w->pos, w->pos + x->ent[e].len)
                                         : stands(l, spm, w->p, w->pos, b->ent, e, b->room))
            break;
    }
    if (kept && !l->oom) {
        if (e == ASH_NO_PREFIX)
            seam_set(x, seam, SEAM_NONE - 1);
        else if (steps < SEAM_NONE - 1)
            seam_set(x, seam, steps);
    }
    return e;
}

/* The first of e, its prefixes and the first symbol that stands beside what was taken before and leads to no known dead end:
 * its entry, ENT_SYM, or ASH_NO_PREFIX. `skipped`, if not NULL: those that look doomed come last, and it gets SKIPPED if
 * there was one. */
static inline uint32_t choose(ash_long *l, const bool spm, word *w, size_t k, uint32_t e, uint32_t *skipped) {
    const ash_prefix_index *x = l->x;
    const uint8_t *s = (const uint8_t *)w->p + w->pos;
    const taken *t = k ? &l->st[k - 1] : NULL;
    left b = {.ent = ENT_SYM, .free = true};
    uint32_t late = ASH_NO_PREFIX;
    if (t) {
        b.ent = t->ent;
        b.start = t->start & ~SKIPPED;
        b.odd = t->ent == ENT_SYM || last_of(l, t->ent) == ASH_TI_ODD;
        b.room = t->ent == ENT_SYM ? 0 : ash_prefix_len(x, t->longest) - ash_prefix_len(x, t->ent);
        /* at a place where no token has these bytes side by side, everything stands */
        b.free = spm && !(l->v->joins[(s[-1] * 256u + s[0]) >> 3] >> (s[0] & 7) & 1);
    }
    for (; e != ASH_NO_PREFIX && (e = standing(l, spm, w, &b, e)) != ASH_NO_PREFIX; e = ash_prefix_parent(x, e, s[0])) {
        uint32_t end = w->pos + ash_prefix_len(x, e);
        w->work++;
        if (is_dead(l, w->n, end)) continue;
        if (!skipped || !doomed(l, w, e, end)) return e;
        if (late == ASH_NO_PREFIX) late = e;
        *skipped = SKIPPED;
    }
    if (late != ASH_NO_PREFIX) return late;
    /* a symbol that is no entry; in BPE one without a token merges with nothing */
    int32_t id;
    uint32_t len = ash_first_symbol(l->v, spm, w->p + w->pos, w->p + w->n, &id);
    if ((id >= 0 && (spm || x->ent[s[0]].id == id)) || is_dead(l, w->n, w->pos + len)) return ASH_NO_PREFIX;
    if (!b.free && (spm || id >= 0) && !stands_odd(l, w->p, b.start, w->pos, w->pos + len)) return ASH_NO_PREFIX;
    return ENT_SYM;
}

/* 1: done, 0: given up (a vocabulary made for it), -1: out of memory */
static inline int walk(ash_long *l, const bool spm, const char *p, uint32_t n, size_t *n_st) {
    const ash_prefix_index *x = l->x;
    const uint64_t most = 32 * (uint64_t)n + 65536;
    word w = {p, n, 0, 0, spm};
    size_t k = 0;
    uint32_t prev = ENT_SYM;
    while (w.pos < n) {
        uint32_t e = ash_prefix_longest(x, l->v, p + w.pos, n - w.pos, &w.work), top = e, skipped = 0;
        if (ASH_LIKELY(prev != ENT_SYM && e != ASH_NO_PREFIX && x->seam)) { /* mostly that is all */
            const int m = seam_get(x, seam_of(prev, e));
            __builtin_prefetch(&x->ent[e]);
            if (m >= 0 && m != SEAM_NONE - 1) {
                /* if it is the longest, the next place does not wait for what comes out of the table */
                uint32_t c = ASH_LIKELY(m == 0) ? e : up(x, e, (uint8_t)p[w.pos], (uint32_t)m), end = w.pos + ash_prefix_len(x, c);
                if (ASH_LIKELY(!is_dead(l, n, end) && !doomed(l, &w, c, end))) {
                    if (!push(l, k++, (taken){w.pos, prev = c, top})) return -1;
                    w.pos = end;
                    continue;
                }
            }
        }
        e = choose(l, spm, &w, k, e, &skipped);
        while (e == ASH_NO_PREFIX && !l->oom) {      /* back: nothing fits here */
            if (k == 0 || ++w.work > most) return 0; /* the first cannot be: the word's encoding is such a sequence */
            if (!mark_dead(l, n, w.pos)) return -1;
            k--;
            const taken t = l->st[k];
            w.pos = t.start & ~SKIPPED;
            top = t.longest;
            if (t.ent == ENT_SYM)
                e = ASH_NO_PREFIX;
            else /* what was tried is dead now; after this nothing is skipped */
                e = choose(l, spm, &w, k, t.start & SKIPPED ? top : ash_prefix_parent(x, t.ent, (uint8_t)p[w.pos]), NULL);
            skipped = t.start & SKIPPED;
        }
        if (l->oom || !push(l, k++, (taken){w.pos | skipped, prev = e, top})) return -1;
        if (w.work > most) return 0;
        int32_t id;
        w.pos += e == ENT_SYM ? ash_first_symbol(l->v, spm, p + w.pos, p + n, &id) : ash_prefix_len(x, e);
    }
    *n_st = k;
    return 1;
}

bool ash_long_merge(ash_long *l, const char *p, uint32_t n, ash_tokvec *out) {
    const bool spm = l->v->kind != ASH_VK_BPE;
    size_t k = 0;
    int rc = 0;
    l->oom = false;
    l->n_dead = 0;
    if (!l->x->odd) rc = spm ? walk(l, true, p, n, &k) : walk(l, false, p, n, &k);
    if (rc < 0) return false;
    if (rc == 0) {
        if (!l->bucket) l->bucket = ash_bucket_new(l->v);
        l->tmp.n = 0;
        if (!l->bucket || !ash_bucket_merge(l->bucket, p, 0, n, &l->tmp)) return false;
        for (size_t i = 0; i < l->tmp.n; i++) ash_emit(l->v, spm, p + l->tmp.p[i].start, l->tmp.p[i].len, l->tmp.p[i].id, out);
        return !out->oom;
    }
    if (out->cap - out->n < k && !ash_tokvec_grow(out, k)) return false;
    for (size_t i = 0; i < k; i++) {
        const taken *t = &l->st[i];
        if (ASH_LIKELY(t->ent != ENT_SYM))
            ash_tokvec_add(out, l->x->ent[t->ent].id);
        else {
            int32_t id;
            const char *s = p + (t->start & ~SKIPPED);
            uint32_t len = ash_first_symbol(l->v, spm, s, p + n, &id);
            ash_emit(l->v, spm, s, len, id, out);
        }
    }
    return !out->oom;
}
