#include "tests/support/allocations.h"

#include <atomic>
#include <cstddef>

namespace {

std::atomic<bool> g_counting{false};
std::atomic<uint64_t> g_allocations{0}, g_bytes{0};

void Count(size_t bytes) {
  if (!g_counting.load(std::memory_order_relaxed)) return;
  g_allocations.fetch_add(1);
  g_bytes.fetch_add(bytes);
}

}  // namespace

namespace acorn::test {

AllocationCount::AllocationCount() {
  g_allocations = g_bytes = 0;
  g_counting = true;
}
AllocationCount::~AllocationCount() { g_counting = false; }
uint64_t AllocationCount::value() const { return g_allocations; }
uint64_t AllocationCount::bytes() const { return g_bytes; }

}  // namespace acorn::test

#if !defined(__has_feature)  // Clang's way to tell of a sanitizer; GCC's is a macro for each
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || __has_feature(address_sanitizer) || \
    __has_feature(thread_sanitizer)
// A sanitizer has an allocator of its own, which tells of each call. GCC brings no header that declares it.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
                                                         void (*on_free)(const volatile void *));
namespace {
[[maybe_unused]] const int g_hooked =
    __sanitizer_install_malloc_and_free_hooks([](const volatile void *, size_t bytes) { Count(bytes); }, [](const volatile void *) {});
}  // namespace
#else
// glibc's own allocator under the names that everything in this process calls.
extern "C" {
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void *malloc(size_t bytes) {
  Count(bytes);
  return __libc_malloc(bytes);
}
void *calloc(size_t count, size_t bytes) {
  Count(count * bytes);
  return __libc_calloc(count, bytes);
}
void *realloc(void *old, size_t bytes) {
  Count(bytes);
  return __libc_realloc(old, bytes);
}
void *aligned_alloc(size_t alignment, size_t bytes) {
  Count(bytes);
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void **out, size_t alignment, size_t bytes) {
  Count(bytes);
  *out = __libc_memalign(alignment, bytes);
  return *out == nullptr ? 12 : 0;
}
}
#endif
