/* svg.c - the report's charts as SVG text. Deterministic: positions depend on the data alone, numbers are printed with fixed
 * digits. Colours come from CSS variables of the page (light and dark), so that one picture serves both. */
#include "report/report_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static double clampd(double x, double lo, double hi) { return x < lo ? lo : x > hi ? hi : x; }

const char *ash_rp_type_color(double bpw) {
    static const struct { double to; const char *c; } ramp[] = {
        {2.0, "#b5305a"}, {2.7, "#cf4a55"}, {3.5, "#e2703f"}, {4.3, "#eb9a3c"}, {4.6, "#e3b84a"}, {5.1, "#b9b957"}, {5.7, "#7fae66"},
        {6.2, "#4f9f78"}, {6.9, "#318a86"}, {8.6, "#2f6c93"}, {99, "#4b4f8f"}};
    for (size_t i = 0; i < ASH_ARRAY_LEN(ramp); i++)
        if (bpw <= ramp[i].to) return ramp[i].c;
    return "#4b4f8f";
}

/* A round step so that about n of them span the range: 1, 2, 2.5, 5 times a power of ten. */
static double nice_step(double range, int n) {
    static const double m[] = {1, 2, 2.5, 5, 10};
    double raw = range / n, p = pow(10, floor(log10(raw)));
    for (size_t i = 0; i < ASH_ARRAY_LEN(m); i++)
        if (m[i] * p >= raw) return m[i] * p;
    return 10 * p;
}

/* ---- size against divergence ---- */

typedef struct { double x0, x1, y0, y1, l, r, t, b; } frame; /* data range (y in log10), pixels */
static double px(const frame *f, double x) { return f->l + (x - f->x0) / (f->x1 - f->x0) * (f->r - f->l); }
static double py(const frame *f, double y) { return f->b - (log10(y) - f->y0) / (f->y1 - f->y0) * (f->b - f->t); }

static bool usable(const ash_report_file *f) { return isfinite(f->kld.v) && f->kld.v > 0; }

static void log_ticks(ash_buf *b, const frame *f, bool horizontal) {
    static const int mant[] = {1, 2, 5};
    for (int e = (int)floor(f->y0) - 1; e <= (int)ceil(f->y1); e++)
        for (int k = 0; k < 3; k++) {
            double v = mant[k] * pow(10, e);
            if (log10(v) < f->y0 - 1e-9 || log10(v) > f->y1 + 1e-9) continue;
            double y = py(f, v);
            if (horizontal) ash_buf_addf(b, "<line class='grid%s' x1='%.1f' x2='%.1f' y1='%.1f' y2='%.1f'/>", k ? " minor" : "", f->l, f->r, y, y);
            int digits = e < 0 ? -e : 0;
            ash_buf_addf(b, "<text class='tick' x='%.1f' y='%.1f' text-anchor='end'>%.*f</text>", f->l - 8, y + 4, digits, v);
        }
}

static void marker(ash_buf *b, const ash_report_file *f, double x, double y) {
    static const char *const shape[ASH_RF_COUNT] = {"M0-9 2.6-2.8 9-2.2 4.1 1.9 5.6 8.4 0 5-5.6 8.4-4.1 1.9-9-2.2-2.6-2.8Z", "", "M0-5 5 0 0 5-5 0Z", "M0-6 6 5-6 5Z", "M-4.5-4.5h9v9h-9Z", "M-5-5 0 5 5-5Z"};
    ash_buf_addf(b, "<g class='pt k-%s' transform='translate(%.1f %.1f)'>", ash_rp_kind((int)f->kind), x, y);
    if (f->kind == ASH_RF_UNIFORM) ash_buf_adds(b, "<circle r='5'/>");
    else ash_buf_addf(b, "<path d='%s'/>", shape[f->kind]);
    ash_buf_adds(b, "<title>");
    ash_rp_esc(b, f->label);
    ash_buf_adds(b, ": ");
    ash_rp_bytes(b, f->bytes);
    ash_buf_adds(b, ", KLD ");
    ash_rp_kld(b, f->kld.v);
    ash_buf_adds(b, "</title></g>");
}

