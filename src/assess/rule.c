/* rule.c - the FFN-ratio rule as it was published, in its three forms, and its score on models whose outcome at low bits was published
 * (data/models.csv). The rule is a hypothesis that this program repeats and scores; nothing else here is derived from it. */
#include "assess/assess_int.h"

#include <math.h>
#include <stdlib.h>

/* 1D: r < 3.0 or r > 5.5 are safe at Q2_K (confidence 0.90 and 0.85), between them it fails (0.95).
 * 2D: the same with windowed attention: inside the zone the risk is HIGH (0.95) with windows, MODERATE-HIGH (0.80) without.
 * 3D: works if r < 3.0 or r > 5.5 or (depth < threshold and no windowed layer); the threshold was never given. */
ash_rule ash_ffn_rule(int form, double r, double window_share) {
    const bool low = r < 3.0, high = r > 5.5, swa = window_share > 0;
    ash_rule v = {.q2k = ASH_RULE_WORKS, .primary = "", .fallback = "", .risk = "", .reason = ""};
    if (low || high) {
        v.confidence = form == 2 ? 0 : low ? 0.90 : 0.85;
        v.reason = low ? "ratio below 3.0 (\"simplicity\")" : "ratio above 5.5 (\"redundancy\")";
        if (form == 1) v.primary = "Q2_K", v.fallback = "Q3_K", v.risk = low ? "LOW" : "LOW-MODERATE";
        return v;
    }
    v.q2k = ASH_RULE_FAILS;
    v.reason = "ratio from 3.0 to 5.5";
    if (form == 0) v.confidence = 0.95, v.primary = "Q3_K";
    if (form == 1) {
        v.confidence = swa ? 0.95 : 0.80;
        v.primary = "Q3_K", v.fallback = "Q4_K_M", v.risk = swa ? "HIGH" : "MODERATE-HIGH";
        v.reason = swa ? "ratio from 3.0 to 5.5, windowed attention" : "ratio from 3.0 to 5.5, no windowed attention";
    }
    if (form == 2 && !swa) v.q2k = ASH_RULE_UNDECIDED, v.reason = "ratio from 3.0 to 5.5, no windowed layer: the threshold of depth was never given";
    if (form == 2 && swa) v.reason = "ratio from 3.0 to 5.5, windowed attention";
    return v;
}

ash_rule_score ash_ffn_rule_score(int form, const ash_known_models *k, double limit) {
    ash_rule_score s = {0};
    for (size_t i = 0; i < k->n; i++) {
        const ash_known_model *m = &k->row[i];
        if (strcmp(m->kind, "ppl") != 0) continue;
        const bool works = m->ppl / m->ppl_ref < limit;
        const ash_rule v = ash_ffn_rule(form, (double)m->n_ff / (double)m->n_embd, m->window_share);
        if (v.q2k == ASH_RULE_UNDECIDED) {
            s.undecided++;
            continue;
        }
        s.n++;
        s.works += works;
        s.right += works == (v.q2k == ASH_RULE_WORKS);
    }
    if (!s.n) return s;
    const double z = 1.96, n = s.n, p = s.right / n, mid = (p + z * z / (2 * n)) / (1 + z * z / n);
    const double half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n));
    s.lo = fmax(0, mid - half);
    s.hi = fmin(1, mid + half);
    return s;
}

/* ---- data/models.csv: a header line, comma-separated, fields in quotes may hold commas and doubled quotes; # begins a comment line ---- */
enum { N_FIELDS = 13, MAX_ROWS = 4096, MAX_TABLE = 1 << 20 };
static const char k_header[] = "name,kind,type,n_embd,n_ff,window_share,bpw,ppl,ppl_ref,ref,outcome,source,quote";

typedef struct { char text[N_FIELDS][256]; int n; } fields;

/* One line at *p into f; false: a field is too long, there are too many, or a quote is not closed. */
static bool split(const char **p, const char *end, fields *f) {
    const char *c = *p;
    f->n = 0;
    for (bool more = true; more;) {
        if (f->n == N_FIELDS) return false;
        char *out = f->text[f->n++];
        size_t n = 0;
        const bool quoted = c < end && *c == '"';
        if (quoted) c++;
        for (;; c++) {
            if (c == end || *c == '\n') {
                if (quoted) return false;
                break;
            }
            if (quoted && *c == '"') {
                if (c + 1 < end && c[1] == '"') c++;
                else break;
            } else if (!quoted && *c == ',') break;
            if (n + 1 >= sizeof f->text[0]) return false;
            if (*c != '\r') out[n++] = *c;
        }
        out[n] = 0;
        if (quoted) c++;
        more = c < end && *c == ',';
        if (more) c++;
        else if (c < end && *c == '\r') c++;
    }
    if (c < end && *c != '\n') return false;
    *p = c < end ? c + 1 : c;
    return true;
}

