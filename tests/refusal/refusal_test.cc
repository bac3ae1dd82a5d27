// What a big-endian machine does with a good file: it refuses and touches nothing.
#include <gtest/gtest.h>

#include <vector>

#include "acorn.h"
#include "acorn_posix.h"

namespace acorn {
namespace {

class Refusal : public testing::Test {
 protected:
  Refusal() {
    const int error = acorn_posix_open_file(&file_, ACORN_SOURCE_DIR "/examples/models/home.acorn", ACORN_POSIX_MAP);
    EXPECT_EQ(error, 0);
    image_ = {file_.data, file_.bytes};
    fault_.struct_size = sizeof fault_;
  }
  ~Refusal() override { acorn_posix_close_file(&file_); }

  acorn_posix_file file_;
  acorn_image image_;
  acorn_fault fault_ = {};
};

TEST_F(Refusal, PlanIsUnsupported) {
  acorn_memory_plan plan = {};
  plan.struct_size = sizeof plan;
  EXPECT_EQ(acorn_plan(&plan, &fault_, &image_, nullptr, nullptr), ACORN_ERR_UNSUPPORTED);
  EXPECT_EQ(fault_.status, ACORN_ERR_UNSUPPORTED);
  EXPECT_STREQ(fault_.section, "byte order");
  EXPECT_EQ(plan.block_bytes, 0u);
}

TEST_F(Refusal, OpenIsUnsupportedAndLeavesTheBlockAlone) {
  constexpr size_t kBytes = 1 << 20;
  auto *block = static_cast<unsigned char *>(acorn_posix_allocate(kBytes));
  ASSERT_NE(block, nullptr);
  acorn_model *model = nullptr;
  EXPECT_EQ(acorn_model_open(&model, &fault_, &image_, nullptr, nullptr, block, kBytes), ACORN_ERR_UNSUPPORTED);
  EXPECT_EQ(model, nullptr);
  EXPECT_EQ(std::vector<unsigned char>(block, block + kBytes), std::vector<unsigned char>(kBytes, 0));
  acorn_posix_release(block, kBytes);
}

TEST_F(Refusal, ImageReadIsUnsupportedBeforeAnythingIsRead) {
  int reads = 0;
  acorn_port port = {};
  port.struct_size = sizeof port;
  port.ctx = &reads;
  port.read = [](void *ctx, void *, uint64_t, size_t) {
    ++*static_cast<int *>(ctx);
    return 0;
  };
  acorn_image image = {};
  uint64_t need = 1;
  EXPECT_EQ(acorn_image_read(&image, &need, &port, nullptr, 0), ACORN_ERR_UNSUPPORTED);
  EXPECT_EQ(reads, 0);
  EXPECT_EQ(need, 0u);
  EXPECT_EQ(image.data, nullptr);
}

}  // namespace
}  // namespace acorn
