// The POSIX port under the conformance program: with and without threads, with a file to read.
#include <gtest/gtest.h>

#include <string>

#include "acorn_posix.h"
#include "tests/ports/conformance_block.h"
#include "tests/support/temp_folder.h"

namespace acorn::test {
namespace {

class PosixConformance : public testing::TestWithParam<uint32_t> {};

TEST_P(PosixConformance, Keeps) {
  ConformanceBlock block;
  const TempFolder folder;
  const std::string path = folder.File("model.acorn");
  ASSERT_TRUE(WriteModel(block.file(), path));
  acorn_posix *posix = acorn_posix_create(GetParam());
  ASSERT_NE(posix, nullptr);
  ASSERT_EQ(acorn_posix_set_file(posix, path.c_str()), 0);
  acorn_port port;
  acorn_posix_port(posix, &port, 2);
  EXPECT_NE(port.read, nullptr);
  EXPECT_EQ(block.Run(port), 0u);
  acorn_posix_destroy(posix);
}

INSTANTIATE_TEST_SUITE_P(Threads, PosixConformance, testing::Values(1u, 2u, 3u));

TEST(PosixFiles, ReadIsThereOnlyWithAFile) {
  acorn_posix *posix = acorn_posix_create(1);
  acorn_port port;
  const TempFolder folder;
  EXPECT_NE(acorn_posix_set_file(posix, folder.File("none").c_str()), 0);
  EXPECT_NE(acorn_posix_set_file(posix, folder.path().c_str()), 0);
  acorn_posix_port(posix, &port, 1);
  EXPECT_EQ(port.read, nullptr);
  acorn_posix_destroy(posix);
}

}  // namespace
}  // namespace acorn::test
