/* assess.c - assess.h: what a model would take and which stock recipes fit this machine, known from a header or a config.json.
 * usage: assess MODEL|config.json */
#include "example.h"

#include "ashlar/assess.h"

int main(int argc, char **argv) {
    ARGS(1, "MODEL|config.json");
    ash_assess_opts o = ash_assess_defaults();
    ash_assess *a;
    OK(ash_assess_new(&a, argv[1], &o, &err));
    const ash_model_facts *f = ash_assess_facts(a);
    printf("%s: %lld layers, %.1f million weights%s\n", f->arch, (long long)f->n_layer, (double)f->n_weights / 1e6, f->tied ? ", tied" : "");
    for (size_t i = 0; i < ash_assess_n_recipes(a); i++) {
        const ash_assess_recipe *r = ash_assess_recipe_at(a, i);
        if (r->possible && r->general) printf("%-8s %12llu bytes, %5.2f bits%s\n", r->name, (unsigned long long)r->file_bytes, r->bpw, r->fits ? ", fits" : "");
    }
    ash_assess_free(a);
}
