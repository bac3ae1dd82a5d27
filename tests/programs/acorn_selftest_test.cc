// acorn selftest: what it says of a sound file, of a file whose weights or digests were changed, and of one without a run.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/programs/program_test.h"
#include "tests/support/recorded_model.h"

namespace acorn::test {
namespace {

using nlohmann::json;

class SelfTestProgram : public ProgramTest {
 protected:
  SelfTestProgram() : recorded_(Recorded(file_)) {}

  std::string Write(const char *name, const AlignedBytes &file) const {
    EXPECT_TRUE(WriteModel(file, folder_.File(name)));
    return folder_.File(name);
  }

  AlignedBytes recorded_;
};

TEST_F(SelfTestProgram, PassesWithAnyOptionsOfTheMachine) {
  const std::string model = Write("recorded.acorn", recorded_);
  const Outcome human = Acorn({"selftest", model});
  EXPECT_EQ(human.code, 0) << human.err;
  EXPECT_NE(human.out.find("prefill  passed\ndecode   passed\nsample   passed\n"), std::string::npos) << human.out;
  std::string digest;
  for (const std::vector<std::string> &options : std::vector<std::vector<std::string>>{
           {"--threads", "1"}, {"--threads", "3"}, {"--chunk", "1"}, {"--chunk", "7"}, {"--isa", "scalar"}, {"--context", "100"},
           {"--residency", "copy"}}) {
    std::vector<std::string> words = {"selftest", model, "--json"};
    words.insert(words.end(), options.begin(), options.end());
    const Outcome outcome = Acorn(words);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const json report = json::parse(outcome.out);
    EXPECT_EQ(report["passed"], true);
    EXPECT_EQ(report["tokens"], 15);
    EXPECT_FALSE(report.contains("layer"));
    if (digest.empty()) digest = report["digest"];
    EXPECT_EQ(report["digest"], digest) << options[0];
  }
}

// A weight of layer 1 changed and sealed anew: the machine computes another model than the one that was recorded.
TEST_F(SelfTestProgram, NamesTheStepThatDiffers) {
  AlignedBytes bad = recorded_;
  const schema::Model *model = schema::GetModel(bad.data() + kHeaderBytes);
  uint32_t linears = 0, step = 0;
  const schema::Linear *linear = nullptr;
  for (; linear == nullptr; ++step) {
    const schema::Step *candidate = model->body()->Get(step);
    if (candidate->op_type() == schema::Op::Linear && ++linears == 7) linear = candidate->op_as_Linear();
  }
  --step;
  const schema::Ref *data = model->weights()->Get(linear->weight())->data();
  uint8_t *bytes = bad.data() + model->segments()->Get(data->segment())->offset() + data->offset();
  for (size_t i = 64; i < 64 + 16; ++i) bytes[i] ^= 8;  // the sign of some nibbles behind the tile's header
  Reseal(&bad);
  const Outcome outcome = Acorn({"selftest", Write("bad.acorn", bad), "--json"});
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_NE(outcome.err.find("the self-test failed"), std::string::npos) << outcome.err;
  const json report = json::parse(outcome.out);
  EXPECT_EQ(report["passed"], false);
  EXPECT_EQ(report["phase"], "prefill");
  EXPECT_EQ(report["layer"], 1);
  EXPECT_EQ(report["step"], step);
  EXPECT_EQ(report["operator"], "Linear");
  EXPECT_EQ(report["kernel"].get<std::string>().compare(0, 14, "gemm_s8_w4g32/"), 0) << report["kernel"];
  EXPECT_NE(report["expected"], report["actual"]);
  EXPECT_EQ(report["right_isas"], json::array());  // every instruction set computes the changed model
  const Outcome human = Acorn({"selftest", Write("bad.acorn", bad), "--isa", "scalar"});
  EXPECT_EQ(human.code, 1);
  EXPECT_NE(human.out.find("layer 1, Linear (step " + std::to_string(step) + ")"), std::string::npos) << human.out;
  EXPECT_NE(human.out.find("decode   not reached"), std::string::npos) << human.out;
  EXPECT_NE(human.err.find("the machine or the file is at fault"), std::string::npos) << human.err;
}

TEST_F(SelfTestProgram, ADigestOfTheSecondPhase) {
  schema::ModelT model = *GraphOf(recorded_);
  model.reference_run->decode.back() ^= 1;
  const Outcome outcome = Acorn({"selftest", Write("decode.acorn", WithGraph(recorded_, model)), "--json"});
  EXPECT_EQ(outcome.code, 1);
  const json report = json::parse(outcome.out);
  EXPECT_EQ(report["phase"], "decode");
  EXPECT_EQ(report["layer"], -1);
  EXPECT_EQ(report["step"], model.body.size() + model.head.size() - 1);
}

TEST_F(SelfTestProgram, RefusesWhatCannotBeTested) {
  const Outcome bare = Acorn({"selftest", "MODEL"});
  EXPECT_EQ(bare.code, 3);
  EXPECT_NE(bare.err.find("has no reference run"), std::string::npos) << bare.err;
  const Outcome small = Acorn({"selftest", Write("m.acorn", recorded_), "--context", "14"});
  EXPECT_EQ(small.code, 2);
  EXPECT_NE(small.err.find("15 tokens"), std::string::npos) << small.err;
  AlignedBytes damaged = recorded_;
  const schema::Segment *weights = schema::GetModel(damaged.data() + kHeaderBytes)->segments()->Get(1);
  ASSERT_EQ(weights->kind(), schema::SegmentKind::Weights);
  damaged.data()[weights->offset() + 100] ^= 1;
  const Outcome outcome = Acorn({"selftest", Write("damaged.acorn", damaged)});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.err.find("checksum"), std::string::npos) << outcome.err;
}

}  // namespace
}  // namespace acorn::test
