/* utf8.c - a character as UTF-8. Reading text is src/text/utf8.c's business. */
#include "base/base.h"

size_t ash_utf8_put(uint32_t c, char out[4]) {
    const char last = (char)(0x80 | (c & 0x3f));
    if (c < 0x80) return out[0] = (char)c, 1;
    if (c < 0x800) return out[0] = (char)(0xc0 | c >> 6), out[1] = last, 2;
    if (c < 0x10000) return out[0] = (char)(0xe0 | c >> 12), out[1] = (char)(0x80 | (c >> 6 & 0x3f)), out[2] = last, 3;
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = last;
    return 4;
}
