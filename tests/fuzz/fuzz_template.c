/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as a chat template, rendered over one fixed conversation.
 */
#include <stdint.h>

#include "base/error.h"
#include "text/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static json_t *messages, *tools;
    struct chat_template *t;
    struct artel_error err = {0};
    struct rendered r;

    if (!messages) {
        messages =
            json_loads("[{\"role\":\"system\",\"content\":\"s\"},"
                       "{\"role\":\"user\",\"content\":\" \\u00e9 <|x|>\\n\"},"
                       "{\"role\":\"assistant\",\"content\":null,\"n\":[1,2.5,true]}]",
                       0, NULL);
        tools =
            json_loads("[{\"name\":\"f\",\"arguments\":{\"a\":{\"b\":[]}}}]", 0, NULL);
    }
    if (chat_parse(&t, (const char *)data, size, "fuzz", &err) < 0)
        return 0;
    if (chat_render(t, &r, messages, tools, NULL, true, "<s>", "</s>", &err) == 0)
        rendered_release(&r);
    chat_close(t);
    return 0;
}
