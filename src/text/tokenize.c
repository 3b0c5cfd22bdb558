/* tokenize.c - text to ids: special tokens first, then what lies between them goes word by word
 * (byte-level BPE) or piece by piece (SPM) to the merge engine. Everything here is linear in the text. */
#include "text/text_int.h"

typedef struct {
    const ash_vocab *v;
    ash_merger *m;
    ash_tokvec out;
    ash_buf buf; /* text after NFC, or with U+2581 as spaces */
    ash_buf normal; /* text in which tokens are looked for that want it normalised */
    bool prefixed; /* SPM: what comes has its space in front */
    bool special; /* CONTROL and UNKNOWN tokens, too */
    pcre2_general_context *gc;
    pcre2_match_context *mc;
    pcre2_match_data *md;
    pcre2_jit_stack *js;
} job;

/* ---- byte-level BPE ---- */
static ash_status re_open(job *j, ash_error *err) {
    if (j->md) return ASH_OK;
    j->gc = ash_pcre2_context();
    j->mc = j->gc ? pcre2_match_context_create(j->gc) : NULL;
    j->md = j->gc ? pcre2_match_data_create(1, j->gc) : NULL;
    if (!j->mc || !j->md) return ash_fail(err, ASH_E_NOMEM, "out of memory for the pre-tokenizer");
    pcre2_set_match_limit(j->mc, 1u << 30); /* bounded by the length: the patterns backtrack over one run at most */
    pcre2_set_heap_limit(j->mc, 64 * 1024); /* KiB */
    return ASH_OK;
}

/* Next piece of the valid UTF-8 t[0..n) from `at` on, as pattern k has it; its end goes to *end. */
static ash_status next_piece(job *j, int k, const char *t, size_t n, size_t at, size_t *end, ash_error *err) {
    const ash_vocab *v = j->v;
    const pcre2_code *re = v->re[k];
    int rc;
    if (v->jit) {
        rc = pcre2_jit_match(re, (PCRE2_SPTR)t, n, at, PCRE2_NO_UTF_CHECK, j->md, j->mc);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !j->js) { /* the default is 32 KiB of the machine's stack */
            j->js = pcre2_jit_stack_create(64 * 1024, 1024 * 1024, j->gc);
            if (j->js) {
                pcre2_jit_stack_assign(j->mc, NULL, j->js);
                rc = pcre2_jit_match(re, (PCRE2_SPTR)t, n, at, PCRE2_NO_UTF_CHECK, j->md, j->mc);
            }
        }
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT) rc = pcre2_match(re, (PCRE2_SPTR)t, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, j->md, j->mc);
    } else
        rc = pcre2_match(re, (PCRE2_SPTR)t, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, j->md, j->mc);
    if (rc == PCRE2_ERROR_NOMEMORY || rc == PCRE2_ERROR_HEAPLIMIT) return ash_fail(err, ASH_E_NOMEM, "out of memory in the pre-tokenizer");
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        return ash_fail_at(err, ASH_E_LIMIT, at, "pre-tokenizer %s gave up at byte %llu of the text (PCRE2 error %d)", v->pre->name,
                           (unsigned long long)at, rc);
    const PCRE2_SIZE *ov = pcre2_get_ovector_pointer(j->md);
    /* What lies before a match is a piece of its own. */
    if (rc == PCRE2_ERROR_NOMATCH)
        *end = n;
    else
        *end = ov[0] > at ? ov[0] : ov[1];
    if (*end <= at) *end = at + 1;
    return ASH_OK;
}

/* Pattern k and those after it on t[0..n), depth at most ASH_PRE_MAX. */
static ash_status bpe_valid(job *j, int k, const char *t, size_t n, ash_error *err) {
    const bool last = k + 1 == j->v->n_re;
    for (size_t at = 0, end = 0; at < n; at = end) {
        ASH_TRY(next_piece(j, k, t, n, at, &end, err));
        if (last)
            ASH_TRY(ash_merge_word(j->m, t + at, end - at, &j->out, err));
        else
            ASH_TRY(bpe_valid(j, k + 1, t + at, end - at, err));
    }
    return ASH_OK;
}

/* Bytes that are no UTF-8: each by its own token; the vocabularies that lack it get U+FFFD. */
static ash_status bpe_invalid(job *j, const char *t, size_t n, ash_error *err) {
    for (size_t i = 0; i < n; i++) {
        int32_t id = j->v->byte_id[(uint8_t)t[i]];
        if (id < 0)
            ASH_TRY(ash_merge_word(j->m, "\xef\xbf\xbd", 3, &j->out, err));
        else
            ash_tokvec_add(&j->out, id);
    }
    return ASH_OK;
}

static ash_status bpe_fragment(job *j, const char *t, size_t n, ash_error *err) {
    ASH_TRY(re_open(j, err));
    for (size_t at = 0; at < n;) {
        size_t ok = ash_utf8_span(t + at, n - at);
        if (ok) {
            const char *p = t + at;
            size_t len = ok;
            if (j->v->pre->nfc && ash_nfc_needed(p, len)) {
                ash_buf_reset(&j->buf);
                ASH_TRY(ash_nfc(&j->buf, p, len, err));
                p = j->buf.p;
                len = j->buf.n;
            }
            ASH_TRY(bpe_valid(j, 0, p, len, err));
            at += ok;
        }
        size_t bad = at;
        while (bad < n) {
            uint32_t cp;
            if (ash_utf8_next(t + bad, t + n, &cp)) break;
            bad++;
        }
        ASH_TRY(bpe_invalid(j, t + at, bad - at, err));
        at = bad;
    }
    return ASH_OK;
}

