/* html.c - one HTML page: inline style and SVG, no script but a copy button, nothing fetched from anywhere. Everything that may
 * come from a model file or a command line goes through ash_rp_esc. */
#include "report/report_int.h"

#include <math.h>
#include <stdio.h>

/* Colours, and the charts' classes: also of a standalone chart. */
static const char chart_css[] =
    ":root{--bg:#f7f5f1;--card:#fffefb;--ink:#22252a;--muted:#6c7178;--line:#e3dfd6;--accent:#0c7a6c;--soft:#e4f1ee;--uni:#47566b;--rnd:#c47a1f;"
    "--src:#22252a;--oth:#7a5aa6;--heat:#c2341d;--shadow:0 1px 2px #00000010,0 8px 24px #0000000a}"
    "@media(prefers-color-scheme:dark){:root{--bg:#131518;--card:#1b1e23;--ink:#e9e6df;--muted:#9aa0a8;--line:#2d3138;--accent:#3fd0b8;--soft:#17312d;"
    "--uni:#9fb0c8;--rnd:#e7a24b;--src:#e9e6df;--oth:#b79be0;--heat:#ff6a4d;--shadow:none}}"
    "svg{display:block;width:100%;height:auto;font-family:inherit}.grid{stroke:var(--line)}.grid.minor{stroke-opacity:.55}.tick{fill:var(--muted);font-size:11.5px;"
    "font-variant-numeric:tabular-nums}.axis{fill:var(--muted);font-size:12.5px}.rowname{fill:var(--ink);font-size:12px;font-family:ui-monospace,'SF Mono',Menlo,Consolas,monospace}"
    ".budget{stroke:var(--accent);stroke-dasharray:5 4}.over{fill:var(--heat);fill-opacity:.045}.note{fill:var(--accent);font-size:11.5px}.uniform-line,.fit-line,.baseline-line{fill:none;stroke:var(--uni);stroke-opacity:.45;stroke-width:1.5}.fit-line{stroke:var(--accent);stroke-width:2}.baseline-line{stroke:var(--rnd)}"
    ".pt{stroke:var(--card);stroke-width:1.4}.k-fit{fill:var(--accent)}.k-uniform{fill:var(--uni)}.k-random,.k-baseline{fill:var(--rnd)}.k-source{fill:var(--src)}.k-other,.k-preset{fill:var(--oth)}"
    "line.ci{stroke-width:1.6;stroke-opacity:.55}line.ci.k-fit{stroke:var(--accent)}line.ci.k-uniform{stroke:var(--uni)}line.ci.k-random,line.ci.k-baseline{stroke:var(--rnd)}line.ci.k-source{stroke:var(--src)}line.ci.k-preset{stroke:var(--oth)}"
    ".name{font-size:12.5px;paint-order:stroke;stroke:var(--card);stroke-width:4px;stroke-linejoin:round}.name.k-fit{font-weight:700;font-size:14px}.heat{fill:var(--heat)}.celltext{fill:#fff;font-size:9.5px;font-weight:600;paint-order:stroke;stroke:#0004;stroke-width:1.6px;font-variant-numeric:tabular-nums;pointer-events:none}"
    ".diag{stroke:var(--muted);stroke-dasharray:3 4}.check{max-width:500px}";