static int by_size(const void *pa, const void *pb) {
    const ash_report_file *a = *(const ash_report_file *const *)pa, *b = *(const ash_report_file *const *)pb;
    return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

static double size_of(const ash_report_file *f, ash_rp_x what) { return what == ASH_RP_X_MB ? (double)f->bytes / 1e6 : what == ASH_RP_X_BPW ? f->bpw : f->bpw_blocks; }

/* The line through the files of one kind, in order of size; word: only those whose label begins with it. */
static void line_through(ash_buf *b, const frame *f, const ash_report_file **v, size_t n, ash_report_kind kind, const char *word, size_t word_len, ash_rp_x what) {
    bool first = true;
    for (size_t i = 0; i < n; i++)
        if (v[i]->kind == kind && (!word || (strncmp(v[i]->label, word, word_len) == 0 && (v[i]->label[word_len] == ' ' || !v[i]->label[word_len])))) {
            ash_buf_addf(b, first ? "<path class='%s-line' d='M%.1f %.1f" : "%.0s L%.1f %.1f", ash_rp_kind((int)kind), px(f, size_of(v[i], what)), py(f, v[i]->kld.v));
            first = false;
        }
    if (!first) ash_buf_adds(b, "'/>");
}

void ash_rp_chart(ash_buf *b, const ash_report *r, ash_rp_x what) {
    static const char *const axis[] = {"file size, MB", "bits per weight, whole file", "bits per weight, matrices of the blocks"};
    double lo = INFINITY, hi = 0, xl = INFINITY, xh = 0;
    size_t n = 0, n_fit = 0;
    const ash_report_file **v = ash_alloc((r->n_files + 1) * sizeof *v);
    if (!v) {
        b->oom = true;
        return;
    }
    for (size_t i = 0; i < r->n_files; i++) {
        const ash_report_file *f = &r->files[i];
        if (!usable(f)) continue;
        v[n++] = f;
        n_fit += f->kind == ASH_RF_FIT;
        lo = fmin(lo, isfinite(f->kld.lo) && f->kld.lo > 0 ? f->kld.lo : f->kld.v), hi = fmax(hi, isfinite(f->kld.hi) ? f->kld.hi : f->kld.v);
        xl = fmin(xl, size_of(f, what)), xh = fmax(xh, size_of(f, what));
    }
    if (n == 0) {
        ash_free(v);
        return;
    }
    double budget = what == ASH_RP_X_MB ? (double)r->budget_bytes / 1e6 : 0;
    if (budget > 0) xl = fmin(xl, budget), xh = fmax(xh, budget);
    double pad = fmax((xh - xl) * 0.12, xh * 0.01);
    frame f = {xl - pad, xh + pad * 1.6, log10(lo) - 0.12, log10(hi) + 0.15, 64, 1010, 22, 380};
    if (f.y1 - f.y0 < 0.5) {
        double mid = (f.y0 + f.y1) / 2;
        f.y0 = mid - 0.25, f.y1 = mid + 0.25;
    }
    log_ticks(b, &f, true);
    double step = nice_step(f.x1 - f.x0, 8);
    for (double x = ceil(f.x0 / step) * step; x <= f.x1; x += step)
        ash_buf_addf(b, "<line class='grid minor' x1='%.1f' x2='%.1f' y1='%.0f' y2='%.0f'/><text class='tick' x='%.1f' y='%.0f' text-anchor='middle'>%.*f</text>", px(&f, x),
                     px(&f, x), f.t, f.b, px(&f, x), f.b + 20, step < 0.1 ? 2 : step < 1 ? 1 : 0, x);
    ash_buf_addf(b, "<text class='axis' x='%.0f' y='%.0f' text-anchor='middle'>%s</text>", (f.l + f.r) / 2, f.b + 46, axis[what]);
    ash_buf_addf(b, "<text class='axis' transform='translate(16 %.0f) rotate(-90)' text-anchor='middle'>KL divergence, nats per token (log)</text>", (f.t + f.b) / 2);
    if (budget > 0) {
        double x = px(&f, budget);
        ash_buf_addf(b, "<rect class='over' x='%.1f' y='%.0f' width='%.1f' height='%.0f'/><line class='budget' x1='%.1f' x2='%.1f' y1='%.0f' y2='%.0f'/>"
                        "<text class='note' x='%.1f' y='%.0f'>budget</text>", x, f.t, f.r - x, f.b - f.t, x, x, f.t, f.b, x + 6, f.t + 14);
    }
    qsort(v, n, sizeof *v, by_size);
    line_through(b, &f, v, n, ASH_RF_UNIFORM, NULL, 0, what);
    if (n_fit > 1) line_through(b, &f, v, n, ASH_RF_FIT, NULL, 0, what);
    for (size_t i = 0; i < n; i++) { /* one line per baseline: the first word of its label, at its first file */
        if (v[i]->kind != ASH_RF_BASELINE) continue;
        size_t len = strcspn(v[i]->label, " ");
        bool seen = false;
        for (size_t k = 0; k < i; k++) seen |= v[k]->kind == ASH_RF_BASELINE && strncmp(v[k]->label, v[i]->label, len) == 0 && (v[k]->label[len] == ' ' || !v[k]->label[len]);
        if (!seen) line_through(b, &f, v, n, ASH_RF_BASELINE, v[i]->label, len, what);
    }
    /* marks: the fits last, on top; intervals behind them; names beside all but the random mixes, kept apart vertically */
    double taken[64][2];
    int n_taken = 0;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < n; i++) {
            const ash_report_file *p = v[i];
            if ((p->kind == ASH_RF_FIT) != (pass == 1)) continue;
            double x = px(&f, size_of(p, what)), y = py(&f, p->kld.v);
            if (isfinite(p->kld.lo) && p->kld.lo > 0 && isfinite(p->kld.hi))
                ash_buf_addf(b, "<line class='ci k-%s' x1='%.1f' x2='%.1f' y1='%.1f' y2='%.1f'/>", ash_rp_kind((int)p->kind), x, x, py(&f, p->kld.lo), py(&f, p->kld.hi));
            marker(b, p, x, y);
            if (p->kind == ASH_RF_RANDOM) continue;
            bool many = (p->kind == ASH_RF_FIT && n_fit > 1) || p->kind == ASH_RF_BASELINE; /* named once, at the smallest */
            for (size_t k = 0; many && k < i; k++)
                if (v[k]->kind == p->kind) goto next;
            double ty = y + 4;
            for (int k = 0; k < n_taken; k++)
                if (fabs(taken[k][0] - x) < 150 && fabs(taken[k][1] - ty) < 14) ty = taken[k][1] + 14, k = -1;
            if (n_taken < 64) taken[n_taken][0] = x, taken[n_taken++][1] = ty;
            bool left = x > f.r - 170;
            ash_buf_addf(b, "<text class='name k-%s' x='%.1f' y='%.1f'%s>", ash_rp_kind((int)p->kind), left ? x - 12 : x + 12, ty, left ? " text-anchor='end'" : "");
            if (many) {
                char word[32];
                snprintf(word, sizeof word, "%.*s", (int)ASH_MIN(strcspn(p->label, " "), sizeof word - 1), p->label);
                ash_rp_esc(b, word);
            } else ash_rp_esc(b, p->label);
            ash_buf_adds(b, "</text>");
        next:;
        }
    ash_free(v);
}

