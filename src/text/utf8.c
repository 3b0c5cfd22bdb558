/* utf8.c - UTF-8 steps (Unicode 15, table 3-7: no overlong forms, no surrogates) and NFC.
 *
 * utf8proc gives decompositions, classes and compositions; runs of combining marks are sorted here,
 * because its own ordering is quadratic in the length of a run and the text is not ours. */
#include <utf8proc.h>

#include "text/text_int.h"

int ash_utf8_next(const char *s, const char *end, uint32_t *cp) {
    const uint8_t *p = (const uint8_t *)s;
    size_t n = (size_t)(end - s);
    if (n == 0) return 0;
    uint8_t a = p[0];
    if (a < 0x80) return *cp = a, 1;
    if (a < 0xc2 || n < 2 || (p[1] & 0xc0) != 0x80) return 0;
    if (a < 0xe0) return *cp = (uint32_t)(a & 0x1f) << 6 | (p[1] & 0x3f), 2;
    if (n < 3 || (p[2] & 0xc0) != 0x80) return 0;
    if (a < 0xf0) {
        uint32_t c = (uint32_t)(a & 0x0f) << 12 | (uint32_t)(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
        if (c < 0x800 || (c >= 0xd800 && c <= 0xdfff)) return 0;
        return *cp = c, 3;
    }
    if (a > 0xf4 || n < 4 || (p[3] & 0xc0) != 0x80) return 0;
    uint32_t c = (uint32_t)(a & 7) << 18 | (uint32_t)(p[1] & 0x3f) << 12 | (uint32_t)(p[2] & 0x3f) << 6 | (p[3] & 0x3f);
    if (c < 0x10000 || c > 0x10ffff) return 0;
    return *cp = c, 4;
}

size_t ash_utf8_span(const char *p, size_t n) {
    const char *s = p, *end = p + n;
    while (s < end) {
        uint64_t w;
        while (end - s >= 8 && (memcpy(&w, s, 8), (w & 0x8080808080808080u) == 0)) s += 8;
        if (s == end) break;
        uint32_t cp;
        int k = ash_utf8_next(s, end, &cp);
        if (!k) break;
        s += k;
    }
    return (size_t)(s - p);
}

bool ash_utf8_partial(const char *s, size_t n) {
    const uint8_t *p = (const uint8_t *)s;
    if (n == 0 || p[0] < 0xc2 || p[0] > 0xf4) return false;
    size_t need = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (n >= need) return false;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return false;
    if (n >= 2) { /* the second byte's narrower ranges */
        if (p[0] == 0xe0 && p[1] < 0xa0) return false;
        if (p[0] == 0xed && p[1] > 0x9f) return false;
        if (p[0] == 0xf0 && p[1] < 0x90) return false;
        if (p[0] == 0xf4 && p[1] > 0x8f) return false;
    }
    return true;
}

bool ash_is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* Nothing below U+0300 decomposes anew, reorders or composes with what precedes it. */
enum { NFC_SAFE = 0x300 };

bool ash_nfc_needed(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)p[i] >= 0xcc) return true; /* lead byte of U+0300 */
    return false;
}

/* Stable order of combining classes in one run of marks: counting sort for long runs. */
static ash_status sort_marks(utf8proc_int32_t *c, size_t n, ash_error *err) {
    if (n <= 32) {
        for (size_t i = 1; i < n; i++) {
            utf8proc_int32_t x = c[i];
            int k = utf8proc_get_property(x)->combining_class;
            size_t j = i;
            for (; j > 0 && utf8proc_get_property(c[j - 1])->combining_class > k; j--) c[j] = c[j - 1];
            c[j] = x;
        }
        return ASH_OK;
    }
    utf8proc_int32_t *t = ash_alloc(n * sizeof *t);
    if (!t) return ash_fail(err, ASH_E_NOMEM, "out of memory for NFC");
    size_t at[256] = {0}, sum = 0;
    for (size_t i = 0; i < n; i++) at[utf8proc_get_property(c[i])->combining_class & 255]++;
    for (int k = 0; k < 256; k++) {
        size_t m = at[k];
        at[k] = sum;
        sum += m;
    }
    for (size_t i = 0; i < n; i++) t[at[utf8proc_get_property(c[i])->combining_class & 255]++] = c[i];
    memcpy(c, t, n * sizeof *c);
    ash_free(t);
    return ASH_OK;
}

/* One run: a character below NFC_SAFE (if any) and all that follow it from NFC_SAFE up. */
static ash_status nfc_run(ash_buf *out, ash_buf *tmp, const char *p, size_t n, ash_error *err) {
    ash_buf_reset(tmp);
    const char *end = p + n;
    while (p < end) {
        uint32_t cp;
        utf8proc_int32_t d[32];
        int bc = 0, k = ash_utf8_next(p, end, &cp);
        utf8proc_ssize_t m = utf8proc_decompose_char((utf8proc_int32_t)cp, d, 32, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &bc);
        if (k == 0 || m < 0 || m > 32) return ash_fail(err, ASH_E_INTERNAL, "NFC: character U+%04X has no decomposition", (unsigned)cp);
        ash_buf_add(tmp, d, (size_t)m * sizeof *d);
        p += k;
    }
    if (!ash_buf_ok(tmp)) return ash_fail(err, ASH_E_NOMEM, "out of memory for NFC");
    utf8proc_int32_t *c = (utf8proc_int32_t *)(void *)tmp->p;
    size_t nc = tmp->n / sizeof *c;
    for (size_t i = 0; i < nc;) {
        size_t j = i;
        while (j < nc && utf8proc_get_property(c[j])->combining_class > 0) j++;
        if (j > i + 1) ASH_TRY(sort_marks(c + i, j - i, err));
        i = j + 1;
    }
    utf8proc_ssize_t m = utf8proc_normalize_utf32(c, (utf8proc_ssize_t)nc, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if (m < 0) return ash_fail(err, ASH_E_INTERNAL, "NFC: %s", utf8proc_errmsg(m));
    for (utf8proc_ssize_t i = 0; i < m; i++) {
        char b[4];
        ash_buf_add(out, b, ash_utf8_put((uint32_t)c[i], b));
    }
    return ASH_OK;
}

ash_status ash_nfc(ash_buf *out, const char *p, size_t n, ash_error *err) {
    ash_buf tmp = {0};
    ash_status st = ASH_OK;
    const char *end = p + n, *run = p, *copied = p; /* run: last character below NFC_SAFE */
    while (p < end) {
        uint32_t cp = 0;
        int k = ash_utf8_next(p, end, &cp);
        if (k == 0) { /* callers pass valid text; keep the byte all the same */
            p++;
            run = p;
            continue;
        }
        if (cp < NFC_SAFE) {
            run = p;
            p += k;
            continue;
        }
        while (p < end && (k = ash_utf8_next(p, end, &cp)) > 0 && cp >= NFC_SAFE) p += k;
        ash_buf_add(out, copied, (size_t)(run - copied));
        ASH_TRY_GOTO(nfc_run(out, &tmp, run, (size_t)(p - run), err), done);
        copied = run = p;
    }
    ash_buf_add(out, copied, (size_t)(end - copied));
    if (!ash_buf_ok(out)) st = ash_fail(err, ASH_E_NOMEM, "out of memory for NFC");
done:
    ash_buf_free(&tmp);
    return st;
}
