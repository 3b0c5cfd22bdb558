/* cmd_edit.c - `ashlar edit`: change metadata of a GGUF file. */
#include "cli.h"

#include "ashlar/gguf.h"

static int run(int argc, char **argv) {
    ash_error err = {0};
    ash_status st = ash_gguf_edit(argv[0], (const char *const *)(argv + 1), (size_t)(argc - 1), &err);
    if (st != ASH_OK) return cli_fail(&err, st);
    if (cli_is_tty(stdout)) printf("%s: %d %s set\n", argv[0], argc - 1, argc == 2 ? "key" : "keys");
    return 0;
}

const ash_cmd cmd_edit = {
    .name = "edit",
    .usage = "FILE KEY=VALUE...",
    .summary = "Set metadata keys of a GGUF file.",
    .details = "A key that exists keeps its type and the value is read as that type. A new key is text unless the value begins "
               "with u32:, i32:, u64:, i64:, f32:, f64:, bool: or str:, e.g. general.sampling.temp=f32:0.7. Arrays cannot be edited. "
               "The new file is written beside the old one and renamed, so an interruption leaves the old file as it was.",
    .min_args = 2,
    .max_args = -1,
    .run = run};
