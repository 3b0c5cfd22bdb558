/* hf_tokenizer.c - the folder's tokenizer becomes GGUF's: which kind it is, tokens, scores, types, merges, added tokens,
 * special ids, what is added at either end, the chat template.
 *
 * Kinds: byte-level BPE ("gpt2"), SentencePiece ("llama" BPE, "t5" unigram; from tokenizer.model, or from a tokenizer.json
 * whose BPE works on U+2581 and byte tokens), gemma 4's ("gemma4": merges over the same alphabet), WordPiece ("bert":
 * word beginnings get U+2581, continuations lose "##"). */
#include "convert/hf_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef long long ll;

enum { MAX_VOCAB = 1 << 24, MAX_HOLES = 1 << 18 };
#define SPACE "\xe2\x96\x81" /* U+2581 */

typedef struct {
    ash_hf *h;
    ash_hf_vocab v;
    json_t *tok, *conf, *special, *added, *vocab_json; /* tokenizer.json, tokenizer_config.json, special_tokens_map.json, ... */
    const json_t *model;                               /* of tokenizer.json */
    ash_map spm;
    ash_buf how[4]; /* int32_t ids of added tokens with each of k_how */
    int64_t id_end;   /* ids are below this: a lying one must not make us allocate */
    ash_error *err;
} job;

/* How added tokens are found in a text: GGUF has no keys for it, so ours, ashlar.tokenizer.* (docs/howto/add-tokenizer.md). */
static const char *const k_how[] = {"lstrip", "rstrip", "single_word", "normalized"};

static ash_status oom(ash_error *err) { return ash_fail(err, ASH_E_NOMEM, "out of memory for the vocabulary"); }

ash_status ash_hf_vocab_grow(ash_hf *h, ash_hf_vocab *v, int64_t n, ash_error *err) {
    (void)h;
    if (n > MAX_VOCAB) return ash_fail(err, ASH_E_LIMIT, "the vocabulary has more than %d tokens", MAX_VOCAB);
    if (n <= v->cap) return ASH_OK;
    int64_t cap = ASH_MAX(n, v->cap ? 2 * v->cap : 1024);
    ash_str *t = ash_realloc(v->text, (size_t)cap * sizeof *t);
    if (t) v->text = t;
    int32_t *y = ash_realloc(v->type, (size_t)cap * sizeof *y);
    if (y) v->type = y;
    float *s = ash_realloc(v->score, (size_t)cap * sizeof *s);
    if (s) v->score = s;
    if (!t || !y || !s) return oom(err);
    memset(v->text + v->cap, 0, (size_t)(cap - v->cap) * sizeof *t);
    memset(v->type + v->cap, 0, (size_t)(cap - v->cap) * sizeof *y);
    memset(v->score + v->cap, 0, (size_t)(cap - v->cap) * sizeof *s);
    v->cap = cap;
    return ASH_OK;
}

static ash_status put(job *j, int64_t id, ash_str text, int type, float score, const char *where) {
    if (id < 0 || id >= j->id_end) return ash_fail(j->err, ASH_E_RANGE, "%s: token id %lld is out of range", where, (ll)id);
    ASH_TRY(ash_hf_vocab_grow(j->h, &j->v, id + 1, j->err));
    j->v.text[id] = text;
    j->v.type[id] = type;
    j->v.score[id] = score;
    j->v.n = ASH_MAX(j->v.n, id + 1);
    return ASH_OK;
}

static ash_str str_of(const json_t *s) { return (ash_str){json_string_value(s), json_string_length(s)}; }
static ash_str lit(const char *s) { return (ash_str){s, strlen(s)}; }

static bool is_byte_token(ash_str s) {
    static const char hex[] = "0123456789ABCDEFabcdef";
    return s.n == 6 && memcmp(s.p, "<0x", 3) == 0 && s.p[5] == '>' && strchr(hex, s.p[3]) && strchr(hex, s.p[4]);
}

/* ---- vocabularies ---- */
/* {"text": id, ...}; ids must be distinct. */
static ash_status from_map(job *j, const json_t *map, const char *where) {
    const char *text;
    json_t *v;
    if (!json_object_size(map)) return ash_fail(j->err, ASH_E_FORMAT, "%s holds no vocabulary", where);
    j->id_end = ASH_MIN((int64_t)json_object_size(map) + MAX_HOLES, MAX_VOCAB);
    json_object_foreach((json_t *)map, text, v) {
        int64_t id;
        if (!ash_hf_int(v, &id)) return ash_fail(j->err, ASH_E_FORMAT, "%s: the id of token \"%.60s\" is no number", where, text);
        if (id >= 0 && id < j->v.n && j->v.text[id].p)
            return ash_fail(j->err, ASH_E_FORMAT, "%s: tokens \"%.60s\" and \"%.60s\" have id %lld", where, j->v.text[id].p, text, (ll)id);
        ASH_TRY(put(j, id, lit(text), TT_NORMAL, 0, where));
    }
    return ASH_OK;
}

