/* layers.c - sets of layers as people write them: "0-10,swa,!3". Owns the grammar of rules (ashlar/slice.h) and random
 * draws; knows of a model only which layers have windows and keys of their own. */
#include "ashlar/slice.h"

#include "model/model_int.h"

#include <stdio.h>

typedef struct {
    const ash_model *m;
    uint32_t n;
    uint64_t seed;
    const char *t;  /* the term */
    size_t len;
} term;

enum { SHOW = 40 };

static ash_status no_term(const term *t, ash_error *err) {
    if (t->len == 0) return ash_fail(err, ASH_E_USAGE, "a term of the set of layers is empty");
    return ash_fail(err, ASH_E_USAGE, "\"%.*s\" is no set of layers (3, 10-20, 10-, all, swa, full, even, odd, own, shared, first:N, last:N, every:N, random:N)",
                    (int)ASH_MIN(t->len, (size_t)SHOW), t->t);
}

/* Decimal digits of s[0..n): false when there are none, others, or too many. */
static bool number(const char *s, size_t n, uint64_t *out) {
    uint64_t v = 0;
    if (n == 0 || n > 9) return false;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9') return false;
        v = v * 10 + (uint64_t)(s[i] - '0');
    }
    *out = v;
    return true;
}

static ash_status no_layer(const term *t, uint64_t il, ash_error *err) {
    return ash_fail(err, ASH_E_USAGE, "there is no layer %llu: the model has layers 0 to %u", (unsigned long long)il, t->n - 1);
}

static ash_status range_term(const term *t, bool *set, ash_error *err) {
    const char *dash = memchr(t->t, '-', t->len);
    uint64_t a, b;
    size_t left = dash ? (size_t)(dash - t->t) : t->len;
    if (!number(t->t, left, &a)) return no_term(t, err);
    b = dash && left + 1 == t->len ? ASH_MAX(a, (uint64_t)t->n - 1) : a;
    if (dash && left + 1 < t->len && !number(dash + 1, t->len - left - 1, &b)) return no_term(t, err);
    if (b < a) return ash_fail(err, ASH_E_USAGE, "the range %llu-%llu goes down", (unsigned long long)a, (unsigned long long)b);
    if (a >= t->n) return no_layer(t, a, err);
    if (b >= t->n) return no_layer(t, b, err);
    for (uint64_t i = a; i <= b; i++) set[i] = true;
    return ASH_OK;
}

/* k of n, by partial shuffle. */
static ash_status draw(uint32_t n, uint32_t k, ash_rng *r, bool *set, ash_error *err) {
    uint32_t *p = ash_alloc(n * sizeof *p);
    if (!p) return ash_fail(err, ASH_E_NOMEM, "out of memory drawing layers");
    for (uint32_t i = 0; i < n; i++) p[i] = i;
    for (uint32_t i = 0; i < k; i++) {
        uint32_t j = i + (uint32_t)ash_rng_below(r, n - i), x = p[i];
        p[i] = p[j];
        p[j] = x;
        set[p[i]] = true;
    }
    ash_free(p);
    return ASH_OK;
}

static ash_status counted_term(const term *t, const char *colon, bool *set, ash_error *err) {
    size_t w = (size_t)(colon - t->t);
    uint64_t k;
    if (!number(colon + 1, t->len - w - 1, &k) || k == 0) return no_term(t, err);
    bool every = w == 5 && memcmp(t->t, "every", 5) == 0;
    if (every) {
        for (uint64_t i = 0; i < t->n; i += k) set[i] = true;
        return ASH_OK;
    }
    if (k > t->n) return ash_fail(err, ASH_E_USAGE, "%.*s: the model has %u layers", (int)ASH_MIN(t->len, (size_t)SHOW), t->t, t->n);
    if (w == 5 && memcmp(t->t, "first", 5) == 0) {
        for (uint64_t i = 0; i < k; i++) set[i] = true;
    } else if (w == 4 && memcmp(t->t, "last", 4) == 0) {
        for (uint64_t i = t->n - k; i < t->n; i++) set[i] = true;
    } else if (w == 6 && memcmp(t->t, "random", 6) == 0) {
        if (t->m) {
            uint32_t *l = ash_alloc((size_t)k * sizeof *l);
            ash_status st = l ? ash_slice_random(t->m, (uint32_t)k, t->seed, l, err) : ash_fail(err, ASH_E_NOMEM, "out of memory drawing layers");
            for (uint64_t i = 0; st == ASH_OK && i < k; i++) set[l[i]] = true;
            ash_free(l);
            return st;
        }
        ash_rng r;
        ash_rng_seed(&r, t->seed);
        return draw(t->n, (uint32_t)k, &r, set, err);
    } else {
        return no_term(t, err);
    }
    return ASH_OK;
}