static const char css[] =
    "*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 'Inter','Segoe UI','Helvetica Neue',system-ui,sans-serif;"
    "-webkit-font-smoothing:antialiased}main{max-width:1120px;margin:0 auto;padding:44px 24px 72px}"
    "h1{font-size:34px;line-height:1.15;margin:0 0 6px;letter-spacing:-.02em;font-weight:700;overflow-wrap:anywhere}h2{font-size:20px;margin:0 0 4px;letter-spacing:-.01em}"
    ".brand{font-size:13px;letter-spacing:.14em;text-transform:uppercase;color:var(--accent);font-weight:700;margin:0 0 12px}"
    ".lede{font-size:19px;color:var(--ink);max-width:62ch;margin:14px 0 0}.lede b{color:var(--accent)}.muted,.sub{color:var(--muted)}.sub{font-size:14.5px;margin:0 0 16px;max-width:82ch}"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:14px;margin:28px 0 10px}"
    ".tile{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:16px 18px;box-shadow:var(--shadow)}"
    ".tile span{display:block;font-size:12.5px;color:var(--muted);text-transform:uppercase;letter-spacing:.06em}.tile b{display:block;font-size:29px;line-height:1.2;"
    "letter-spacing:-.02em;margin:4px 0 2px;font-variant-numeric:tabular-nums}.tile em{font-style:normal;font-size:13px;color:var(--muted)}.tile.hero{background:var(--soft);border-color:transparent}.tile.hero b{color:var(--accent)}"
    "section{background:var(--card);border:1px solid var(--line);border-radius:16px;padding:24px 26px;margin:18px 0;box-shadow:var(--shadow)}"
    ".legend{display:flex;gap:10px;align-items:center;font-size:13px;color:var(--muted);margin-top:12px}.legend.wrap{flex-wrap:wrap;gap:8px 20px;color:var(--ink)}.legend b{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:7px;vertical-align:-1px}"
    ".legend em{font-style:normal;color:var(--muted)}.legend i.mk{display:inline-block;width:11px;height:11px;border-radius:50%;margin-right:7px}.ramp{width:150px;height:12px;border-radius:6px;background:linear-gradient(90deg,transparent,var(--heat));border:1px solid var(--line)}"
    ".bar{display:flex;height:22px;border-radius:7px;overflow:hidden;margin-top:16px}.bar i{display:block}"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:14.5px;font-variant-numeric:tabular-nums}th{font-weight:600;color:var(--muted);font-size:12.5px;text-align:right;padding:8px 12px;border-bottom:1px solid var(--line);white-space:nowrap}"
    "td{padding:9px 12px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}th:first-child,td:first-child{text-align:left;padding-left:4px}tr:last-child td{border-bottom:0}tr.fit td{font-weight:650;background:var(--soft)}td small{color:var(--muted);font-weight:400;font-size:12.5px}"
    ".dot{display:inline-block;width:9px;height:9px;border-radius:50%;margin-right:9px}.cols{display:grid;grid-template-columns:1fr 1fr;gap:30px;align-items:start}@media(max-width:800px){.cols,.pair{grid-template-columns:1fr!important}}"
    ".sample{margin:18px 0 0}.sample p{margin:0 0 8px;font-weight:600}.pair{display:grid;grid-template-columns:1fr 1fr;gap:14px}.pair div{background:var(--bg);border:1px solid var(--line);border-radius:10px;padding:12px 14px;font-size:14px;white-space:pre-wrap;overflow-wrap:anywhere}"
    ".pair div span{display:block;font-size:11.5px;text-transform:uppercase;letter-spacing:.07em;color:var(--muted);margin-bottom:5px}.pair div.fit span{color:var(--accent)}"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:7px 22px;margin:0;font-size:14px}dt{color:var(--muted)}dd{margin:0;font-family:ui-monospace,'SF Mono',Menlo,Consolas,monospace;font-size:12.8px;overflow-wrap:anywhere;white-space:pre-wrap}"
    "@media(max-width:700px){main{padding:28px 14px 48px}section{padding:20px 16px}h1{font-size:27px}.lede{font-size:17px}.tiles{grid-template-columns:1fr 1fr}.tile:last-child{grid-column:1/-1}.tile b{font-size:24px}.plot{min-width:680px}.gridmap{min-width:900px}"
    "dl{grid-template-columns:1fr;gap:2px}dd{margin-bottom:10px}}.legend span{white-space:nowrap}.legend span:last-child,.legend.wrap span{white-space:normal}"
    "ul.notes{margin:6px 0 0;padding-left:20px}footer{color:var(--muted);font-size:13px;margin-top:26px}@media print{section,.tile{break-inside:avoid;box-shadow:none}}";

static void tile(ash_buf *b, const char *cls, const char *label) { ash_buf_addf(b, "<div class='tile%s'><span>%s</span><b>", cls, label); }

/* What the headline compares with: the best measured file that is not larger than the budget and not ours. */
static const ash_report_file *rival(const ash_report *r) {
    const ash_report_file *best = NULL;
    for (size_t i = 1; i < r->n_files; i++) {
        const ash_report_file *f = &r->files[i];
        if (f->kind != ASH_RF_UNIFORM || !isfinite(f->kld.v) || (r->budget_bytes && f->bytes > r->budget_bytes)) continue;
        if (!best || f->kld.v < best->kld.v) best = f;
    }
    return best;
}