static bool number(const char *s, double lo, double hi, double *out) {
    char *end;
    double v = *s ? strtod(s, &end) : 0;
    if (*s && *end) return false;
    return *out = v, v >= lo && v <= hi;
}

static bool copy(char *to, size_t cap, const char *from) {
    size_t n = strlen(from);
    if (n >= cap) return false;
    memcpy(to, from, n + 1);
    return true;
}

static bool row_of(const fields *f, ash_known_model *m) {
    double d, ff;
    memset(m, 0, sizeof *m);
    if (f->n != N_FIELDS) return false;
    if (!copy(m->name, sizeof m->name, f->text[0]) || !copy(m->kind, sizeof m->kind, f->text[1]) || !copy(m->type, sizeof m->type, f->text[2])) return false;
    if (!number(f->text[3], 1, 1 << 24, &d) || !number(f->text[4], 1, 1 << 26, &ff) || !number(f->text[5], 0, 1, &m->window_share)) return false;
    if (!number(f->text[6], 0, 64, &m->bpw) || !number(f->text[7], 0, 1e9, &m->ppl) || !number(f->text[8], 0, 1e9, &m->ppl_ref)) return false;
    if (!copy(m->ref, sizeof m->ref, f->text[9]) || !copy(m->outcome, sizeof m->outcome, f->text[10]) || !copy(m->source, sizeof m->source, f->text[11]) ||
        !copy(m->quote, sizeof m->quote, f->text[12]))
        return false;
    m->n_embd = (int64_t)d;
    m->n_ff = (int64_t)ff;
    const bool ppl = strcmp(m->kind, "ppl") == 0;
    return ppl ? m->ppl > 0 && m->ppl_ref > 0 : strcmp(m->kind, "probe") == 0 && *m->outcome;
}

ash_status ash_known_models_parse(ash_known_models *k, const char *text, size_t n, const char *name, ash_error *err) {
    const char *p = text, *end = n ? text + n : text;
    fields *f = ash_alloc(sizeof *f);
    ash_status st = ASH_OK;
    size_t cap = 0;
    bool first = true;
    *k = (ash_known_models){0};
    if (!f) return ash_fail(err, ASH_E_NOMEM, "out of memory for %s", name);
    for (int line = 1; p < end && st == ASH_OK; line++) {
        const char *eol = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((eol ? eol : end) - p);
        if (first && len >= sizeof k_header - 1 && memcmp(p, k_header, sizeof k_header - 1) == 0) {
            first = false;
            p += len + (eol != NULL);
            continue;
        }
        if (len == 0 || *p == '#') {
            p += len + (eol != NULL);
            continue;
        }
        if (first) {
            st = ash_fail(err, ASH_E_FORMAT, "%s, line %d: the first line must be %s", name, line, k_header);
            break;
        }
        if (k->n == cap) {
            cap = cap ? 2 * cap : 32;
            ash_known_model *q = cap > MAX_ROWS ? NULL : ash_realloc(k->row, cap * sizeof *q);
            if (!q) {
                st = ash_fail(err, cap > MAX_ROWS ? ASH_E_LIMIT : ASH_E_NOMEM, "%s: no room for more than %zu models", name, k->n);
                break;
            }
            k->row = q;
        }
        if (!split(&p, end, f) || !row_of(f, &k->row[k->n])) st = ash_fail(err, ASH_E_FORMAT, "%s, line %d is no row of a model", name, line);
        else k->n++;
    }
    ash_free(f);
    if (st != ASH_OK) ash_known_models_free(k);
    return st;
}

ash_status ash_known_models_load(ash_known_models *k, const char *path, ash_error *err) {
    ash_buf b = {0};
    *k = (ash_known_models){0};
    ash_status st = ash_file_read(path, MAX_TABLE, &b, err);
    if (st == ASH_OK) st = ash_known_models_parse(k, b.p ? b.p : "", b.n, path, err);
    ash_buf_free(&b);
    return st;
}

void ash_known_models_free(ash_known_models *k) {
    ash_free(k->row);
    *k = (ash_known_models){0};
}