void ash_rp_plot(ash_buf *b, const ash_report *r) {
    bool any = false;
    for (size_t i = 0; i < r->n_files; i++) any |= usable(&r->files[i]);
    if (!any) {
        ash_buf_adds(b, "<p class='muted'>Nothing was measured.</p>");
        return;
    }
    ash_buf_adds(b, "<div class='scroll'><svg class='plot' viewBox='0 0 1040 440' role='img' aria-label='File size against KL divergence'>");
    ash_rp_chart(b, r, ASH_RP_X_MB);
    ash_buf_adds(b, "</svg></div>");
}

/* ---- layer x tensor grids ---- */

typedef struct { double w, h, left, top, width, height; } grid;

static grid grid_open(ash_buf *b, const ash_report *r, const char *label) {
    int layers = ASH_MAX(r->n_layer, 1);
    grid g = {.left = 92, .top = 26, .h = 27};
    g.w = clampd(940.0 / layers, 9, 40);
    g.width = g.left + g.w * layers + 8;
    if (g.width < 1040) g.width = 1040;
    g.height = g.top + 7 * g.h + 8;
    ash_buf_addf(b, "<div class='scroll'><svg class='gridmap' viewBox='0 0 %.0f %.0f' role='img' aria-label='%s'>", g.width, g.height, label);
    int every = layers > 64 ? 8 : layers > 34 ? 4 : layers > 20 ? 2 : 1;
    for (int l = 0; l < layers; l += every)
        ash_buf_addf(b, "<text class='tick' x='%.1f' y='%.0f' text-anchor='middle'>%d</text>", g.left + g.w * (l + 0.5), g.top - 9, l);
    ash_buf_addf(b, "<text class='tick' x='%.0f' y='%.0f' text-anchor='end'>layer</text>", g.left - 10, g.top - 9);
    for (int role = 0; role < 7; role++)
        ash_buf_addf(b, "<text class='rowname' x='%.0f' y='%.1f' text-anchor='end'>%s</text>", g.left - 10, g.top + g.h * (role + 0.5) + 4, ash_rp_role(role));
    return g;
}

