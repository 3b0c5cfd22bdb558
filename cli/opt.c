/* opt.c - option tables: parsing, the common options, suggestions for misspelt names. Every refusal is
 * one sentence that names the option and the value. */
#include "opt.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool g_json;
int g_threads;

static bool help_shown; /* stays false: opt_parse looks for --help before the table is used */
static int64_t threads_wanted;

/* ---- suggestions ---- */
static int distance(const char *a, const char *b) { /* Levenshtein, names of at most 31 bytes */
    int n = (int)strlen(b), row[33];
    if (n > 31 || strlen(a) > 31) return 99;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diag = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int cost = diag + (a[i - 1] != b[j - 1]), up = row[j] + 1, left = row[j - 1] + 1;
            diag = row[j];
            row[j] = cost < up ? (cost < left ? cost : left) : (up < left ? up : left);
        }
    }
    return row[n];
}

const char *cli_closest(const char *s, const char *const *names, int n) {
    const char *best = NULL;
    int d_best = 1 + (int)(strlen(s) > 3) + (int)(strlen(s) > 7); /* more typing, more slips */
    for (int i = 0; i < n; i++) {
        size_t k = strlen(s);
        int d = k >= 3 && strncmp(s, names[i], k) == 0 ? 1 : distance(s, names[i]);
        if (d <= d_best && (!best || d < d_best)) {
            best = names[i];
            d_best = d;
        }
    }
    return best;
}

/* ---- the table ---- */
bool opt_at(const ash_cmd *c, int i, opt_def *out) {
    int n = 0;
    if (c->opts)
        for (; c->opts[n].kind != OPT_END; n++)
            if (n == i) return *out = c->opts[i], true;
    i -= n;
    if (c->json && i-- == 0) return *out = (opt_def){OPT_FLAG, 0, "json", NULL, "Print one JSON document.", &g_json}, true;
    if (c->threads && i-- == 0)
        return *out = (opt_def){OPT_I64, 't', "threads", "N", "Threads to use (default: all usable processors).", &threads_wanted}, true;
    if (i == 0) return *out = (opt_def){OPT_FLAG, 'h', "help", NULL, "Show this help.", &help_shown}, true;
    return false;
}

static bool find_long(const ash_cmd *c, const char *name, size_t n, opt_def *o) {
    for (int i = 0; opt_at(c, i, o); i++)
        if (strlen(o->name) == n && memcmp(o->name, name, n) == 0) return true;
    return false;
}

static bool find_short(const ash_cmd *c, char name, opt_def *o) {
    for (int i = 0; opt_at(c, i, o); i++)
        if (o->short_name == name) return true;
    return false;
}

static int unknown_option(const ash_cmd *c, const char *name, size_t n) {
    const char *names[128];
    char given[64];
    int k = 0;
    opt_def o;
    for (int i = 0; k < 128 && opt_at(c, i, &o); i++) names[k++] = o.name;
    snprintf(given, sizeof given, "%.*s", (int)(n < 60 ? n : 60), name);
    const char *near = cli_closest(given, names, k);
    if (near) return cli_usage("there is no option --%s; did you mean --%s?", given, near);
    return cli_usage("there is no option --%s", given);
}

static int store(const opt_def *o, const char *v) {
    char *end;
    errno = 0;
    switch (o->kind) {
    case OPT_STR: *(const char **)o->dst = v; return 0;
    case OPT_LIST: {
        opt_list *l = o->dst;
        if (l->n == (int)(sizeof l->v / sizeof l->v[0])) return cli_usage("--%s is given more than %d times", o->name, l->n);
        l->v[l->n++] = v;
        return 0;
    }
    case OPT_I64: {
        long long x = strtoll(v, &end, 10);
        if (end == v || *end) return cli_usage("--%s wants a whole number, not \"%.60s\"", o->name, v);
        if (errno == ERANGE) return cli_usage("--%s %.60s is out of range", o->name, v);
        *(int64_t *)o->dst = x;
        return 0;
    }
    case OPT_F64: {
        double x = strtod(v, &end);
        if (end == v || *end || !isfinite(x)) return cli_usage("--%s wants a number, not \"%.60s\"", o->name, v);
        *(double *)o->dst = x;
        return 0;
    }
    case OPT_BYTES:
        if (!cli_parse_bytes(v, o->dst)) return cli_usage("--%s wants a size such as 60MB, 1.5GiB or 1000000, not \"%.60s\"", o->name, v);
        return 0;
    default: return cli_usage("--%s takes no value", o->name);
    }
}

static int long_option(const ash_cmd *c, char **argv, int argc, int *i) {
    const char *name = argv[*i] + 2, *eq = strchr(name, '=');
    size_t n = eq ? (size_t)(eq - name) : strlen(name);
    opt_def o;
    if (!find_long(c, name, n, &o)) {
        if (n > 3 && memcmp(name, "no-", 3) == 0 && find_long(c, name + 3, n - 3, &o)) {
            if (o.kind != OPT_FLAG) return cli_usage("--%s takes a value, so there is no --no-%s", o.name, o.name);
            if (eq) return cli_usage("--no-%s takes no value", o.name);
            *(bool *)o.dst = false;
            return 0;
        }
        return unknown_option(c, name, n);
    }
    if (o.kind == OPT_FLAG) {
        if (eq) return cli_usage("--%s takes no value", o.name);
        *(bool *)o.dst = true;
        return 0;
    }
    if (eq) return store(&o, eq + 1);
    if (*i + 1 >= argc) return cli_usage("--%s needs a value (%s)", o.name, o.arg ? o.arg : "VALUE");
    const char *v = argv[*i + 1];
    opt_def next; /* "--imatrix --type Q4_0": a forgotten value, not a file named --type */
    if (v[0] == '-' && v[1] == '-' && find_long(c, v + 2, strcspn(v + 2, "="), &next))
        return cli_usage("--%s needs a value (%s) before %s", o.name, o.arg ? o.arg : "VALUE", v);
    ++*i;
    return store(&o, v);
}

static int short_options(const ash_cmd *c, char **argv, int argc, int *i) {
    for (const char *p = argv[*i] + 1; *p; p++) {
        opt_def o;
        if (!find_short(c, *p, &o)) return cli_usage("there is no option -%c", *p);
        if (o.kind == OPT_FLAG) {
            *(bool *)o.dst = true;
            continue;
        }
        if (p[1]) return store(&o, p + 1);
        if (*i + 1 >= argc) return cli_usage("-%c needs a value (%s)", *p, o.arg ? o.arg : "VALUE");
        return store(&o, argv[++*i]);
    }
    return 0;
}

int opt_parse(const ash_cmd *c, int argc, char **argv, int *n_pos, bool *help) {
    bool options = true;
    int rc = 0, pos = 0;
    *n_pos = 0;
    /* First, so that help shows the defaults and works with any other mistake on the line. */
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return *help = true, 0;
    for (int i = 0; i < argc && rc == 0; i++) {
        char *a = argv[i];
        if (!options || a[0] != '-' || !a[1])
            argv[pos++] = a; /* pos <= i */
        else if (strcmp(a, "--") == 0)
            options = false;
        else
            rc = a[1] == '-' ? long_option(c, argv, argc, &i) : short_options(c, argv, argc, &i);
    }
    *n_pos = pos;
    if (rc == 0 && (threads_wanted < 0 || threads_wanted > 1024)) return cli_usage("--threads must be from 0 to 1024");
    g_threads = (int)threads_wanted;
    return rc;
}
