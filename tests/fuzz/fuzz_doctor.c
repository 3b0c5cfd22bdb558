/* fuzz_doctor.c - any bytes examined as a model: whatever is in them, there is an examination with findings that name known checks and end
 * in a NUL, and the verdict is the worst of them. Without a forward pass, which fuzz_model.c takes. */
#include "ashlar/doctor.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    ash_doctor *d = NULL;
    ash_error e = {0};
    ash_doctor_opts o = ash_doctor_defaults();
    ash_doc_severity worst = ASH_DOC_INFO;
    o.no_run = true;
    o.n_threads = 1;
    if (n > 1 << 20) return 0;
    if (ash_doctor_new_mem(&d, p, n, &o, &e) != ASH_OK) {
        if (e.code != ASH_E_NOMEM) abort();
        return 0;
    }
    for (size_t i = 0; i < ash_doctor_n(d); i++) {
        const ash_doc_finding *f = ash_doctor_at(d, i);
        const ash_doc_info c = ash_doctor_check((int)f->check);
        if (!c.id || !memchr(f->where, 0, sizeof f->where) || !memchr(f->what, 0, sizeof f->what) || !f->what[0]) abort();
        if (c.severity > worst) worst = c.severity;
    }
    if (ash_doctor_verdict(d) != worst || ash_doctor_at(d, ash_doctor_n(d)) || ash_doctor_ran(d)) abort();
    ash_doctor_free(d);
    return 0;
}
