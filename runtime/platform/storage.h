// Reads of the model file through the port: acorn_port.h says what each callback promises.
#pragma once

#include <cstdint>

#include "acorn_port.h"

namespace acorn {

struct Storage {
  void *ctx = nullptr;
  int (*read)(void *ctx, void *to, uint64_t offset, size_t bytes) = nullptr;  // waits
  int (*submit)(void *ctx, const acorn_read_request *requests, size_t count, size_t *accepted) = nullptr;
  int (*wait)(void *ctx, acorn_read_result *results, size_t capacity, uint64_t timeout_ticks, size_t *count) = nullptr;
  int (*cancel)(void *ctx, uint64_t id) = nullptr;
  uint32_t alignment = 1;
  uint64_t ticks_per_second = 0;  // of the timeouts; 0: the port counts nothing, and a read may take as long as it likes

  bool can_read() const { return submit != nullptr || read != nullptr; }
};

}  // namespace acorn