/* A sentence on the random mixes: all worse, or how many are not. */
static void random_words(ash_buf *b, const ash_report *r) {
    const double mine = r->files[0].kld.v;
    double best = INFINITY;
    int n = 0, better = 0;
    for (size_t i = 1; i < r->n_files; i++) {
        const ash_report_file *f = &r->files[i];
        if (f->kind != ASH_RF_RANDOM || !isfinite(f->kld.v)) continue;
        n++, better += f->kld.v <= mine;
        best = fmin(best, f->kld.v);
    }
    if (n == 0 || !(mine > 0)) return;
    if (better) ash_buf_addf(b, " Of %d random mixes of the same size, %d %s no worse.", n, better, better == 1 ? "is" : "are");
    else if (n == 1) ash_buf_addf(b, " A random mix of the same size is %.1f&times; as far.", best / mine);
    else ash_buf_addf(b, " The best of %d random mixes of the same size is %.1f&times; as far.", n, best / mine);
}

static void headline(ash_buf *b, const ash_report *r) {
    const ash_report_file *fit = &r->files[0], *u = rival(r);
    ash_buf_adds(b, "<p class='brand'>ashlar fit</p><h1>");
    ash_rp_esc(b, r->model);
    ash_buf_adds(b, " in ");
    ash_rp_bytes(b, fit->bytes);
    ash_buf_adds(b, "</h1><p class='muted'>");
    ash_rp_esc(b, r->arch);
    ash_buf_addf(b, " &middot; %.1f million weights &middot; source ", (double)r->n_weights / 1e6);
    ash_rp_bytes(b, r->source_bytes);
    ash_buf_adds(b, " &middot; budget ");
    ash_rp_esc(b, r->budget_text);
    if (r->widen) ash_buf_addf(b, " &middot; rows widened to multiples of %u", r->widen);
    ash_buf_adds(b, "</p><p class='lede'>");
    if (isfinite(fit->kld.v)) {
        ash_buf_adds(b, "On text it was never tuned on, this file's next-word distribution is <b>");
        ash_rp_kld(b, fit->kld.v);
        ash_buf_adds(b, " nats</b> from the original's");
        if (isfinite(fit->top1.v)) ash_buf_addf(b, ", and it picks the same most likely word <b>%.1f %%</b> of the time", 100 * fit->top1.v);
        ash_buf_addc(b, '.');
        if (u && u->kld.v > 0 && fit->kld.v > 0) {
            ash_buf_adds(b, " The best single type that fits (");
            ash_rp_esc(b, u->label);
            ash_buf_addf(b, ") is %.1f&times; as far away.", u->kld.v / fit->kld.v);
        }
        random_words(b, r);
    } else {
        ash_buf_adds(b, "The file was made but not yet measured.");
    }
    ash_buf_adds(b, "</p><div class='tiles'>");
    tile(b, " hero", "file");
    ash_rp_bytes(b, fit->bytes);
    if (r->budget_bytes) ash_buf_addf(b, "</b><em>%.2f %% of the budget</em></div>", 100.0 * (double)fit->bytes / (double)r->budget_bytes);
    else ash_buf_adds(b, "</b></div>");
    tile(b, " hero", "KL divergence");
    ash_rp_kld(b, fit->kld.v);
    ash_buf_adds(b, "</b><em>");
    if (isfinite(fit->kld.lo)) {
        ash_buf_adds(b, "95 %: ");
        ash_rp_kld(b, fit->kld.lo);
        ash_buf_adds(b, " to ");
        ash_rp_kld(b, fit->kld.hi);
    }
    ash_buf_adds(b, "</em></div>");
    tile(b, "", "same top word");
    if (isfinite(fit->top1.v)) ash_buf_addf(b, "%.1f %%</b><em>95 %%: %.1f to %.1f</em></div>", 100 * fit->top1.v, 100 * fit->top1.lo, 100 * fit->top1.hi);
    else ash_buf_adds(b, "-</b></div>");
    tile(b, "", "perplexity");
    if (isfinite(fit->ppl.v)) ash_buf_addf(b, "%.2f</b><em>", fit->ppl.v);
    else ash_buf_adds(b, "-</b><em>");
    for (size_t i = 1; i < r->n_files; i++)
        if (r->files[i].kind == ASH_RF_SOURCE && isfinite(r->files[i].ppl.v)) {
            ash_buf_addf(b, "reference: %.2f", r->files[i].ppl.v);
            break;
        }
    ash_buf_adds(b, "</em></div>");
    tile(b, "", "bits per weight");
    ash_buf_addf(b, "%.2f</b><em>whole file; blocks %.2f</em></div></div>", fit->bpw, fit->bpw_blocks);
}

