/* detok.c - ids to text: whole sequences, and a stream that never shows half a character. */
#include "text/text_int.h"

struct ash_detok {
    const ash_vocab *v;
    bool special;
    char *in;      /* bytes held back, then the next token's: max_raw + 4 */
    size_t n_in, in_cap;
    char *out;     /* 3 bytes for each held byte (U+FFFD) */
};

ash_status ash_detok_new(ash_detok **out, const ash_vocab *v, bool special, ash_error *err) {
    *out = NULL;
    ash_detok *d = ash_calloc(1, sizeof *d);
    if (d) {
        d->v = v;
        d->special = special;
        d->in_cap = (size_t)v->max_raw + 5; /* and a space */
        d->in = ash_alloc(d->in_cap);
        d->out = ash_alloc(d->in_cap * 3);
    }
    if (!d || !d->in || !d->out) {
        ash_detok_free(d);
        return ash_fail(err, ASH_E_NOMEM, "out of memory for a detokenizer");
    }
    *out = d;
    return ASH_OK;
}

void ash_detok_free(ash_detok *d) {
    if (!d) return;
    ash_free(d->in);
    ash_free(d->out);
    ash_free(d);
}

void ash_detok_reset(ash_detok *d) { d->n_in = 0; }

/* Move complete characters from `in` to `out`; each maximal broken part becomes one U+FFFD. */
static size_t drain(ash_detok *d, bool all) {
    size_t n = 0, i = 0;
    while (i < d->n_in) {
        uint32_t cp;
        size_t left = d->n_in - i;
        size_t k = (size_t)ash_utf8_next(d->in + i, d->in + d->n_in, &cp);
        if (k) {
            memcpy(d->out + n, d->in + i, k);
            n += k;
            i += k;
            continue;
        }
        if (!all && left < 4 && ash_utf8_partial(d->in + i, left)) break;
        size_t bad = 1;
        while (bad < ASH_MIN(left, (size_t)3) && ash_utf8_partial(d->in + i, bad + 1)) bad++;
        memcpy(d->out + n, "\xef\xbf\xbd", 3);
        n += 3;
        i += bad;
    }
    memmove(d->in, d->in + i, d->n_in - i);
    d->n_in -= i;
    return n;
}

ash_status ash_detok_next(ash_detok *d, ash_token t, ash_str *out, ash_error *err) {
    *out = (ash_str){"", 0};
    if (t < 0 || t >= d->v->n) return ash_fail(err, ASH_E_RANGE, "token %d is not in the vocabulary of %d", t, d->v->n);
    /* at most 3 bytes are held back, so the longest token fits */
    d->n_in += ash_token_piece(d->v, t, d->special, d->in + d->n_in, d->in_cap - d->n_in);
    size_t n = drain(d, false);
    *out = (ash_str){d->out, n};
    return ASH_OK;
}

ash_str ash_detok_flush(ash_detok *d) { return (ash_str){d->out, drain(d, true)}; }

ash_status ash_detokenize(const ash_vocab *v, const ash_token *t, size_t n, bool special, char **out, size_t *n_out, ash_error *err) {
    *out = NULL;
    *n_out = 0;
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++) {
        if (t[i] < 0 || t[i] >= v->n) return ash_fail_at(err, ASH_E_RANGE, i, "token %d is not in the vocabulary of %d", t[i], v->n);
        if (ash_add_ovf(total, ash_token_piece(v, t[i], special, NULL, 0), &total) || total > SIZE_MAX / 2)
            return ash_fail(err, ASH_E_LIMIT, "%llu tokens make more text than fits", (unsigned long long)n);
    }
    char *p = ash_alloc((size_t)total + 1);
    if (!p) return ash_fail(err, ASH_E_NOMEM, "out of memory for %llu bytes of text", (unsigned long long)total);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) at += ash_token_piece(v, t[i], special, p + at, (size_t)total - at);
    p[at] = 0;
    /* the space that tokenizing put in front */
    size_t first = 0;
    while (first < n && ash_token_piece(v, t[first], special, NULL, 0) == 0) first++;
    if (v->add_space_prefix && first < n && (v->type[t[first]] == ASH_TOK_NORMAL || v->type[t[first]] == ASH_TOK_BYTE || v->kind == ASH_VK_WPM) && at && p[0] == ' ') {
        memmove(p, p + 1, at);
        at--;
    }
    *out = p;
    *n_out = at;
    return ASH_OK;
}
