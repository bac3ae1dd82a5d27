// acorn_image_read: every status, and what it leaves alone.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "acorn.h"
#include "acorn_schema/file.h"
#include "tests/support/model_builder.h"

namespace acorn::test {
namespace {

// A file behind a port, which can fail from some read on.
struct Storage {
  AlignedBytes file;
  int reads = 0;
  int good_reads = 1000;
  std::string log;
};

int Read(void *ctx, void *to, uint64_t offset, size_t bytes) {
  auto *storage = static_cast<Storage *>(ctx);
  if (storage->reads++ >= storage->good_reads || offset > storage->file.size() || bytes > storage->file.size() - offset) return -1;
  std::memcpy(to, storage->file.data() + offset, bytes);
  return 0;
}

void Log(void *ctx, uint32_t, const char *message, size_t bytes) { static_cast<Storage *>(ctx)->log.append(message, bytes); }

class ImageRead : public testing::Test {
 protected:
  ImageRead() : memory_(std::vector<uint8_t>(size_t{1} << 20, 0xa5)) {
    storage_.file = BuildModel(VariedSpecs().front());
    port_.struct_size = sizeof port_;
    port_.ctx = &storage_;
    port_.read = Read;
    port_.log = Log;
  }

  acorn_status Call(size_t memory_bytes) { return acorn_image_read(&image_, &need_, &port_, memory_.data(), memory_bytes); }
  bool Untouched() const {
    for (size_t i = 0; i < memory_.size(); ++i) {
      if (memory_.data()[i] != 0xa5) return false;
    }
    return image_.data == nullptr;
  }
  void ExpectHeaderFault(acorn_status status) {
    EXPECT_EQ(Call(memory_.size()), status) << acorn_status_text(status);
    EXPECT_TRUE(Untouched());
    EXPECT_EQ(need_, 0u);
    EXPECT_NE(storage_.log.find("header"), std::string::npos) << storage_.log;
  }

  Storage storage_;
  AlignedBytes memory_;
  acorn_port port_ = {};
  acorn_image image_ = {};
  uint64_t need_ = 1;
};

TEST_F(ImageRead, BringsTheWholeFile) {
  ASSERT_EQ(Call(memory_.size()), ACORN_OK);
  EXPECT_EQ(need_, storage_.file.size());
  ASSERT_EQ(image_.bytes, storage_.file.size());
  EXPECT_EQ(image_.data, memory_.data());
  EXPECT_EQ(std::memcmp(image_.data, storage_.file.data(), image_.bytes), 0);
  EXPECT_EQ(memory_.data()[image_.bytes], 0xa5);
  acorn_memory_plan plan = {};
  plan.struct_size = sizeof plan;
  EXPECT_EQ(acorn_plan(&plan, nullptr, &image_, nullptr, &port_), ACORN_OK);
  EXPECT_EQ(acorn_image_read(&image_, nullptr, &port_, memory_.data(), memory_.size()), ACORN_OK);
}

TEST_F(ImageRead, ExactMemoryIsEnoughAndAByteLessIsNot) {
  EXPECT_EQ(Call(storage_.file.size() - 1), ACORN_ERR_MEMORY);
  EXPECT_EQ(need_, storage_.file.size());
  EXPECT_TRUE(Untouched());
  EXPECT_NE(storage_.log.find(std::to_string(need_)), std::string::npos) << storage_.log;
  EXPECT_EQ(Call(storage_.file.size()), ACORN_OK);
}

TEST_F(ImageRead, TheNeedCanBeAskedForWithoutMemory) {
  EXPECT_EQ(acorn_image_read(&image_, &need_, &port_, nullptr, 0), ACORN_ERR_MEMORY);
  EXPECT_EQ(need_, storage_.file.size());
  EXPECT_EQ(storage_.log, "");
}

TEST_F(ImageRead, AReadThatFails) {
  for (int good = 0; good < 2; ++good) {
    storage_.good_reads = good;
    storage_.reads = 0;
    EXPECT_EQ(Call(memory_.size()), ACORN_ERR_PORT);
    EXPECT_EQ(image_.data, nullptr);
    EXPECT_NE(storage_.log.find("a callback of the port failed: read"), std::string::npos) << storage_.log;
  }
}

TEST_F(ImageRead, APortWithoutRead) {
  port_.read = nullptr;
  EXPECT_EQ(Call(memory_.size()), ACORN_ERR_PORT);
  EXPECT_EQ(need_, 0u);
  EXPECT_TRUE(Untouched());
  EXPECT_EQ(storage_.log, "the port has no read for the model file");
}

TEST_F(ImageRead, AFileBeyondTheAddressesOf32Bits) {
  storage_.file.data()[kHeaderFileBytes + 4] = 1;
  Reseal(&storage_.file);
  EXPECT_EQ(Call(memory_.size()), ACORN_ERR_MEMORY);
  EXPECT_EQ(need_, (uint64_t{1} << 32) + storage_.file.size());
  EXPECT_TRUE(Untouched());
}

// Between the header and the whole, the file has become a longer one.
TEST_F(ImageRead, AFileThatChangesIsFoundByThePlan) {
  port_.read = [](void *ctx, void *to, uint64_t offset, size_t bytes) {
    auto *storage = static_cast<Storage *>(ctx);
    const int failed = Read(ctx, to, offset, bytes);
    storage->file.data()[kHeaderFileBytes] += 1;
    Reseal(&storage->file);
    return failed;
  };
  ASSERT_EQ(Call(memory_.size()), ACORN_OK);
  acorn_memory_plan plan = {};
  plan.struct_size = sizeof plan;
  EXPECT_EQ(acorn_plan(&plan, nullptr, &image_, nullptr, &port_), ACORN_ERR_TRUNCATED);
}

TEST_F(ImageRead, AFileShorterThanItsHeaderSays) {
  storage_.file = AlignedBytes(std::vector<uint8_t>(storage_.file.data(), storage_.file.data() + 5000));
  EXPECT_EQ(Call(memory_.size()), ACORN_ERR_PORT);
  EXPECT_EQ(image_.data, nullptr);
}

TEST_F(ImageRead, BadHeaders) {
  const AlignedBytes good = storage_.file;
  storage_.file.data()[0] = 'B';
  ExpectHeaderFault(ACORN_ERR_FOREIGN);
  storage_.file = good;
  storage_.file.data()[kHeaderVersion] = 9;
  ExpectHeaderFault(ACORN_ERR_VERSION);
  storage_.file = good;
  storage_.file.data()[kHeaderFileBytes] ^= 1;
  ExpectHeaderFault(ACORN_ERR_DAMAGED);
  storage_.file = good;
  storage_.file.data()[kHeaderExperts] = 1;
  Reseal(&storage_.file);
  ExpectHeaderFault(ACORN_ERR_INVALID);
}

TEST_F(ImageRead, BadArguments) {
  EXPECT_EQ(acorn_image_read(nullptr, &need_, &port_, memory_.data(), 1), ACORN_ERR_ARGUMENT);
  EXPECT_EQ(acorn_image_read(&image_, &need_, nullptr, memory_.data(), 1), ACORN_ERR_ARGUMENT);
  EXPECT_EQ(acorn_image_read(&image_, &need_, &port_, nullptr, 1), ACORN_ERR_ARGUMENT);
  EXPECT_EQ(acorn_image_read(&image_, &need_, &port_, memory_.data() + 1, 1), ACORN_ERR_ARGUMENT);
  port_.struct_size = 4;
  EXPECT_EQ(Call(memory_.size()), ACORN_ERR_ARGUMENT);
}

}  // namespace
}  // namespace acorn::test
