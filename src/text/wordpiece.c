/* wordpiece.c - BERT's tokenizer: normalise, split at white space and punctuation, then each word into the
 * longest pieces there are, from left to right; a word that cannot be is one unknown token.
 *
 * As huggingface/tokenizers does it (BertNormalizer, BertPreTokenizer, WordPiece), with Unicode 15 where it has
 * older tables (some hundred marks of rare scripts are punctuation here and not there). In a GGUF a piece that
 * begins a word carries U+2581 and one inside a word nothing ("##" is stripped), so with U+2581 as a space
 * the first piece of "word" is looked up as " w...", the others as they are. */
#include <utf8proc.h>

#include "text/text_int.h"

enum { MAX_WORD = 100 }; /* characters; longer ones are unknown (max_input_chars_per_word) */

static bool is_control(uint32_t c) {
    if (c == '\t' || c == '\n' || c == '\r') return false;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CO: return true;
    default: return false;
    }
}

static bool is_punctuation(uint32_t c) {
    if (c < 128) return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

/* Each of these is a word. The blocks are those of BERT's tokenization.py. */
static bool is_cjk(uint32_t c) {
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
           (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

typedef struct {
    const ash_vocab *v;
    ash_buf *word;   /* a space, then the word */
    uint32_t n_char; /* in it */
    ash_tokvec *out;
} splitter;

static void end_word(splitter *s) {
    const ash_vocab *v = s->v;
    const char *p = s->word->p;
    size_t n = s->word->n, at = 0, before = s->out->n;
    if (s->n_char == 0) return;
    bool known = s->n_char <= MAX_WORD;
    while (known && at < n) {
        size_t len = ASH_MIN(n - at, (size_t)v->max_raw);
        int32_t id = -1;
        for (; len > 0; len--) {
            if (at + len < n && ((uint8_t)p[at + len] & 0xc0) == 0x80) continue; /* not inside a character */
            if (at == 0 && len == 1) break;                                      /* the space alone */
            id = ash_vocab_raw_find(v, p + at, len);
            if (id >= 0) break;
        }
        known = id >= 0;
        if (known) ash_tokvec_add(s->out, id);
        at += len;
    }
    if (!known) {
        s->out->n = before;
        if (v->unk >= 0) ash_tokvec_add(s->out, v->unk);
    }
    ash_buf_reset(s->word);
    ash_buf_addc(s->word, ' ');
    s->n_char = 0;
}

static void put(splitter *s, uint32_t c) {
    char b[4];
    if (ash_is_space(c)) {
        end_word(s);
        return;
    }
    bool alone = is_punctuation(c);
    if (alone) end_word(s);
    if (s->n_char <= MAX_WORD) ash_buf_add(s->word, b, ash_utf8_put(c, b));
    if (s->n_char <= MAX_WORD) s->n_char++;
    if (alone) end_word(s);
}

enum { MOST = 32 };

/* Next character of t and what the normaliser makes of it: *m characters, each ideograph between two spaces. */
static ash_status next_normal(const ash_vocab *v, const char **t, const char *end, uint32_t out[2 * MOST + 2], int *m, ash_error *err) {
    uint32_t c = 0xfffd;
    int k = ash_utf8_next(*t, end, &c), n = 0;
    *t += k ? k : 1;
    *m = 0;
    if (c == 0 || c == 0xfffd || is_control(c)) return ASH_OK;
    const bool cjk = is_cjk(c);
    if (cjk) out[n++] = ' ';
    utf8proc_int32_t d[MOST];
    utf8proc_ssize_t parts = 1;
    d[0] = (utf8proc_int32_t)c;
    if (v->strip_accents && c >= 128) {
        int bc = 0;
        parts = utf8proc_decompose_char((utf8proc_int32_t)c, d, MOST, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &bc);
        if (parts < 0 || parts > MOST) return ash_fail(err, ASH_E_INTERNAL, "character U+%04X has no decomposition", (unsigned)c);
    }
    for (utf8proc_ssize_t i = 0; i < parts; i++) {
        const uint32_t x = (uint32_t)d[i];
        if (v->strip_accents && utf8proc_category(d[i]) == UTF8PROC_CATEGORY_MN) continue;
        if (v->lowercase && x == 0x130) { /* the one small letter that is two characters */
            out[n++] = 'i';
            out[n++] = 0x307;
        } else
            out[n++] = ash_is_space(x) ? ' ' : v->lowercase ? (uint32_t)utf8proc_tolower((utf8proc_int32_t)x) : x;
    }
    if (cjk) out[n++] = ' ';
    *m = n;
    return ASH_OK;
}

ash_status ash_bert_normal(const ash_vocab *v, const char *t, size_t n, ash_buf *out, ash_error *err) {
    uint32_t c[2 * MOST + 2];
    char b[4];
    int m;
    for (const char *end = t + n; t < end;) {
        ASH_TRY(next_normal(v, &t, end, c, &m, err));
        for (int i = 0; i < m; i++) ash_buf_add(out, b, ash_utf8_put(c[i], b));
    }
    return ash_buf_ok(out) ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory while tokenizing");
}

ash_status ash_wordpiece(const ash_vocab *v, const char *t, size_t n, ash_buf *buf, ash_tokvec *out, ash_error *err) {
    splitter s = {v, buf, 0, out};
    const char *end = t + n;
    uint32_t c[2 * MOST + 2];
    int m;
    ash_buf_reset(buf);
    ash_buf_addc(buf, ' ');
    while (t < end) {
        ASH_TRY(next_normal(v, &t, end, c, &m, err));
        for (int i = 0; i < m; i++) put(&s, c[i]);
    }
    end_word(&s);
    if (!ash_buf_ok(buf) || out->oom) return ash_fail(err, ASH_E_NOMEM, "out of memory while tokenizing");
    return ASH_OK;
}
