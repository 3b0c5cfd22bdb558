/* metadata.c - gguf.h: what a file says of itself; and a header alone with one more key, written anew.
 * usage: metadata MODEL OUT KEY VALUE */
#include "example.h"

#include "ashlar/gguf.h"

int main(int argc, char **argv) {
    ARGS(4, "MODEL OUT KEY VALUE");
    ash_gguf *g;
    OK(ash_gguf_open(&g, argv[1], &err)); /* every count, length, type and range is checked */
    ash_str arch;
    if (ash_gguf_get_str(g, "general.architecture", &arch)) printf("architecture %.*s\n", (int)arch.n, arch.p);
    for (size_t i = 0; i < ash_gguf_n_kv(g); i++) {
        const ash_gguf_kv *kv = ash_gguf_kv_at(g, i);
        if (kv->type == ASH_GV_STRING) printf("%.*s = \"%.*s\"\n", (int)kv->key.n, kv->key.p, (int)(kv->str.n < 60 ? kv->str.n : 60), kv->str.p);
        if (kv->type == ASH_GV_U32) printf("%.*s = %llu\n", (int)kv->key.n, kv->key.p, (unsigned long long)kv->v.u);
        if (kv->type == ASH_GV_ARRAY) printf("%.*s: %llu entries\n", (int)kv->key.n, kv->key.p, (unsigned long long)kv->n);
    }
    const ash_gguf_tensor *t = ash_gguf_tensor_at(g, 0);
    printf("%zu tensors, the first is %s, %s, rows of %llu\n", ash_gguf_n_tensors(g), t->name, ash_dtype_name(t->type), (unsigned long long)t->ne[0]);

    ash_gguf_writer *w; /* header first, then the data in the order declared */
    OK(ash_gguf_writer_new(&w, &err));
    OK(ash_gguf_copy_kv(w, g, &err));
    OK(ash_gguf_set_str(w, argv[3], argv[4], strlen(argv[4]), &err));
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        t = ash_gguf_tensor_at(g, i);
        OK(ash_gguf_add_tensor(w, t->name, t->type, t->n_dims, t->ne, &err));
    }
    printf("%llu bytes will be written\n", (unsigned long long)ash_gguf_writer_bytes(w));
    OK(ash_gguf_writer_begin(w, argv[2], &err));
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) OK(ash_gguf_writer_data(w, ash_gguf_tensor_at(g, i)->data, ash_gguf_tensor_at(g, i)->n_bytes, &err));
    OK(ash_gguf_writer_finish(w, &err)); /* complete, on disk, renamed into place */
    ash_gguf_writer_free(w);
    ash_gguf_close(g);
}
