/* report.c - the text table, the JSON document, and the small helpers that all renderings share. */
#include "report/report_int.h"

#include <math.h>
#include <stdio.h>

const char *ash_rp_role(int role) {
    static const char *const names[] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "token_embd", "output",
                                        "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps", "inp_gate", "proj", "per_layer_token_embd", "per_layer_model_proj"};
    return role >= 0 && role < (int)ASH_ARRAY_LEN(names) ? names[role] : "other";
}

const char *ash_rp_kind(int kind) {
    static const char *const names[ASH_RF_COUNT] = {"fit", "uniform", "random", "source", "preset", "baseline"};
    return kind >= 0 && kind < ASH_RF_COUNT ? names[kind] : "other";
}

/* Length of the valid UTF-8 sequence at s, 0 when it is none. */
static int utf8_len(const unsigned char *s) {
    if (s[0] < 0x80) return 1;
    int n = s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if (n == 3 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0))) return 0; /* overlong, surrogate */
    if (n == 4 && ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90))) return 0;
    return n;
}

void ash_rp_esc(ash_buf *b, const char *s) {
    for (const unsigned char *p = (const unsigned char *)(s ? s : ""); *p;) {
        int n = utf8_len(p);
        switch (n == 1 ? *p : 0x100) {
        case '&': ash_buf_adds(b, "&amp;"); break;
        case '<': ash_buf_adds(b, "&lt;"); break;
        case '>': ash_buf_adds(b, "&gt;"); break;
        case '"': ash_buf_adds(b, "&quot;"); break;
        case '\'': ash_buf_adds(b, "&#39;"); break;
        default:
            if (n == 0 || (n == 1 && *p < 0x20 && *p != '\n' && *p != '\t') || *p == 0x7f) ash_buf_adds(b, "\xef\xbf\xbd");
            else ash_buf_add(b, p, (size_t)n);
        }
        p += n ? n : 1;
    }
}

void ash_rp_json_str(ash_buf *b, const char *s) {
    ash_buf_addc(b, '"');
    for (const unsigned char *p = (const unsigned char *)(s ? s : ""); *p;) {
        int n = utf8_len(p);
        if (n == 0) ash_buf_adds(b, "\xef\xbf\xbd");
        else if (*p == '"' || *p == '\\') ash_buf_addc(b, '\\'), ash_buf_addc(b, (char)*p);
        else if (*p < 0x20) ash_buf_addf(b, "\\u%04x", *p);
        else ash_buf_add(b, p, (size_t)n);
        p += n ? n : 1;
    }
    ash_buf_addc(b, '"');
}

void ash_rp_json_num(ash_buf *b, double v) {
    if (isfinite(v)) ash_buf_addf(b, "%.9g", v);
    else ash_buf_adds(b, "null");
}

void ash_rp_bytes(ash_buf *b, uint64_t n) {
    if (n < 1000000) ash_buf_addf(b, "%.1f kB", (double)n / 1e3);
    else if (n < 1000000000) ash_buf_addf(b, "%.1f MB", (double)n / 1e6);
    else ash_buf_addf(b, "%.2f GB", (double)n / 1e9);
}

void ash_rp_kld(ash_buf *b, double v) {
    if (!isfinite(v)) ash_buf_adds(b, "-");
    else if (v == 0) ash_buf_adds(b, "0");
    else ash_buf_addf(b, "%.*f", fabs(v) >= 1 ? 2 : fabs(v) >= 0.1 ? 3 : fabs(v) >= 0.001 ? 4 : 6, v);
}

ash_status ash_rp_hand_over(ash_buf *b, char **out, size_t *n, ash_error *err) {
    if (!ash_buf_ok(b) || !b->p) {
        ash_buf_free(b);
        return ash_fail(err, ASH_E_NOMEM, "out of memory for the report");
    }
    *out = b->p;
    if (n) *n = b->n;
    return ASH_OK;
}

void ash_report_free(char *s) { ash_free(s); }

/* Left-aligned label column as wide as its widest, then figures. */
ash_status ash_report_table(const ash_report *r, char **out, size_t *n, ash_error *err) {
    ash_buf b = {0}, c = {0};
    int w = 4;
    for (size_t i = 0; i < r->n_files; i++) w = ASH_MAX(w, (int)strlen(r->files[i].label));
    w = ASH_MIN(w, 40);
    ash_buf_addf(&b, "%-*s  %10s  %5s %6s  %-22s  %-8s  %s\n", w, "file", "size", "bpw", "blocks", "KLD (95 % interval)", "top-1", "PPL");
    for (size_t i = 0; i < r->n_files; i++) {
        const ash_report_file *f = &r->files[i];
        ash_buf_reset(&c);
        ash_rp_bytes(&c, f->bytes);
        ash_buf_addf(&b, "%-*.*s  %10s  %5.2f %6.2f  ", w, w, f->label, c.p ? c.p : "", f->bpw, f->bpw_blocks);
        ash_buf_reset(&c);
        ash_rp_kld(&c, f->kld.v);
        if (isfinite(f->kld.v) && isfinite(f->kld.lo) && f->kld.v > 0) {
            ash_buf_adds(&c, " (");
            ash_rp_kld(&c, f->kld.lo);
            ash_buf_adds(&c, "-");
            ash_rp_kld(&c, f->kld.hi);
            ash_buf_adds(&c, ")");
        }
        ash_buf_addf(&b, "%-22s  ", c.p ? c.p : "");
        if (isfinite(f->top1.v)) ash_buf_addf(&b, "%6.2f %%  ", 100 * f->top1.v);
        else ash_buf_adds(&b, "-         ");
        if (isfinite(f->ppl.v)) ash_buf_addf(&b, "%.2f\n", f->ppl.v);
        else ash_buf_adds(&b, "-\n");
    }
    for (size_t i = 0; i < r->n_notes; i++) ash_buf_addf(&b, "note: %s\n", r->notes[i]);
    ash_buf_free(&c);
    return ash_rp_hand_over(&b, out, n, err);
}