/* ---- SPM ---- */
static ash_status spm_fragment(job *j, const char *t, size_t n, ash_error *err) {
    const ash_vocab *v = j->v;
    ash_buf_reset(&j->buf);
    if (v->add_space_prefix && !j->prefixed) ash_buf_addc(&j->buf, ' ');
    for (size_t at = 0; at < n;) { /* a U+2581 in the text is a space to these models */
        const char *q = t + at, *hit = NULL;
        while ((q = memchr(q, 0xe2, n - (size_t)(q - t))) != NULL) {
            if (n - (size_t)(q - t) >= 3 && memcmp(q, "\xe2\x96\x81", 3) == 0) {
                hit = q;
                break;
            }
            q++;
        }
        size_t end = hit ? (size_t)(hit - t) : n;
        ash_buf_add(&j->buf, t + at, end - at);
        if (hit) ash_buf_addc(&j->buf, ' ');
        at = hit ? end + 3 : n;
    }
    if (!ash_buf_ok(&j->buf)) return ash_fail(err, ASH_E_NOMEM, "out of memory while tokenizing");
    /* Cut where no token has the two bytes side by side: nothing can merge across. */
    const char *b = j->buf.p, *end = b + j->buf.n, *piece = b;
    for (const char *p = b; p < end;) {
        uint32_t cp;
        int k = (uint8_t)*p < 128 ? 1 : ash_utf8_next(p, end, &cp);
        p += k ? k : 1;
        if (p < end) {
            uint32_t bit = (uint32_t)(uint8_t)p[-1] * 256 + (uint8_t)p[0];
            if (v->joins[bit >> 3] >> (bit & 7) & 1) continue;
        }
        ASH_TRY(ash_merge_word(j->m, piece, (size_t)(p - piece), &j->out, err));
        piece = p;
    }
    return ASH_OK;
}

/* ---- all of it ---- */
static ash_status fragment(job *j, const char *t, size_t n, ash_error *err) {
    switch (j->v->kind) {
    case ASH_VK_BPE: return bpe_fragment(j, t, n, err);
    case ASH_VK_WPM: return ash_wordpiece(j->v, t, n, &j->buf, &j->out, err);
    case ASH_VK_UGM: return ash_unigram(j->v, t, n, &j->buf, &j->out, err);
    default: return spm_fragment(j, t, n, err);
    }
}

/* The set's tokens out of t[0..n); what is between them goes to `rest`. */
static ash_status split(job *j, const ash_specials *s, const char *t, size_t n, ash_status (*rest)(job *, const char *, size_t, ash_error *), ash_error *err) {
    for (size_t at = 0, from = 0; from < n;) {
        size_t begin = n, end = n;
        const int32_t id = ash_special_next(j->v, s, t, n, at, &from, &begin, &end);
        if (id < 0) from = n;
        if (begin > at) ASH_TRY(rest(j, t + at, begin - at, err));
        if (id >= 0) ash_tokvec_add(&j->out, id);
        at = end;
    }
    return ASH_OK;
}

/* Tokens that are found in normalised text. */
static ash_status normal_fragment(job *j, const char *t, size_t n, ash_error *err) {
    const ash_specials *s = &j->v->specials[j->special][1];
    if (s->n == 0) return fragment(j, t, n, err);
    ash_buf_reset(&j->normal);
    ASH_TRY(ash_text_normal(j->v, t, n, &j->normal, err));
    j->prefixed = true;
    ash_status st = split(j, s, j->normal.p, j->normal.n, fragment, err);
    j->prefixed = false;
    return st;
}

ash_status ash_tokenize(const ash_vocab *v, const char *text, size_t n, unsigned flags, ash_token **out, size_t *n_out, ash_error *err) {
    *out = NULL;
    *n_out = 0;
    if (flags & ~(unsigned)(ASH_TOKENIZE_BOS | ASH_TOKENIZE_SPECIAL | ASH_TOKENIZE_EOS))
        return ash_fail(err, ASH_E_USAGE, "unknown flag %#x for tokenizing", flags);
    if (n > INT32_MAX - 16) return ash_fail(err, ASH_E_LIMIT, "text of %llu bytes is longer than 2 GiB", (unsigned long long)n);
    ash_status st = ASH_OK;
    job j = {.v = v, .special = (flags & ASH_TOKENIZE_SPECIAL) != 0};
    j.m = ash_merger_new(v);
    if (!j.m || !ash_tokvec_grow(&j.out, n / 4 + 16)) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory while tokenizing");
        goto done;
    }
    if ((flags & ASH_TOKENIZE_BOS) && v->add_bos && v->bos >= 0) ash_tokvec_add(&j.out, v->bos);
    ASH_TRY_GOTO(split(&j, &v->specials[j.special][0], text, n, normal_fragment, err), done);
    if ((flags & ASH_TOKENIZE_EOS) && v->add_eos && v->eos >= 0) ash_tokvec_add(&j.out, v->eos);
    if (j.out.oom) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory while tokenizing");
        goto done;
    }
    *out = j.out.p;
    *n_out = j.out.n;
    j.out.p = NULL;
done:
    ash_free(j.out.p);
    ash_merger_free(j.m);
    ash_buf_free(&j.buf);
    ash_buf_free(&j.normal);
    pcre2_jit_stack_free(j.js);
    pcre2_match_data_free(j.md);
    pcre2_match_context_free(j.mc);
    pcre2_general_context_free(j.gc);
    return st;
}

void ash_tokens_free(ash_token *t) { ash_free(t); }
void ash_text_free(char *s) { ash_free(s); }
