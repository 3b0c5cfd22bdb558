/* fit_text.c - calibration and test texts: reading, joining, and the check that they share nothing worth speaking of. */
#include "bake/fit_int.h"

#include <stdlib.h>

enum { WINDOW = 16 };
static const uint64_t MAX_TEXT = 1u << 30;

ash_status fit_text_load(fit_text *t, const ash_model *m, const char *const *files, size_t n, ash_error *err) {
    *t = (fit_text){0};
    for (size_t i = 0; i < n; i++) {
        ash_buf b = {0};
        ash_status st = ash_file_read(files[i], MAX_TEXT, &b, err);
        if (st == ASH_OK) {
            if (i) ash_buf_adds(&t->text, "\n\n");
            ash_buf_add(&t->text, b.p ? b.p : "", b.n);
        }
        ash_buf_free(&b);
        if (st != ASH_OK) return st;
    }
    if (!ash_buf_ok(&t->text)) return ash_fail(err, ASH_E_NOMEM, "out of memory for a text of %zu bytes", t->text.n);
    if (!t->text.n) return ash_fail(err, ASH_E_FORMAT, "%s: the text is empty", n ? files[0] : "text");
    ash_sha256 s;
    ash_sha256_init(&s);
    ash_sha256_add(&s, t->text.p, t->text.n);
    ash_sha256_hex(&s, t->sha);
    return ash_eval_text_make(&t->tok, m, t->text.p, t->text.n, err);
}

void fit_text_free(fit_text *t) {
    ash_buf_free(&t->text);
    ash_eval_text_free(&t->tok);
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* Hashes of all windows of 16 words (what white space separates); *n of them. */
static ash_status windows(const char *s, size_t len, uint64_t **out, size_t *n, ash_error *err) {
    uint64_t last[WINDOW] = {0}, *h = NULL;
    size_t words = 0, cap = 0;
    *out = NULL;
    *n = 0;
    for (size_t i = 0; i < len;) {
        while (i < len && is_space(s[i])) i++;
        size_t b = i;
        while (i < len && !is_space(s[i])) i++;
        if (b == i) break;
        memmove(last, last + 1, sizeof last - sizeof last[0]);
        last[WINDOW - 1] = ash_hash64(s + b, i - b);
        if (++words < WINDOW) continue;
        if (*n == cap) {
            cap = cap ? cap * 2 : 4096;
            uint64_t *p = ash_realloc(h, cap * sizeof *p);
            if (!p) {
                ash_free(h);
                return ash_fail(err, ASH_E_NOMEM, "out of memory while comparing the texts");
            }
            h = p;
        }
        h[(*n)++] = ash_hash64(last, sizeof last);
    }
    *out = h;
    return ASH_OK;
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

ash_status ash_fit_overlap(double *share, const char *calib, size_t n_calib, const char *test, size_t n_test, ash_error *err) {
    uint64_t *a = NULL, *b = NULL;
    size_t na = 0, nb = 0, both = 0;
    ash_status st = windows(calib, n_calib, &a, &na, err);
    if (st == ASH_OK) st = windows(test, n_test, &b, &nb, err);
    if (st == ASH_OK) {
        if (na) qsort(a, na, sizeof *a, by_value);
        for (size_t i = 0; i < nb; i++) both += na && bsearch(&b[i], a, na, sizeof *a, by_value) != NULL;
        *share = nb ? (double)both / (double)nb : 0;
        /* a test text of under 16 words that stands in the calibration text is shared all the same */
        if (!nb && n_test && n_calib >= n_test && memmem(calib, n_calib, test, n_test)) *share = 1;
    }
    ash_free(a);
    ash_free(b);
    return st;
}