static void with_interval(ash_buf *b, ash_report_est e, double scale, int digits) {
    if (!isfinite(e.v)) {
        ash_buf_adds(b, "<td>-</td>");
        return;
    }
    ash_buf_adds(b, "<td>");
    if (digits < 0) ash_rp_kld(b, e.v);
    else ash_buf_addf(b, "%.*f", digits, scale * e.v);
    if (isfinite(e.lo) && isfinite(e.hi) && e.lo != e.hi) {
        ash_buf_adds(b, " <small>");
        if (digits < 0) ash_rp_kld(b, e.lo);
        else ash_buf_addf(b, "%.*f", digits, scale * e.lo);
        ash_buf_adds(b, "&ndash;");
        if (digits < 0) ash_rp_kld(b, e.hi);
        else ash_buf_addf(b, "%.*f", digits, scale * e.hi);
        ash_buf_adds(b, "</small>");
    }
    ash_buf_adds(b, "</td>");
}

static const char *const kind_color[ASH_RF_COUNT] = {"--accent", "--uni", "--rnd", "--src", "--oth", "--rnd"};

static void file_table(ash_buf *b, const ash_report *r) {
    ash_buf_adds(b, "<div class='scroll'><table><thead><tr><th>file</th><th>size</th><th>bits per weight</th><th>in blocks</th><th>KL divergence</th><th>same top word, %</th><th>perplexity</th></tr></thead><tbody>");
    for (size_t i = 0; i < r->n_files; i++) {
        const ash_report_file *f = &r->files[i];
        ash_buf_addf(b, "<tr%s><td><i class='dot' style='background:var(%s)'></i>", f->kind == ASH_RF_FIT ? " class='fit'" : "", kind_color[f->kind]);
        ash_rp_esc(b, f->label);
        ash_buf_adds(b, "</td><td>");
        ash_rp_bytes(b, f->bytes);
        ash_buf_addf(b, "</td><td>%.2f</td><td>%.2f</td>", f->bpw, f->bpw_blocks);
        with_interval(b, f->kld, 1, -1);
        with_interval(b, f->top1, 100, 1);
        with_interval(b, f->ppl, 1, 2);
        ash_buf_adds(b, "</tr>");
    }
    ash_buf_adds(b, "</tbody></table></div>");
}

static void results(ash_buf *b, const ash_report *r) {
    ash_buf_addf(b, "<section><h2>Size and damage</h2><p class='sub'>Lower is closer to the original, left is smaller. Measured on %u windows of %u tokens of held-out text "
                    "(%llu scored predictions); bars are 95 %% intervals.</p>", r->n_chunks, r->n_ctx, (unsigned long long)r->n_scored);
    ash_rp_plot(b, r);
    ash_buf_adds(b, "<div class='legend wrap' style='margin-bottom:18px'>");
    static const char *const what[ASH_RF_COUNT] = {"this fit", "one type for all matrices", "random mixes of the same size", "source", "smallest stock preset", "baseline"};
    for (int k = 0; k < ASH_RF_COUNT; k++)
        for (size_t i = 0; i < r->n_files; i++)
            if ((int)r->files[i].kind == k && isfinite(r->files[i].kld.v) && r->files[i].kld.v > 0) {
                ash_buf_addf(b, "<span><i class='mk' style='background:var(%s)'></i>%s</span>", kind_color[k], what[k]);
                break;
            }
    ash_buf_adds(b, "</div>");
    file_table(b, r);
    if (r->n_notes) {
        ash_buf_adds(b, "<ul class='notes muted'>");
        for (size_t i = 0; i < r->n_notes; i++) {
            ash_buf_adds(b, "<li>");
            ash_rp_esc(b, r->notes[i]);
            ash_buf_adds(b, "</li>");
        }
        ash_buf_adds(b, "</ul>");
    }
    ash_buf_adds(b, "</section>");
}

