/* lab.c - lab.h: published claims as experiments on a model of yours; without arguments their list.
 * usage: lab [EXPERIMENT MODEL TEXT FOLDER] */
#include "example.h"

#include "ashlar/lab.h"

int main(int argc, char **argv) {
    for (size_t i = 0; i < ash_lab_count() && argc == 1; i++) printf("%-12s %s\n", ash_lab_at(i)->name, ash_lab_at(i)->claim);
    if (argc == 1) return 0;
    ARGS(4, "[EXPERIMENT MODEL TEXT FOLDER]");
    const ash_lab_experiment *e = ash_lab_find(argv[1]);
    if (!e) OK(ash_fail(&err, ASH_E_USAGE, "there is no experiment %s", argv[1]));
    ash_lab_opts o = ash_lab_defaults();
    o.n_ctx = 64;
    o.n_chunks = 2;
    o.probe_seconds = -1;
    o.text = o.calib = argv[3];
    o.scratch = argv[4];
    const char *models[] = {argv[2]};
    ash_lab_result r;
    OK(ash_lab_run(&r, e, models, 1, &o, &err));
    for (size_t i = 0; i < r.n_rows; i++) printf("%-28s %s%.5f\n", r.rows[i].label, r.rows[i].has_kld ? "KLD " : "-", r.rows[i].kld.v);
    printf("%s: %s\n", ash_lab_verdict_name(r.verdict), r.reason);
    ash_lab_result_free(&r);
}
