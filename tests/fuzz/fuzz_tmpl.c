/* fuzz_tmpl.c - the input is a chat template; it is parsed and rendered for a short conversation. */
#include "ashlar/text.h"
#include "base/base.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n > 1 << 14) return 0;
    static const ash_chat_msg msgs[] = {{"system", "Be \xe2\x80\x9ckind\xe2\x80\x9d."}, {"user", " Hi\n"}, {"assistant", "<think>\nx\n</think>\nyes"}};
    ash_tmpl *t;
    ash_error e = {0};
    ash_status st = ash_tmpl_parse(&t, (const char *)data, n, &e);
    if (st == ASH_OK) {
        for (size_t k = 0; k <= 3; k++) {
            char *out;
            size_t len;
            e.msg[0] = 0;
            st = ash_tmpl_render(t, msgs, k, k & 1, "<s>", "</s>", &out, &len, &e);
            if (st == ASH_OK ? strlen(out) > len : e.msg[0] == 0) abort();
            if (st == ASH_OK) ash_text_free(out);
        }
        ash_tmpl_free(t);
    } else if (e.msg[0] == 0)
        abort();
    return 0;
}