static bool in_grid(const ash_report *r, const ash_report_cell *c) { return c->layer >= 0 && c->layer < r->n_layer && c->role >= 0 && c->role < 7; }

static void cell_title(ash_buf *b, const ash_report_cell *c) {
    ash_buf_adds(b, "<title>");
    ash_rp_esc(b, c->tensor);
    ash_buf_adds(b, "\n");
    ash_rp_esc(b, c->type);
    ash_buf_addf(b, ", ");
    ash_rp_bytes(b, c->bytes);
    ash_buf_adds(b, "\ncosts ");
    ash_rp_kld(b, c->damage);
    ash_buf_adds(b, " nats as chosen\n");
    ash_rp_kld(b, c->sensitivity);
    ash_buf_addf(b, " nats alone at a 4-bit error (%s)</title>", c->measured ? "measured" : "estimated");
}

/* A small divergence as people write it: two significant digits. */
static void nats(ash_buf *b, double v) { ash_buf_addf(b, "%.*f", v > 0 && v < 1 ? (int)ceil(-log10(v)) + 1 : 2, v); }

void ash_rp_heat(ash_buf *b, const ash_report *r) {
    double lo = INFINITY, hi = 0;
    for (size_t i = 0; i < r->n_cells; i++)
        if (in_grid(r, &r->cells[i]) && r->cells[i].sensitivity > 0) lo = fmin(lo, r->cells[i].sensitivity), hi = fmax(hi, r->cells[i].sensitivity);
    if (!(hi > 0)) {
        ash_buf_adds(b, "<p class='muted'>No sensitivities are known.</p>");
        return;
    }
    /* a few outliers must not wash out the rest: the scale ends where three cells in a hundred are beyond it */
    double top = hi;
    for (int k = 0; k < 64; k++) {
        size_t n = 0, beyond = 0;
        for (size_t i = 0; i < r->n_cells; i++)
            if (in_grid(r, &r->cells[i])) n++, beyond += r->cells[i].sensitivity > top / 1.1;
        if (beyond * 100 > n * 3) break;
        top /= 1.1;
    }
    bool clipped = top < hi;
    hi = top;
    if (hi / lo > 1000) lo = hi / 1000;
    grid g = grid_open(b, r, "Sensitivity by layer and tensor");
    double span = log(hi / lo) > 1e-9 ? log(hi / lo) : 1;
    for (size_t i = 0; i < r->n_cells; i++) {
        const ash_report_cell *c = &r->cells[i];
        if (!in_grid(r, c)) continue;
        double f = c->sensitivity > 0 ? clampd(log(c->sensitivity / lo) / span, 0, 1) : 0;
        ash_buf_addf(b, "<rect class='heat' x='%.1f' y='%.1f' width='%.1f' height='%.1f' rx='3' fill-opacity='%.3f'>", g.left + g.w * c->layer + 1, g.top + g.h * c->role + 1,
                     g.w - 2, g.h - 2, 0.05 + 0.95 * f * sqrt(f));
        cell_title(b, c);
        ash_buf_adds(b, "</rect>");
    }
    ash_buf_adds(b, "</svg></div><div class='legend'><span>");
    nats(b, lo);
    ash_buf_adds(b, " nats");
    ash_buf_adds(b, "</span><span class='ramp'></span><span>");
    nats(b, hi);
    ash_buf_addf(b, " nats%s", clipped ? " or more" : "");
    ash_buf_adds(b, " of damage when this matrix alone is at a 4-bit error</span></div>");
}