/* ["a", "b"] or "a b" -> "a b" */
static ash_status read_merges(job *j, const json_t *list) {
    size_t n = json_array_size(list), i;
    json_t *m;
    if (!json_is_array(list)) return ash_fail(j->err, ASH_E_FORMAT, "tokenizer.json: merges are missing");
    j->v.merges = ash_arena_alloc(&j->h->arena, (n + 1) * sizeof *j->v.merges);
    if (!j->v.merges) return oom(j->err);
    json_array_foreach(list, i, m) {
        ash_str s = str_of(m);
        if (json_is_array(m) &&
            json_array_size(m) == 2) { /* the pair form can hold spaces inside; those become U+0120 as in byte-level text */
            ash_str a = str_of(json_array_get(m, 0)), b = str_of(json_array_get(m, 1));
            if (!a.p || !b.p) return ash_fail(j->err, ASH_E_FORMAT, "tokenizer.json: merge %zu is no pair of strings", i);
            ash_buf t = {0};
            for (int k = 0; k < 2; k++) {
                ash_str x = k ? b : a;
                if (k) ash_buf_addc(&t, ' ');
                for (size_t c = 0; c < x.n; c++)
                    if (x.p[c] == ' ')
                        ash_buf_adds(&t, "\xc4\xa0");
                    else
                        ash_buf_addc(&t, x.p[c]);
            }
            char *q = ash_buf_ok(&t) ? ash_arena_strndup(&j->h->arena, t.p, t.n) : NULL;
            s = (ash_str){q, t.n};
            ash_buf_free(&t);
            if (!q) return oom(j->err);
        }
        if (!s.p) return ash_fail(j->err, ASH_E_FORMAT, "tokenizer.json: merge %zu is no pair of strings", i);
        j->v.merges[i] = s;
    }
    j->v.n_merges = n;
    return ASH_OK;
}

typedef struct {
    ash_str s;
    int64_t id;
} named;

static int cmp_named(const void *a, const void *b) {
    const named *x = a, *y = b;
    int c = memcmp(x->s.p, y->s.p, ASH_MIN(x->s.n, y->s.n));
    return c ? c : x->s.n < y->s.n ? -1 : x->s.n > y->s.n;
}

/* Tokens by text, to be freed with ash_free. */
static named *index_text(const ash_hf_vocab *v, size_t *n) {
    named *x = ash_alloc((size_t)(v->n + 1) * sizeof *x);
    *n = 0;
    for (int64_t i = 0; x && i < v->n; i++)
        if (v->text[i].p) x[(*n)++] = (named){v->text[i], i};
    if (x) qsort(x, *n, sizeof *x, cmp_named);
    return x;
}

static int64_t look(const named *x, size_t n, ash_str s) {
    named key = {s, 0};
    const named *r = s.p && n ? bsearch(&key, x, n, sizeof *x, cmp_named) : NULL;
    return r ? r->id : -1;
}

/* Scores that make SentencePiece's merging, best score first, follow the ranks of the merges: a piece's score is the rank of
 * the first merge that makes it, below 0; characters come after all of them. */
static ash_status scores_from_merges(job *j) {
    size_t n;
    named *x = index_text(&j->v, &n);
    if (!x) return oom(j->err);
    for (int64_t i = 0; i < j->v.n; i++) j->v.score[i] = is_byte_token(j->v.text[i]) ? 0 : -(float)j->v.n_merges;
    for (uint64_t k = j->v.n_merges; k-- > 0;) { /* backwards: the first one stays */
        ash_str m = j->v.merges[k];
        const char *sp = memchr(m.p, ' ', m.n);
        char buf[1024];
        if (!sp || m.n > sizeof buf) continue;
        size_t a = (size_t)(sp - m.p);
        memcpy(buf, m.p, a);
        memcpy(buf + a, sp + 1, m.n - a - 1);
        int64_t id = look(x, n, (ash_str){buf, m.n - 1});
        if (id >= 0) j->v.score[id] = -(float)k;
    }
    ash_free(x);
    return ASH_OK;
}

static bool mentions(const json_t *o, const char *type, int depth) {
    const char *t = ash_hf_str(o, "type"), *key;
    json_t *v;
    size_t i;
    if (!o || depth > 8) return false;
    if (t && strcmp(t, type) == 0) return true;
    if (json_is_array(o)) {
        json_array_foreach(o, i, v) if (mentions(v, type, depth + 1)) return true;
    } else if (json_is_object(o)) {
        json_object_foreach((json_t *)o, key, v) if ((json_is_array(v) || json_is_object(v)) && mentions(v, type, depth + 1)) return true;
    }
    return false;
}

