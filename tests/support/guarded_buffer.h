// A buffer of exactly the bytes asked for with an unreadable page on the side under test: a kernel that reads or writes past the
// end (or before the beginning) dies there instead of passing by luck.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>

namespace acorn::test {

/// Which end of the buffer touches an unreadable page. The other end has one too, up to a page away.
enum class Guard : uint8_t { kEnd, kBegin };

/// `count` elements of T, zeroed. With Guard::kEnd the last byte is the last one readable, so data() is aligned only as far as
/// count * sizeof(T) is; with Guard::kBegin the first byte is the first one readable and data() is page-aligned.
template <typename T>
class GuardedBuffer {
 public:
  explicit GuardedBuffer(size_t count, Guard guard = Guard::kEnd) : count_(count) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = count * sizeof(T);
    const size_t inner = (bytes + page - 1) / page * page;
    mapped_bytes_ = inner + 2 * page;
    void *mapped = mmap(nullptr, mapped_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) abort();
    mapped_ = static_cast<uint8_t *>(mapped);
    if (inner != 0 && mprotect(mapped_ + page, inner, PROT_READ | PROT_WRITE) != 0) abort();
    uint8_t *begin = mapped_ + page;
    if (guard == Guard::kEnd) begin += inner - bytes;
    data_ = reinterpret_cast<T *>(begin);
  }
  GuardedBuffer(GuardedBuffer &&other) noexcept
      : mapped_(std::exchange(other.mapped_, nullptr)),
        mapped_bytes_(other.mapped_bytes_),
        data_(other.data_),
        count_(other.count_) {}
  GuardedBuffer &operator=(GuardedBuffer &&) = delete;
  ~GuardedBuffer() {
    if (mapped_ != nullptr) munmap(mapped_, mapped_bytes_);
  }

  T *data() { return data_; }
  const T *data() const { return data_; }
  size_t size() const { return count_; }
  T *begin() { return data_; }
  T *end() { return data_ + count_; }
  T &operator[](size_t i) { return data_[i]; }
  const T &operator[](size_t i) const { return data_[i]; }

 private:
  uint8_t *mapped_;
  size_t mapped_bytes_;
  T *data_;
  size_t count_;
};

}  // namespace acorn::test
