// What this machine can do at most, measured beside the kernels and in the same run: the fastest read of memory that we know, and a
// loop of the fastest integer multiply instruction on registers. Every figure of a bench is held against one of the two.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace acorn::bench {

/// More than the caches of the machines we measure on.
constexpr size_t kColdBytes = size_t{384} << 20;

/// kColdBytes of memory, the same for all benches; as float32 words, which some layouts contain, each is a normal number.
uint8_t *ColdBuffer();

/// Every core of this machine's, and one: [1] or [1, cores].
std::vector<int> ThreadCounts();

/// Reads memory once with the fastest loop that we know.  data: of 64-byte alignment;  bytes: a multiple of 4 KiB
void Read(const uint8_t *data, size_t bytes);

/// bound/read/BYTES: BYTES again and again, each thread a part of its own, so that what fits a cache is read from there. GB/s.
/// bound/multiply: products of 8-bit integers. GMAC/s. Both with each number of ThreadCounts().
/// bound/hand_over: how long a line that one core has written takes to another one. ns. Where there is more than one core: cores
/// that share a cache are up to six times as quick as others, and a virtual machine's can be either, by the minute.
/// bytes: each at least 4 KiB for each core, at most kColdBytes
void RegisterBounds(const std::vector<size_t> &bytes);

}  // namespace acorn::bench