/* First object of a type inside a (nested) one. */
static const json_t *part(const json_t *o, const char *type, int depth) {
    const char *t = ash_hf_str(o, "type"), *key;
    json_t *v;
    size_t i;
    const json_t *r;
    if (!o || depth > 8) return NULL;
    if (t && strcmp(t, type) == 0) return o;
    if (json_is_array(o)) {
        json_array_foreach(o, i, v) if ((r = part(v, type, depth + 1))) return r;
    } else if (json_is_object(o)) {
        json_object_foreach((json_t *)o, key, v) if ((json_is_array(v) || json_is_object(v)) && (r = part(v, type, depth + 1))) return r;
    }
    return NULL;
}

static ash_status read_bpe(job *j) {
    const json_t *tok = j->tok;
    bool bytes =
        mentions(json_object_get(tok, "pre_tokenizer"), "ByteLevel", 0) || mentions(json_object_get(tok, "decoder"), "ByteLevel", 0);
    ASH_TRY(from_map(j, json_object_get(j->model, "vocab"), "tokenizer.json"));
    ASH_TRY(read_merges(j, json_object_get(j->model, "merges")));
    if (bytes) {
        j->v.model = "gpt2";
        j->v.merges_wanted = true;
        j->v.pre = j->h->o->pre;
        if (!j->v.pre) return ash_hf_pretok(tok, &j->v.pre, j->err);
        return ASH_OK;
    }
    if (!ash_hf_bool(j->model, "byte_fallback", false))
        return ash_fail(j->err, ASH_E_UNSUPPORTED, "tokenizer.json: BPE that is neither byte-level nor falls back to bytes");
    for (int64_t i = 0; i < j->v.n; i++)
        if (j->v.text[i].p && is_byte_token(j->v.text[i])) j->v.type[i] = TT_BYTE;
    j->v.scores = true;
    if (j->h->arch && j->h->arch->kind == HF_GEMMA4) {
        j->v.model = "gemma4";
        j->v.merges_wanted = true;
        j->v.no_space_prefix = 1;
        for (int64_t i = 0; i < j->v.n; i++) j->v.score[i] = -1000;
        return ASH_OK;
    }
    j->v.model = "llama";
    j->v.pre = "default";
    j->v.no_space_prefix =
        !mentions(json_object_get(tok, "normalizer"), "Prepend", 0) && !mentions(json_object_get(tok, "pre_tokenizer"), "Metaspace", 0);
    return scores_from_merges(j);
}

static ash_status read_unigram(job *j) {
    const json_t *list = json_object_get(j->model, "vocab"), *norm = part(json_object_get(j->tok, "normalizer"), "Precompiled", 0);
    int64_t unk = -1;
    size_t i;
    json_t *e;
    if (!json_array_size(list)) return ash_fail(j->err, ASH_E_FORMAT, "tokenizer.json holds no vocabulary");
    ash_hf_int(json_object_get(j->model, "unk_id"), &unk);
    json_array_foreach(list, i, e) {
        ash_str s = str_of(json_array_get(e, 0));
        double score = json_number_value(json_array_get(e, 1));
        if (!s.p || !(fabs(score) < 1e30))
            return ash_fail(j->err, ASH_E_FORMAT, "tokenizer.json: entry %zu of the vocabulary is no piece with a score", i);
        ASH_TRY(put(j, (int64_t)i, s,
                    (int64_t)i == unk  ? TT_UNKNOWN
                    : is_byte_token(s) ? TT_BYTE
                                       : TT_NORMAL,
                    (float)score, "tokenizer.json"));
    }
    if (ash_hf_str(norm, "precompiled_charsmap"))
        ash_hf_note(j->h, "the normalisation table of the unigram tokenizer is taken from tokenizer.model only, and left out");
    const json_t *meta = part(json_object_get(j->tok, "pre_tokenizer"), "Metaspace", 0);
    const char *scheme = ash_hf_str(meta, "prepend_scheme");
    j->v.no_space_prefix = meta && ((scheme && strcmp(scheme, "never") == 0) || !ash_hf_bool(meta, "add_prefix_space", true));
    j->v.model = "t5";
    j->v.pre = "default";
    j->v.scores = true;
    return ASH_OK;
}

