// Signed files: what acornc signs acorn --trust takes, and nothing else, byte by byte; what is refused is refused before it is used.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <string>
#include <vector>

#include "acorn_schema/file.h"
#include "acorn_signature.h"
#include "tests/support/model_builder.h"
#include "tests/support/shared_data.h"
#include "tests/support/subprocess.h"

namespace acorn::test {
namespace {

using Words = std::vector<std::string>;

acorn_signature_status Check(const std::string &key, const std::string &text, const std::string &file, size_t piece = 1 << 20) {
  acorn_signature signature;
  const acorn_signature_status status = acorn_signature_begin(&signature, key.data(), key.size(), text.data(), text.size());
  if (status != ACORN_SIGNATURE_OK) return status;
  for (size_t at = 0; at < file.size(); at += piece) acorn_signature_update(&signature, file.data() + at, std::min(piece, file.size() - at));
  return acorn_signature_end(&signature);
}

/// A model with experts, signed by "mine".
class Signed : public testing::Test {
 protected:
  Signed() {
    for (const ModelSpec &spec : VariedSpecs()) {
      if (spec.experts == 0) continue;
      const AlignedBytes file = BuildModel(spec);
      bytes_.assign(file.data(), file.data() + file.size());
      break;
    }
    path_ = folder_.Write("m.acorn", bytes_);
    for (const char *name : {"mine", "other"}) ExpectDone({ACORN_COMPILER, "keygen", "-o", folder_.File(name)});
    Sign("mine");
    key_ = ReadFile(folder_.File("mine.pub"));
    text_ = ReadFile(path_ + ".sig");
  }

  static void ExpectDone(const Words &words) {
    const Outcome outcome = RunProgram(words);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
  }
  void Sign(const std::string &name) { ExpectDone({ACORN_COMPILER, "sign", path_, "--key", folder_.File(name + ".key")}); }

  void ExpectFailure(Words words, int code, const Words &texts) const {
    const Outcome outcome = RunProgram(words);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    for (const std::string &text : texts) EXPECT_NE(outcome.err.find(text), std::string::npos) << text << " in " << outcome.err;
  }
  Words Plan(const std::string &key) const { return {ACORN_PROGRAM, "plan", path_, "--trust", folder_.File(key)}; }

