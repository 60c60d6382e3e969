/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as a GGUF LoRA file of a small llama.
 */
#include <stdint.h>

#include "base/error.h"
#include "files/gguf.h"
#include "save/gguf_lora.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct model_config config = {.architecture = "llama",
                                               .n_layers = 2,
                                               .dim = 8,
                                               .n_heads = 2,
                                               .n_kv_heads = 1,
                                               .head_dim = 4,
                                               .ffn_dim = 12,
                                               .n_vocab = 16,
                                               .context = 32};
    struct artel_error err = {0};
    struct expert e;
    struct gguf *g;

    if (gguf_parse(&g, data, size, "fuzz", &err) < 0)
        return 0;
    if (gguf_lora_read(&e, "fuzz", g, &config, NULL, &err) == 0)
        expert_release(&e);
    gguf_close(g);
    return 0;
}