static ash_status read_wordpiece(job *j) {
    const json_t *norm = part(json_object_get(j->tok, "normalizer"), "BertNormalizer", 0), *low = json_object_get(norm, "lowercase");
    j->v.model = "bert";
    j->v.pre = "default";
    j->v.lowercase = json_is_boolean(low) ? json_is_true(low) : ash_hf_bool(j->conf, "do_lower_case", true);
    if (j->tok) return from_map(j, json_object_get(j->model, "vocab"), "tokenizer.json");
    ash_buf path = {0}, text = {0};
    ash_buf_addf(&path, "%s/vocab.txt", j->h->dir);
    ash_status st = ash_buf_ok(&path) ? ash_file_read(path.p, ASH_HF_MAX_JSON, &text, j->err) : oom(j->err);
    for (size_t at = 0; st == ASH_OK && at < text.n;) { /* one token a line */
        const char *nl = memchr(text.p + at, '\n', text.n - at);
        size_t end = nl ? (size_t)(nl - text.p) : text.n, k = end - at;
        if (k && text.p[at + k - 1] == '\r') k--;
        char *s = ash_arena_strndup(&j->h->arena, text.p + at, k);
        st = s ? put(j, j->v.n, (ash_str){s, k}, TT_NORMAL, 0, "vocab.txt") : oom(j->err);
        at = end + 1;
    }
    /* without a tokenizer.json the five are known by their names */
    static const char *const five[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    for (int64_t i = 0; st == ASH_OK && i < j->v.n; i++)
        for (size_t k = 0; k < ASH_ARRAY_LEN(five); k++)
            if (j->v.text[i].n == strlen(five[k]) && memcmp(j->v.text[i].p, five[k], j->v.text[i].n) == 0) j->v.type[i] = TT_CONTROL;
    ash_buf_free(&path);
    ash_buf_free(&text);
    return st;
}

static ash_status read_spm(job *j) {
    ash_buf path = {0};
    ash_buf_addf(&path, "%s/tokenizer.model", j->h->dir);
    ash_status st = ash_buf_ok(&path) ? ash_map_open(&j->spm, path.p, j->err) : oom(j->err);
    if (st == ASH_OK) st = ash_hf_spm_parse(j->h, &j->v, j->spm.p, (size_t)j->spm.n, j->err);
    ash_buf_free(&path);
    j->v.pre = "default";
    return st;
}

/* ---- added tokens ---- */
static bool looks_special(ash_str s) {
    static const char *const names[] = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(names); i++)
        if (s.n == strlen(names[i]) && memcmp(s.p, names[i], s.n) == 0) return true;
    if (s.n > 8 && memcmp(s.p, "<unused", 7) == 0 && strspn(s.p + 7, "0123456789") == s.n - 8 && s.p[s.n - 1] == '>') return true;
    if (s.n >= 4 && memcmp(s.p, "<|", 2) == 0 && memcmp(s.p + s.n - 2, "|>", 2) == 0) return true;
    return s.n >= 8 && memcmp(s.p, "<\xef\xbd\x9c", 4) == 0 && memcmp(s.p + s.n - 4, "\xef\xbd\x9c>", 4) == 0;
}

/* Gemma 4 prints these to be read by the caller, though its tokenizer calls them special. */
static bool shown(ash_str s) {
    static const char *const names[] = {"<|channel>",       "<channel|>",       "<|tool_call>", "<tool_call|>",
                                        "<|tool_response>", "<tool_response|>", "<|\"|>"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(names); i++)
        if (s.n == strlen(names[i]) && memcmp(s.p, names[i], s.n) == 0) return true;
    return false;
}

static ash_status add_one(job *j, int64_t id, const json_t *o, const char *where) {
    ash_str s = json_is_string(o) ? str_of(o) : str_of(json_object_get(o, "content"));
    if (!s.p) return ash_fail(j->err, ASH_E_FORMAT, "%s: added token %lld has no text", where, (ll)id);
    bool special = ash_hf_bool(o, "special", json_is_string(o)) || looks_special(s);
    bool gemma4 = strcmp(j->v.model, "gemma4") == 0;
    int type = special ? TT_CONTROL : TT_USER;
    if (gemma4 && shown(s)) type = TT_USER;
    if (type == TT_USER && memmem(s.p, s.n, SPACE, 3)) { /* looked for in the text as it is: a real space */
        char *q = ash_arena_strndup(&j->h->arena, s.p, s.n);
        if (!q) return oom(j->err);
        size_t k = 0;
        for (size_t i = 0; i < s.n; i++)
            if (i + 3 <= s.n && memcmp(s.p + i, SPACE, 3) == 0)
                q[k++] = ' ', i += 2;
            else
                q[k++] = s.p[i];
        s = (ash_str){q, k};
    }
    for (int k = 0; k < (int)ASH_ARRAY_LEN(k_how); k++) { /* the two files say the same */
        int32_t t = (int32_t)id;
        if (ash_hf_bool(o, k_how[k], false) && (!j->tok || strcmp(where, "tokenizer.json") == 0)) ash_buf_add(&j->how[k], &t, sizeof t);
    }
    return put(j, id, s, type, -1000, where);
}

