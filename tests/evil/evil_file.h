// Bad model files by the table: a row is a name, what is done to a good file, and what the runtime must answer. For tests/evil.
#pragma once

#include <gtest/gtest.h>
#include <time.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/allocations.h"
#include "tests/support/recorded_model.h"

namespace acorn::test {

using Bytes = std::vector<uint8_t>;

/// The answer to a bad file, as in acorn_fault.
struct Verdict {
  acorn_status status;
  const char *section;
  uint64_t index = 0, offset = 0;
};

/// Where in a section a case has done harm.
struct Where {
  Where(uint64_t index_in = 0, uint64_t offset_in = 0) : index(index_in), offset(offset_in) {}
  uint64_t index, offset;
};

/// A port that counts: the runtime may log, and has nothing else to ask for while it looks at a file.
struct CountingPort {
  CountingPort() {
    port.struct_size = sizeof port;
    port.ctx = this;
    port.threads = 1;
    port.ticks_per_second = 1000;
    port.log = [](void *ctx, uint32_t, const char *, size_t) { ++static_cast<CountingPort *>(ctx)->messages; };
    port.ticks = [](void *ctx) { return static_cast<uint64_t>(++static_cast<CountingPort *>(ctx)->calls); };
    port.parallel_for = [](void *ctx, acorn_task, void *, uint32_t) { ++static_cast<CountingPort *>(ctx)->calls; };
    port.read = [](void *ctx, void *, uint64_t, size_t) { return ++static_cast<CountingPort *>(ctx)->calls; };
    port.read_depth = 1;
    port.read_submit = [](void *ctx, const acorn_read_request *, size_t, size_t *) {
      return ++static_cast<CountingPort *>(ctx)->calls;
    };
    port.read_wait = [](void *ctx, acorn_read_result *, size_t, uint64_t, size_t *) {
      return ++static_cast<CountingPort *>(ctx)->calls;
    };
  }
  acorn_port port = {};
  int messages = 0, calls = 0;
};

/// A file where a sanitizer sees the first byte behind it.
class ExactImage {
 public:
  explicit ExactImage(const Bytes &bytes) : size_(bytes.size()) {
    if (posix_memalign(&data_, kSegmentAlignment, size_ == 0 ? 1 : size_) != 0) std::abort();
    std::copy(bytes.begin(), bytes.end(), static_cast<uint8_t *>(data_));
  }
  ExactImage(const ExactImage &) = delete;
  ~ExactImage() { std::free(data_); }
  acorn_image get() const { return {data_, size_}; }
  bool Holds(const Bytes &bytes) const { return size_ == 0 || std::memcmp(data_, bytes.data(), size_) == 0; }