/* "IQ4_NL" -> "4NL", "Q5_K" -> "5K", "Q8_0" -> "8.0": short enough for a cell. */
static void short_type(const char *t, char out[8]) {
    int n = 0;
    for (const char *p = t; *p && n < 7; p++) {
        if ((*p == 'I' || *p == 'Q') && p - t < 2 && !(p == t && *p == 'I' && p[1] != 'Q')) continue;
        out[n++] = *p == '_' ? '.' : *p;
    }
    out[n] = 0;
    char *dot = strchr(out, '.');
    if (dot && (dot[1] < '0' || dot[1] > '9')) memmove(dot, dot + 1, strlen(dot));
}

void ash_rp_recipe(ash_buf *b, const ash_report *r) {
    grid g = grid_open(b, r, "Chosen types by layer and tensor");
    for (size_t i = 0; i < r->n_cells; i++) {
        const ash_report_cell *c = &r->cells[i];
        if (!in_grid(r, c)) continue;
        double x = g.left + g.w * c->layer, y = g.top + g.h * c->role;
        ash_buf_addf(b, "<g><rect x='%.1f' y='%.1f' width='%.1f' height='%.1f' rx='3' fill='%s'/>", x + 1, y + 1, g.w - 2, g.h - 2, ash_rp_type_color(c->bpw));
        if (g.w >= 22) {
            char s[8];
            short_type(c->type, s);
            ash_buf_addf(b, "<text class='celltext' x='%.1f' y='%.1f' text-anchor='middle'>", x + g.w / 2, y + g.h / 2 + 3.6);
            ash_rp_esc(b, s);
            ash_buf_adds(b, "</text>");
        }
        cell_title(b, c);
        ash_buf_adds(b, "</g>");
    }
    ash_buf_adds(b, "</svg></div>");
}

/* ---- where the bytes went: one bar per type ---- */

typedef struct { const char *type; double bpw; uint64_t bytes; size_t count; } share;

static int by_bpw(const void *pa, const void *pb) {
    const share *a = pa, *b = pb;
    return a->bpw != b->bpw ? (a->bpw < b->bpw ? -1 : 1) : strcmp(a->type, b->type);
}

