/* schema_num.c - the decimal integers between two bounds as GBNF: cut into runs in which the digits after a common
 * beginning are free, e.g. 37..412 = 3[7-9] | [4-9][0-9] | [1-3][0-9]{2} | 40[0-9] | 41[0-2]. */
#include "engine/schema_int.h"

#include <stdio.h>

static void alt(ash_buf *b, bool *any) {
    if (*any) ash_buf_adds(b, " | ");
    *any = true;
}

static void digit(ash_buf *b, char lo, char hi) {
    if (lo == hi)
        ash_buf_addf(b, "\"%c\" ", lo);
    else
        ash_buf_addf(b, "[%c-%c] ", lo, hi);
}

static void free_digits(ash_buf *b, size_t n) {
    if (n == 1)
        ash_buf_adds(b, "[0-9] ");
    else if (n > 1)
        ash_buf_addf(b, "[0-9]{%zu} ", n);
}

/* Numbers of n digits from a to b (a <= b), as one group. */
static void same_length(ash_buf *o, const char *a, const char *b, size_t n) {
    if (n == 0) return;
    if (a[0] == b[0]) {
        digit(o, a[0], a[0]);
        same_length(o, a + 1, b + 1, n - 1);
        return;
    }
    bool low = true, high = true, any = false; /* is the rest of a all 0, of b all 9? */
    for (size_t i = 1; i < n; i++) low = low && a[i] == '0', high = high && b[i] == '9';
    char from = a[0], to = b[0];
    ash_buf_adds(o, "(");
    if (!low) {
        alt(o, &any);
        char nines[24];
        memset(nines, '9', sizeof nines);
        digit(o, a[0], a[0]);
        same_length(o, a + 1, nines, n - 1);
        from++;
    }
    if (!high) to--;
    if (from <= to) {
        alt(o, &any);
        digit(o, from, to);
        free_digits(o, n - 1);
    }
    if (!high) {
        alt(o, &any);
        char zeros[24];
        memset(zeros, '0', sizeof zeros);
        digit(o, b[0], b[0]);
        same_length(o, zeros, b + 1, n - 1);
    }
    ash_buf_adds(o, ") ");
}

/* Alternatives for lo..hi, both >= 0; has_hi false: no end. */
static void naturals(ash_buf *o, uint64_t lo, bool has_hi, uint64_t hi, bool *any) {
    char a[24], b[24];
    size_t n = (size_t)snprintf(a, sizeof a, "%llu", (unsigned long long)lo),
           m = has_hi ? (size_t)snprintf(b, sizeof b, "%llu", (unsigned long long)hi) : n;
    for (size_t k = n; k <= m; k++) {
        char from[24], to[24];
        memset(from, '0', k);
        from[0] = '1';
        memset(to, '9', k);
        if (k == n) memcpy(from, a, k);
        if (has_hi && k == m) memcpy(to, b, k);
        alt(o, any);
        same_length(o, from, to, k);
    }
    if (!has_hi) {
        alt(o, any);
        ash_buf_addf(o, "[1-9] [0-9]{%zu,}", n);
    }
}

ash_status ash_sc_integers(schema *s, bool has_lo, int64_t lo, bool has_hi, int64_t hi, ash_buf *out) {
    if (has_lo && has_hi && lo > hi) return ash_sc_fail(s, ASH_E_FORMAT, "minimum %lld is over maximum %lld", (long long)lo, (long long)hi);
    bool any = false;
    ash_buf_adds(out, "(");
    if (!has_lo || lo < 0) { /* -x for x from |min(hi, -1)| to |lo| */
        uint64_t from = has_hi && hi < 0 ? 0 - (uint64_t)hi : 1;
        ash_buf_adds(out, "\"-\" (");
        bool inner = false;
        naturals(out, from, has_lo, 0 - (uint64_t)lo, &inner);
        ash_buf_adds(out, ")");
        any = true;
    }
    if (!has_hi || hi >= 0) {
        uint64_t from = has_lo && lo > 0 ? (uint64_t)lo : 0;
        naturals(out, from, has_hi, (uint64_t)hi, &any);
    }
    ash_buf_adds(out, ")");
    return ASH_OK;
}
