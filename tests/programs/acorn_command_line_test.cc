// acorn: options, outputs and exit codes.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "acorn_schema/file.h"
#include "tests/programs/program_test.h"

namespace acorn::test {
namespace {

using nlohmann::json;
using Words = std::vector<std::string>;

class CommandLine : public ProgramTest {
 protected:
  // A failure: its code, words of its message, and not a byte on the standard output.
  void ExpectFailure(const Words &words, int code, const Words &texts, const std::string &input = "") const {
    const Outcome outcome = Acorn(words, input);
    std::string line;
    for (const std::string &word : words) line += word + " ";
    EXPECT_EQ(outcome.code, code) << line << outcome.err;
    EXPECT_EQ(outcome.out, "") << line;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << line << outcome.err;
    for (const std::string &text : texts) EXPECT_NE(outcome.err.find(text), std::string::npos) << line << outcome.err;
  }
  json Report(const Words &words) const {
    const Outcome outcome = Acorn(words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return json::parse(outcome.out, nullptr, false);
  }
};

TEST_F(CommandLine, HelpAndVersion) {
  EXPECT_EQ(Acorn({"--version"}).code, 0);
  const Outcome help = Acorn({"--help"});
  EXPECT_EQ(help.code, 0);
  for (const char *name : {"run", "chat", "plan", "bench", "perplexity", "tokenize", "eval", "selftest"}) {
    EXPECT_NE(help.out.find(name), std::string::npos) << name;
    const Outcome own = Acorn({name, "--help"});
    EXPECT_EQ(own.code, 0) << name;
    EXPECT_NE(own.out.find("--threads"), std::string::npos) << name;
  }
  EXPECT_EQ(Acorn({}).code, 2);
}

TEST_F(CommandLine, BadUsageIsTwo) {
  ExpectFailure({"fly", "MODEL"}, 2, {"unknown command fly"});
  ExpectFailure({"plan"}, 2, {"FILE is missing"});
  ExpectFailure({"plan", "MODEL", "MODEL"}, 2, {"unexpected argument"});
  ExpectFailure({"plan", "MODEL", "--colour"}, 2, {"unknown option --colour"});
  ExpectFailure({"plan", "MODEL", "--threads"}, 2, {"--threads wants a value"});
  ExpectFailure({"plan", "MODEL", "--threads", "0"}, 2, {"--threads 0"});
  ExpectFailure({"plan", "MODEL", "--threads", "two"}, 2, {"--threads two"});
  ExpectFailure({"plan", "MODEL", "--chunk", "4000"}, 2, {"--chunk 4000"});
  ExpectFailure({"plan", "MODEL", "--context", "161"}, 2, {"161", "160"});
  ExpectFailure({"plan", "MODEL", "--residency", "moon"}, 2, {"map, populate or copy"});
  ExpectFailure({"plan", "MODEL", "--pin", "--threads", "256"}, 2, {"--pin: more threads than the "});
  ExpectFailure({"plan", "MODEL", "--isa", "mmx"}, 2, {"--isa mmx", "avx512vnni"});
  ExpectFailure({"plan", "MODEL", "--memory", "3Q"}, 2, {"--memory 3Q"});
  ExpectFailure({"run", "MODEL"}, 2, {"-p TEXT"});
  ExpectFailure({"run", "MODEL", "-p", "x", "--chat", "--markup"}, 2, {"exclude"});
  ExpectFailure({"run", "MODEL", "-p", "x", "--temperature", "hot"}, 2, {"--temperature hot"});
  ExpectFailure({"run", "MODEL", "-p", "x", "--top-p", "1.5"}, 2, {"--top-p 1.5"});
  ExpectFailure({"run", "MODEL", "-p", "x", "--repetition-penalty", "0.005"}, 2, {"--repetition-penalty", "0.01"});
  ExpectFailure({"chat", "MODEL", "--stop", ""}, 2, {"--stop", "0 bytes", "63"});
  ExpectFailure({"chat", "MODEL", "--stop", std::string(64, 'x')}, 2, {"--stop", "64 bytes", "63"});
  ExpectFailure({"run", "MODEL", "-p", "x", "--context", "4", "--lookup", "7"}, 2, {"--lookup 7: the context must be larger"});
  ExpectFailure({"run", "MODEL", "-p", "x", "--chunk", "4", "--lookup", "7"}, 2, {"--lookup 7: --chunk must be larger"});
  // As a variable that nobody has set gives them.
  ExpectFailure({"plan", "MODEL", "--trust", ""}, 2, {"--trust"});
  ExpectFailure({"plan", "MODEL", "--trust="}, 2, {"--trust"});
  ExpectFailure({"chat", "MODEL", "--save", ""}, 2, {"--save"});
  ExpectFailure({"perplexity", "MODEL"}, 2, {"--text"});
  ExpectFailure({"perplexity", "MODEL", "--text", model_, "--window", "8", "--score-from", "8"}, 2, {"--score-from 8"});
  ExpectFailure({"bench", "MODEL", "--prompt-tokens", "161"}, 2, {"160"});
  ExpectFailure({"eval", "MODEL", "--data", "x"}, 2, {"--task NAME is missing", "lambada"});
  ExpectFailure({"eval", "MODEL", "--task", "mmlu", "--data", "x"}, 2, {"--task mmlu", "exact, lambada, piqa, arc-easy, winogrande"});
  ExpectFailure({"eval", "MODEL", "--task", "piqa"}, 2, {"--data FILE is missing"});
  ExpectFailure({"eval", "MODEL", "--task", "piqa", "--data", "x", "-n", "3"}, 2, {"-n is for --task exact"});
#if defined(__x86_64__)
  ExpectFailure({"plan", "MODEL", "--isa", "i8mm"}, 2, {"does not have it"});
#else
  ExpectFailure({"plan", "MODEL", "--isa", "avx2"}, 2, {"does not have it"});
#endif
}

TEST_F(CommandLine, LookupChangesNoAnswer) {
  const Words words = {"run", "MODEL", "-p", "the lamp the lamp the lamp the", "-n", "12", "--json"};
  const auto with = [&](const Words &more) {
    Words all = words;
    all.insert(all.end(), more.begin(), more.end());
    return Acorn(all);
  };
  const Outcome plain = with({}), ahead = with({"--lookup", "5"});
  EXPECT_EQ(plain.code, 0) << plain.err;
  EXPECT_EQ(ahead.code, 0) << ahead.err;
  EXPECT_EQ(ahead.out, plain.out);
  const json without = json::parse(plain.err), looked = json::parse(ahead.err);
  EXPECT_EQ(looked["digest"], without["digest"]);
  EXPECT_EQ(looked["ids_digest"], without["ids_digest"]);
  EXPECT_FALSE(without.contains("drafted_tokens"));
  EXPECT_GT(looked["drafted_tokens"], 0);
  const Outcome none = Acorn({"run", "MODEL", "-p", "x", "-n", "1", "--json", "--lookup", "5"});  // no guess: nothing repeats
  EXPECT_EQ(json::parse(none.err)["drafted_tokens"], 0) << none.err;
  const std::string lines = "the lamp the lamp the\nthe lamp the lamp the\n";
  const Outcome talk = Acorn({"chat", "MODEL", "-n", "12"}, lines), talk_ahead = Acorn({"chat", "MODEL", "-n", "12", "--lookup", "5"}, lines);
  EXPECT_EQ(talk_ahead.code, 0) << talk_ahead.err;
  EXPECT_EQ(talk_ahead.out, talk.out);
  EXPECT_NE(talk_ahead.err.find("tokens guessed"), std::string::npos) << talk_ahead.err;
  EXPECT_EQ(talk.err.find("tokens guessed"), std::string::npos);
  ExpectFailure({"run", "MODEL", "-p", "x", "--lookup", "8", "--chunk", "8"}, 2, {"--lookup 8", "--chunk"});
  ExpectFailure({"run", "MODEL", "-p", "x", "--lookup", "64"}, 2, {"--lookup"});
  ExpectFailure({"run", "MODEL", "-p", "x", "--lookup", "2", "--cache-aware-routing", "0.1"}, 2, {"--lookup", "--cache-aware-routing"});
  ModelSpec spec = TalkingSpec();
  spec.mixers = {Mixer::kStateSpace, Mixer::kAttention};
  const std::string states = folder_.File("states.acorn");
  ASSERT_TRUE(WriteModel(BuildModel(spec), states));
  ExpectFailure({"chat", states, "--lookup", "2"}, 2, {"--lookup", "states.acorn", "state-space"});
}

TEST_F(CommandLine, RatesThatAFileHolds) {
  ModelSpec spec = TalkingSpec();
  spec.head_dim = spec.rotary_dims = 32;
  spec.sorted_pairs = true, spec.attention_run = 8;
  spec.profiles = {{15, {32, 16, 64, 0, 0}}, {25, {16, 16, 32, 0, 0}}};
  const std::string elastic = folder_.File("elastic.acorn");
  ASSERT_TRUE(WriteModel(BuildModel(spec), elastic));
  ExpectFailure({"run", elastic, "-p", "x", "--rate", "20"}, 2, {"20", "elastic.acorn", "0, 15 and 25"});
  ExpectFailure({"bench", "MODEL", "--rate", "25"}, 2, {"25", "holds 0 alone"});
  ExpectFailure({"plan", "MODEL", "--rate", "100"}, 2, {"--rate 100"});
  ExpectFailure({"selftest", elastic, "--rate", "15"}, 2, {"--rate", "rate 0"});

  std::vector<std::string> digests;
  for (const char *rate : {"0", "15", "25"}) {
    const json bench =
        Report({"bench", elastic, "--rate", rate, "--prompt-tokens", "5", "--gen-tokens", "2", "--repetitions", "1", "--json"});
    EXPECT_EQ(bench["rate"], std::stoi(rate));
    digests.push_back(bench["digest"]);
    const Outcome run = Acorn({"run", elastic, "-p", "x", "-n", "2", "--rate", rate, "--stats"});
    EXPECT_EQ(run.code, 0) << run.err;
    EXPECT_NE(run.err.find("rate " + std::string(rate) + " %"), std::string::npos) << run.err;
  }
  EXPECT_NE(digests[0], digests[1]);
  EXPECT_NE(digests[1], digests[2]);

  const json rows = Report({"plan", elastic, "--json"})["rates"];
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[1]["rate"], 15);
  EXPECT_EQ(rows[0]["left_out_bytes"], 0);
  EXPECT_GT(rows[2]["realised_percent"], rows[1]["realised_percent"]);
  EXPECT_LT(rows[2]["weight_bytes"], rows[1]["weight_bytes"]);
  EXPECT_LT(rows[2]["resident_bytes"], rows[0]["resident_bytes"]);
  EXPECT_EQ(Report({"plan", "MODEL", "--json"})["rates"].size(), 1u);
  const Outcome table = Acorn({"plan", elastic});
  for (const char *text : {"realised", " 15 %", " 25 %"}) EXPECT_NE(table.out.find(text), std::string::npos) << table.out;
}

// Up and down between turns; what cannot be is said, and the conversation goes on.
TEST_F(CommandLine, ChatChangesTheRateBetweenTurns) {
  ModelSpec spec = TalkingSpec();
  spec.profiles = {{25, {0, 0, 32, 0, 0}}};
  const std::string elastic = folder_.File("elastic.acorn");
  ASSERT_TRUE(WriteModel(BuildModel(spec), elastic));
  const Words words = {"chat", elastic, "-n", "4"};
  const auto lines = [](const std::string &text) { return std::count(text.begin(), text.end(), '\n'); };
  const Outcome up = Acorn(words, "hello\n/rate 25\nhello\n/rate 0\nhello\n");
  EXPECT_EQ(up.code, 0) << up.err;
  EXPECT_EQ(lines(up.out), 3) << up.out;
  EXPECT_EQ(up.err, "");
  const Outcome wrong = Acorn(words, "hello\n/rate 7\n/rate fast\n/rate\nhello\n");
  EXPECT_EQ(wrong.code, 0);
  EXPECT_EQ(lines(wrong.out), 2) << wrong.out;
  EXPECT_NE(wrong.err.find("0 and 25"), std::string::npos) << wrong.err;
  EXPECT_EQ(lines(wrong.err), 3) << wrong.err;
  EXPECT_EQ(wrong.out, Acorn(words, "hello\nhello\n").out);
}

TEST_F(CommandLine, BadModelsAreThreeWithThePlace) {
  std::string bytes = ReadFile(model_);
  const auto write = [&](const char *name, const std::string &content) { return folder_.Write(name, content); };
  ExpectFailure({"plan", write("foreign", "this is some text, not a model at all")}, 3, {"foreign", "header", "offset 0"});
  ExpectFailure({"plan", write("empty", "")}, 3, {"empty"});
  ExpectFailure({"run", write("short", bytes.substr(0, bytes.size() - 1)), "-p", "x"}, 3, {"short", "header", "offset"});
  ExpectFailure({"bench", write("stub", bytes.substr(0, 40))}, 3, {"header", "offset 40"});
  std::string damaged = bytes;
  damaged[100] = static_cast<char>(damaged[100] ^ 1);
  ExpectFailure({"plan", write("damaged", damaged)}, 3, {"graph", "offset 64"});
  damaged = bytes;
  damaged[kSegmentAlignment + 5] = static_cast<char>(damaged[kSegmentAlignment + 5] ^ 1);
  ExpectFailure({"plan", write("segment", damaged)}, 3, {"segment", "index 0", "offset " + std::to_string(kSegmentAlignment)});
  damaged = bytes;
  damaged[kHeaderVersion] = 9;
  ExpectFailure({"plan", write("version", damaged)}, 3, {"version", "offset 8"});
  ExpectFailure({"run", Mute(), "-p", "x"}, 3, {"no tokenizer"});
  ExpectFailure({"tokenize", Mute()}, 3, {"no tokenizer"}, "x");
  ExpectFailure({"eval", Mute(), "--task", "lambada", "--data", write("data", R"({"context": "a", "continuation": "b"})")}, 3,
                {"no tokenizer"});
}

TEST_F(CommandLine, TooLittleMemoryIsFourAndInputFaultsAreFive) {
  ExpectFailure({"run", "MODEL", "-p", "x", "--memory", "20K"}, 4, {"--memory gives 20480"});
  const Outcome planned = Acorn({"plan", "MODEL", "--memory", "20K"});  // says what is needed all the same
  EXPECT_EQ(planned.code, 4);
  EXPECT_NE(planned.err.find("--memory gives 20480"), std::string::npos) << planned.err;
  EXPECT_NE(planned.out.find("session"), std::string::npos);
  ExpectFailure({"run", folder_.File("none"), "-p", "x"}, 5, {"none", "No such file"});
  ExpectFailure({"perplexity", "MODEL", "--window", "64", "--text", folder_.path()}, 5, {"directory"});
  const std::string full = folder_.File("full.svg");  // a name of a device, which stays
  ASSERT_EQ(symlink("/dev/full", full.c_str()), 0);
  ExpectFailure({"plan", "MODEL", "--svg", full}, 5, {"full.svg: cannot be written: No space left"});
  struct stat facts = {};
  EXPECT_EQ(lstat(full.c_str(), &facts), 0);
  const std::string pipe = folder_.File("pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  ExpectFailure({"verify", pipe}, 5, {"pipe: not a regular file"});
  ExpectFailure({"plan", folder_.path()}, 5, {"directory"});
  ExpectFailure({"perplexity", "MODEL", "--window", "64", "--text", folder_.File("none")}, 5, {"none"});
  ExpectFailure({"eval", "MODEL", "--task", "exact", "--data", folder_.File("none")}, 5, {"none"});
  ExpectFailure({"eval", "MODEL", "--task", "lambada", "--data", folder_.File("none")}, 5, {"none"});
  const std::string picture = folder_.File("none/plan.svg");
  ExpectFailure({"plan", "MODEL", "--svg", picture}, 5, {"plan.svg"});
}

#if !defined(ACORN_EMULATED)  // the shell is this machine's
TEST_F(CommandLine, AnAnswerThatNobodyTakesIsFive) {
  for (const char *command : {"run \"$1\" -p x -n 3", "plan \"$1\"", "--version"}) {
    const std::string line = "exec \"$0\" " + std::string(command) + " >/dev/full";
    const Outcome outcome = RunProgram({"/bin/sh", "-c", line, ACORN_PROGRAM, model_});
    EXPECT_EQ(outcome.code, 5) << command;
    EXPECT_NE(outcome.err.find("cannot write to the standard output"), std::string::npos) << command << outcome.err;
  }
}
#endif

TEST_F(CommandLine, APromptLongerThanTheContextIsRefused) {
  ExpectFailure({"run", "MODEL", "-p", std::string(400, '?'), "--context", "32"}, 2, {"the context holds 32"});
}

TEST_F(CommandLine, PlanKnowsTheBytesBeforeAnythingIsOpened) {
  const json plan = Report({"plan", "MODEL", "--json", "--context", "100", "--chunk", "8", "--threads", "3"});
  EXPECT_EQ(plan["image_bytes"], file_.size());
  EXPECT_EQ(plan["context_tokens"], 100);
  EXPECT_EQ(plan["chunk_tokens"], 8);
  EXPECT_EQ(plan["threads"], 3);
  EXPECT_EQ(plan["expert_slot_bytes"], 0);
  EXPECT_EQ(plan["block_bytes"].get<uint64_t>(), plan["model_bytes"].get<uint64_t>() + plan["session_bytes"].get<uint64_t>() +
                                                     plan["scratch_bytes"].get<uint64_t>());
  const std::string picture = folder_.File("plan.svg");
  EXPECT_NE(Acorn({"plan", "MODEL", "--svg", picture}).out.find("session"), std::string::npos);
  EXPECT_EQ(ReadFile(picture).compare(0, 4, "<svg"), 0);
}

TEST_F(CommandLine, TheAnswerStandsAlone) {
  const Outcome plain = Acorn({"run", "MODEL", "-p", "the lamp", "-n", "12"});
  EXPECT_EQ(plain.code, 0);
  EXPECT_EQ(plain.err, "");
  EXPECT_FALSE(plain.out.empty());
  EXPECT_EQ(plain.out.back(), '\n');
  const Outcome with_json = Acorn({"run", "MODEL", "-p", "the lamp", "-n", "12", "--json"});
  EXPECT_EQ(with_json.out, plain.out);
  const json report = json::parse(with_json.err, nullptr, false);
  for (const char *key : {"prefill_tokens_per_s", "decode_tokens_per_s", "open_ms", "first_token_ms", "image_bytes",
                          "session_bytes", "scratch_bytes", "expert_slot_bytes", "peak_rss_bytes", "threads", "isa", "kernels",
                          "tokens", "digest", "ids_digest", "experts", "dials"}) {
    EXPECT_TRUE(report.contains(key)) << key;
  }
  const Outcome with_stats = Acorn({"run", "MODEL", "-p", "the lamp", "-n", "12", "--stats"});
  EXPECT_EQ(with_stats.out, plain.out);
  EXPECT_NE(with_stats.err.find("tokens/s"), std::string::npos);
  const Outcome from_input = Acorn({"run", "MODEL", "-p", "-", "-n", "12"}, "the lamp");
  EXPECT_EQ(from_input.out, plain.out);
}

TEST_F(CommandLine, NothingButTheMachineChangesWithTheMachinesOptions) {
  const json expected =
      Report({"bench", "MODEL", "--prompt-tokens", "40", "--gen-tokens", "9", "--repetitions", "1", "--json"});
  const std::vector<Words> variants = {{"--threads", "1"},  {"--threads", "2"},      {"--threads", "3"},
                                       {"--chunk", "1"},    {"--chunk", "7"},        {"--chunk", "64"},
                                       {"--isa", "scalar"}, {"--residency", "copy"}, {"--residency", "populate"}, {"--context", "100"},
                                       {"--large-pages", "--threads", "2"}, {"--pin", "--threads", "1"}};
  for (const Words &variant : variants) {
    Words words = {"bench", "MODEL", "--prompt-tokens", "40", "--gen-tokens", "9", "--repetitions", "1", "--json"};
    words.insert(words.end(), variant.begin(), variant.end());
    const json report = Report(words);
    EXPECT_EQ(report["digest"], expected["digest"]) << variant[0] << " " << variant[1];
    EXPECT_EQ(report["ids_digest"], expected["ids_digest"]);
  }
  EXPECT_NE(Report({"bench", "MODEL", "--prompt-tokens", "40", "--gen-tokens", "9", "--repetitions", "1", "--json", "--seed",
                    "1"})["digest"],
            expected["digest"]);
}

TEST_F(CommandLine, ASeedGivesTheSameText) {
  const Words words = {"run", "MODEL", "-p", "the", "-n", "40", "--temperature", "1.5", "--top-k", "50", "--seed"};
  const auto with_seed = [&](const char *seed) {
    Words all = words;
    all.push_back(seed);
    return Acorn(all).out;
  };
  EXPECT_EQ(with_seed("3"), with_seed("3"));
  EXPECT_NE(with_seed("3"), with_seed("4"));
}

TEST_F(CommandLine, AStopStringEndsTheAnswerBeforeIt) {
  const std::string whole = Acorn({"run", "MODEL", "-p", "the lamp", "-n", "30"}).out;
  ASSERT_GT(whole.size(), 12u);
  const std::string stop = whole.substr(6, 3);
  const std::string cut = Acorn({"run", "MODEL", "-p", "the lamp", "-n", "30", "--stop", stop}).out;
  EXPECT_EQ(cut, whole.substr(0, whole.find(stop)) + "\n");
}

TEST_F(CommandLine, ChatAnswersLineByLine) {
  const Outcome two = Acorn({"chat", "MODEL", "-n", "6"}, "hello\n\nand again\n/quit\nnot read\n");
  EXPECT_EQ(two.code, 0) << two.err;
  const Outcome fresh = Acorn({"chat", "MODEL", "-n", "6"}, "hello\n/reset\nhello\n");
  const std::string once = Acorn({"run", "MODEL", "--chat", "-p", "hello", "-n", "6"}).out;
  EXPECT_EQ(fresh.out, once + once);
  EXPECT_EQ(two.out.compare(0, once.size(), once), 0);
  const Outcome full =
      Acorn({"chat", "MODEL", "-n", "6", "--context", "20"}, "hello\n" + std::string(100, '?') + "\n/reset\nhello\n");
  EXPECT_EQ(full.code, 0);
  EXPECT_EQ(full.out, once + once);
  EXPECT_NE(full.err.find("/reset"), std::string::npos);
}

TEST_F(CommandLine, TokenizeGivesIds) {
  const Outcome plain = Acorn({"tokenize", "MODEL"}, "the lamp");
  const Outcome as_json = Acorn({"tokenize", "MODEL", "--json"}, "the lamp");
  const json report = json::parse(as_json.out, nullptr, false);
  std::string list;
  for (const int32_t id : report["ids"]) list += (list.empty() ? "" : " ") + std::to_string(id);
  EXPECT_EQ(plain.out, list + "\n");
  EXPECT_EQ(report["tokens"], report["ids"].size());
  EXPECT_EQ(json::parse(Acorn({"tokenize", "MODEL", "--json", "--markup"}, "<|user|>").out)["ids"], json::array({1}));
  EXPECT_GT(json::parse(Acorn({"tokenize", "MODEL", "--json"}, "<|user|>").out)["tokens"], 1);
}

TEST_F(CommandLine, EvalCountsExactAnswers) {
  std::string answer = Acorn({"run", "MODEL", "--chat", "-p", "say \"a\"\tb", "-n", "8"}).out;
  answer.erase(answer.find_last_not_of(" \n\t\r") + 1);
  // Bytes of a random model need not be text; what JSON cannot hold is replaced, and then the answer is another one.
  const bool is_text = json(answer).dump(-1, ' ', false, json::error_handler_t::ignore) ==
                       json(answer).dump(-1, ' ', false, json::error_handler_t::replace);
  json right = {{"extra", {1, {{"prompt", "no"}}, "]"}}, {"prompt", "say \"a\"\tb"}, {"answer", answer}};
  json wrong = {{"prompt", "x"}, {"answer", "never"}};
  const std::string data =
      folder_.Write("data.jsonl", right.dump(-1, ' ', false, json::error_handler_t::replace) + "\n\n" + wrong.dump() + "\n");
  const json report = Report({"eval", "MODEL", "--task", "exact", "--data", data, "-n", "8", "--json"});
  EXPECT_EQ(report["total"], 2);
  EXPECT_EQ(report["correct"], is_text ? 1 : 0);
  EXPECT_EQ(report["accuracy"], is_text ? 0.5 : 0);
  EXPECT_EQ(Report({"eval", "MODEL", "--task", "exact", "--data", data, "-n", "8", "--json", "--limit", "1"})["total"], 1);
  const std::string bad =
      folder_.Write("bad.jsonl", right.dump(-1, ' ', false, json::error_handler_t::replace) + "\n{\"prompt\": 5}\n");
  ExpectFailure({"eval", "MODEL", "--task", "exact", "--data", bad}, 2, {"bad.jsonl", "line 2"});
}

// The promise of the plan, for the whole process: library, program and its libraries.
TEST_F(CommandLine, PeakMemoryIsThePlan) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers have memory of their own";
#endif
  const json report = Report({"bench", "MODEL", "--prompt-tokens", "100", "--gen-tokens", "20", "--json"});
  EXPECT_LE(report["peak_rss_bytes"].get<uint64_t>(),
            report["block_bytes"].get<uint64_t>() + report["image_bytes"].get<uint64_t>() + (4u << 20));
}

}  // namespace
}  // namespace acorn::test
