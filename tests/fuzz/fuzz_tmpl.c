/* fuzz_tmpl.c - the input is a chat template; it is parsed and rendered for short conversations, with and without tools. */
#include "ashlar/text.h"
#include "base/base.h"

#include <stdlib.h>
#include <time.h>

static void check(ash_status st, char *out, size_t len, const ash_error *e) {
    if (st == ASH_OK ? strlen(out) > len : e->msg[0] == 0) abort();
    if (st == ASH_OK) ash_text_free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n > 1 << 15) return 0;
    static const ash_chat_msg msgs[] = {{"system", "Be \xe2\x80\x9ckind\xe2\x80\x9d."}, {"user", " Hi\n"}, {"assistant", "<think>\nx\n</think>\nyes"}};
    static const char json[] = "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]},{\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"r\","
                               "\"tool_calls\":[{\"id\":\"abc123XYZ\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":{\"x\":[1.5,true,null,\"\\u00e9\"]}}}]},"
                               "{\"role\":\"tool\",\"tool_call_id\":\"abc123XYZ\",\"content\":\"ok\"}]";
    static const char tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":{\"type\":\"object\",\"properties\":{\"x\":"
                                "{\"type\":\"array\",\"items\":{\"type\":[\"string\",\"null\"]}}},\"required\":[\"x\"]}}}]";
    static const struct tm now = {.tm_year = 126, .tm_mon = 1, .tm_mday = 3, .tm_wday = 2};
    ash_tmpl *t;
    ash_error e = {0};
    ash_status st = ash_tmpl_parse(&t, (const char *)data, n, &e);
    if (st != ASH_OK) {
        if (e.msg[0] == 0) abort();
        return 0;
    }
    char *out;
    size_t len;
    for (size_t k = 0; k <= 3; k++) {
        e.msg[0] = 0;
        st = ash_tmpl_render(t, msgs, k, k & 1, "<s>", "</s>", &out, &len, &e);
        check(st, out, len, &e);
    }
    ash_tmpl_input in = {.messages = json, .tools = tools, .documents = "[{\"a\":1}]", .vars = "{\"x\":{\"items\":[1]}}", .bos = "<s>", .now = &now};
    e.msg[0] = 0;
    st = ash_tmpl_render_json(t, &in, &out, &len, &e);
    check(st, out, len, &e);
    ash_tmpl_free(t);
    return 0;
}
