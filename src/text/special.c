/* special.c - tokens that are looked for in the text before anything is merged: which, how, and where the next one is.
 *
 * As huggingface/tokenizers does it (added_vocabulary.rs): first those found in the text as it is, then, in what is left and after
 * normalising it, those with `normalized`, whose own text is normalised, too. Leftmost, then longest; one that may only stand as a word of its
 * own and does not is passed over whole. GGUF has no keys for the ways of finding; ours are arrays of token ids, and without them a
 * token is found in the text as it is, anywhere. */
#include "text/text_int.h"

#include <stdlib.h>
#include <utf8proc.h>

/* In the order of the bits ASH_SPECIAL_*. */
static const char *const k_keys[] = {"ashlar.tokenizer.lstrip", "ashlar.tokenizer.rstrip", "ashlar.tokenizer.single_word", "ashlar.tokenizer.normalized"};

static bool wanted(const ash_vocab *v, int32_t i, bool control) {
    if (v->text[i].n == 0) return false;
    return v->type[i] == ASH_TOK_USER_DEFINED || (control && (v->type[i] == ASH_TOK_CONTROL || v->type[i] == ASH_TOK_UNKNOWN));
}

static bool str_is(ash_str s, const char *t) { return s.n == strlen(t) && memcmp(s.p, t, s.n) == 0; }

/* ---- how ---- */
ash_status ash_specials_how(ash_vocab *v, const ash_gguf *g, ash_error *err) {
    ash_str arch;
    for (size_t k = 0; k < ASH_ARRAY_LEN(k_keys); k++) {
        const ash_gguf_kv *kv = ash_gguf_find(g, k_keys[k]);
        if (!kv) continue;
        if (kv->type != ASH_GV_ARRAY) return ash_fail(err, ASH_E_FORMAT, "key %s is not an array of token ids", k_keys[k]);
        if (!v->how) v->how = ash_calloc((size_t)v->n, 1);
        if (!v->how) return ash_fail(err, ASH_E_NOMEM, "out of memory for special tokens");
        for (uint64_t i = 0; i < kv->n; i++) {
            int64_t id;
            if (!ash_gguf_array_i64(kv, i, &id) || id < 0 || id >= v->n)
                return ash_fail(err, ASH_E_FORMAT, "key %s, entry %llu: not a token of the vocabulary", k_keys[k], (unsigned long long)i);
            v->how[id] |= (uint8_t)(1 << k);
        }
    }
    /* Phi-3's tokenizer, of which files without the keys abound, strips after all of its special tokens but these. */
    if (v->how || v->kind != ASH_VK_SPM || !ash_gguf_get_str(g, "general.architecture", &arch) || !str_is(arch, "phi3")) return ASH_OK;
    v->how = ash_calloc((size_t)v->n, 1);
    if (!v->how) return ash_fail(err, ASH_E_NOMEM, "out of memory for special tokens");
    for (int32_t i = 0; i < v->n; i++)
        if (wanted(v, i, true) && !str_is(v->text[i], "<unk>") && !str_is(v->text[i], "<s>") && !str_is(v->text[i], "<|endoftext|>"))
            v->how[i] = ASH_SPECIAL_RSTRIP;
    return ASH_OK;
}

/* ---- the sets ---- */
/* qsort has no context argument; the text travels with the id. */
typedef struct {
    ash_str s;
    int32_t id;
} named;

static int cmp_named(const void *pa, const void *pb) {
    const named *a = pa, *b = pb;
    int c = memcmp(a->s.p, b->s.p, ASH_MIN(a->s.n, b->s.n));
    if (c) return c;
    if (a->s.n != b->s.n) return a->s.n < b->s.n ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

/* texts[]: of each of the tokens, or empty where the token is not in the set. */
static ash_status build(ash_vocab *v, ash_specials *s, const ash_str *texts, bool control, ash_error *err) {
    uint32_t n = 0;
    ash_status st = ASH_OK;
    for (int32_t i = 0; i < v->n; i++) n += texts[i].n && wanted(v, i, control);
    named *t = ash_alloc((n + 1) * sizeof *t);
    s->id = ash_alloc((n + 1) * sizeof *s->id);
    s->text = ash_alloc((n + 1) * sizeof *s->text);
    if (!t || !s->id || !s->text) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for special tokens");
        goto done;
    }
    n = 0;
    for (int32_t i = 0; i < v->n; i++)
        if (texts[i].n && wanted(v, i, control)) t[n++] = (named){texts[i], i};
    qsort(t, n, sizeof *t, cmp_named);
    for (uint32_t i = 0; i < n; i++) {
        s->id[i] = t[i].id;
        s->text[i] = t[i].s;
        s->first[(uint8_t)t[i].s.p[0]] = true;
    }
    s->n = n;
done:
    ash_free(t);
    return st;
}

ash_status ash_specials_load(ash_vocab *v, ash_error *err) {
    ash_status st = ASH_OK;
    bool any = false;
    for (int32_t i = 0; v->how && i < v->n; i++) any |= (v->how[i] & ASH_SPECIAL_NORMAL) != 0;
    if (!any) { /* nearly all files */
        for (int control = 0; control < 2; control++) ASH_TRY(build(v, &v->specials[control][0], v->text, control, err));
        return ASH_OK;
    }
    ash_str *texts = ash_calloc((size_t)v->n, sizeof *texts);
    size_t *from = ash_calloc((size_t)v->n + 1, sizeof *from);
    if (!texts || !from) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for special tokens");
        goto done;
    }
    for (int32_t i = 0; i < v->n; i++) { /* texts move while the buffer grows */
        if (v->how[i] & ASH_SPECIAL_NORMAL && wanted(v, i, true))
            ASH_TRY_GOTO(ash_text_normal(v, v->text[i].p, v->text[i].n, &v->special_text, err), done);
        from[i + 1] = v->special_text.n;
    }
    for (int normal = 0; normal < 2; normal++) {
        for (int32_t i = 0; i < v->n; i++) {
            const bool is = v->how[i] & ASH_SPECIAL_NORMAL;
            const ash_str made = {v->special_text.p ? v->special_text.p + from[i] : NULL, from[i + 1] - from[i]};
            texts[i] = is != normal ? (ash_str){0} : is ? made : v->text[i];
        }
        for (int control = 0; control < 2; control++) ASH_TRY_GOTO(build(v, &v->specials[control][normal], texts, control, err), done);
    }