static ash_status read_added(job *j) {
    size_t i;
    json_t *o;
    const char *key;
    j->id_end = ASH_MIN(j->v.n + MAX_HOLES, MAX_VOCAB);
    json_array_foreach(json_object_get(j->tok, "added_tokens"), i, o) {
        int64_t id;
        if (!ash_hf_int(json_object_get(o, "id"), &id))
            return ash_fail(j->err, ASH_E_FORMAT, "tokenizer.json: added token %zu has no id", i);
        ASH_TRY(add_one(j, id, o, "tokenizer.json"));
    }
    json_object_foreach(j->added, key, o) { /* the older added_tokens.json: text -> id */
        int64_t id;
        if (!ash_hf_int(o, &id)) return ash_fail(j->err, ASH_E_FORMAT, "added_tokens.json: token \"%.60s\" has no id", key);
        if (id < j->v.n && id >= 0 && j->v.text[id].p) continue;
        ASH_TRY(put(j, id, lit(key), looks_special(lit(key)) ? TT_CONTROL : TT_USER, -1000, "added_tokens.json"));
    }
    json_object_foreach(json_object_get(j->conf, "added_tokens_decoder"), key, o) {
        char *end;
        ll id = strtoll(key, &end, 10);
        if (end == key || *end) return ash_fail(j->err, ASH_E_FORMAT, "tokenizer_config.json: \"%.40s\" is no token id", key);
        ASH_TRY(add_one(j, id, o, "tokenizer_config.json"));
    }
    return ASH_OK;
}

/* WordPiece as GGUF has it: word beginnings marked, not continuations. */
static ash_status phantom(job *j) {
    for (int64_t i = 0; i < j->v.n; i++) {
        ash_str s = j->v.text[i];
        if (!s.p || j->v.type[i] == TT_CONTROL || j->v.type[i] == TT_USER) continue; /* found in the text as they are */
        bool cont = s.n > 2 && memcmp(s.p, "##", 2) == 0;
        char *q = ash_arena_alloc(&j->h->arena, s.n + 4);
        if (!q) return oom(j->err);
        if (cont)
            memcpy(q, s.p + 2, s.n - 2);
        else {
            memcpy(q, SPACE, 3);
            memcpy(q + 3, s.p, s.n);
        }
        j->v.text[i] = (ash_str){q, cont ? s.n - 2 : s.n + 3};
    }
    return ASH_OK;
}

/* As many tokens as the table has rows: holes and the rest are named and unused. */
static ash_status pad(job *j) {
    ash_hf_vocab *v = &j->v;
    int64_t want = j->h->arch && j->h->p.n_vocab ? j->h->p.n_vocab : v->n, holes = 0;
    if (v->n > want) { /* tokens without a row in the table */
        for (int64_t i = want; i < v->n; i++)
            if (v->text[i].p && v->type[i] != TT_CONTROL && v->type[i] != TT_USER && v->type[i] != TT_UNUSED)
                return ash_fail(j->err, ASH_E_FORMAT, "the tokenizer has token %lld, config.json a vocab_size of %lld", (ll)i, (ll)want);
        ash_hf_note(j->h, "%lld added tokens beyond vocab_size %lld have no embedding and are left out", (ll)(v->n - want), (ll)want);
        v->n = want;
    }
    if (want > v->n + MAX_HOLES)
        return ash_fail(j->err, ASH_E_FORMAT, "the tokenizer has %lld tokens, config.json a vocab_size of %lld", (ll)v->n, (ll)want);
    ASH_TRY(ash_hf_vocab_grow(j->h, v, want, j->err));
    v->n = want;
    for (int64_t i = 0; i < want; i++)
        if (!v->text[i].p) {
            char name[32];
            int n = snprintf(name, sizeof name, "[PAD%lld]", (ll)i);
            char *q = ash_arena_strndup(&j->h->arena, name, (size_t)n);
            if (!q) return oom(j->err);
            v->text[i] = (ash_str){q, (size_t)n};
            v->type[i] = TT_UNUSED;
            v->score[i] = -1000;
            holes++;
        }
    if (holes) ash_hf_note(j->h, "%lld rows of the table have no token: filled with unused ones", (ll)holes);
    return ASH_OK;
}

/* ---- special ids and what is added ---- */
typedef struct {
    int64_t bos, eos, unk, sep, pad, cls, mask;
    int add_bos, add_eos, add_sep;
} specials; /* add: -1 not said */

static const char *special_text(const job *j, const char *name) {
    const json_t *v = ash_hf_get(j->conf, name);
    if (!v) v = ash_hf_get(j->special, name);
    if (json_is_object(v)) v = json_object_get(v, "content");
    return json_string_value(v);
}

static const char *token_at(const json_t *list, size_t i) {
    return ash_hf_str(json_object_get(json_array_get(list, i), "SpecialToken"), "id");
}

