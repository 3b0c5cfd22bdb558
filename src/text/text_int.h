/* text_int.h - what the files of src/text share: the vocabulary's inside, UTF-8 steps, the merge engine.
 *
 * Words used here
 *  - stored text: a token as the GGUF spells it (byte-level alphabet for "gpt2", U+2581 for "llama").
 *  - raw bytes: what the token stands for in running text (U+2581 is a space).
 *  - special: a token that is looked for in the text before any merging. CONTROL and UNKNOWN only on
 *    request, USER_DEFINED always. */
#ifndef ASH_TEXT_INT_H
#define ASH_TEXT_INT_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "ashlar/text.h"
#include "base/base.h"

/* BPE: byte-level, merges by rank ("gpt2"). SPM: characters, joined texts by score ("llama"). CPE: characters,
 * merges by rank, byte fallback ("gemma4"). WPM: WordPiece ("bert"). UGM: unigram, the likeliest split ("t5"). */
typedef enum { ASH_VK_BPE, ASH_VK_SPM, ASH_VK_CPE, ASH_VK_WPM, ASH_VK_UGM } ash_vocab_kind;

/* id -1: free. key: up to eight bytes themselves, or else offset into `raw` << 32 | hash; length (at most 255) << 24 | rank of its
 * score (SPM): what a lookup needs, in one place. */
typedef struct { uint64_t key; int32_t id; uint32_t len_rank; } ash_raw_slot;
typedef struct { uint64_t key; uint32_t rank; int32_t id; } ash_merge_slot; /* key: left << 32 | right; rank ~0: free */

typedef struct { uint32_t key; int32_t id; } ash_pair2; /* id -1: nothing */

/* Special tokens in byte order of the text they are found by (borrowed); `first` tells which bytes can begin one. */
typedef struct { int32_t *id; ash_str *text; uint32_t n; bool first[256]; } ash_specials;
/* How a special token is found: white space before it, after it goes with it; only between characters that are no word's; in the
 * normalised text of what the others leave. */
enum { ASH_SPECIAL_LSTRIP = 1, ASH_SPECIAL_RSTRIP = 2, ASH_SPECIAL_WORD = 4, ASH_SPECIAL_NORMAL = 8 };

/* One pre-tokenizer: name in tokenizer.ggml.pre, patterns, and what comes with it. Each pattern splits what
 * the one before it left; what it does not match is a piece, too. */
enum { ASH_PRE_MAX = 6 };
typedef struct {
    const char *name, *pattern[ASH_PRE_MAX];
    bool add_bos;       /* default when the key is absent */
    bool ignore_merges; /* a word that is a token is taken whole */
    bool nfc;           /* the model's tokenizer normalises text to NFC */
    int n_chars;        /* patterns from this one on see bytes, not characters; 0: none do */
} ash_pretok;

struct ash_vocab {
    ash_vocab_kind kind;
    int32_t n;
    ash_str *text;     /* [n], borrowed from the gguf */
    uint8_t *type;     /* [n] */
    char *raw;         /* raw bytes of all tokens */
    uint32_t *raw_off; /* [n + 1] */
    uint32_t max_raw;  /* longest raw token */
    ash_raw_slot *slots; /* raw bytes -> id, of the tokens that merging can make */
    uint32_t slot_mask;
    ash_merge_slot *merges; /* BPE, CPE */
    uint32_t merge_mask;
    /* One bit per hash of what is in `merges`, or else in `slots`: most lookups find nothing, and this
     * fits into a nearer cache than the tables. Index: top bits of the 32-bit hash. */
    uint64_t *maybe;
    uint32_t maybe_shift;
    uint32_t *rank;    /* SPM: [n], while it is made: dense order of scores, best first; equal scores share a rank */
    uint32_t n_ranks;  /* ranks are below this */
    ash_pair2 *pair2;  /* [128 * 128] what two ASCII bytes make */
    uint8_t *joins;    /* not BPE: bit b1 * 256 + b2: some token has these bytes side by side */
    int32_t byte_id[256]; /* token of one byte, or -1 */
    int32_t char_id[128]; /* not BPE: token of one ASCII character, or -1 */
    ash_specials specials[2][2];   /* [CONTROL and UNKNOWN, too][in normalised text] */
    ash_buf special_text;          /* normalised texts of the latter */
    int32_t bos, eos, unk;
    int32_t eog[64];
    int n_eog;
    bool add_bos, add_eos, add_space_prefix;
    const ash_pretok *pre; /* BPE */
    pcre2_code *re[ASH_PRE_MAX];
    int n_re;
    bool jit;
    bool lowercase, strip_accents; /* WPM */
    float *score, unk_score;       /* UGM: [n]; of a character that is no token */
    bool squeeze;                  /* UGM: runs of spaces become one, none at the ends */
    ash_str charsmap;              /* UGM: SentencePiece's compiled normalisation, borrowed from the gguf */
    uint8_t *how;                  /* [n] ASH_SPECIAL_*, or NULL: 0 for all */
    struct ash_vocab_lazy *lazy; /* merge_int.h */
};