  TempFolder folder_;
  std::string bytes_, path_, key_, text_;
};

TEST_F(Signed, EveryByteOfTheFileCounts) {
  for (const size_t piece : {size_t{1}, size_t{777}, bytes_.size()}) EXPECT_EQ(Check(key_, text_, bytes_, piece), ACORN_SIGNATURE_OK);
  std::string altered = bytes_;
  const auto expect_altered = [&](size_t at) {
    altered[at] = static_cast<char>(altered[at] ^ 1);
    EXPECT_EQ(Check(key_, text_, altered), ACORN_SIGNATURE_ERR_ALTERED) << at;
    altered[at] = bytes_[at];
  };
  for (size_t at = 0; at < kHeaderBytes; ++at) expect_altered(at);
  for (size_t at = kHeaderBytes; at < bytes_.size(); at += 1009) expect_altered(at);  // zeros between segments too
  expect_altered(bytes_.size() - 1);
  EXPECT_EQ(Check(key_, text_, bytes_ + '\0'), ACORN_SIGNATURE_ERR_ALTERED);
  EXPECT_EQ(Check(key_, text_, bytes_.substr(1)), ACORN_SIGNATURE_ERR_ALTERED);
  EXPECT_EQ(Check(key_, text_, ""), ACORN_SIGNATURE_ERR_ALTERED);
}

TEST_F(Signed, EveryByteOfTheSignatureCounts) {
  // All but what its first line says of itself.
  const size_t free = std::string("untrusted comment: ").size(), free_end = text_.find('\n');
  for (size_t at = 0; at < text_.size(); ++at) {
    for (const int bit : {0, 1, 2, 5, 7}) {
      std::string altered = text_;
      altered[at] = static_cast<char>(altered[at] ^ 1 << bit);
      const bool counts = at < free || at >= free_end || altered[at] == '\n';
      EXPECT_EQ(Check(key_, altered, bytes_) != ACORN_SIGNATURE_OK, counts) << at << " bit " << bit;
    }
  }
  for (size_t size = 0; size + 1 < text_.size(); ++size) {
    EXPECT_EQ(Check(key_, text_.substr(0, size), bytes_), ACORN_SIGNATURE_ERR_FORM) << size;
  }
  EXPECT_EQ(Check(key_, text_ + "\n", bytes_), ACORN_SIGNATURE_ERR_FORM);
  EXPECT_EQ(Check(key_, text_ + std::string(2000, 'x'), bytes_), ACORN_SIGNATURE_ERR_FORM);
}

TEST_F(Signed, EveryByteOfTheKeyCounts) {
  const size_t record = key_.find('\n') + 1;
  for (size_t at = record; at + 1 < key_.size(); ++at) {
    std::string altered = key_;
    altered[at] = altered[at] == 'A' ? 'B' : 'A';
    EXPECT_NE(Check(altered, text_, bytes_), ACORN_SIGNATURE_OK) << at;
  }
  EXPECT_EQ(Check("", text_, bytes_), ACORN_SIGNATURE_ERR_KEY);
  EXPECT_EQ(Check(text_, text_, bytes_), ACORN_SIGNATURE_ERR_KEY);
  EXPECT_EQ(Check(ReadFile(folder_.File("other.pub")), text_, bytes_), ACORN_SIGNATURE_ERR_OTHER_KEY);
}

// Made by minisign 0.11: minisign -G -W, then -S, of the four bytes "file".
TEST(Signature, OfMinisign) {
  const std::string key = "untrusted comment: minisign public key 1BA21E24334DBB7C\nRWR8u00zJB6iGygm59/tsrN/4yEv9PHMnOpEvoLk7TAVtBd1LDKn+VPM\n";
  const std::string text =
      "untrusted comment: signature from minisign secret key\nRUR8u00zJB6iG91YfJF5tyj/x6YZrRht7Ci/AC996nwGfiifOyPRaSHbImKGYcLcNVJxyq2j8rqbMLLQ2HHFhkyL1vAwFSRMuAk=\n"
      "trusted comment: made for a test\nE17FNp+W9jUHTWvRxAOQl+TfYcGM1v7pHdWtfA9DCjHh7j6R+0Yqn3T834wm8L1TeaQ8jkzQhQIS3QoU8h85BA==\n";
  EXPECT_EQ(Check(key, text, "file"), ACORN_SIGNATURE_OK);
  EXPECT_EQ(Check(key, text, "pile"), ACORN_SIGNATURE_ERR_ALTERED);
}

TEST_F(Signed, TheProgramTakesWhatIsSigned) {
  const Outcome plain = RunProgram({ACORN_PROGRAM, "plan", path_}), trusted = RunProgram(Plan("mine.pub"));
  EXPECT_EQ(trusted.code, 0) << trusted.err;
  EXPECT_EQ(trusted.out, plain.out);
  for (const Words &more : std::vector<Words>{{"--residency", "copy"}, {"--expert-cache", "1M"}}) {
    Words words = {ACORN_PROGRAM, "bench", path_, "--prompt-tokens", "8", "--gen-tokens", "2", "--trust", folder_.File("mine.pub")};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome outcome = RunProgram(words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
  }
  const Outcome verified = RunProgram({ACORN_PROGRAM, "verify", path_, "--json", "--trust", folder_.File("mine.pub")});
  EXPECT_EQ(verified.code, 0) << verified.err;
  EXPECT_NE(verified.out.find("\"signed\": true"), std::string::npos);
}

TEST_F(Signed, SigningAgainReplaces) {
  Sign("other");
  EXPECT_EQ(RunProgram(Plan("other.pub")).code, 0);
  ExpectFailure(Plan("mine.pub"), 3, {"m.acorn: signed by another key", "mine.pub is "});
  Sign("mine");
  EXPECT_EQ(ReadFile(path_ + ".sig"), text_);  // the same each time
  EXPECT_EQ(ReadFile(path_), bytes_);
}

TEST_F(Signed, RefusalsSayWhy) {
  ExpectFailure(Plan("absent.pub"), 5, {"absent.pub: No such file"});
  ExpectFailure(Plan("mine.key"), 2, {"--trust", "mine.key: not a public key"});
  folder_.Write("m.acorn.sig", text_.substr(0, text_.size() / 2));
  ExpectFailure(Plan("mine.pub"), 3, {"m.acorn.sig: not a whole signature"});
  ASSERT_EQ(unlink((path_ + ".sig").c_str()), 0);
  ExpectFailure(Plan("mine.pub"), 3, {"m.acorn is not signed: there is no ", "m.acorn.sig"});
  ExpectFailure({ACORN_PROGRAM, "verify", path_, "--trust", folder_.File("mine.pub")}, 3, {"is not signed"});
}

// What streams is not in memory when the header is checked.
TEST_F(Signed, AFileThatWentOnIsNeverUsed) {
  folder_.Write("m.acorn", bytes_ + "x");
  for (const Words &more : std::vector<Words>{{}, {"--expert-cache", "1M"}}) {
    Words words = Plan("mine.pub");
    words.insert(words.end(), more.begin(), more.end());
    ExpectFailure(words, 3, {"m.acorn"});
  }
}

// The byte lies between the records of experts, where no checksum looks.
TEST_F(Signed, AnAlteredFileIsNeverUsed) {
  std::string altered = bytes_;
  ASSERT_EQ(altered.back(), '\0');
  altered.back() = 1;
  folder_.Write("m.acorn", altered);
  EXPECT_EQ(RunProgram({ACORN_PROGRAM, "verify", path_}).code, 0);
  const std::string key = folder_.File("mine.pub");
  const std::string trust = "not what was signed";
  const std::string questions = folder_.Write("questions", "{\"query\": \"x\", \"choices\": [\"a\", \"b\"], \"gold\": 0}\n");
  ExpectFailure({ACORN_PROGRAM, "verify", path_, "--trust", key}, 3, {trust});
  for (const char *command : {"run", "chat", "plan", "bench", "perplexity", "eval", "tokenize", "selftest", "trace"}) {
    Words words = {ACORN_PROGRAM, command, path_, "--trust", key};
    const std::string name = command;
    if (name == "run") words.insert(words.end(), {"-p", "x"});
    if (name == "perplexity") words.insert(words.end(), {"--text", path_});
    if (name == "eval") words.insert(words.end(), {"--task", "piqa", "--data", questions});
    if (name == "trace") words.insert(words.end(), {"-p", "x", "-o", folder_.File("trace")});
    ExpectFailure(words, 3, {trust});
    for (const Words &more : std::vector<Words>{{"--residency", "copy"}, {"--expert-cache", "1M"}}) {
      Words with = words;
      with.insert(with.end(), more.begin(), more.end());
      ExpectFailure(with, 3, {trust});
    }
  }
}

TEST_F(Signed, KeysAreKept) {
  struct stat facts = {};
  ASSERT_EQ(stat(folder_.File("mine.key").c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0600u);
  const std::string secret = ReadFile(folder_.File("mine.key"));
  ExpectFailure({ACORN_COMPILER, "keygen", "-o", folder_.File("mine")}, 5, {"mine.key: File exists"});
  EXPECT_EQ(ReadFile(folder_.File("mine.key")), secret);
  // A public key that is there already: no pair is left half made.
  folder_.Write("half.pub", "x");
  ExpectFailure({ACORN_COMPILER, "keygen", "-o", folder_.File("half")}, 5, {"half.pub: File exists"});
  EXPECT_FALSE(PathExists(folder_.File("half.key")));
}

TEST_F(Signed, WhatCannotBeSigned) {
  const auto sign = [&](const std::string &file, const std::string &key) { return Words{ACORN_COMPILER, "sign", file, "--key", key}; };
  const std::string key = folder_.File("mine.key"), secret = ReadFile(key);
  ExpectFailure(sign(folder_.Write("text", "no model, and long enough to have a header of sixty-four bytes or more"), key), 3, {"text: not an Acorn file"});
  EXPECT_FALSE(PathExists(folder_.File("text.sig")));
  ExpectFailure(sign(folder_.File("absent"), key), 5, {"absent"});
  ExpectFailure(sign(path_, folder_.File("mine.pub")), 2, {"mine.pub: not a secret key"});
  ExpectFailure(sign(path_, folder_.Write("cut.key", secret.substr(0, secret.size() - 20))), 2, {"cut.key: not a secret key"});
  // Bytes of the key itself, and those that say that a password protects it.
  std::string altered = secret;
  altered[altered.size() - 80] = altered[altered.size() - 80] == 'A' ? 'B' : 'A';
  ExpectFailure(sign(path_, folder_.Write("altered.key", altered)), 2, {"altered.key: damaged"});
  altered = secret;
  altered.replace(altered.find('\n') + 1, 6, "RWRTY0");
  ExpectFailure(sign(path_, folder_.Write("locked.key", altered)), 2, {"locked.key: protected by a password"});
  EXPECT_EQ(ReadFile(path_ + ".sig"), text_);
}

}  // namespace
}  // namespace acorn::test
