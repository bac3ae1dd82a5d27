// append: writes rows of keys and values into a cache (kernels/kv_cache.h). docs/ARITHMETIC.md §6 is normative.
// All variants are bit-equal to the formula; none allocates or can fail. Calls for different rows may run at the same time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/span.h"

namespace acorn::append {

/// For row r in [0, m), cache row first_row + r, each KV head h:
///   K = k                                                run and copy
///   V = sat8(RoundShift(v * multiplier[h], shift))       run:  v is s16
///   V = v                                                copy: v is s8, the constant prefix of the file
/// and in a cache of 4 bits all of them clamped to [-7, 7].
struct Args {
  uint8_t *k_cache;     // kv_cache::CacheBytes, aligned to kv_cache::kAlignment
  int8_t *v_cache;      // the same
  size_t capacity;      // rows of the cache
  size_t first_row, m;  // first_row + m <= capacity
  size_t kv_heads;
  size_t head_dim;            // of the cache, even
  size_t k_dim, v_dim;        // the first dimensions of each head; even. The others may change
  size_t bits;                // of the cache: 8 or 4
  const int8_t *k;            // [m, kv_heads, k_dim]
  const void *v;              // [m, kv_heads, v_dim], s16 (run) or s8 (copy)
  size_t k_stride;            // elements from row to row
  size_t v_stride;            // elements from row to row
  const int32_t *multiplier;  // [kv_heads]; copy ignores it
  int32_t shift;              // in [1, 62]; copy ignores it
};

using Run = void (*)(const Args &args);

/// One variant of the family.
struct Kernel {
  const char *name;
  uint32_t needs;  // Feature bits
  Run run, copy;
};

/// All variants, best first, scalar last.
Span<const Kernel> Kernels();

/// The best variant for a set of Feature bits; never null.
const Kernel *Select(uint32_t features);

/// The keys' part of run and copy, the same for all variants.
void AppendKeys(const Args &args);

}  // namespace acorn::append
