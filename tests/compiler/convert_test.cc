// acornc convert and inspect as commands: options, exit codes, what is written and what is not.
#include <algorithm>
#include <regex>
#include <utility>

#include "acorn_schema/acorn_generated.h"
#include "acorn_schema/file.h"
#include "tests/compiler/convert_command.h"

namespace acorn::compiler {
namespace {

TEST_F(Convert, RefusesBadOptions) {
  ExpectRefused("--recipe best", 2, "--recipe");
  ExpectRefused("--weights w3", 2, "--weights");
  ExpectRefused("--group 48", 2, "--group");
  ExpectRefused("--kv 5", 2, "--kv");
  ExpectRefused("--weights w8 --group 32", 2, "--group 32 needs --weights w4");
  ExpectRefused("--head w2", 2, "--head");
  ExpectRefused("--expert-bits 3", 2, "--expert-bits");
  ExpectRefused("--expert-bits 2", 2, "(family llama) has no experts");
  ExpectRefused("--expert-budget 3.2", 2, "--expert-budget 3.2 needs --expert-bits auto");
  ExpectRefused("--expert-bits 4 --expert-ranking loss", 2, "--expert-ranking loss needs --expert-bits auto");
  ExpectRefused("--expert-bits auto --expert-budget fast", 2, "bits such as 3.2 or a loss such as 2% are wanted");
  ExpectRefused("--expert-bits auto --expert-ranking usage", 2, "it needs --expert-budget in bits");
  ExpectRefused("--window 0", 2, "--window");
  ExpectRefused("--window 255", 2, "a window of 255 tokens: the model was trained for 256 positions, so at most 254 are possible");
  ExpectRefused("--prefix all", 2, "--prefix");
  ExpectRefused("--context 100000", 2, "--context 100000: the model reaches 256 tokens");
  ExpectRefused("--calibration " + folder_.File("absent"), 2, "no tokenizer");
  ExpectRefused("--report /dev/null/report", 5, "/dev/null/report");  // before the work: no model is there
  ExpectRefused("--profiles 0", 2, "--profiles 0: a rate beyond 0 is wanted");
  ExpectRefused("--profiles 15,61", 2, "--profiles 15,61: rates from 0 to 60 are wanted");
  ExpectRefused("--profiles 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16", 2, "at most 15 rates beyond 0 are wanted");
  ExpectRefused("--profiles 15,,20", 2, "rates from 0 to 60 are wanted");
  ExpectRefused("--profiles 15 --kv 4", 2, "--profiles 15 does not go with --kv 4");
  ExpectRefused("--profiles 15 --mixed auto", 2, "--profiles 15 does not go with --mixed");
  ExpectRefused("--profiles 15 --recipe mobilequant", 2, "--profiles 15 needs --recipe fast or rtn");
  ExpectRefused("--heal 10", 2, "--heal needs --profiles");
  ExpectRefused("--mixed best", 2, "--mixed");
  ExpectRefused("--mixed auto --weights w8", 2, "--mixed auto needs --weights w4");
  ExpectRefused("--budget 2M", 2, "--budget 2M needs --mixed auto");
  for (const char *budget : {"much", "%", "1.2.3%", "-1", "5%M", "2MM", "99999999999999999G"}) {
    ExpectRefused(std::string("--mixed auto --budget=") + budget, 2, "a size such as 100M or a loss such as 2% is wanted");
  }
  ExpectRefused("--mixed auto --budget 9K", 2, "--budget 9K: 9216 bytes are less than the ");
  ExpectRefused("--unknown", 2, "--unknown");
  EXPECT_EQ(RunAcornc("convert").exit_code, 2);
  EXPECT_EQ(RunAcornc("convert " + test::DataPath("small_llama")).exit_code, 2);
}

TEST_F(Convert, TrainingOptionsNeedTheRecipeThatTrains) {
  for (const std::string option : {"--steps", "--time-limit", "--checkpoint", "--own-text"}) {
    ExpectRefused(option + " 5", 2, option + " needs --recipe mobilequant");
  }
  ExpectRefused("--steps 0 --recipe mobilequant", 2, "--steps");
  ExpectRefused("--loss squared --recipe mobilequant", 2, "--loss");
  ExpectRefused("--heal 10", 2, "--heal needs --profiles");
  ExpectRefused("--heal-steps 10", 2, "--heal");
  ExpectRefused("--heal 0", 2, "--heal");
  // The program of these tests.
  ExpectRefused("--recipe mobilequant", 2, "built without LibTorch (toolchains/setup.sh --train installs it)");
}

TEST_F(Convert, StateSpaceModels) {
  const auto convert = [&](const char *name, const std::string &options) {
    return RunAcornc("convert " + test::DataPath(name) + " -o " + folder_.File("m.acorn") + " " + options);
  };
  const auto expect_refused = [&](const char *name, const std::string &options, const std::string &message) {
    const Outcome outcome = convert(name, options);
    EXPECT_EQ(outcome.exit_code, 2) << options;
    EXPECT_NE(outcome.err.find(message), std::string::npos) << outcome.err;
  };
  expect_refused("small_mamba2", "--kv 4", "--kv 4: " + test::DataPath("small_mamba2") + " (family mamba2) has no keys and values");
  expect_refused("small_bamba", "--mixed auto", "--mixed does not know state-space layers");
  expect_refused("small_mamba2", "--rotate r2", "it has no values");
  const Outcome synth = RunAcornc("synth --like " + test::DataPath("small_bamba/config.json") + " -o " + folder_.File("m.acorn"));
  EXPECT_EQ(synth.exit_code, 3) << synth.err;
  EXPECT_NE(synth.err.find("has state-space layers, of which synth draws none"), std::string::npos) << synth.err;
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));