/* A TemplateProcessing post-processor says what one text and a pair get. */
static void from_template(const job *j, specials *s) {
    const json_t *t = part(json_object_get(j->tok, "post_processor"), "TemplateProcessing", 0);
    const json_t *one = json_object_get(t, "single"), *two = json_object_get(t, "pair");
    const char *bos = special_text(j, "bos_token"), *cls = special_text(j, "cls_token"), *eos = special_text(j, "eos_token"),
               *sep = special_text(j, "sep_token");
    size_t n = json_array_size(one), m = json_array_size(two);
#define SAME(a, b) ((a) && (b) && strcmp(a, b) == 0)
    const char *first = n > 1 ? token_at(one, 0) : NULL, *last = n > 1 ? token_at(one, n - 1) : NULL;
    if (first) s->add_bos = SAME(first, bos) || SAME(first, cls) || (!bos && !cls);
    if (last) s->add_eos = SAME(last, eos) || SAME(last, sep) || (!eos && !sep);
    size_t a = first && m && SAME(token_at(two, 0), first), b = last && m > a && SAME(token_at(two, m - 1), last) ? m - 1 : m;
    if (b > a + 2) { /* between the texts */
        const char *mid = token_at(two, a + 1);
        s->add_sep = mid && (SAME(mid, sep) || SAME(mid, eos)) && !last;
    }
#undef SAME
}

static void find_specials(const job *j, specials *s, const named *x, size_t n) {
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
    const ash_hf_params *p = &j->h->p;
    const int64_t conf[] = {p->bos, p->eos, p->unk, p->sep, p->pad, p->cls, p->mask};
    int64_t *to[] = {&s->bos, &s->eos, &s->unk, &s->sep, &s->pad, &s->cls, &s->mask};
    for (size_t i = 0; i < ASH_ARRAY_LEN(names); i++) {
        const char *t = special_text(j, names[i]);
        *to[i] = t ? look(x, n, lit(t)) : -1;
        if (*to[i] < 0 && j->h->arch && conf[i] >= 0 && conf[i] < j->v.n) *to[i] = conf[i];
    }
}

static ash_status put_specials(job *j, ash_gguf_writer *w, const named *x, size_t n) {
    specials s = {.add_bos = -1, .add_eos = -1, .add_sep = -1};
    bool bert = strcmp(j->v.model, "bert") == 0;
    find_specials(j, &s, x, n);
    from_template(j, &s);
    const json_t *b = json_object_get(j->conf, "add_bos_token"), *e = json_object_get(j->conf, "add_eos_token");
    if (json_is_boolean(b)) s.add_bos = json_is_true(b);
    if (json_is_boolean(e)) s.add_eos = json_is_true(e);
    if (bert) {
        if (s.cls >= 0) s.bos = s.cls;
        if (s.sep >= 0) s.eos = s.sep;
        if (s.add_bos < 0) s.add_bos = 1;
        if (s.add_eos < 0) s.add_eos = 1;
    }
    const struct {
        const char *key;
        int64_t id;
    } ids[] = {{"bos_token_id", s.bos},       {"eos_token_id", s.eos},     {"unknown_token_id", s.unk},
               {"seperator_token_id", s.sep}, {"padding_token_id", s.pad}, {"mask_token_id", s.mask}};
    const struct {
        const char *key;
        int v;
    } adds[] = {{"add_bos_token", s.add_bos}, {"add_eos_token", s.add_eos}, {"add_sep_token", s.add_sep}};
    char key[64];
    for (size_t i = 0; i < ASH_ARRAY_LEN(ids); i++) {
        if (ids[i].id < 0) continue;
        snprintf(key, sizeof key, "tokenizer.ggml.%s", ids[i].key);
        ASH_TRY(ash_gguf_set_u32(w, key, (uint32_t)ids[i].id, j->err));
    }
    for (size_t i = 0; i < ASH_ARRAY_LEN(adds); i++) {
        if (adds[i].v < 0) continue;
        snprintf(key, sizeof key, "tokenizer.ggml.%s", adds[i].key);
        ASH_TRY(ash_gguf_set_bool(w, key, adds[i].v != 0, j->err));
    }
    /* generation_config.json may end on more than one token: the first other one is the end of a turn */
    json_t *gen;
    ASH_TRY(ash_hf_json_file(&gen, j->h->dir, "generation_config.json", ASH_HF_MAX_CONFIG, j->err));
    ash_status st = ASH_OK;
    const json_t *list = json_object_get(gen, "eos_token_id");
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) {
        int64_t id;
        if (!ash_hf_int(v, &id) || id == s.eos || id < 0 || id >= j->v.n || j->v.type[id] != TT_CONTROL) continue;
        st = ash_gguf_set_u32(w, "tokenizer.ggml.eot_token_id", (uint32_t)id, j->err);
        break;
    }
    static const struct {
        const char *from, *to;
        bool whole;
    } sampling[] = {{"temperature", "general.sampling.temp", false},
                    {"top_k", "general.sampling.top_k", true},
                    {"top_p", "general.sampling.top_p", false},
                    {"min_p", "general.sampling.min_p", false},
                    {"repetition_penalty", "general.sampling.penalty_repeat", false}};
    for (size_t k = 0; st == ASH_OK && k < ASH_ARRAY_LEN(sampling); k++) {
        const json_t *x1 = json_object_get(gen, sampling[k].from);
        int64_t whole;
        if (sampling[k].whole && ash_hf_int(x1, &whole) && whole >= 0 && whole <= INT32_MAX)
            st = ash_gguf_set_i32(w, sampling[k].to, (int32_t)whole, j->err);
        else if (!sampling[k].whole && json_is_number(x1) && fabs(json_number_value(x1)) < 1e6)
            st = ash_gguf_set_f32(w, sampling[k].to, (float)json_number_value(x1), j->err);
    }
    json_decref(gen);
    return st;
}

