/* fuzz_chat.c - the input is a conversation in JSON, rendered through one template that looks into everything. */
#include "ashlar/text.h"
#include "base/base.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const char src[] = "{% macro f(x) %}{% if x is mapping %}{% for k, v in x | dictsort %}{{ k }}:{{ f(v) }}{% endfor %}{% elif x is string %}{{ x | trim | upper }}"
                              "{% elif x is iterable %}{% for v in x %}{{ f(v) }},{% endfor %}{% else %}{{ x }}{% endif %}{% endmacro %}{% for m in messages %}{{ m.role }}"
                              "{{ f(m) }}{{ m | tojson(indent=2) }}{{ m }}{% endfor %}{{ messages | tojson(ensure_ascii=true, sort_keys=true) }}";
    if (n > 1 << 14) return 0;
    char *json = malloc(n + 1), *out;
    size_t len;
    if (!json) return 0;
    memcpy(json, data, n);
    json[n] = 0;
    ash_tmpl *t;
    ash_error e = {0};
    if (ash_tmpl_parse(&t, src, sizeof src - 1, &e) != ASH_OK) abort();
    ash_tmpl_input in = {.messages = json, .tools = n % 2 ? json : NULL, .vars = n % 3 ? NULL : json};
    ash_status st = ash_tmpl_render_json(t, &in, &out, &len, &e);
    if (st == ASH_OK ? strlen(out) > len : e.msg[0] == 0) abort();
    if (st == ASH_OK) ash_text_free(out);
    ash_tmpl_free(t);
    free(json);
    return 0;
}
