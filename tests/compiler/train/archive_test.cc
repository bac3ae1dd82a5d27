// Archives come back as they were, and damaged ones do not come back at all.
#include <gtest/gtest.h>

#include "tests/compiler/expect_error.h"
#include "tests/support/temp_folder.h"
#include "train/archive.h"

namespace acorn::compiler {
namespace {

Archive Sample() {
  Archive archive;
  archive.Put<int32_t>("numbers", {1, -2, 3});
  archive.Put<double>("none", {});
  archive.PutOne("pi", 3.25);
  return archive;
}

TEST(Archive, RoundTrip) {
  const test::TempFolder folder;
  Sample().Save(folder.File("a"));
  const Archive back = Archive::Load(folder.File("a"));
  EXPECT_EQ(back.Get<int32_t>("numbers"), (std::vector<int32_t>{1, -2, 3}));
  EXPECT_TRUE(back.Get<double>("none").empty());
  EXPECT_EQ(back.GetOne<double>("pi"), 3.25);
  EXPECT_TRUE(back.Has("pi"));
  EXPECT_FALSE(back.Has("e"));
  EXPECT_ERROR(back.GetOne<int32_t>("numbers"), ExitCode::kIo, "numbers");
  EXPECT_ERROR(back.Get<double>("numbers"), ExitCode::kIo, "numbers");
  EXPECT_ERROR(back.Get<double>("absent"), ExitCode::kIo, "absent");
}

TEST(Archive, EveryCutAndEveryFlippedByteIsRefused) {
  const test::TempFolder folder;
  Sample().Save(folder.File("a"));
  const std::string whole = test::ReadFile(folder.File("a"));
  for (size_t size = 0; size < whole.size(); ++size) {
    folder.Write("cut", whole.substr(0, size));
    EXPECT_THROW(Archive::Load(folder.File("cut")), Error) << size;
  }
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string changed = whole;
    changed[i] = static_cast<char>(changed[i] ^ 0x41);
    folder.Write("changed", changed);
    EXPECT_THROW(Archive::Load(folder.File("changed")), Error) << i;
  }
}

}  // namespace
}  // namespace acorn::compiler