  // A state does not grow: no cache limits the context.
  ASSERT_EQ(convert("small_mamba2", "").exit_code, 0);
  EXPECT_EQ(Inspect()["max_context"], 1 << 20);
  EXPECT_EQ(convert("small_granite_h.gguf", "").exit_code, 0);
  const Outcome outcome = convert("small_bamba", "--kv 4 --report " + folder_.File("report"));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_NE(test::ReadFile(folder_.File("report/report.html")).find("ssm_state"), std::string::npos);
}

TEST_F(Convert, HoldsSeveralRates) {
  const Outcome outcome = Run("--profiles 0,50,30 --report " + folder_.File("report"));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const nlohmann::json file = Inspect();
  EXPECT_EQ(file["rates"], nlohmann::json({0, 30, 50}));
  EXPECT_NE(file["provenance"]["profiles"].get<std::string>().find("30 ("), std::string::npos);
  EXPECT_NE(test::ReadFile(folder_.File("report/report.html")).find("Pruning rates"), std::string::npos);
  ASSERT_EQ(Run("", "plain.acorn").exit_code, 0);
  EXPECT_EQ(Inspect("plain.acorn")["rates"], nlohmann::json({0}));
}

TEST_F(Convert, GivesEveryLayerAWindow) {
  ASSERT_EQ(Run("--window 20").exit_code, 0);
  const nlohmann::json file = Inspect();
  EXPECT_EQ(file["windows"], nlohmann::json({20, 20}));
  EXPECT_EQ(file["provenance"]["window"], "20");
  EXPECT_GE(file["prefix_tokens"].size(), 1u);
  EXPECT_EQ(file["body"]["Rotate"], 2 * 3);  // queries once more, for the prefix
  EXPECT_EQ(file["max_context"], 256);  // of ids
  ASSERT_EQ(Run("--window 20 --kv 4 --prefix none", "none.acorn").exit_code, 0);
  EXPECT_EQ(Inspect("none.acorn")["windows"], nlohmann::json({20, 20}));
  EXPECT_EQ(Inspect("none.acorn")["prefix_tokens"].size(), 0u);
  EXPECT_EQ(Inspect("none.acorn")["body"]["Rotate"], 2 * 2);
  ASSERT_EQ(Run("--window 20 --kv 4 --recipe rtn", "rtn.acorn").exit_code, 0);
  EXPECT_EQ(Inspect("rtn.acorn")["prefix_tokens"], nlohmann::json({1}));
  ASSERT_EQ(Run("--profiles 0,30 --window 20", "rates.acorn").exit_code, 0);
  EXPECT_EQ(Inspect("rates.acorn")["windows"], nlohmann::json({20, 20}));
  ASSERT_EQ(Run("", "plain.acorn").exit_code, 0);
  EXPECT_EQ(Inspect("plain.acorn")["windows"], nlohmann::json({0, 0}));
}

TEST_F(Convert, BadFilesHaveTheirExitCodes) {
  EXPECT_EQ(RunAcornc("convert " + folder_.File("absent") + " -o " + folder_.File("m")).exit_code, 5);
  EXPECT_EQ(RunAcornc("convert " + test::DataPath("small_llama") + " --recipe rtn -o " + folder_.File("absent/m")).exit_code,
            5);
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
  const Outcome outcome = Run("--recipe rtn --report " + folder_.Write("file", "") + "/report");
  EXPECT_EQ(outcome.exit_code, 5);
  EXPECT_NE(outcome.err.find("cannot create " + folder_.File("file") + "/report"), std::string::npos) << outcome.err;
}

