// acorn run and chat with saved conversations: what goes on, what is refused, and that an old file survives whatever goes wrong.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "tests/programs/program_test.h"

namespace acorn::test {
namespace {

using Words = std::vector<std::string>;

class SavedConversations : public ProgramTest {
 protected:
  Words Run(const Words &more) const {
    Words words = {"run", "MODEL", "--temperature", "0.9", "--seed", "3", "--context", "64", "--threads", "1"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  void ExpectDone(const Words &words, const std::string &input = "") const {
    const Outcome outcome = Acorn(words, input);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
  }
  void ExpectFailure(const Words &words, int code, const Words &texts) const {
    const Outcome outcome = Acorn(words);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    for (const std::string &text : texts) EXPECT_NE(outcome.err.find(text), std::string::npos) << text << " in " << outcome.err;
  }
  // Files of the folder whose names begin so.
  size_t FilesNamed(const std::string &start) const {
    size_t count = 0;
    for (const auto &entry : std::filesystem::directory_iterator(folder_.path())) {
      if (entry.path().filename().string().compare(0, start.size(), start) == 0) ++count;
    }
    return count;
  }
  static mode_t ModeOf(const std::string &path) {
    struct stat found = {};
    EXPECT_EQ(stat(path.c_str(), &found), 0) << path;
    return found.st_mode & 0777;
  }
};

TEST_F(SavedConversations, TwoHalvesAreTheWhole) {
  const std::string whole = folder_.File("whole"), half = folder_.File("half"), rest = folder_.File("rest");
  ExpectDone(Run({"-p", "the lamp", "-n", "20", "--save", whole}));
  ExpectDone(Run({"-p", "the lamp", "-n", "9", "--save", half}));
  const Words otherwise = {"--isa", "scalar", "--threads", "2", "--chunk", "3", "--context", "100"};
  Words words = Run({"--load", half, "-n", "11", "--save", rest});
  words.insert(words.end(), otherwise.begin(), otherwise.end());
  ExpectDone(words);
  EXPECT_EQ(ReadFile(rest), ReadFile(whole));
  EXPECT_NE(ReadFile(half), ReadFile(whole));
  // In its own place; and with another prompt behind it, which is no beginning.
  ExpectDone(Run({"--load", half, "-n", "11", "--save", half}));
  EXPECT_EQ(ReadFile(half), ReadFile(whole));
  ExpectDone(Run({"--load", half, "-p", "and the door", "-n", "3", "--save", half}));
  EXPECT_NE(ReadFile(half), ReadFile(whole));
}

TEST_F(SavedConversations, WhatCannotBeLoadedIsSaidWithItsReason) {
  const std::string good = folder_.File("good");
  ExpectDone(Run({"-p", "the lamp in the kitchen", "-n", "9", "--save", good}));
  const std::string bytes = ReadFile(good);
  ExpectFailure(Run({"--load", folder_.File("none")}), 5, {"none", "No such file"});
  ExpectFailure(Run({"--load", folder_.path()}), 5, {folder_.path()});
  ExpectFailure(Run({"--load", folder_.Write("empty", "")}), 3, {"empty", "not a saved conversation"});
  ExpectFailure(Run({"--load", model_}), 3, {"model.acorn", "not a saved conversation"});
  ExpectFailure(Run({"--load", folder_.Write("cut", bytes.substr(0, 700))}), 3, {"cut", "shorter than it says"});
  ExpectFailure(Run({"--load", folder_.Write("long", bytes + std::string(100, 'x'))}), 3, {"long", "rule"});
  std::string damaged = bytes;
  damaged[bytes.size() / 2] = static_cast<char>(damaged[bytes.size() / 2] ^ 4);
  ExpectFailure(Run({"--load", folder_.Write("damaged", damaged)}), 3, {"damaged", "checksum"});
  std::string later = bytes;
  later[8] = 9;
  ExpectFailure(Run({"--load", folder_.Write("later", later)}), 3, {"later", "another version"});
  ExpectFailure({"run", "MODEL", "--load", good, "--context", "8"}, 2, {"good", "8 tokens", "--context"});
  ExpectFailure({"run", "MODEL", "--load", good, "--context", "24", "-p", std::string(200, 'x')}, 2, {"more"});
  ModelSpec spec = TalkingSpec();
  ++spec.seed;
  const std::string other = folder_.File("other.acorn");
  ASSERT_TRUE(WriteModel(BuildModel(spec), other));
  ExpectFailure({"run", other, "--load", good}, 3, {"good", "another model file", "other.acorn"});
}

TEST_F(SavedConversations, WhatCannotBeSavedIsSaidAtOnce) {
  ExpectFailure(Run({"-p", "x", "--save", "/dev/full"}), 5, {"/dev/full", "not a regular file"});
  ExpectFailure(Run({"-p", "x", "--save", folder_.path()}), 5, {"not a regular file"});
  ExpectFailure(Run({"-p", "x", "--save", folder_.File("no/where")}), 5, {"no/where", "No such file"});
  ExpectFailure({"run", "MODEL", "--save", folder_.File("new")}, 2, {"-p TEXT"});
  EXPECT_EQ(FilesNamed("new"), 0u);
}

// A disk that fills up in the middle of a write (here: a limit on files), with and without a signal that ends the program.
TEST_F(SavedConversations, AnOldFileSurvivesAFullDisk) {
  const std::string saved = folder_.File("saved");
  ExpectDone(Run({"-p", "the lamp", "-n", "4", "--save", saved}));
  const std::string before = ReadFile(saved);
  ASSERT_GT(before.size(), 2048u);
  for (const char *trap : {"trap '' XFSZ; ", ""}) {
    const std::string line = std::string(trap) + "ulimit -c 0; ulimit -f 4; exec \"$@\"";  // 2,048 bytes
    const Outcome outcome =
        RunProgram({"/bin/sh", "-c", line, "sh", ACORN_PROGRAM, "run", model_, "--load", saved, "-n", "2", "--save", saved});
    EXPECT_EQ(outcome.code, *trap == 0 ? -1 : 5) << outcome.err;
    if (*trap != 0) {
      EXPECT_NE(outcome.err.find("cannot save to " + saved), std::string::npos) << outcome.err;
      EXPECT_EQ(FilesNamed("saved"), 1u);
    }
    EXPECT_EQ(ReadFile(saved), before);
  }
}

TEST_F(SavedConversations, LinksAndModesStay) {
  const std::string fresh = folder_.File("fresh"), shared = folder_.Write("shared", "old"), link = folder_.File("link");
  ASSERT_EQ(chmod(shared.c_str(), 0644), 0);
  std::filesystem::create_symlink("shared", link);
  ExpectDone(Run({"-p", "the lamp", "-n", "4", "--save", fresh}));
  ExpectDone(Run({"-p", "the lamp", "-n", "4", "--save", link}));
  EXPECT_EQ(ReadFile(shared), ReadFile(fresh));
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(ModeOf(shared), 0644u);
  EXPECT_EQ(ModeOf(fresh), 0600u);
}

TEST_F(SavedConversations, TheRateIsTheFilesUnlessOneIsNamed) {
  ModelSpec spec = TalkingSpec();
  spec.profiles = {{25, {0, 0, 32, 0, 0}}};
  const std::string elastic = folder_.File("elastic.acorn"), saved = folder_.File("saved");
  ASSERT_TRUE(WriteModel(BuildModel(spec), elastic));
  ExpectDone({"run", elastic, "-p", "the lamp", "-n", "4", "--rate", "25", "--save", saved});
  const auto rate_of = [&](const Words &more) {
    Words words = {"run", elastic, "--load", saved, "-n", "2", "--stats", "--threads", "1"};
    words.insert(words.end(), more.begin(), more.end());
    const std::string said = Acorn(words).err;
    return said.find("rate 25 %") != std::string::npos ? 25 : 0;
  };
  EXPECT_EQ(rate_of({}), 25);
  EXPECT_EQ(rate_of({"--rate", "0"}), 0);
  EXPECT_EQ(rate_of({"--rate", "25"}), 25);
}

TEST_F(SavedConversations, AChatSavesAndGoesBack) {
  const std::string first = folder_.File("a b"), last = folder_.File("last"), again = folder_.File("again");
  const Words words = {"chat", "MODEL", "-n", "4", "--threads", "1"};
  const Outcome plain = Acorn(words, "hello\nthe lamp\n");
  const Outcome back = Acorn({"chat", "MODEL", "-n", "4", "--threads", "1", "--save", last},
                             "hello\n/save " + first + "\n/reset\nthe door\n/load " + first + "\nthe lamp\n/quit\n");
  EXPECT_EQ(back.code, 0) << back.err;
  EXPECT_EQ(back.err, "");
  const Outcome door = Acorn(words, "the door\n");
  const size_t turn = plain.out.find('\n') + 1;
  EXPECT_EQ(back.out, plain.out.substr(0, turn) + door.out + plain.out.substr(turn));
  const Outcome later = Acorn({"chat", "MODEL", "-n", "4", "--threads", "1", "--load", first, "--save", again}, "the lamp\n");
  EXPECT_EQ(later.out, plain.out.substr(turn));
  EXPECT_EQ(ReadFile(again), ReadFile(last));
  // What fails is said, and the conversation goes on.
  const Outcome wrong = Acorn(words, "hello\n/load " + model_ + "\n/load\n/save\n/save /dev/full\nthe lamp\n");
  EXPECT_EQ(wrong.code, 0);
  EXPECT_EQ(wrong.out, plain.out);
  EXPECT_EQ(std::count(wrong.err.begin(), wrong.err.end(), '\n'), 4) << wrong.err;
}

}  // namespace
}  // namespace acorn::test