/* ---- chat template: a file of its own goes before tokenizer_config.json's ---- */
static ash_status put_template(job *j, ash_gguf_writer *w) {
    static const char key[] = "tokenizer.chat_template";
    const json_t *t = json_object_get(j->conf, "chat_template");
    ash_buf path = {0}, text = {0};
    json_t *file = NULL;
    ash_status st = ASH_OK;
    if (ash_hf_exists(j->h->dir, "chat_template.jinja")) {
        ash_buf_addf(&path, "%s/chat_template.jinja", j->h->dir);
        st = ash_buf_ok(&path) ? ash_file_read(path.p, ASH_HF_MAX_CONFIG, &text, j->err) : oom(j->err);
        if (st == ASH_OK) st = ash_gguf_set_str(w, key, text.p, text.n, j->err);
        goto done;
    }
    ASH_TRY_GOTO(ash_hf_json_file(&file, j->h->dir, "chat_template.json", ASH_HF_MAX_CONFIG, j->err), done);
    if (json_object_get(file, "chat_template")) t = json_object_get(file, "chat_template");
    if (json_is_string(t))
        st = ash_gguf_set_str(w, key, json_string_value(t), json_string_length(t), j->err);
    else if (json_is_array(t)) { /* several, by name */
        size_t n = json_array_size(t), i, k = 0;
        json_t *e;
        ash_str *names = ash_arena_alloc(&j->h->arena, (n + 1) * sizeof *names);
        if (!names) st = oom(j->err);
        json_array_foreach(t, i, e) {
            const char *name = ash_hf_str(e, "name"), *body = ash_hf_str(e, "template");
            char full[128];
            if (st != ASH_OK || !name || !body) continue;
            bool plain = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == strlen(name) && *name &&
                         strlen(name) < 64;
            if (strcmp(name, "default") == 0)
                st = ash_gguf_set_str(w, key, body, strlen(body), j->err);
            else if (plain) {
                snprintf(full, sizeof full, "%s.%s", key, name);
                names[k++] = lit(name);
                st = ash_gguf_set_str(w, full, body, strlen(body), j->err);
            }
        }
        if (st == ASH_OK && k) st = ash_gguf_set_str_array(w, "tokenizer.chat_templates", names, k, j->err);
    }
done:
    json_decref(file);
    ash_buf_free(&path);
    ash_buf_free(&text);
    return st;
}

/* ---- all of it ---- */
static ash_status read_vocab(job *j) {
    const char *kind = ash_hf_str(j->model, "type");
    bool spm = ash_hf_exists(j->h->dir, "tokenizer.model"), gemma4 = j->h->arch && j->h->arch->kind == HF_GEMMA4;
    bool bytes = mentions(json_object_get(j->tok, "pre_tokenizer"), "ByteLevel", 0);
    if (j->model && !kind)
        kind = json_object_get(j->model, "merges") ? "BPE" : json_is_array(json_object_get(j->model, "vocab")) ? "Unigram" : "WordPiece";
    if (spm && !gemma4 && !bytes && !(kind && strcmp(kind, "WordPiece") == 0)) return read_spm(j);
    if (kind && strcmp(kind, "BPE") == 0) return read_bpe(j);
    if (kind && strcmp(kind, "WordPiece") == 0) return read_wordpiece(j);
    if (kind && strcmp(kind, "Unigram") == 0) return read_unigram(j);
    if (kind) return ash_fail(j->err, ASH_E_UNSUPPORTED, "tokenizer.json: a tokenizer of kind \"%.40s\" has no GGUF counterpart", kind);
    if (ash_hf_exists(j->h->dir, "vocab.txt")) return read_wordpiece(j);
    return ash_fail(j->err, ASH_E_IO, "%s holds no tokenizer.json, tokenizer.model or vocab.txt", j->h->dir);
}