TEST_F(Convert, WritesWhatTheOptionsSay) {
  const Outcome outcome = Run("--weights w4 --group 64 --head w4 --context 100 --seed 3 --report " + folder_.File("report"));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const nlohmann::json file = Inspect();
  EXPECT_EQ(file["family"], "llama");
  EXPECT_EQ(file["max_context"], 100);
  EXPECT_EQ(file["vocab_size"], 128);
  EXPECT_EQ(file["layers"], 2);
  EXPECT_EQ(file["provenance"]["recipe"], "fast");
  EXPECT_EQ(file["provenance"]["seed"], "3");
  EXPECT_EQ(file["weights"].size(), 2u * 4 + 2);
  EXPECT_EQ(file["weights"][1]["format"], "w4g64");
  EXPECT_EQ(file["weights"].back()["format"], "w4g32");
  EXPECT_EQ(file["file_bytes"], std::filesystem::file_size(folder_.File("m.acorn")));
  EXPECT_EQ(file["reference_run"]["prompt"].size(), 32u);
  EXPECT_EQ(file["reference_run"]["generated"].size(), 16u);
  EXPECT_EQ(file["reference_run"]["steps"], 1 + 2 * 14 + 2);
  // The report tells of the same conversion.
  const std::string csv = test::ReadFile(folder_.File("report/layers.csv"));
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 1 + 2 * 4 + 2);
  const std::string page = test::ReadFile(folder_.File("report/report.html"));
  for (const char *part : {"<h1>small_llama</h1>", "<dd>w4g64</dd>", "<dd>100 tokens</dd>", "<b>attn_in</b>", "source, float",
                           "simulated, rounded", "From rounding the weight", "From rounding the input", ">embedding<"}) {
    EXPECT_NE(page.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(page.find("http"), std::string::npos);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.File("report")), {}), 2);
  // People get the same without --json.
  EXPECT_NE(RunAcornc("inspect " + folder_.File("m.acorn")).out.find("w4g64"), std::string::npos);
}

TEST_F(Convert, KeysAndValuesOf4Bits) {
  for (const char *recipe : {"fast", "rtn"}) {
    const Outcome outcome = Run(std::string("--kv 4 --recipe ") + recipe);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_NE(outcome.out.find("keys and values of 4 bits: with 8 bits"), std::string::npos) << outcome.out;
    const nlohmann::json file = Inspect();
    EXPECT_EQ(file["kv_bits"], 4);
    EXPECT_EQ(file["provenance"]["kv"], "4");
    EXPECT_EQ(file["reference_run"]["steps"], 1 + 2 * 16 + 2);  // a transform of queries and one of keys in each layer
  }
  ASSERT_EQ(Run("").exit_code, 0);
  EXPECT_EQ(Inspect()["kv_bits"], 8);
}

TEST_F(Convert, ReportComparesPerplexities) {
  const auto value = [](const std::string &page, const std::string &name) {
    std::smatch match;
    return std::regex_search(page, match, std::regex(name + "</text>[^<]*<rect[^>]*>[^<]*<text[^>]*>([0-9.]+)"))
               ? std::stod(match[1])
               : 0.0;
  };
  ASSERT_EQ(Run("--recipe rtn --weights w8 --report " + folder_.File("report")).exit_code, 0);
  const std::string page = test::ReadFile(folder_.File("report/report.html"));
  const double source = value(page, "source, float");
  // A model of random weights, barely rounded: all see nearly the same.
  EXPECT_GT(source, 1);
  EXPECT_NEAR(value(page, "simulated, rounded") / source, 1, 0.02);
  EXPECT_NEAR(value(page, "file, on integers") / source, 1, 0.02);
  // A file whose context is shorter than a window is not measured.
  ASSERT_EQ(Run("--recipe rtn --weights w8 --context 100 --report " + folder_.File("report")).exit_code, 0);
  EXPECT_EQ(value(test::ReadFile(folder_.File("report/report.html")), "file, on integers"), 0);
}

TEST_F(Convert, SameInputAndSeedGiveTheSameBytes) {
  ASSERT_EQ(Run("--threads 1", "a").exit_code, 0);
  ASSERT_EQ(Run("--threads 2", "b").exit_code, 0);
  EXPECT_EQ(test::ReadFile(folder_.File("a")), test::ReadFile(folder_.File("b")));
  ASSERT_EQ(Run("--seed 9", "c").exit_code, 0);
  EXPECT_NE(test::ReadFile(folder_.File("a")), test::ReadFile(folder_.File("c")));
}