done:
    ash_free(texts);
    ash_free(from);
    return st;
}

void ash_specials_free(ash_vocab *v) {
    for (int i = 0; i < 4; i++) {
        ash_free(v->specials[i / 2][i % 2].id);
        ash_free(v->specials[i / 2][i % 2].text);
    }
    ash_buf_free(&v->special_text);
    ash_free(v->how);
}

/* ---- finding ---- */
int32_t ash_special_at(const ash_specials *s, const char *p, size_t n, size_t *len) {
    if (n == 0 || !s->first[(uint8_t)p[0]]) return -1;
    uint32_t lo = 0, hi = s->n; /* specials that agree with p in their first k bytes */
    int32_t best = -1;
    for (size_t k = 0; k < n && lo < hi; k++) {
        int c = (uint8_t)p[k];
        uint32_t a = lo, b = hi; /* first one whose byte k is >= c; those that end at k sort before all */
        while (a < b) {
            uint32_t m = a + (b - a) / 2;
            ash_str t = s->text[m];
            if (t.n <= k || (uint8_t)t.p[k] < c)
                a = m + 1;
            else
                b = m;
        }
        lo = a;
        b = hi;
        while (a < b) { /* first one whose byte k is > c */
            uint32_t m = a + (b - a) / 2;
            if ((uint8_t)s->text[m].p[k] <= c)
                a = m + 1;
            else
                b = m;
        }
        hi = a;
        if (lo < hi && s->text[lo].n == k + 1) {
            best = s->id[lo];
            *len = k + 1;
        }
    }
    return best;
}

/* The character before p[n], its length to *k; what is no character is U+FFFD, one byte. */
static uint32_t char_before(const char *p, size_t n, size_t *k) {
    uint32_t c;
    *k = 1;
    while (*k < 4 && *k < n && ((uint8_t)p[n - *k] & 0xc0) == 0x80) ++*k;
    if (ash_utf8_next(p + n - *k, p + n, &c) == (int)*k) return c;
    *k = 1;
    return 0xfffd;
}

static uint32_t char_after(const char *p, size_t n, size_t *k) {
    uint32_t c = 0xfffd;
    int len = ash_utf8_next(p, p + n, &c);
    *k = len > 0 ? (size_t)len : 1;
    return len > 0 ? c : 0xfffd;
}

/* \w of Unicode's regular expressions (UTS 18, annex C): alphabetic, marks, decimal digits, connectors, joiners. */
static bool is_word(uint32_t c) {
    if (c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9)) return true;
    if ((c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189)) return true;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: return false;
    }
}

static bool alone(const char *t, size_t n, size_t begin, size_t end) {
    size_t k;
    return (begin == 0 || !is_word(char_before(t, begin, &k))) && (end == n || !is_word(char_after(t + end, n - end, &k)));
}

int32_t ash_special_next(const ash_vocab *v, const ash_specials *s, const char *t, size_t n, size_t at, size_t *from, size_t *begin, size_t *end) {
    size_t k;
    for (size_t hit = s->n ? *from : n; hit < n;) {
        size_t len = 0;
        const int32_t id = ash_special_at(s, t + hit, n - hit, &len);
        if (id < 0) {
            hit++;
            while (hit < n && !s->first[(uint8_t)t[hit]]) hit++;
            continue;
        }
        const int how = v->how ? v->how[id] : 0;
        if (how & ASH_SPECIAL_WORD && !alone(t, n, hit, hit + len)) {
            hit += len;
            continue;
        }
        *from = hit + len;
        *begin = ASH_MAX(hit, at);
        *end = hit + len;
        while (how & ASH_SPECIAL_LSTRIP && *begin > at && ash_is_space(char_before(t + at, *begin - at, &k))) *begin -= k;
        *end = ASH_MAX(*end, at);
        while (how & ASH_SPECIAL_RSTRIP && *end < n && ash_is_space(char_after(t + *end, n - *end, &k))) *end += k;
        return id;
    }
    return -1;
}

ash_status ash_text_normal(const ash_vocab *v, const char *t, size_t n, ash_buf *out, ash_error *err) {
    if (v->kind == ASH_VK_WPM) return ash_bert_normal(v, t, n, out, err);
    const bool spaces = v->kind == ASH_VK_SPM || v->kind == ASH_VK_CPE;
    if (spaces && v->add_space_prefix && n) ash_buf_adds(out, "\xe2\x96\x81");
    for (size_t at = 0; at < n;) { /* bytes that are no text stay */
        const size_t ok = v->kind == ASH_VK_BPE && v->pre->nfc ? ash_utf8_span(t + at, n - at) : 0;
        if (ok) ASH_TRY(ash_nfc(out, t + at, ok, err));
        else if (spaces && t[at] == ' ') ash_buf_adds(out, "\xe2\x96\x81");
        else ash_buf_addc(out, t[at]);
        at += ok ? ok : 1;
    }
    return ash_buf_ok(out) ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory while tokenizing");
}
