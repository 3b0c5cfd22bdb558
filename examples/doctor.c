/* doctor.c - doctor.h: is this file broken, and where?
 * usage: doctor MODEL      exit code 1: it is */
#include "example.h"

#include "ashlar/doctor.h"

int main(int argc, char **argv) {
    ARGS(1, "MODEL");
    ash_doctor_opts o = ash_doctor_defaults();
    o.no_run = true; /* from the weights and the metadata alone */
    ash_doctor *d;
    OK(ash_doctor_new(&d, argv[1], &o, &err));
    const bool ill = ash_doctor_verdict(d) == ASH_DOC_ERROR;
    for (size_t i = 0; i < ash_doctor_n(d); i++) {
        const ash_doc_finding *f = ash_doctor_at(d, i);
        const ash_doc_info info = ash_doctor_check((int)f->check);
        printf("%s %s: %s (%s)\n", info.id, f->where, f->what, info.advice);
    }
    printf("%s\n", ill ? "ill" : "sound");
    ash_doctor_free(d);
    return ill;
}
