/* kld.c - eval.h: what a smaller file lost, as KL divergence to the original on a text, with intervals.
 * usage: kld ORIGINAL SMALLER TEXT [CHUNKS] */
#include "example.h"

#include "ashlar/eval.h"

int main(int argc, char **argv) {
    ARGS(3, "ORIGINAL SMALLER TEXT [CHUNKS]");
    ash_model *a, *b;
    OK(ash_model_load(&a, argv[1], &err));
    OK(ash_model_load(&b, argv[2], &err));
    ash_eval_text text;
    OK(ash_eval_text_load(&text, a, argv[3], &err));
    ash_eval_opts o = ash_eval_defaults();
    o.n_ctx = 128;
    o.n_chunks = argc > 4 ? (uint32_t)atoi(argv[4]) : 8;

    ash_eval_ref *ref; /* serves any number of candidates; ash_eval_ref_save keeps it */
    OK(ash_eval_ref_compute(&ref, a, &text, &o, &err));
    ash_eval_result r;
    OK(ash_eval_measure(&r, b, NULL, ref, &o, &err));
    printf("%llu positions\nKLD %.5f (%.5f to %.5f), at most %.3f\nperplexity %.3f, of the original %.3f\nsame first choice %.2f %%\n",
           (unsigned long long)r.n_scored, r.kld.v, r.kld.lo, r.kld.hi, r.kld_max, r.ppl.v, r.ppl_ref.v, 100 * r.same_top1.v);
    ash_eval_result_free(&r);
    ash_eval_ref_free(ref);
    ash_eval_text_free(&text);
    ash_model_free(a);
    ash_model_free(b);
}