void ash_rp_bytes_bar(ash_buf *b, const ash_report *r) {
    share s[48];
    size_t n = 0;
    uint64_t total = 0;
    for (size_t i = 0; i < r->n_cells; i++) {
        size_t k = 0;
        while (k < n && strcmp(s[k].type, r->cells[i].type) != 0) k++;
        if (k == n && n < ASH_ARRAY_LEN(s)) s[n++] = (share){r->cells[i].type, r->cells[i].bpw, 0, 0};
        if (k < n) s[k].bytes += r->cells[i].bytes, s[k].count++;
        total += r->cells[i].bytes;
    }
    if (!total) return;
    qsort(s, n, sizeof *s, by_bpw);
    ash_buf_adds(b, "<div class='bar'>");
    for (size_t k = 0; k < n; k++)
        ash_buf_addf(b, "<i style='flex-grow:%.4f;background:%s'></i>", 100.0 * (double)s[k].bytes / (double)total, ash_rp_type_color(s[k].bpw));
    ash_buf_adds(b, "</div><div class='legend wrap'>");
    for (size_t k = 0; k < n; k++) {
        ash_buf_addf(b, "<span><b style='background:%s'></b>", ash_rp_type_color(s[k].bpw));
        ash_rp_esc(b, s[k].type);
        ash_buf_addf(b, " <em>%.4g bits &middot; %zu tensor%s &middot; ", s[k].bpw, s[k].count, s[k].count == 1 ? "" : "s");
        ash_rp_bytes(b, s[k].bytes);
        ash_buf_adds(b, "</em></span>");
    }
    ash_buf_adds(b, "</div>");
}

/* ---- predicted against measured, both logarithmic ---- */

void ash_rp_checks(ash_buf *b, const ash_report *r) {
    double lo = INFINITY, hi = 0;
    for (size_t i = 0; i < r->n_checks; i++) {
        const ash_report_check *c = &r->checks[i];
        if (!(c->predicted > 0) || !(c->measured > 0)) continue;
        lo = fmin(lo, fmin(c->predicted, c->measured)), hi = fmax(hi, fmax(c->predicted, c->measured));
    }
    if (!(hi > 0)) return;
    double a = log10(lo) - 0.1, z = log10(hi) + 0.1;
    if (z - a < 0.4) a -= 0.2, z += 0.2;
    frame f = {a, z, a, z, 74, 454, 14, 394};
    ash_buf_adds(b, "<svg class='check' viewBox='0 0 480 450' role='img' aria-label='Predicted against measured divergence'>");
    log_ticks(b, &f, true);
    for (int e = (int)floor(a) - 1; e <= (int)ceil(z); e++)
        for (int k = 0; k < 3; k++) {
            double v = (k == 0 ? 1 : k == 1 ? 2 : 5) * pow(10, e);
            if (log10(v) < a || log10(v) > z) continue;
            ash_buf_addf(b, "<text class='tick' x='%.1f' y='%.0f' text-anchor='middle'>%.*f</text>", px(&f, log10(v)), f.b + 18, e < 0 ? -e : 0, v);
        }
    ash_buf_addf(b, "<line class='diag' x1='%.0f' y1='%.0f' x2='%.0f' y2='%.0f'/>", f.l, f.b, f.r, f.t);
    for (size_t i = 0; i < r->n_checks; i++) {
        const ash_report_check *c = &r->checks[i];
        if (!(c->predicted > 0) || !(c->measured > 0)) continue;
        ash_buf_addf(b, "<circle class='%s' cx='%.1f' cy='%.1f' r='5'><title>", i == 0 ? "pt k-fit" : "pt k-other", px(&f, log10(c->predicted)), py(&f, c->measured));
        ash_rp_esc(b, c->label);
        ash_buf_addf(b, ": predicted %.4g, measured %.4g</title></circle>", c->predicted, c->measured);
    }
    ash_buf_addf(b, "<text class='axis' x='%.0f' y='%.0f' text-anchor='middle'>predicted KLD</text><text class='axis' transform='translate(16 %.0f) rotate(-90)' "
                    "text-anchor='middle'>measured KLD</text></svg>", (f.l + f.r) / 2, f.b + 42, (f.t + f.b) / 2);
}
