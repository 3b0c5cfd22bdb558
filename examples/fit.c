/* fit.c - fit.h, report.h: the whole job in one call: measure, plan, quantize, prove; and its report as a page.
 * usage: fit MODEL OUT BPW CALIB TEST REPORT.html */
#include "example.h"

#include "ashlar/fit.h"
#include "ashlar/report.h"

static bool show(void *ctx, const char *stage, double done, double total, const char *note) {
    (void)ctx, (void)note;
    static char last[64];
    if (done >= total && strcmp(last, stage) != 0) printf("%s\n", stage), snprintf(last, sizeof last, "%s", stage);
    return true; /* false cancels; the next call goes on from there */
}

int main(int argc, char **argv) {
    ARGS(6, "MODEL OUT BPW CALIB TEST REPORT.html");
    ash_fit_opts o = ash_fit_defaults();
    const char *calib[] = {argv[4]}, *test[] = {argv[5]};
    o.model = argv[1];
    o.out = argv[2];
    o.budget = ASH_BUDGET_BPW;
    o.amount = atof(argv[3]);
    o.calib = calib, o.n_calib = 1;
    o.test = test, o.n_test = 1; /* shares nothing with the calibration text: that is checked */
    o.effort = ASH_EFFORT_QUICK;
    o.controls = 1;
    o.progress.fn = show;
    ash_fit_result *r;
    OK(ash_fit(&r, &o, &err));

    const ash_report *rep = ash_fit_report(r);
    for (size_t i = 0; i < rep->n_files; i++) printf("%-24s %9llu bytes, KLD %.4f\n", rep->files[i].label, (unsigned long long)rep->files[i].bytes, rep->files[i].kld.v);
    char *html;
    size_t n;
    OK(ash_report_html(rep, &html, &n, &err));
    FILE *f = fopen(argv[6], "wb");
    if (!f || fwrite(html, 1, n, f) != n || fclose(f) != 0) OK(ash_fail(&err, ASH_E_IO, "cannot write %s", argv[6]));
    ash_report_free(html);
    ash_fit_result_free(r);
}