static ash_status write_vocab(job *j, ash_gguf_writer *w) {
    const ash_hf_vocab *v = &j->v;
    ash_error *err = j->err;
    ASH_TRY(ash_gguf_set_str(w, "tokenizer.ggml.model", v->model, strlen(v->model), err));
    if (v->pre) ASH_TRY(ash_gguf_set_str(w, "tokenizer.ggml.pre", v->pre, strlen(v->pre), err));
    ASH_TRY(ash_gguf_set_str_array(w, "tokenizer.ggml.tokens", v->text, (uint64_t)v->n, err));
    if (v->scores) ASH_TRY(ash_gguf_set_array(w, "tokenizer.ggml.scores", ASH_GV_F32, v->score, (uint64_t)v->n, err));
    ASH_TRY(ash_gguf_set_array(w, "tokenizer.ggml.token_type", ASH_GV_I32, v->type, (uint64_t)v->n, err));
    if (v->merges_wanted) ASH_TRY(ash_gguf_set_str_array(w, "tokenizer.ggml.merges", v->merges, v->n_merges, err));
    if (v->no_space_prefix) ASH_TRY(ash_gguf_set_bool(w, "tokenizer.ggml.add_space_prefix", false, err));
    if (strcmp(v->model, "t5") == 0) {
        ASH_TRY(ash_gguf_set_bool(w, "tokenizer.ggml.remove_extra_whitespaces", v->drop_extra_space, err));
        if (v->charsmap.n)
            ASH_TRY(ash_gguf_set_array(w, "tokenizer.ggml.precompiled_charsmap", ASH_GV_U8, v->charsmap.p, v->charsmap.n, err));
    }
    if (strcmp(v->model, "bert") == 0) {
        const json_t *accents = json_object_get(part(json_object_get(j->tok, "normalizer"), "BertNormalizer", 0), "strip_accents");
        ASH_TRY(ash_gguf_set_bool(w, "tokenizer.ggml.normalizer.lowercase", v->lowercase != 0, err));
        if (json_is_boolean(accents) && json_is_true(accents) != (v->lowercase != 0))
            ASH_TRY(ash_gguf_set_bool(w, "tokenizer.ggml.normalizer.strip_accents", json_is_true(accents), err));
    }
    for (size_t k = 0; k < ASH_ARRAY_LEN(k_how); k++) {
        char key[64];
        const int32_t *id = (const int32_t *)(const void *)j->how[k].p;
        uint64_t n = j->how[k].n / sizeof *id;
        if (!ash_buf_ok(&j->how[k])) return oom(err);
        while (n && id[n - 1] >= v->n) n--; /* beyond the table, left out by pad */
        snprintf(key, sizeof key, "ashlar.tokenizer.%s", k_how[k]);
        if (n) ASH_TRY(ash_gguf_set_array(w, key, ASH_GV_I32, id, n, err));
    }
    return ASH_OK;
}

ash_status ash_hf_tokenizer(ash_hf *h, ash_gguf_writer *w, ash_convert_result *r, ash_error *err) {
    job j = {.h = h, .err = err, .id_end = MAX_VOCAB};
    named *x = NULL;
    size_t n = 0;
    ash_status st;
    ASH_TRY_GOTO(ash_hf_json_file(&j.tok, h->dir, "tokenizer.json", ASH_HF_MAX_JSON, err), done);
    ASH_TRY_GOTO(ash_hf_json_file(&j.conf, h->dir, "tokenizer_config.json", ASH_HF_MAX_CONFIG, err), done);
    ASH_TRY_GOTO(ash_hf_json_file(&j.special, h->dir, "special_tokens_map.json", ASH_HF_MAX_CONFIG, err), done);
    ASH_TRY_GOTO(ash_hf_json_file(&j.added, h->dir, "added_tokens.json", ASH_HF_MAX_CONFIG, err), done);
    j.model = json_object_get(j.tok, "model");
    ASH_TRY_GOTO(read_vocab(&j), done);
    ASH_TRY_GOTO(read_added(&j), done);
    if (!(x = index_text(&j.v, &n))) { /* before padding and marking: special tokens go by the folder's texts */
        st = oom(err);
        goto done;
    }
    if (strcmp(j.v.model, "bert") == 0) ASH_TRY_GOTO(phantom(&j), done);
    ASH_TRY_GOTO(pad(&j), done);
    ASH_TRY_GOTO(write_vocab(&j, w), done);
    ASH_TRY_GOTO(put_specials(&j, w, x, n), done);
    ASH_TRY_GOTO(put_template(&j, w), done);
    r->n_vocab = (uint64_t)j.v.n;
    snprintf(r->tokenizer, sizeof r->tokenizer, "%s", j.v.model);
    snprintf(r->pre, sizeof r->pre, "%s", j.v.pre ? j.v.pre : "");
done:
    json_decref(j.tok);
    json_decref(j.conf);
    json_decref(j.special);
    json_decref(j.added);
    ash_map_close(&j.spm);
    for (size_t k = 0; k < ASH_ARRAY_LEN(k_how); k++) ash_buf_free(&j.how[k]);
    ash_free(j.v.text);
    ash_free(j.v.type);
    ash_free(j.v.score);
    ash_free(x);
    return st;
}