TEST_F(Convert, RotationsAreRefusedWhereTheyCannotBe) {
  ExpectRefused("--rotate r3", 2, "--rotate");
  ExpectRefused("--rotate-seeds 2", 2, "--rotate");
  ExpectRefused("--rotate r2 --rotate-seeds 0", 2, "--rotate-seeds");
  ExpectRefused("--rotate r2 --untie-head", 2, "--untie-head is for --rotate r1r2");
  ExpectRefused("--rotate r2 --recipe rtn", 2, "--rotate r2 needs a recipe that calibrates");
}

TEST_F(Convert, RotationsAreChosenAndRecorded) {
  ASSERT_EQ(Run("--rotate none").exit_code, 0);
  EXPECT_FALSE(Inspect()["provenance"].contains("rotate"));
  ASSERT_EQ(Run("--rotate r1r2 --rotate-seeds 1").exit_code, 0);
  EXPECT_EQ(Inspect()["provenance"]["rotate"], "r1r2, seed 1");
  ASSERT_EQ(Run("--rotate r2 --rotate-seeds 2 --threads 1", "a").exit_code, 0);
  ASSERT_EQ(Run("--rotate r2 --rotate-seeds 2 --threads 2", "b").exit_code, 0);
  EXPECT_EQ(test::ReadFile(folder_.File("a")), test::ReadFile(folder_.File("b")));
  const std::string choice = Inspect("a")["provenance"]["rotate"];
  EXPECT_TRUE(choice == "r2, seed 1" || choice == "r2, seed 2" || choice == "r2, left out") << choice;
}

TEST_F(Convert, ATiedHeadIsSeparatedOnlyWhenAskedFor) {
  const std::string tied = folder_.File("tied");
  std::filesystem::copy(test::DataPath("small_llama"), tied);
  nlohmann::json config = nlohmann::json::parse(test::ReadFile(tied + "/config.json"));
  config["tie_word_embeddings"] = true;
  folder_.Write("tied/config.json", config.dump());
  const std::string command = "convert " + tied + " -o " + folder_.File("m.acorn") + " --rotate-seeds 1 --rotate ";
  const Outcome refused = RunAcornc(command + "r1r2");
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.err.find("with --untie-head the file holds both and is about 0.00819 MB larger"), std::string::npos)
      << refused.err;
  ASSERT_EQ(RunAcornc(command + "r2").exit_code, 0);
  EXPECT_EQ(Inspect()["weights"].size(), 2u * 4 + 1);
  ASSERT_EQ(RunAcornc(command + "r1r2 --untie-head").exit_code, 0);
  EXPECT_EQ(Inspect()["weights"].size(), 2u * 4 + 2);
}

TEST_F(Convert, MixedKeepsItsBudgetAndSaysWhatItChose) {
  ASSERT_EQ(Run("", "plain").exit_code, 0);
  const uint64_t budget = std::filesystem::file_size(folder_.File("plain")) + 40000;
  const std::string mixed = "--mixed auto --budget " + std::to_string(budget) + " --report " + folder_.File("report");
  ASSERT_EQ(Run(mixed + " --threads 1", "a").exit_code, 0);
  ASSERT_EQ(Run(mixed + " --threads 2", "b").exit_code, 0);
  EXPECT_EQ(test::ReadFile(folder_.File("a")), test::ReadFile(folder_.File("b")));
  EXPECT_GT(std::filesystem::file_size(folder_.File("a")), std::filesystem::file_size(folder_.File("plain")));
  EXPECT_LE(std::filesystem::file_size(folder_.File("a")), budget);
  const nlohmann::json file = Inspect("a");
  int eights = 0;
  for (const auto &weight : file["weights"]) eights += weight["format"] == "w8";
  EXPECT_GT(eights, 2);  // embedding and head have been before
  EXPECT_NE(test::ReadFile(folder_.File("report/report.html")).find("Sensitivity of the tensors"), std::string::npos);
  EXPECT_NE(file["provenance"]["mixed"].get<std::string>().find("weights in more bits"), std::string::npos);
}

TEST_F(Convert, TargetChoosesTheLayout) {
  struct Target {
    std::string name, w8, w4;
  };
  for (const Target &target : {Target{"universal", "x16c8", "x16c8"}, Target{"x86-256", "x8c8", "x8c8"},
                               Target{"arm-dotprod", "x16c4", "x16c4"}, Target{"arm-neon", "x8c2s4", "x16c1"}}) {
    ASSERT_EQ(Run("--recipe rtn --weights w4 --group channel --target " + target.name).exit_code, 0);
    const nlohmann::json file = Inspect();
    for (const auto &weight : file["weights"]) {
      EXPECT_EQ(weight["layout"], weight["format"] == "w8" ? target.w8 : target.w4) << target.name;
    }
  }
}