static void tables_line(ash_buf *b, const ash_report *r) {
    for (size_t i = 0; i < r->n_cells; i++) {
        const ash_report_cell *c = &r->cells[i];
        if (c->layer >= 0) continue;
        ash_buf_adds(b, "<span><b style='background:");
        ash_buf_adds(b, ash_rp_type_color(c->bpw));
        ash_buf_adds(b, "'></b>");
        ash_rp_esc(b, c->tensor);
        ash_buf_adds(b, ": ");
        ash_rp_esc(b, c->type);
        ash_buf_adds(b, " <em>");
        ash_rp_bytes(b, c->bytes);
        ash_buf_adds(b, ", costs ");
        ash_rp_kld(b, c->damage);
        ash_buf_adds(b, " nats, ");
        ash_rp_kld(b, c->sensitivity);
        ash_buf_adds(b, " alone at a 4-bit error</em></span>");
    }
}

static void samples(ash_buf *b, const ash_report *r) {
    if (!r->n_samples) return;
    ash_buf_adds(b, "<section><h2>In its own words</h2><p class='sub'>Greedy continuations: the most likely word at every step, so that differences are the file's and not the dice's.</p>");
    for (size_t i = 0; i < r->n_samples; i++) {
        ash_buf_adds(b, "<div class='sample'><p>");
        ash_rp_esc(b, r->samples[i].prompt);
        ash_buf_adds(b, "</p><div class='pair'><div><span>original</span>");
        ash_rp_esc(b, r->samples[i].reference);
        ash_buf_adds(b, "</div><div class='fit'><span>this fit</span>");
        ash_rp_esc(b, r->samples[i].fit);
        ash_buf_adds(b, "</div></div></div>");
    }
    ash_buf_adds(b, "</section>");
}

static void predictions(ash_buf *b, const ash_report *r) {
    if (!r->n_checks) return;
    ash_buf_adds(b, "<section><h2>Predicted and measured</h2><p class='sub'>The planner adds up what each matrix costs alone. Each row is a whole model that was really built and measured "
                    "on the calibration text; the closer to the diagonal, the better the sum.</p><div class='cols'><div>");
    ash_rp_checks(b, r);
    ash_buf_adds(b, "</div><div class='scroll'><table><thead><tr><th>candidate</th><th>predicted</th><th>measured</th></tr></thead><tbody>");
    for (size_t i = 0; i < r->n_checks; i++) {
        const ash_report_check *c = &r->checks[i];
        ash_buf_adds(b, i == 0 ? "<tr class='fit'><td>" : "<tr><td>");
        ash_rp_esc(b, c->label);
        ash_buf_adds(b, "</td><td>");
        ash_rp_kld(b, c->predicted);
        ash_buf_adds(b, "</td><td>");
        ash_rp_kld(b, c->measured);
        if (c->half > 0) ash_buf_addf(b, " <small>&plusmn; %.4f</small>", c->half);
        ash_buf_adds(b, "</td></tr>");
    }
    ash_buf_adds(b, "</tbody></table></div></div></section>");
}

static void page_open(ash_buf *b, const char *model, const char *verb) {
    ash_buf_adds(b, "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width,initial-scale=1'><meta name='color-scheme' content='light dark'><title>");
    ash_rp_esc(b, model);
    ash_buf_addf(b, " - ashlar %s</title><style>", verb);
    ash_buf_adds(b, chart_css);
    ash_buf_adds(b, css);
    ash_buf_adds(b, "</style></head><body><main>");
}