static ash_status one_term(const term *t, bool *set, ash_error *err) {
    static const char *const words[] = {"all", "swa", "full", "even", "odd", "own", "shared"};
    if (t->len && t->t[0] >= '0' && t->t[0] <= '9') return range_term(t, set, err);
    const char *colon = memchr(t->t, ':', t->len);
    if (colon) return counted_term(t, colon, set, err);
    size_t w = 0;
    while (w < ASH_ARRAY_LEN(words) && !(strlen(words[w]) == t->len && memcmp(words[w], t->t, t->len) == 0)) w++;
    if (w == ASH_ARRAY_LEN(words)) return no_term(t, err);
    bool needs = w == 1 || w == 2 || w >= 5;
    if (needs && !t->m) return ash_fail(err, ASH_E_USAGE, "\"%s\" needs a model whose architecture is known", words[w]);
    for (uint32_t i = 0; i < t->n; i++) {
        const ash_layer *l = needs ? &t->m->layers[i] : NULL;
        const bool in[] = {true, l && l->window > 0, l && l->window == 0, i % 2 == 0, i % 2 == 1, l && l->kv_layer == (int)i, l && l->kv_layer != (int)i};
        if (in[w]) set[i] = true;
    }
    return ASH_OK;
}

ash_status ash_layers_parse(uint32_t **out, uint32_t *n_out, const ash_model *m, uint32_t n_layer, const char *rule, uint64_t seed, ash_error *err) {
    *out = NULL;
    *n_out = 0;
    if (n_layer == 0 || n_layer > 1 << 16) return ash_fail(err, ASH_E_USAGE, "a model of %u layers has no sets of layers", n_layer);
    ash_status st = ASH_OK;
    uint32_t *list = NULL, n = 0;
    bool *set = ash_calloc(n_layer, 1), *part = ash_calloc(n_layer, 1);
    if (!set || !part) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a set of layers");
        goto done;
    }
    const char *s = rule;
    for (bool first = true;; first = false) {
        const char *end = strchr(s, ',');
        if (!end) end = s + strlen(s);
        bool out_again = *s == '!';
        if (out_again && first) memset(set, true, n_layer);
        term t = {m, n_layer, seed, s + out_again, (size_t)(end - s) - out_again};
        memset(part, 0, n_layer);
        ASH_TRY_GOTO(one_term(&t, part, err), done);
        for (uint32_t i = 0; i < n_layer; i++)
            if (part[i]) set[i] = !out_again;
        if (!*end) break;
        s = end + 1;
    }
    for (uint32_t i = 0; i < n_layer; i++) n += set[i];
    if (n == 0) {
        st = ash_fail(err, ASH_E_USAGE, "\"%.*s\" is no layer of this model", SHOW, rule);
        goto done;
    }
    list = ash_alloc(n * sizeof *list);
    if (!list) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a set of layers");
        goto done;
    }
    n = 0;
    for (uint32_t i = 0; i < n_layer; i++)
        if (set[i]) list[n++] = i;
    *out = list;
    *n_out = n;
done:
    ash_free(set);
    ash_free(part);
    return st;
}

void ash_layers_free(uint32_t *layers) { ash_free(layers); }

ash_status ash_slice_random(const ash_model *m, uint32_t k, uint64_t seed, uint32_t *layers, ash_error *err) {
    enum { TRIES = 1000 };
    const uint32_t n = (uint32_t)m->hp.n_layer;
    if (k == 0 || k > n) return ash_fail(err, ASH_E_USAGE, "%u of %u layers cannot be drawn", k, n);
    ash_rng r;
    ash_rng_seed(&r, seed);
    bool *set = ash_alloc(n);
    if (!set) return ash_fail(err, ASH_E_NOMEM, "out of memory drawing layers");
    ash_status st = ASH_OK;
    for (int i = 0; i < TRIES; i++) {
        memset(set, 0, n);
        st = draw(n, k, &r, set, err);
        if (st != ASH_OK) break;
        uint32_t at = 0;
        for (uint32_t il = 0; il < n; il++)
            if (set[il]) layers[at++] = il;
        st = ash_slice_check(m, layers, k, NULL, err);
        if (st != ASH_E_USAGE) break;
    }
    ash_free(set);
    return st;
}