static void est(ash_buf *b, const char *key, ash_report_est e) {
    ash_buf_addf(b, ", \"%s\": ", key);
    if (!isfinite(e.v)) {
        ash_buf_adds(b, "null");
        return;
    }
    ash_buf_adds(b, "{\"mean\": ");
    ash_rp_json_num(b, e.v);
    ash_buf_adds(b, ", \"lo\": ");
    ash_rp_json_num(b, e.lo);
    ash_buf_adds(b, ", \"hi\": ");
    ash_rp_json_num(b, e.hi);
    ash_buf_addc(b, '}');
}

ash_status ash_report_json(const ash_report *r, char **out, size_t *n, ash_error *err) {
    ash_buf b = {0};
    ash_buf_adds(&b, "{\n  \"format\": \"ashlar-fit-report\",\n  \"version\": 1,\n  \"model\": ");
    ash_rp_json_str(&b, r->model);
    ash_buf_adds(&b, ",\n  \"arch\": ");
    ash_rp_json_str(&b, r->arch);
    ash_buf_addf(&b, ",\n  \"n_weights\": %llu,\n  \"source_bytes\": %llu,\n  \"budget\": ", (unsigned long long)r->n_weights, (unsigned long long)r->source_bytes);
    ash_rp_json_str(&b, r->budget_text);
    ash_buf_addf(&b, ",\n  \"budget_bytes\": %llu,\n  \"widen\": %u,\n  \"proof\": {\"n_ctx\": %u, \"n_chunks\": %u, \"n_scored\": %llu},\n  \"files\": [",
                 (unsigned long long)r->budget_bytes, r->widen, r->n_ctx, r->n_chunks, (unsigned long long)r->n_scored);
    for (size_t i = 0; i < r->n_files; i++) {
        const ash_report_file *f = &r->files[i];
        ash_buf_addf(&b, "%s\n    {\"kind\": \"%s\", \"label\": ", i ? "," : "", ash_rp_kind((int)f->kind));
        ash_rp_json_str(&b, f->label);
        ash_buf_addf(&b, ", \"bytes\": %llu, \"bpw\": ", (unsigned long long)f->bytes);
        ash_rp_json_num(&b, f->bpw);
        ash_buf_adds(&b, ", \"bpw_blocks\": ");
        ash_rp_json_num(&b, f->bpw_blocks);
        ash_buf_adds(&b, ", \"predicted_kld\": ");
        ash_rp_json_num(&b, f->predicted_kld);
        est(&b, "kld", f->kld);
        est(&b, "same_top1", f->top1);
        est(&b, "ppl", f->ppl);
        ash_buf_addc(&b, '}');
    }
    ash_buf_adds(&b, "\n  ],\n  \"tensors\": [");
    for (size_t i = 0; i < r->n_cells; i++) {
        const ash_report_cell *c = &r->cells[i];
        ash_buf_adds(&b, i ? ",\n    {\"tensor\": " : "\n    {\"tensor\": ");
        ash_rp_json_str(&b, c->tensor);
        ash_buf_adds(&b, ", \"type\": ");
        ash_rp_json_str(&b, c->type);
        ash_buf_addf(&b, ", \"bytes\": %llu, \"sensitivity\": ", (unsigned long long)c->bytes);
        ash_rp_json_num(&b, c->sensitivity);
        ash_buf_adds(&b, ", \"predicted_kld\": ");
        ash_rp_json_num(&b, c->damage);
        ash_buf_addf(&b, ", \"measured\": %s}", c->measured ? "true" : "false");
    }
    ash_buf_adds(&b, "\n  ],\n  \"checks\": [");
    for (size_t i = 0; i < r->n_checks; i++) {
        ash_buf_adds(&b, i ? ",\n    {\"label\": " : "\n    {\"label\": ");
        ash_rp_json_str(&b, r->checks[i].label);
        ash_buf_adds(&b, ", \"predicted_kld\": ");
        ash_rp_json_num(&b, r->checks[i].predicted);
        ash_buf_adds(&b, ", \"measured_kld\": ");
        ash_rp_json_num(&b, r->checks[i].measured);
        ash_buf_addc(&b, '}');
    }
    ash_buf_adds(&b, "\n  ],\n  \"samples\": [");
    for (size_t i = 0; i < r->n_samples; i++) {
        ash_buf_adds(&b, i ? ",\n    {\"prompt\": " : "\n    {\"prompt\": ");
        ash_rp_json_str(&b, r->samples[i].prompt);
        ash_buf_adds(&b, ", \"reference\": ");
        ash_rp_json_str(&b, r->samples[i].reference);
        ash_buf_adds(&b, ", \"fit\": ");
        ash_rp_json_str(&b, r->samples[i].fit);
        ash_buf_addc(&b, '}');
    }
    ash_buf_adds(&b, "\n  ],\n  \"repeat\": {");
    for (size_t i = 0; i < r->n_facts; i++) {
        ash_buf_adds(&b, i ? ",\n    " : "\n    ");
        ash_rp_json_str(&b, r->facts[i].key);
        ash_buf_adds(&b, ": ");
        ash_rp_json_str(&b, r->facts[i].value);
    }
    ash_buf_adds(&b, "\n  },\n  \"notes\": [");
    for (size_t i = 0; i < r->n_notes; i++) {
        ash_buf_adds(&b, i ? ", " : "");
        ash_rp_json_str(&b, r->notes[i]);
    }
    ash_buf_adds(&b, "]\n}\n");
    return ash_rp_hand_over(&b, out, n, err);
}
