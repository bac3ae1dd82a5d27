// How the channels of a linear layer are cut into tasks.
#include "ops/linear_tile.h"

#include <gtest/gtest.h>

namespace acorn {
namespace {

// Channels that the busiest thread has to do.
size_t Load(size_t n, size_t task, uint32_t threads) { return CeilDiv(CeilDiv(n, task), threads) * task; }

TEST(CutOf, FewRowsAreSharedOutEvenly) {
  EXPECT_EQ(CutOf(1, 576, 16, 2).task_channels, 6u * 16) << "18 tiles a thread; in tasks of five one has 20";
  EXPECT_EQ(CutOf(1, 512, 16, 2).task_channels, 4u * 16) << "four tasks a thread where they end together";
  EXPECT_EQ(CutOf(1, 512, 16, 1).task_channels, 512u) << "a thread alone needs no tasks";
  EXPECT_EQ(CutOf(1, 49152, 16, 1).task_channels, kStreamChannels);
  for (const size_t nr : {8u, 16u, 32u, 64u}) {
    for (const uint32_t threads : {1u, 2u, 3u, 4u, 8u, 64u, 256u}) {
      for (const size_t matrices : {1u, 2u}) {
        for (size_t n = 1; n < 9000; n += n < 600 ? 7 : 411) {
          const Cut cut = CutOf(4, n, nr, threads, matrices);
          const size_t most = kStreamChannels / matrices;
          ASSERT_GT(cut.task_channels, 0u);
          ASSERT_EQ(cut.task_channels % nr, 0u);
          ASSERT_LE(cut.task_channels, most);
          ASSERT_EQ(cut.row_block, 4u);
          const size_t tiles = CeilDiv(n, nr), least = threads == 1 ? 1 : 2 * threads;
          ASSERT_LE(cut.task_channels, CeilDiv(tiles, least) * nr) << "a slow thread would hold up the others";
          const size_t four = CeilDiv(CeilDiv(n, nr), threads == 1 ? 1 : 4 * threads) * nr;
          ASSERT_LE(Load(n, cut.task_channels, threads), Load(n, four < most ? four : most, threads)) << n << " of " << nr;
        }
      }
    }
  }
}

TEST(CutOf, ManyRowsGoInBlocks) {
  for (const uint32_t threads : {1u, 2u, 5u}) {
    for (size_t n = 16; n < 3000; n += 176) {
      const Cut cut = CutOf(kStreamRows + 1, n, 16, threads);
      ASSERT_EQ(cut.task_channels % 16, 0u);
      ASSERT_LE(cut.task_channels, kMostChannels);
      ASSERT_EQ(cut.row_block, kStreamRows + 1);
      ASSERT_EQ(CutOf(1000, n, 16, threads).row_block, kRowBlock);
    }
  }
}

}  // namespace
}  // namespace acorn