/* ---- UTF-8 (utf8.c) ---- */
/* Length of the valid character at p (1..4), or 0 if the bytes there are not one; *cp gets it. */
int ash_utf8_next(const char *p, const char *end, uint32_t *cp);
/* Bytes at p that are valid UTF-8 from its start on. */
size_t ash_utf8_span(const char *p, size_t n);
/* True if p[0..n), n < 4, begins a character that more bytes could complete. */
bool ash_utf8_partial(const char *p, size_t n);
bool ash_is_space(uint32_t cp); /* Unicode's White_Space */
/* NFC of valid UTF-8, appended to out. Linear in n for any input. */
ash_status ash_nfc(ash_buf *out, const char *p, size_t n, ash_error *err);
bool ash_nfc_needed(const char *p, size_t n); /* false: certainly normalised already */

/* ---- vocabulary (vocab.c, vocab_index.c) ---- */
/* *word: the last of what is hashed; of up to eight bytes, no others of the same number have the same. */
static inline uint32_t ash_raw_hash(const char *p, size_t n, uint64_t *word) {
    uint64_t h = n * 0x9e3779b97f4a7c15u, w = 0;
    if (n >= 8) { /* the last step overlaps the one before */
        const char *last = p + n - 8;
        for (; p < last; p += 8) {
            memcpy(&w, p, 8);
            h = (h ^ w) * 0xbf58476d1ce4e5b9u;
            h ^= h >> 32;
        }
        memcpy(&w, last, 8);
    } else if (n >= 4) {
        uint32_t a, b;
        memcpy(&a, p, 4);
        memcpy(&b, p + n - 4, 4);
        w = a | (uint64_t)b << 32;
    } else if (n) {
        const uint8_t *u = (const uint8_t *)p;
        w = u[0] | (uint32_t)u[n / 2] << 8 | (uint32_t)u[n - 1] << 16;
    }
    *word = w;
    h = (h ^ w) * 0x94d049bb133111ebu;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9u;
    return (uint32_t)(h >> 32);
}
static inline bool ash_maybe(const ash_vocab *v, uint32_t h) {
    uint32_t i = h >> v->maybe_shift;
    return v->maybe[i >> 6] >> (i & 63) & 1;
}
/* NULL: no such token. The second for more than eight bytes, of hash h. */
const ash_raw_slot *ash_vocab_raw_slot_long(const ash_vocab *v, const char *p, size_t n, uint32_t h);
static inline const ash_raw_slot *ash_vocab_raw_slot(const ash_vocab *v, const char *p, size_t n) {
    if (n > v->max_raw) return NULL;
    uint64_t w;
    uint32_t h = ash_raw_hash(p, n, &w);
    if (!v->merges && v->maybe && !ash_maybe(v, h)) return NULL;
    if (n > 8) return ash_vocab_raw_slot_long(v, p, n, h);
    for (uint32_t i = h & v->slot_mask;; i = (i + 1) & v->slot_mask) {
        const ash_raw_slot *s = &v->slots[i];
        if (s->id < 0) return NULL;
        if (s->key == w && s->len_rank >> 24 == n) return s;
    }
}
static inline int32_t ash_vocab_raw_find(const ash_vocab *v, const char *p, size_t n) {
    const ash_raw_slot *s = ash_vocab_raw_slot(v, p, n);
    return s ? s->id : -1;
}
static inline uint32_t ash_merge_hash(uint64_t key) { return (uint32_t)((key ^ key >> 29) * 0x9e3779b97f4a7c15u >> 32); }
static inline bool ash_merge_find(const ash_vocab *v, int32_t a, int32_t b, uint32_t *rank, int32_t *id) {
    uint64_t key = (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
    uint32_t h = ash_merge_hash(key);
    if (!ash_maybe(v, h)) return false;
    for (uint32_t i = h & v->merge_mask;; i = (i + 1) & v->merge_mask) {
        const ash_merge_slot *s = &v->merges[i];
        if (s->rank == UINT32_MAX) return false;
        if (s->key == key) return *rank = s->rank, *id = s->id, true;
    }
}
/* Build slots, merges, ranks, specials from text and type. */
ash_status ash_vocab_index(ash_vocab *v, const ash_gguf *g, ash_error *err);
/* Byte <-> character of the byte-level alphabet of GPT-2. -1: not in it. */
int ash_byte_of_char(uint32_t cp);

/* ---- special tokens (special.c) ---- */
ash_status ash_specials_how(ash_vocab *v, const ash_gguf *g, ash_error *err); /* v->how; before ash_vocab_index */
ash_status ash_specials_load(ash_vocab *v, ash_error *err);                 /* the sets */
void ash_specials_free(ash_vocab *v);
/* Longest special token at p (at most n bytes), or -1; *len gets its length. */
int32_t ash_special_at(const ash_specials *s, const char *p, size_t n, size_t *len);
/* First special token in t[0..n) that begins at *from or later: its id and where it stands, white space that goes with it included but
 * nothing before `at`, where the one before ended; -1: none. *from moves behind its own text: white space that went with it may still
 * begin another, as in the library this follows. */
int32_t ash_special_next(const ash_vocab *v, const ash_specials *s, const char *t, size_t n, size_t at, size_t *from, size_t *begin, size_t *end);
/* The text as the model's tokenizer normalises it before it looks for those of ASH_SPECIAL_NORMAL; appended to out. SPM, CPE: U+2581 for
 * spaces, and in front where the model wants one. */
ash_status ash_text_normal(const ash_vocab *v, const char *t, size_t n, ash_buf *out, ash_error *err);
/* wordpiece.c: BERT's part of it. */
ash_status ash_bert_normal(const ash_vocab *v, const char *t, size_t n, ash_buf *out, ash_error *err);

/* ---- pre-tokenizers (pretok.c) ---- */
const ash_pretok *ash_pretok_find(ash_str name); /* NULL: unknown */
ash_status ash_pretok_compile(ash_vocab *v, ash_error *err);
pcre2_general_context *ash_pcre2_context(void); /* allocation through ash_alloc; caller frees */

/* ---- merging (merge.c) ---- */
typedef struct { int32_t *p; size_t n, cap; bool oom; } ash_tokvec;
bool ash_tokvec_grow(ash_tokvec *t, size_t more);
static inline void ash_tokvec_add(ash_tokvec *t, int32_t id) {
    if (ASH_UNLIKELY(t->n == t->cap) && !ash_tokvec_grow(t, 1)) return;
    t->p[t->n++] = id;
}
/* ---- tokenizers that do not merge (wordpiece.c, unigram.c): append the tokens of t[0..n); buf is scratch ---- */
ash_status ash_wordpiece(const ash_vocab *v, const char *t, size_t n, ash_buf *buf, ash_tokvec *out, ash_error *err);
ash_status ash_unigram(const ash_vocab *v, const char *t, size_t n, ash_buf *buf, ash_tokvec *out, ash_error *err);

typedef struct ash_merger ash_merger; /* scratch of one ash_tokenize call */
ash_merger *ash_merger_new(const ash_vocab *v);
void ash_merger_free(ash_merger *m);
ash_status ash_vocab_lazy_new(ash_vocab *v, ash_error *err); /* what long words need, made when the first comes */
void ash_vocab_lazy_free(ash_vocab *v);
/* Append the tokens of one word (BPE) or of one piece that no token crosses (SPM). */
ash_status ash_merge_word(ash_merger *m, const char *p, size_t n, ash_tokvec *out, ash_error *err);

#endif
