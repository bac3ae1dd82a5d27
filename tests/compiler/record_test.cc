// The reference run that the compiler puts into a file: it passes, nothing else of the file changes, and it is always the same.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "tests/compiler/expect_error.h"
#include "tests/support/recorded_model.h"
#include "tests/support/temp_folder.h"
#include "write/reference_run.h"

namespace acorn::compiler {
namespace {

class Record : public testing::Test {
 protected:
  /// The model's file with a reference run, in the test's folder.
  test::AlignedBytes Run(const test::AlignedBytes &file) {
    EXPECT_TRUE(test::WriteModel(file, folder_.File("bare")));
    RecordReferenceRun(folder_.File("bare"), folder_.File("recorded"));
    return Read("recorded");
  }
  test::AlignedBytes Read(const char *name) {
    const std::string text = test::ReadFile(folder_.File(name));
    return test::AlignedBytes(std::vector<uint8_t>(text.begin(), text.end()));
  }

  test::TempFolder folder_;
};

bool SameBytes(const test::AlignedBytes &a, const test::AlignedBytes &b) {
  return a.size() == b.size() && std::equal(a.data(), a.data() + a.size(), b.data());
}

void ExpectPassed(const test::AlignedBytes &file, uint32_t tokens) {
  acorn_options options = {};
  options.flags = ACORN_OPEN_TRACE | ACORN_OPEN_CHECK_WEIGHTS;
  test::ModelSession session(file, options);
  ASSERT_EQ(session.status(), static_cast<acorn_status>(ACORN_OK)) << session.fault().section;
  acorn_selftest_report report = {};
  ASSERT_EQ(acorn_session_selftest(session.session(), &report), static_cast<acorn_status>(ACORN_OK));
  EXPECT_EQ(report.passed, 1u);
  EXPECT_EQ(report.tokens, tokens);
}

// The file before and after differ by the run alone; segments move together, as far as the graph grew.
void ExpectOnlyTheRunIsNew(const test::AlignedBytes &before, const test::AlignedBytes &after) {
  auto was = test::GraphOf(before), is = test::GraphOf(after);
  ASSERT_NE(is->reference_run, nullptr);
  is->reference_run = nullptr;
  const uint64_t moved = is->segments[0].offset() - was->segments[0].offset();
  EXPECT_EQ(after.size(), before.size() + moved);
  ASSERT_EQ(is->segments.size(), was->segments.size());
  for (size_t i = 0; i < is->segments.size(); ++i) {
    const schema::Segment &a = was->segments[i], &b = is->segments[i];
    EXPECT_EQ(b.offset(), a.offset() + moved);
    EXPECT_EQ(b.bytes(), a.bytes());
    EXPECT_EQ(b.checksum(), a.checksum());
    EXPECT_TRUE(std::equal(before.data() + a.offset(), before.data() + a.offset() + a.bytes(), after.data() + b.offset()));
  }
  is->segments = was->segments;
  const auto pack = [](const schema::ModelT &model) {
    flatbuffers::FlatBufferBuilder fbb;
    schema::FinishModelBuffer(fbb, schema::Model::Pack(fbb, &model));
    return std::vector<uint8_t>(fbb.GetBufferPointer(), fbb.GetBufferPointer() + fbb.GetSize());
  };
  EXPECT_EQ(pack(*was), pack(*is));
}

TEST_F(Record, EveryKindOfModelPasses) {
  for (const test::ModelSpec &spec : test::VariedSpecs()) {
    const test::AlignedBytes before = test::BuildModel(spec), after = Run(before);
    ExpectOnlyTheRunIsNew(before, after);
    ExpectPassed(after, 48);
    EXPECT_EQ(after.size(), before.size()) << "a small graph leaves the segments where they are";
  }
}

TEST_F(Record, SegmentsMoveWhereTheGraphOutgrowsItsPlace) {
  test::ModelSpec spec;
  const auto graph_bytes = [](const test::AlignedBytes &file) { return LoadLittle64(file.data() + kHeaderGraphBytes); };
  test::AlignedBytes before;
  // Layers until the graph ends within the last kilobyte before the first segment: a run of 48 tokens is longer.
  for (spec.layers = 2; spec.layers < 60; ++spec.layers) {
    before = test::BuildModel(spec);
    if ((kHeaderBytes + graph_bytes(before)) % kSegmentAlignment > kSegmentAlignment - 1024) break;
  }
  ASSERT_LT(spec.layers, 60u);
  const test::AlignedBytes after = Run(before);
  EXPECT_EQ(after.size(), before.size() + kSegmentAlignment);
  ExpectOnlyTheRunIsNew(before, after);
  ExpectPassed(after, 48);
}

TEST_F(Record, TheSameFileGivesTheSameBytes) {
  const test::AlignedBytes once = Run(test::BuildModel(test::VariedSpecs()[5]));
  for (const int threads : {1, 3}) {
    SetThreadCount(threads);
    RecordReferenceRun(folder_.File("recorded"), folder_.File("recorded"));
    EXPECT_TRUE(SameBytes(Read("recorded"), once)) << threads << " threads";
  }
  SetThreadCount(0);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 2);
}

TEST_F(Record, ASmallContextHasASmallRun) {
  test::ModelSpec spec;
  spec.max_context = 2;
  ExpectPassed(Run(test::BuildModel(spec)), 2);
  spec.max_context = 21;
  ExpectPassed(Run(test::BuildModel(spec)), 21);
  spec.max_context = 1;
  EXPECT_EQ(test::GraphOf(Run(test::BuildModel(spec)))->reference_run, nullptr);
}

TEST_F(Record, ABadFileIsRefused) {
  EXPECT_ERROR(RecordReferenceRun(folder_.File("absent"), folder_.File("out")), ExitCode::kIo, "absent");
  EXPECT_ERROR(RecordReferenceRun(folder_.Write("empty", ""), folder_.File("out")), ExitCode::kBadModel, "not an Acorn");
  test::AlignedBytes file = test::BuildModel(test::ModelSpec());
  file.data()[file.size() - 1] ^= 1;  // a weight
  EXPECT_TRUE(test::WriteModel(file, folder_.File("damaged")));
  EXPECT_ERROR(RecordReferenceRun(folder_.File("damaged"), folder_.File("out")), ExitCode::kBadModel, "checksum");
  EXPECT_FALSE(std::filesystem::exists(folder_.File("out")));
}

}  // namespace
}  // namespace acorn::compiler
