/* lab_report.c - an experiment as Markdown, and its divergences with intervals as an SVG plot. */
#include "lab/lab_int.h"

#include <math.h>

static ash_status hand_out(ash_buf *b, char **out, size_t *n, ash_error *err) {
    if (!ash_buf_ok(b) || !b->p) {
        ash_buf_free(b);
        return lab_oom(err);
    }
    *out = b->p;
    *n = b->n;
    return ASH_OK;
}

ash_status ash_lab_markdown(const ash_lab_result *r, const char *model, const char *plot, char **out, size_t *n, ash_error *err) {
    ash_buf b = {0};
    bool probed = false;
    for (size_t i = 0; i < r->n_rows; i++) probed |= r->rows[i].probe != ASH_PROBE_NONE;
    ash_buf_addf(&b, "# %s: %s\n\n%s on %s.\n\n**Claim** (%s): %s\n\n**Method**: %s\n\n**Verdict: %s.** %s\n\n", r->what->name, ash_lab_verdict_name(r->verdict), r->what->paper, model, r->what->paper,
                 r->what->claim, r->what->method, ash_lab_verdict_name(r->verdict), r->reason);
    if (plot) ash_buf_addf(&b, "![KL divergence with 95 %% intervals](%s)\n\n", plot);
    ash_buf_addf(&b, "| | KLD, nats | 95 %% | bits per weight, blocks |%s |\n|---|---|---|---|%s---|\n", probed ? " probe |" : "", probed ? "---|" : "");
    for (size_t i = 0; i < r->n_rows; i++) {
        const ash_lab_row *w = &r->rows[i];
        ash_buf_addf(&b, "| %s | ", w->label);
        if (w->has_kld) ash_buf_addf(&b, "%.4f | %.4f to %.4f | ", w->kld.v, w->kld.lo, w->kld.hi);
        else ash_buf_adds(&b, "| | ");
        if (w->bpw > 0) ash_buf_addf(&b, "%.3f", w->bpw);
        ash_buf_adds(&b, " | ");
        if (probed) ash_buf_addf(&b, "%s | ", ash_probe_name(w->probe));
        ash_buf_addf(&b, "%s |\n", w->note);
    }
    if (probed)
        ash_buf_adds(&b, "\nThe probe is the papers' one-prompt test, a demonstration that plays no part in the verdict: LOAD_FAIL, ABORT, NAN, TIMEOUT, LOOP, WRONG and OK are kept apart.\n");
    if (r->widened) ash_buf_addf(&b, "\n%s\n", ASH_LAB_WIDENED);
    ash_buf_addf(&b, "\n%u chunks of %u tokens; text SHA-256 `%.16s`, model SHA-256 `%.16s`; %.0f s; ashlar %s.\n", r->n_chunks, r->n_ctx, r->text_sha256, r->model_sha256, r->seconds, ash_version());
    return hand_out(&b, out, n, err);
}

static void escaped(ash_buf *b, const char *s) {
    for (; *s; s++) {
        if (*s == '<') ash_buf_adds(b, "&lt;");
        else if (*s == '>') ash_buf_adds(b, "&gt;");
        else if (*s == '&') ash_buf_adds(b, "&amp;");
        else ash_buf_addc(b, *s);
    }
}

ash_status ash_lab_svg(const ash_lab_result *r, char **out, size_t *n, ash_error *err) {
    enum { LEFT = 250, WIDTH = 420, ROW = 18, TOP = 34 };
    ash_buf b = {0};
    size_t k = 0, at = 0;
    double max = 1e-6;
    for (size_t i = 0; i < r->n_rows; i++) {
        if (!r->rows[i].has_kld) continue;
        k++;
        max = fmax(max, isfinite(r->rows[i].kld.hi) ? r->rows[i].kld.hi : r->rows[i].kld.v);
    }
    const double scale = WIDTH / max;
    const int h = TOP + ROW * (int)k + 12, w = LEFT + WIDTH + 80;
    ash_buf_addf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">\n", w, h, w, h);
    ash_buf_addf(&b, "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n<text x=\"8\" y=\"18\" font-weight=\"bold\">%s: KL divergence in nats, 95 %% intervals</text>\n", w, h, r->what->name);
    if (max > LAB_BROKEN)
        ash_buf_addf(&b, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#b00\" stroke-dasharray=\"4 3\"/>\n", LEFT + LAB_BROKEN * scale, TOP - 6, LEFT + LAB_BROKEN * scale, h - 8);
    for (size_t i = 0; i < r->n_rows; i++) {
        const ash_lab_row *x = &r->rows[i];
        if (!x->has_kld) continue;
        double y = TOP + ROW * (double)at++ + 8, v = LEFT + x->kld.v * scale;
        ash_buf_addf(&b, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">", LEFT - 8, y + 4);
        escaped(&b, x->label);
        ash_buf_addf(&b, "</text>\n<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"10\" fill=\"#6a8caf\"/>\n", LEFT, y - 5, v - LEFT);
        ash_buf_addf(&b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"black\"/>\n<text x=\"%.1f\" y=\"%.1f\">%.3f</text>\n", LEFT + x->kld.lo * scale, y, LEFT + x->kld.hi * scale, y,
                     fmax(v, LEFT + x->kld.hi * scale) + 6, y + 4, x->kld.v);
    }
    ash_buf_adds(&b, "</svg>\n");
    return hand_out(&b, out, n, err);
}
