// What fuzz targets stand on: libFuzzer's three functions, a check that ends the process, inputs taken apart and put together, and
// numbers that break things. For tests/fuzz.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <vector>

/// Runs one input. Returns 0; a fault ends the process.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/// Changes an input in place, to at most max_size bytes. Returns its size. A target need not have one.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);
/// libFuzzer's own changes, for use by the above.
extern "C" size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

namespace acorn::fuzz {

/// Aborts, which a fuzzer takes for a crash, where something that must hold does not.
inline void Require(bool holds, const char *what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: does not hold: %s\n", what);
  std::abort();
}

/// A copy of bytes where a sanitizer sees the first one behind them.  alignment: a power of two, 8 at least
class ExactBytes {
 public:
  ExactBytes(size_t size, size_t alignment) : size_(size) {
    if (posix_memalign(&data_, alignment, size == 0 ? 1 : size) != 0) std::abort();
  }
  ExactBytes(const uint8_t *data, size_t size, size_t alignment) : ExactBytes(size, alignment) {
    if (size != 0) std::memcpy(data_, data, size);
  }
  ExactBytes(const ExactBytes &) = delete;
  ExactBytes &operator=(const ExactBytes &) = delete;
  ~ExactBytes() { std::free(data_); }
  uint8_t *data() const { return static_cast<uint8_t *>(data_); }
  size_t size() const { return size_; }

 private:
  void *data_ = nullptr;
  size_t size_;
};

/// An input as numbers and runs of bytes, from its front; what is not there is 0 or empty.
class InputReader {
 public:
  InputReader(const uint8_t *data, size_t size) : rest_(reinterpret_cast<const char *>(data), size) {}

  uint64_t Number(size_t bytes) {
    uint64_t value = 0;
    const std::string_view taken = Take(bytes);
    for (size_t i = 0; i < taken.size(); ++i) value |= uint64_t{static_cast<uint8_t>(taken[i])} << (8 * i);
    return value;
  }
  std::string_view Take(uint64_t bytes) {
    const std::string_view taken = rest_.substr(0, static_cast<size_t>(std::min<uint64_t>(bytes, rest_.size())));
    rest_.remove_prefix(taken.size());
    return taken;
  }
  /// A run of bytes behind its length, a number of three bytes.
  std::string_view Part() { return Take(Number(3)); }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

/// What Part() takes.
inline void PutPart(std::string *input, std::string_view part) {
  for (int shift = 0; shift < 24; shift += 8) input->push_back(static_cast<char>(part.size() >> shift));
  *input += part;
}

/// The choices of a custom mutator: the same seed, the same change.
class Chooser {
 public:
  explicit Chooser(unsigned int seed) : random_(seed) {}

  /// 0 to count - 1.  count: 1 at least
  uint64_t Below(uint64_t count) { return Bits() % count; }
  bool OneIn(uint64_t count) { return Below(count) == 0; }
  uint64_t Bits() { return uint64_t{random_()} << 32 ^ random_(); }

  /// Another number for one of so many bytes: a bit or a small step away, an end of a range, or any.
  uint64_t Number(uint64_t old, size_t bytes) {
    const uint64_t bit = uint64_t{1} << Below(8 * bytes);
    switch (Below(6)) {
      case 0: return old ^ bit;
      case 1: return old + 1 + Below(16);
      case 2: return old - 1 - Below(16);
      case 3: return bit - Below(2);  // 2^i and 2^i - 1
      case 4: return 0 - Below(4);    // 0 and the last ones
      default: return OneIn(2) ? Below(64) : Bits();
    }
  }
  /// Changes the little-endian number of so many bytes at a place.
  void ChangeNumber(uint8_t *at, size_t bytes) {
    uint64_t value = 0;
    std::memcpy(&value, at, bytes);
    value = Number(value, bytes);
    std::memcpy(at, &value, bytes);
  }

 private:
  std::mt19937 random_;
};

}  // namespace acorn::fuzz
