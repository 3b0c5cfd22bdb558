/* convert.c - convert.h: a Hugging Face folder becomes a GGUF.
 * usage: convert FOLDER OUT */
#include "example.h"

#include "ashlar/convert.h"

int main(int argc, char **argv) {
    ARGS(2, "FOLDER OUT");
    ash_convert_opts o = ash_convert_defaults();
    o.type = ASH_F16;
    ash_convert_result r;
    OK(ash_convert(&r, argv[1], argv[2], &o, &err));
    printf("%s (%s): %llu tensors, %llu bytes, tokenizer %s of %llu tokens\n%s", r.arch, r.hf_arch, (unsigned long long)r.n_tensors,
           (unsigned long long)r.file_bytes, r.tokenizer, (unsigned long long)r.n_vocab, r.notes);
}
