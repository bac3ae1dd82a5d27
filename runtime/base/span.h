// Span: a pointer and a length that travel together. No ownership, no bounds check outside debug builds.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/debug.h"

namespace acorn {

template <typename T>
class Span {
 public:
  constexpr Span() = default;
  constexpr Span(T *data, size_t size) : data_(data), size_(size) {}
  template <typename U>
  constexpr Span(const Span<U> &other) : data_(other.data()), size_(other.size()) {}

  constexpr T *data() const { return data_; }
  constexpr size_t size() const { return size_; }
  constexpr bool empty() const { return size_ == 0; }
  constexpr T *begin() const { return data_; }
  constexpr T *end() const { return data_ + size_; }
  constexpr T &operator[](size_t i) const {
    ACORN_DCHECK(i < size_);
    return data_[i];
  }
  constexpr Span subspan(size_t offset, size_t count) const {
    ACORN_DCHECK(offset <= size_ && count <= size_ - offset);
    return Span(data_ + offset, count);
  }

 private:
  T *data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace acorn
