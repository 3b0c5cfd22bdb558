/* sweep_mpi.c - mpi.h, eval.h: which matrix can lose most, measured by all processes that mpirun started, or by this one alone.
 * usage: [mpirun -n N] sweep_mpi MODEL TEXT TYPE */
#include "example.h"

#include "ashlar/eval.h"
#include "ashlar/mpi.h"

int main(int argc, char **argv) {
    ARGS(3, "MODEL TEXT TYPE");
    ash_ranks ranks;
    ash_model *m;
    ash_eval_text text;
    ash_sweep_unit *u;
    size_t n;
    ash_dtype type;
    ash_sweep_result r;
    OK(ash_mpi_open(&ranks, &err));
    OK(ash_model_load(&m, argv[1], &err));
    OK(ash_eval_text_load(&text, m, argv[2], &err));
    if (!ash_dtype_parse(argv[3], &type)) OK(ash_fail(&err, ASH_E_USAGE, "%s is no type", argv[3]));
    OK(ash_sweep_units(&u, &n, m, 't', &type, 1, NULL, 0, &err));
    ash_sweep_opts o = ash_sweep_defaults();
    o.until = 0.5;
    o.ranks = &ranks;
    OK(ash_sweep_run(&r, m, &text, NULL, u, n, &o, &err)); /* the same on every rank, whatever their number */
    for (size_t i = 0; i < r.n_rows && ranks.rank == 0; i++) printf("%-28s KLD %.3e +- %.1e\n", r.rows[i].tensor, r.rows[i].kld, r.rows[i].half);
    ash_sweep_result_free(&r);
    ash_sweep_units_free(u);
    ash_eval_text_free(&text);
    ash_model_free(m);
    ash_mpi_close(0);
}
