/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys and values of many sequences in blocks of KV_BLOCK tokens.
 *
 * A full block is known by its tokens, the blocks before it, and the expert of every
 * layer; whoever needs the same finds it here instead of computing it. Blocks that no
 * sequence uses are kept until their room is needed, longest unused first.
 *
 * One thread at a time.
 */
#ifndef ARTEL_DECODER_KV_POOL_H
#define ARTEL_DECODER_KV_POOL_H

#include <stddef.h>

struct artel_error;
struct artel_model;
struct kv_pool;

#define KV_BLOCK 64

#define KV_LEAST 2 /* blocks of a pool, however little room it is given */

/* Tokens that a pool of BYTES has room for, and the bytes that KV_LEAST blocks take. */
size_t kv_pool_tokens(const struct artel_model *model, size_t bytes);
size_t kv_pool_least(const struct artel_model *model);
/* At most BYTES, at least KV_LEAST blocks. */
int kv_pool_open(struct kv_pool **out, const struct artel_model *model, size_t bytes,
                 struct artel_error *err);
void kv_pool_close(struct kv_pool *p);
void kv_pool_forget(struct kv_pool *p); /* blocks that no sequence uses */

struct kv_pool_stats {
    size_t blocks, used, kept, promised;
    size_t block_bytes;
};
void kv_pool_stats(const struct kv_pool *p, struct kv_pool_stats *out);

#endif
