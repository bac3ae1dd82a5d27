// How often a process asks for memory. For tests that link acorn_test_allocations, which puts itself before the C library's
// allocator; a static program, as cross builds are, cannot.
#pragma once

#include <cstdint>

namespace acorn::test {

/// Counts, in every thread of the process, from here on to the end of its life. One at a time.
class AllocationCount {
 public:
  AllocationCount();
  AllocationCount(const AllocationCount &) = delete;
  ~AllocationCount();
  /// Of malloc and its like so far, and bytes that they asked for together.
  uint64_t value() const;
  uint64_t bytes() const;
};

}  // namespace acorn::test