ash_status ash_report_front_html(const ash_report *r, char **out, size_t *n, ash_error *err) {
    static const char *const title[] = {"Whole files", "Matrices of the blocks"};
    static const char *const words[] = {"Header and tables included.", "Tables left out: in small models they are a large part of the file, and of no use to compare with larger ones."};
    ash_buf b = {0};
    page_open(&b, r->model, "front");
    ash_buf_adds(&b, "<p class='brand'>ashlar front</p><h1>");
    ash_rp_esc(&b, r->model);
    ash_buf_addf(&b, "</h1><p class='lede'>%zu files, measured alike on %u windows of %u tokens of held-out text. Lower is closer to the original, left is smaller; bars are 95 %% intervals.</p>", r->n_files,
                 r->n_chunks, r->n_ctx);
    for (int k = 0; k < 2; k++) {
        ash_buf_addf(&b, "<section><h2>%s</h2><p class='sub'>%s</p><div class='scroll'><svg class='plot' viewBox='0 0 1040 440' role='img' aria-label='Bits per weight against KL divergence'>",
                     title[k], words[k]);
        ash_rp_chart(&b, r, k ? ASH_RP_X_BLOCKS : ASH_RP_X_BPW);
        ash_buf_adds(&b, "</svg></div></section>");
    }
    ash_buf_adds(&b, "<section><h2>The files</h2>");
    file_table(&b, r);
    ash_buf_adds(&b, "</section><footer>Made by ashlar. KL divergence is KL(original || file) in nats per scored token. The page holds no outside references.</footer></main></body></html>\n");
    return ash_rp_hand_over(&b, out, n, err);
}

ash_status ash_report_svg(const ash_report *r, char **out, size_t *n, ash_error *err) {
    ash_buf b = {0};
    ash_buf_adds(&b, "<?xml version='1.0' encoding='UTF-8'?>\n<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 1040 940' font-family='system-ui,sans-serif'><title>");
    ash_rp_esc(&b, r->model ? r->model : "");
    ash_buf_adds(&b, "</title><style>");
    ash_buf_adds(&b, chart_css);
    ash_buf_adds(&b, "</style><rect width='1040' height='940' fill='var(--card)'/><text class='rowname' x='64' y='24'>");
    ash_rp_esc(&b, r->model ? r->model : "");
    ash_buf_adds(&b, "</text><g transform='translate(0 30)'>");
    ash_rp_chart(&b, r, ASH_RP_X_BPW);
    ash_buf_adds(&b, "</g><g transform='translate(0 490)'>");
    ash_rp_chart(&b, r, ASH_RP_X_BLOCKS);
    ash_buf_adds(&b, "</g></svg>\n");
    return ash_rp_hand_over(&b, out, n, err);
}

ash_status ash_report_html(const ash_report *r, char **out, size_t *n, ash_error *err) {
    ash_buf b = {0};
    if (!r->n_files) return ash_fail(err, ASH_E_USAGE, "a report needs at least one file");
    page_open(&b, r->model, "fit");
    headline(&b, r);
    results(&b, r);
    bool swept = false;
    for (size_t i = 0; i < r->n_cells; i++) swept |= r->cells[i].measured;
    ash_buf_adds(&b, "<section><h2>What each matrix can lose</h2><p class='sub'>");
    ash_buf_adds(&b, swept ? "One matrix at a time was made worse while all others stayed, and the damage to the model's predictions measured. "
                           : "No sweep was made: these are typical sensitivities of each kind of matrix, not measurements of this model. ");
    ash_buf_adds(&b, "Strong colours mark the ones to protect.</p>");
    ash_rp_heat(&b, r);
    ash_buf_adds(&b, "</section><section><h2>The recipe</h2><p class='sub'>The type chosen for every matrix so that the sum of the damage is least within the budget. "
                     "Warm colours have few bits, cool ones many.</p>");
    ash_rp_recipe(&b, r);
    ash_buf_adds(&b, "<div class='legend wrap'>");
    tables_line(&b, r);
    ash_buf_adds(&b, "</div>");
    ash_rp_bytes_bar(&b, r);
    ash_buf_adds(&b, "</section>");
    samples(&b, r);
    predictions(&b, r);
    ash_buf_adds(&b, "<section><h2>To repeat it</h2><p class='sub'>The same inputs give the same file, byte for byte, on the same kind of processor.</p><dl>");
    for (size_t i = 0; i < r->n_facts; i++) {
        ash_buf_adds(&b, "<dt>");
        ash_rp_esc(&b, r->facts[i].key);
        ash_buf_adds(&b, "</dt><dd>");
        ash_rp_esc(&b, r->facts[i].value);
        ash_buf_adds(&b, "</dd>");
    }
    ash_buf_adds(&b, "</dl></section><footer>Made by ashlar. KL divergence is KL(original || this file) in nats per scored token. The page holds no outside references.</footer></main></body></html>\n");
    return ash_rp_hand_over(&b, out, n, err);
}
