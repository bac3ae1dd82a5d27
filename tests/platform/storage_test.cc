// Storage: the same reads through a port that reads beside the caller and through one that has read alone.
#include "platform/storage.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#include "acorn_simulated.h"

namespace acorn {
namespace {

constexpr size_t kPage = 4096;

// Parameter: whether the port has asynchronous reads.
class StorageTest : public testing::TestWithParam<bool> {
 protected:
  StorageTest() : file_(20 * kPage + 77), memory_(static_cast<char *>(std::aligned_alloc(kPage, 32 * kPage))) {
    for (size_t i = 0; i < file_.size(); ++i) file_[i] = static_cast<char>(i * 13 + i / kPage);
    acorn_port nothing = {};
    nothing.struct_size = sizeof nothing;
    acorn_simulated_options options = {};
    options.struct_size = sizeof options;
    options.timing = acorn_device_find("ufs31")->timing;
    options.depth = 6;
    options.file = file_.data();
    options.file_bytes = file_.size();
    options.jitter_ns = 500000;
    simulated_ = acorn_simulated_create(&options, &nothing);
    acorn_simulated_port(simulated_, &port_);
    if (!GetParam()) {
      port_.read_submit = nullptr;
      port_.read_wait = nullptr;
      port_.read_cancel = nullptr;
      port_.read_depth = 0;
    }
    storage_ = Storage(port_, file_.size());
  }
  ~StorageTest() override {
    acorn_simulated_destroy(simulated_);
    std::free(memory_);
  }
  acorn_read_request Page(size_t page, uint64_t id) const { return {memory_ + page * kPage, page * kPage, kPage, id}; }
  size_t Submit(const std::vector<acorn_read_request> &requests) {
    size_t accepted = 99;
    EXPECT_EQ(storage_.Submit({requests.data(), requests.size()}, &accepted), Status::kOk);
    return accepted;
  }
  std::vector<acorn_read_result> Wait(uint64_t timeout) {
    std::vector<acorn_read_result> results(8);
    size_t count = 99;
    EXPECT_EQ(storage_.Wait({results.data(), results.size()}, timeout, &count), Status::kOk);
    results.resize(count);
    return results;
  }
  void AddFault(uint32_t kind, size_t page) {
    const acorn_simulated_fault fault = {kind, 1, page * kPage, 1};
    ASSERT_EQ(acorn_simulated_add_fault(simulated_, &fault), 0);
  }

  std::vector<char> file_;
  char *memory_;
  acorn_simulated *simulated_;
  acorn_port port_;
  Storage storage_;
};

TEST_P(StorageTest, EveryReadEndsOnceWithItsBytes) {
  EXPECT_TRUE(storage_.CanRead());
  EXPECT_EQ(storage_.IsAsynchronous(), GetParam());
  EXPECT_EQ(storage_.depth(), GetParam() ? 6u : 1u);
  EXPECT_EQ(storage_.alignment(), 4096u);
  std::vector<acorn_read_request> requests;
  for (size_t i = 0; i < 22; ++i) requests.push_back(Page(i * 7 % 22, i));  // the last two are short and empty
  std::map<uint64_t, acorn_read_result> ended;
  size_t submitted = 0;
  while (ended.size() < requests.size()) {
    submitted += Submit({requests.begin() + static_cast<ptrdiff_t>(submitted), requests.end()});
    EXPECT_LE(submitted - ended.size(), storage_.depth());
    EXPECT_TRUE(Wait(0).empty());  // none can have ended: virtual time stands still
    for (const acorn_read_result &result : Wait(UINT64_MAX)) EXPECT_TRUE(ended.emplace(result.id, result).second);
  }
  EXPECT_TRUE(Wait(UINT64_MAX).empty());
  for (const acorn_read_request &request : requests) {
    const acorn_read_result &result = ended.at(request.id);
    const size_t there = request.offset >= file_.size() ? 0 : file_.size() - static_cast<size_t>(request.offset);
    EXPECT_EQ(result.error, 0);
    EXPECT_EQ(result.bytes, std::min(there, kPage));
    EXPECT_EQ(std::memcmp(request.to, file_.data() + std::min<uint64_t>(request.offset, file_.size()), result.bytes), 0);
  }
}

TEST_P(StorageTest, AnErrorIsTheReadsOwn) {
  AddFault(ACORN_SIMULATED_ERROR, 3);
  ASSERT_EQ(Submit({Page(3, 9)}), 1u);
  acorn_read_result result = Wait(UINT64_MAX).at(0);
  EXPECT_EQ(result.id, 9u);
  EXPECT_EQ(result.error, ACORN_SIMULATED_EIO);
  EXPECT_EQ(result.bytes, 0u);
  ASSERT_EQ(Submit({Page(3, 9)}), 1u);
  EXPECT_EQ(Wait(UINT64_MAX).at(0).bytes, kPage);
}

TEST_P(StorageTest, ACancelledReadEndsToo) {
  ASSERT_EQ(Submit({Page(3, 9)}), 1u);
  storage_.Cancel(8);
  storage_.Cancel(9);
  const acorn_read_result result = Wait(GetParam() ? UINT64_MAX : 0).at(0);  // the device has begun it; read has not
  EXPECT_EQ(result.error, GetParam() ? 0 : ACORN_READ_CANCELLED);
  storage_.Cancel(9);
  ASSERT_EQ(Submit({Page(4, 9)}), 1u);
  EXPECT_EQ(Wait(UINT64_MAX).at(0).error, 0);
}

INSTANTIATE_TEST_SUITE_P(Ports, StorageTest, testing::Bool());

TEST(StoragePort, OneThatBreaksIsNamed) {
  acorn_port port = {};
  EXPECT_FALSE(Storage(port, 0).CanRead());
  port.read_depth = 4;
  port.read_submit = [](void *, const acorn_read_request *, size_t, size_t *accepted) {
    *accepted = 1;
    return 1;
  };
  port.read_wait = [](void *, acorn_read_result *results, size_t, uint64_t, size_t *count) {
    results[0] = {5, 0, 0};
    *count = 1;
    return 1;
  };
  Storage storage(port, 100);
  const acorn_read_request requests[2] = {};
  size_t accepted = 0, count = 0;
  EXPECT_EQ(storage.Submit({requests, 2}, &accepted), Status::kPort);
  EXPECT_EQ(accepted, 1u);
  acorn_read_result results[2];
  EXPECT_EQ(storage.Wait({results, 2}, 0, &count), Status::kPort);
  EXPECT_EQ(count, 1u);
  EXPECT_EQ(results[0].id, 5u);
  storage.Cancel(5);  // the port has none to cancel with
}

}  // namespace
}  // namespace acorn