TEST_F(Convert, InspectRefusesDamage) {
  ASSERT_EQ(Run("--recipe rtn").exit_code, 0);
  const std::string good = test::ReadFile(folder_.File("m.acorn"));
  const auto expect = [&](const std::string &bytes, const std::string &message) {
    const Outcome outcome = RunAcornc("inspect --json " + folder_.Write("bad", bytes));
    EXPECT_EQ(outcome.exit_code, 3) << message;
    EXPECT_NE(outcome.err.find(message), std::string::npos) << outcome.err;
  };
  expect("", "no Acorn file");
  expect(std::string(1000, 'x'), "no Acorn file");
  expect(good.substr(0, good.size() - 1), "truncated");
  for (const size_t at : {size_t{9}, size_t{50}, size_t{200}, good.size() - 1}) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    expect(bad, at == 9 ? "version" : at < 64 ? "header" : at == 200 ? "graph" : "checksum");
  }
  EXPECT_EQ(RunAcornc("inspect " + folder_.File("absent")).exit_code, 5);
}

// FlatBuffers' verifier does not look where the elements of a list lie; inspect does, before it reads them.
TEST_F(Convert, InspectRefusesAListAskew) {
  ASSERT_EQ(Run("--recipe rtn").exit_code, 0);
  const std::string good = test::ReadFile(folder_.File("m.acorn"));
  for (const size_t askew : {0, 4}) {
    std::string bad = good;
    auto *p = reinterpret_cast<uint8_t *>(bad.data());
    const auto store = [&](uint64_t at, uint64_t value, int bytes) {
      for (int i = 0; i < bytes; ++i) p[at + static_cast<uint64_t>(i)] = static_cast<uint8_t>(value >> (8 * i));
    };
    const auto *table = reinterpret_cast<const flatbuffers::Table *>(schema::GetModel(p + kHeaderBytes));
    const uint8_t *place = reinterpret_cast<const uint8_t *>(table) + table->GetOptionalFieldOffset(schema::Model::VT_SEGMENTS);
    const auto field = static_cast<uint64_t>(place - p), from = field + LoadLittle32(place);
    const uint64_t bytes = 4 + LoadLittle32(p + from) * sizeof(schema::Segment);
    // A copy behind the graph: the length, then the segments at 0 or 4 modulo 8.
    const uint64_t to = (kHeaderBytes + LoadLittle64(p + kHeaderGraphBytes) + 7) / 8 * 8 + 4 + askew;
    ASSERT_LE(to + bytes, schema::GetModel(p + kHeaderBytes)->segments()->Get(0)->offset());
    std::copy_n(p + from, bytes, p + to);
    store(field, to - field, 4);
    const uint64_t graph = to + bytes - kHeaderBytes;
    store(kHeaderGraphBytes, graph, 8);
    store(kHeaderGraphChecksum, Checksum(p + kHeaderBytes, graph), 8);
    store(kHeaderChecksum, Checksum(p, kHeaderChecksum), 8);
    const Outcome outcome = RunAcornc("inspect " + folder_.Write("bad", bad));
    EXPECT_EQ(outcome.exit_code, askew == 0 ? 0 : 3) << outcome.err;
    if (askew != 0) {
      EXPECT_NE(outcome.err.find("the list of segments lies askew"), std::string::npos) << outcome.err;
    }
  }
}

// Each expert has a checksum of its own, its segment has none.
TEST_F(Convert, InspectChecksExperts) {
  const std::string file = folder_.File("sparse.acorn");
  ASSERT_EQ(RunAcornc("convert " + test::DataPath("small_mixtral") + " -o " + file + " --recipe rtn").exit_code, 0);
  std::string bytes = test::ReadFile(file);
  uint64_t experts = 0;
  const nlohmann::json description = Inspect("sparse.acorn");
  for (const auto &segment : description["segments"]) {
    EXPECT_EQ(segment["checksum"], "ok");
    if (segment["kind"] == "Experts") experts = segment["offset"];
  }
  ASSERT_NE(experts, 0u);
  bytes[experts + 100] = static_cast<char>(bytes[experts + 100] ^ 1);
  const Outcome outcome = RunAcornc("inspect " + folder_.Write("bad", bytes));
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_NE(outcome.err.find("offset " + std::to_string(experts) + ": the checksum"), std::string::npos) << outcome.err;
}

}  // namespace
}  // namespace acorn::compiler
