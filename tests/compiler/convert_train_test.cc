// acornc convert with the recipe that trains: what it reports, what it leaves behind, and its limits.
#include "tests/compiler/convert_command.h"

namespace acorn::compiler {
namespace {

using ConvertThatTrains = Convert;

TEST_F(ConvertThatTrains, TrainsReportsAndLeavesNothingBehind) {
  const std::string train = "--recipe mobilequant --steps 20 --calibration-windows 12 ";
  const Outcome outcome = Run(train + "--report " + folder_.File("report"));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("on text it never saw"), std::string::npos) << outcome.err;
  EXPECT_FALSE(std::filesystem::exists(folder_.File("m.acorn.checkpoint")));
  const std::string page = test::ReadFile(folder_.File("report/report.html"));
  EXPECT_NE(page.find("all of its 20 steps done"), std::string::npos);
  EXPECT_NE(page.find("integers fixed"), std::string::npos);
  EXPECT_EQ(Inspect()["provenance"]["recipe"], "mobilequant");
  // The same again, and with another number of threads the same model up to the order of sums in float.
  ASSERT_EQ(Run(train, "again.acorn").exit_code, 0);
  EXPECT_EQ(test::ReadFile(folder_.File("again.acorn")), test::ReadFile(folder_.File("m.acorn")));
}

TEST_F(ConvertThatTrains, TrainsForACacheOf4Bits) {
  const Outcome outcome = Run("--recipe mobilequant --steps 8 --calibration-windows 12 --kv 4 --report " + folder_.File("report"));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.out.find("with 8 bits under the same weights"), std::string::npos) << outcome.out;
  EXPECT_EQ(Inspect()["kv_bits"], 4);
  EXPECT_NE(test::ReadFile(folder_.File("report/report.html")).find(">s4<"), std::string::npos);
}

TEST_F(ConvertThatTrains, TrainsStateSpaceModels) {
  const auto train = [&](const char *name, const std::string &options) {
    return RunAcornc("convert " + test::DataPath(name) + " -o " + folder_.File("m.acorn") +
                     " --recipe mobilequant --steps 20 --calibration-windows 12 " + options);
  };
  const Outcome outcome = train("small_mamba2", "--report " + folder_.File("report"));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(Inspect()["provenance"]["recipe"], "mobilequant");
  EXPECT_NE(test::ReadFile(folder_.File("report/report.html")).find("all of its 20 steps done"), std::string::npos);
  const Outcome hybrid = train("small_bamba", "--rotate r1r2 --rotate-seeds 1");
  ASSERT_EQ(hybrid.exit_code, 0) << hybrid.err;
  const Outcome refused = train("small_granite_h", "");
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.err.find("--recipe mobilequant does not know layers with experts"), std::string::npos) << refused.err;
}

TEST_F(ConvertThatTrains, ATimeLimitKeepsTheBestAndWhatToGoOnFrom) {
  // Far more steps than a machine does in a second: the limit ends it, the file is there, and so is the checkpoint.
  const Outcome outcome = Run("--recipe mobilequant --steps 10000000 --calibration-windows 12 --time-limit 0.02");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("stopped by the time limit"), std::string::npos) << outcome.err;
  EXPECT_TRUE(std::filesystem::exists(folder_.File("m.acorn.checkpoint")));
  Inspect();
}

TEST_F(ConvertThatTrains, TooLittleTextToTrainOn) {
  const Outcome outcome = Run("--recipe mobilequant --steps 5 --calibration-windows 3");
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_NE(outcome.err.find("training needs 4 windows"), std::string::npos) << outcome.err;
  EXPECT_FALSE(std::filesystem::exists(folder_.File("m.acorn")));
}

}  // namespace
}  // namespace acorn::compiler