 private:
  void *data_ = nullptr;
  size_t size_;
};

inline Bytes BytesOf(const AlignedBytes &file) { return Bytes(file.data(), file.data() + file.size()); }

/// Makes a call that refuses a file. It asks for no memory and takes less than 50 ms of the processor, which other programs do not
/// lengthen; what it takes at times more is the machine's, so three tries may be had. A test looks at a clock here and nowhere else:
/// that a hostile file cannot hold anybody up is promised, and no count of anything would say it.
template <typename Call>
acorn_status Refusal(const std::string &where, const Call &call) {
#if defined(ACORN_EMULATED)  // there the C library's allocator cannot be watched, and time says nothing
  (void)where;
  return call();
#else
#if defined(__clang__)  // the fuzz targets' build, which counts every branch and comparison: up to ten times what sanitizers alone take
  constexpr int64_t kMostNs = 1000000000;
#else
  constexpr int64_t kMostNs = 50000000;
#endif
  const auto now_ns = [] {
    timespec time = {};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return int64_t{time.tv_sec} * 1000000000 + time.tv_nsec;
  };
  acorn_status status = ACORN_OK;
  int64_t least_ns = INT64_MAX;
  for (int tries = 0; tries < 3 && least_ns >= kMostNs; ++tries) {
    const AllocationCount allocations;
    const int64_t begin_ns = now_ns();
    status = call();
    least_ns = std::min(least_ns, now_ns() - begin_ns);
    EXPECT_EQ(allocations.value(), 0u) << where;
  }
#if !defined(__SANITIZE_THREAD__)
  EXPECT_LT(least_ns, kMostNs) << where;
#endif
  return status;
#endif
}

/// acorn_plan and acorn_model_open both give this verdict, soon, write nothing but it, and call nothing of the port but its log, once.
inline void ExpectRefused(const std::string &name, const Bytes &file, const Verdict &verdict, acorn_options options = {}) {
  const ExactImage exact(file);
  const acorn_image image = exact.get();
  options.struct_size = sizeof options;
  const auto expect = [&](const char *name_of_call, const auto &call) {
    const std::string where = name + ", " + name_of_call;
    CountingPort counting;
    acorn_fault fault = {};
    fault.struct_size = sizeof fault;
    const acorn_status status = Refusal(where, [&] {
      counting.messages = counting.calls = 0;
      return call(&fault, &counting.port);
    });
    EXPECT_EQ(status, verdict.status) << where << ": " << acorn_status_text(status);
    EXPECT_EQ(fault.status, verdict.status) << where;
    EXPECT_STREQ(fault.section, verdict.section) << where;
    EXPECT_EQ(fault.index, verdict.index) << where;
    EXPECT_EQ(fault.offset, verdict.offset) << where;
    EXPECT_EQ(counting.messages, 1) << where;
    EXPECT_EQ(counting.calls, 0) << where;
  };
  acorn_memory_plan plan = {}, nothing = {};
  plan.struct_size = nothing.struct_size = sizeof plan;
  expect("plan", [&](acorn_fault *fault, const acorn_port *port) { return acorn_plan(&plan, fault, &image, &options, port); });
  EXPECT_EQ(std::memcmp(&plan, &nothing, sizeof plan), 0) << name;
  constexpr size_t kBlockBytes = 1 << 16;
  static AlignedBytes block(Bytes(kBlockBytes, 0xa5));
  const AlignedBytes before = block;
  acorn_model *model = nullptr;
  expect("open", [&](acorn_fault *fault, const acorn_port *port) {
    return acorn_model_open(&model, fault, &image, &options, port, block.data(), block.size());
  });
  EXPECT_EQ(model, nullptr) << name;
  EXPECT_EQ(std::memcmp(block.data(), before.data(), kBlockBytes), 0) << name;
  EXPECT_TRUE(exact.Holds(file)) << name;
}

/// The same file without harm opens.
inline void ExpectOpens(const std::string &name, const AlignedBytes &file, acorn_options options = {}) {
  const ModelSession session(file, options);
  EXPECT_EQ(session.status(), static_cast<acorn_status>(ACORN_OK))
      << name << ": " << session.fault().section << " " << session.fault().index << ", offset " << session.fault().offset;
}

/// One rule of the graph broken: most are.
struct GraphCase {
  std::string name;
  const char *section;
  std::function<Where(schema::ModelT &)> harm;
  acorn_status status = ACORN_ERR_INVALID;
};

inline void ExpectAllRefused(const ModelSpec &spec, const std::vector<GraphCase> &cases) {
  const AlignedBytes file = BuildModel(spec);
  const schema::ModelT healthy = *GraphOf(file);
  ExpectOpens(spec.name, WithGraph(file, healthy));
  for (const GraphCase &row : cases) {
    schema::ModelT model = healthy;
    const Where where = row.harm(model);
    if (testing::Test::HasFatalFailure()) return;
    ExpectRefused(spec.name + ": " + row.name, BytesOf(WithGraph(file, std::move(model))),
                  {row.status, row.section, where.index, where.offset});
  }
}

/// Step `which` of those of this type in a list.
inline size_t IndexOf(const std::vector<std::unique_ptr<schema::StepT>> &steps, schema::Op type, size_t which = 0) {
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i]->op.type == type && which-- == 0) return i;
  }
  ADD_FAILURE() << "no " << schema::EnumNameOp(type);
  return 0;
}

/// A case of a step of the body: harm(op) to the first of its type; the fault is in "body" at the step.
template <typename T>
GraphCase StepCase(const char *name, schema::Op type, const std::function<void(T &, schema::ModelT &)> &harm, size_t which = 0) {
  return {std::string(schema::EnumNameOp(type)) + ", " + name, "body", [=](schema::ModelT &model) {
            const size_t index = IndexOf(model.body, type, which);
            harm(*static_cast<T *>(model.body[index]->op.value), model);
            return Where(index);
          }};
}

/// Little-endian numbers in the bytes of a file.
inline void Put(Bytes *file, uint64_t at, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) (*file)[at + static_cast<uint64_t>(i)] = static_cast<uint8_t>(value >> (8 * i));
}
inline void SealHeader(Bytes *file) { Put(file, kHeaderChecksum, Checksum(file->data(), kHeaderChecksum), 8); }
/// Of the graph, then of the header.
inline void SealGraph(Bytes *file) {
  const uint64_t bytes = LoadLittle64(file->data() + kHeaderGraphBytes);
  Put(file, kHeaderGraphChecksum, Checksum(file->data() + kHeaderBytes, bytes), 8);
  SealHeader(file);
}

}  // namespace acorn::test
