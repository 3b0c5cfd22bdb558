/* cmd_convert.c - `ashlar convert`: a Hugging Face model folder becomes one GGUF file. */
#include "cli.h"

#include "ashlar/convert.h"
#include "ashlar/quant.h"

#include <jansson.h>
#include <string.h>

static const char *out_path, *type_name, *name, *pre, *base;
static bool vocab_only;

static const opt_def options[] = {
    {OPT_STR, 'o', "output", "FILE", "The GGUF file to write.", &out_path},
    {OPT_STR, 0, "type", "TYPE", "Type of the matrices: f16, bf16, f32, or a quantized type such as Q8_0. Default: the type they have.",
     &type_name},
    {OPT_STR, 0, "name", "NAME", "The model's name in the file. Default: the folder's name.", &name},
    {OPT_STR, 0, "pre", "NAME", "Pre-tokenizer of a byte-level BPE vocabulary, where it is not recognised.", &pre},
    {OPT_STR, 0, "base", "MODEL", "The folder is a LoRA adapter (PEFT) of the model in folder MODEL, whose config.json is read.", &base},
    {OPT_FLAG, 0, "vocab-only", NULL, "Write metadata and vocabulary without tensors; enough for `ashlar tokenize`.", &vocab_only},
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

static int print(const ash_convert_result *r) {
    char b[32];
    if (g_json) {
        json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:s}", "file", out_path, "architecture", r->arch,
                              "source_architecture", r->hf_arch, "tokenizer", r->tokenizer, "pre", r->pre, "n_vocab",
                              (json_int_t)r->n_vocab, "n_tensors", (json_int_t)r->n_tensors, "n_weights", (json_int_t)r->n_weights, "bytes",
                              (json_int_t)r->file_bytes, "type", ash_dtype_name(r->type));
        json_t *notes = json_array();
        for (const char *p = r->notes; *p;) {
            size_t n = strcspn(p, "\n");
            json_array_append_new(notes, json_stringn(p, n));
            p += n + (p[n] == '\n');
        }
        if (o && json_object_set_new(o, "notes", notes) != 0) {
            json_decref(o);
            o = NULL;
        }
        return cli_print_json(o);
    }
    printf("%s: %s", out_path, r->arch);
    if (base)
        printf(" adapter");
    else
        printf(", %s vocabulary of %llu%s%s", r->tokenizer, (unsigned long long)r->n_vocab, *r->pre ? ", pre-tokenizer " : "", r->pre);
    if (r->n_tensors)
        printf("; %llu tensors, %.1f M weights, %s", (unsigned long long)r->n_tensors, (double)r->n_weights / 1e6, ash_dtype_name(r->type));
    printf("; %s\n", cli_bytes(r->file_bytes, b));
    if (*r->notes) printf("note: ");
    for (const char *p = r->notes; *p; p++) fputs(*p == '\n' ? "\nnote: " : (char[]){*p, 0}, stdout);
    if (*r->notes) putchar('\n');
    return 0;
}

static int run(int argc, char **argv) {
    ash_error err = {0};
    ash_convert_result r = {0};
    ash_convert_opts o = ash_convert_defaults();
    (void)argc;
    if (!out_path) return cli_usage("-o FILE is needed");
    if (type_name && strcmp(type_name, "auto") != 0) {
        ash_dtype t;
        if (!ash_dtype_parse(type_name, &t)) return cli_usage("unknown type \"%.40s\"", type_name);
        if (!ash_quant_can(t)) return cli_usage("there is no encoder for %s", ash_dtype_name(t));
        o.type = (int)t;
    }
    if (pre) {
        const char *k = NULL;
        for (int i = 0; (k = ash_convert_pre(i)) && strcmp(k, pre) != 0;) i++;
        if (!k) return cli_usage("unknown pre-tokenizer \"%.40s\"", pre);
    }
    o.name = name;
    o.pre = pre;
    o.base = base;
    o.vocab_only = vocab_only;
    o.n_threads = g_threads;
    o.progress = cli_progress();
    cli_catch_sigint();
    ash_status st = ash_convert(&r, argv[0], out_path, &o, &err);
    cli_progress_done();
    return st == ASH_OK ? print(&r) : cli_fail(&err, st);
}

const ash_cmd cmd_convert = {
    .name = "convert",
    .usage = "DIR -o OUT.gguf [--type f16|bf16|f32|TYPE] [--base MODEL]",
    .summary = "Turn a Hugging Face model folder into a GGUF file.",
    .details =
        "DIR holds config.json, model.safetensors or its shards, and tokenizer.json, tokenizer.model or vocab.txt; the chat template, the "
        "special tokens and generation_config.json are taken along where they are. Vectors, norms, routers and position tables are F32 in "
        "the "
        "file, whatever --type says.\n\n"
        "Families: Llama, Mistral, Mixtral, Qwen 2, 2.5, 3 and 3 MoE, Phi 3 and 4, Gemma 2, 3 and 4, EmbeddingGemma, BERT, Nomic BERT. "
        "Every tensor is "
        "used, known to be needless, or an error that names it; every shape is held against config.json. A pre-tokenizer that is not "
        "recognised "
        "is an error; --pre gpt-2, llama-bpe, qwen2, ... forces one.\n\n"
        "With --base, the folder is a LoRA adapter (adapter_config.json, adapter_model.safetensors) and becomes a GGUF for `run "
        "--lora`.\n\n"
        "Memory stays at the mapped files, a few MB and the vocabulary. A quantized type needs room on the disk for the float file, too.",
    .opts = options,
    .min_args = 1,
    .max_args = 1,
    .json = true,
    .threads = true,
    .run = run};
