/* repair.c - repair.h: what a quantized file lost, won back in part by a small LoRA adapter.
 * usage: repair ORIGINAL QUANTIZED OUT BYTES */
#include "example.h"

#include "ashlar/repair.h"

int main(int argc, char **argv) {
    ARGS(4, "ORIGINAL QUANTIZED OUT BYTES");
    ash_gguf *a, *b;
    OK(ash_gguf_open(&a, argv[1], &err));
    OK(ash_gguf_open(&b, argv[2], &err));
    ash_repair_opts o = ash_repair_defaults();
    o.budget_bytes = strtoull(argv[4], NULL, 10);
    ash_repair_result r;
    OK(ash_repair(&r, a, b, argv[3], &o, &err));
    for (size_t i = 0; i < r.n; i++)
        if (r.t[i].rank) printf("%-28s rank %d: error %.3e -> %.3e\n", r.t[i].tensor, r.t[i].rank, r.t[i].rel_err, r.t[i].rel_err_after);
    printf("%llu bytes, predicted damage %.4f -> %.4f nats\n", (unsigned long long)r.file_bytes, r.damage, r.damage_after);
    ash_repair_result_free(&r);
    ash_gguf_close(a);
    ash_gguf_close(b);
}
