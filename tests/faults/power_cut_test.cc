// Whatever happens to a program that writes a file, the file under its name is the old one or the new one, whole; and where the
// program can speak, it says what failed and leaves nothing behind.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include "tests/faults/system_calls.h"
#include "tests/support/temp_folder.h"

namespace acorn::test {
namespace {

using Words = std::vector<std::string>;
using Kind = CallFault::Kind;

constexpr int kExitIo = 5;

class PowerCut : public testing::Test {
 protected:
  std::string target() const { return folder_.File(target_); }

  /// `command`: writes target(), in a folder where there is nothing else but inputs_.
  void Sweep(const Words &command) {
    words_ = command;
    TracedOutcome undisturbed;
    if (!RunTraced(words_, {}, &undisturbed)) GTEST_SKIP() << "nothing can be traced here";
    ASSERT_EQ(undisturbed.code, 0) << undisturbed.err;
    new_ = ReadFile(target());
    ASSERT_NE(new_, "");
    ASSERT_EQ(Files(), std::set<std::string>{target_});
    const std::vector<std::string> &calls = undisturbed.calls;
    for (const char *call : {"open", "write", "fsync", "close", "rename"}) {
      EXPECT_NE(std::count(calls.begin(), calls.end(), call), 0) << call;
    }
    for (size_t i = 0; i < calls.size(); ++i) {
      const bool write = calls[i] == "write";
      ExpectError(i + 1, calls[i], ENOSPC);
      if (!write) ExpectError(i + 1, calls[i], EIO);
      if (write) ExpectShort(i + 1);
      ExpectInterrupted(i + 1);
      // Last: what it leaves in the folder the next run must not stumble over.
      ExpectCut(i + 1, calls[i], true);
      if (!write) ExpectCut(i + 1, calls[i], false);
    }
    RecordProperty("calls", static_cast<int>(calls.size()));
  }

  TempFolder folder_;
  std::string target_ = "target";
  std::set<std::string> inputs_;

 private:
  /// But those that are read.
  std::set<std::string> Files() const {
    std::set<std::string> names;
    for (const auto &entry : std::filesystem::directory_iterator(folder_.path())) names.insert(entry.path().filename());
    for (const std::string &input : inputs_) names.erase(input);
    return names;
  }
  void RemoveOthers() const {
    for (const std::string &name : Files()) {
      if (name != target_) std::filesystem::remove(folder_.File(name));
    }
  }
  TracedOutcome RunWith(Kind kind, uint64_t number, int error = 0) const {
    TracedOutcome outcome;
    EXPECT_TRUE(RunTraced(words_, {kind, number, error}, &outcome));
    return outcome;
  }
  void PutOld() const { folder_.Write(target_, kOld); }
  void ExpectWhole(const std::string &where, bool was_there) const {
    if (!was_there && !std::filesystem::exists(target())) return;
    const std::string found = ReadFile(target());
    EXPECT_TRUE(found == new_ || (was_there && found == kOld)) << where << ": " << found.size() << " bytes";
  }
  void ExpectClean(const std::string &where) const { EXPECT_EQ(Files(), std::set<std::string>{target_}) << where; }

  void ExpectCut(uint64_t number, const std::string &call, bool was_there) const {
    const std::string where = "power cut at " + call + " " + std::to_string(number);
    if (was_there) {
      PutOld();
    } else {
      std::filesystem::remove(target());
    }
    EXPECT_EQ(RunWith(Kind::kPowerCut, number).code, -1) << where;
    ExpectWhole(where, was_there);
    const TracedOutcome next = RunWith(Kind::kNone, 0);
    EXPECT_EQ(next.code, 0) << where << ": " << next.err;
    EXPECT_EQ(ReadFile(target()), new_) << where;
    RemoveOthers();
  }
  void ExpectError(uint64_t number, const std::string &call, int error) const {
    const std::string where = std::string(std::strerror(error)) + " at " + call + " " + std::to_string(number);
    PutOld();
    const TracedOutcome outcome = RunWith(Kind::kError, number, error);
    ExpectWhole(where, true);
    // What could not be removed stays, and what is kept on purpose is named.
    if (call == "unlink" || outcome.err.find("the model without its reference run is in " + target()) != std::string::npos) {
      RemoveOthers();
    } else {
      ExpectClean(where);
    }
    if (outcome.code == 0) {
      EXPECT_EQ(ReadFile(target()), new_) << where;
      EXPECT_TRUE(call == "unlink" || call == "close") << where << " is not noticed";
      return;
    }
    EXPECT_EQ(outcome.code, kExitIo) << where << ": " << outcome.err;
    EXPECT_NE(outcome.err.find(target()), std::string::npos) << where << ": " << outcome.err;
    EXPECT_NE(outcome.err.find(std::strerror(error)), std::string::npos) << where << ": " << outcome.err;
  }
  void ExpectShort(uint64_t number) const {
    PutOld();
    const TracedOutcome outcome = RunWith(Kind::kShort, number);
    EXPECT_EQ(outcome.code, 0) << "short write " << number << ": " << outcome.err;
    EXPECT_EQ(ReadFile(target()), new_) << "short write " << number;
  }
  // What a signal interrupts goes on; opening, which is interrupted on network file systems alone, may fail, and then all of it.
  void ExpectInterrupted(uint64_t number) const {
    PutOld();
    const TracedOutcome outcome = RunWith(Kind::kError, number, EINTR);
    ASSERT_GE(outcome.calls.size(), number);
    const std::string call = outcome.calls[number - 1];  // with an old file there are others than without
    const std::string where = "interrupted at " + call + " " + std::to_string(number);
    const bool must_go_on = call == "write" || call == "fsync" || call == "close";
    EXPECT_TRUE(outcome.code == 0 || (!must_go_on && outcome.code == kExitIo)) << where << ": " << outcome.code << " " << outcome.err;
    ExpectWhole(where, true);
    if (outcome.code == 0) {
      EXPECT_EQ(ReadFile(target()), new_) << where;
    }
    RemoveOthers();
  }

  static constexpr const char *kOld = "the old file";
  Words words_;
  std::string new_;
};

TEST_F(PowerCut, AConversationIsSaved) {
  const std::string model = std::string(ACORN_SOURCE_DIR) + "/examples/models/home.acorn";
  Sweep({ACORN_PROGRAM, "run", model, "--chat", "-p", "hi", "-n", "2", "--threads", "1", "--context", "64", "--save", target()});
}

#if defined(ACORN_COMPILER)
TEST_F(PowerCut, AModelIsConverted) {
  const std::string source = std::string(ACORN_SOURCE_DIR) + "/tests/data/small_mixtral.gguf";
  Sweep({ACORN_COMPILER, "convert", source, "-o", target(), "--recipe", "rtn", "--threads", "1"});
}

class PowerCutOfSignatures : public PowerCut {
 protected:
  void SetUp() override {
    TracedOutcome outcome;
    if (!RunTraced({ACORN_COMPILER, "keygen", "--help"}, {}, &outcome)) GTEST_SKIP() << "nothing can be traced here";
    if (outcome.code != 0) GTEST_SKIP() << "this acornc was built without libsodium";
  }
  static int Exit(const Words &words, std::string *err = nullptr) {
    TracedOutcome outcome;
    EXPECT_TRUE(RunTraced(words, {}, &outcome));
    if (err != nullptr) *err = outcome.err;
    return outcome.code;
  }
  static std::string Model() { return ReadFile(std::string(ACORN_SOURCE_DIR) + "/schema/golden/v0.acorn"); }
};

TEST_F(PowerCutOfSignatures, AModelIsSigned) {
  const TempFolder keys;
  ASSERT_EQ(Exit({ACORN_COMPILER, "keygen", "-o", keys.File("mine")}), 0);
  target_ = "model.sig";
  inputs_ = {"model"};
  Sweep({ACORN_COMPILER, "sign", folder_.Write("model", Model()), "--key", keys.File("mine.key")});
}

// A key is never written over, so it is written under its name: what a power cut leaves is whole, or a beginning that no signature is
// made with and that no other key takes the place of.
TEST_F(PowerCutOfSignatures, APairOfKeysIsMade) {
  const TempFolder folder;
  const std::string model = folder.Write("model", Model()), name = folder.File("mine"), key = name + ".key", pub = name + ".pub";
  const Words keygen = {ACORN_COMPILER, "keygen", "-o", name}, sign = {ACORN_COMPILER, "sign", model, "--key", key};
  const auto clear = [&] {
    for (const std::string &path : {key, pub, model + ".sig"}) std::filesystem::remove(path);
  };
  const auto whole = [](const std::string &path, size_t bytes) { return ReadFile(path).size() == bytes; };
  TracedOutcome undisturbed;
  ASSERT_TRUE(RunTraced(keygen, {}, &undisturbed));
  ASSERT_EQ(undisturbed.code, 0) << undisturbed.err;
  ASSERT_EQ(Exit(sign), 0);
  const size_t key_bytes = ReadFile(key).size(), pub_bytes = ReadFile(pub).size();
  clear();
  const std::vector<std::string> &calls = undisturbed.calls;
  ASSERT_EQ(std::count(calls.begin(), calls.end(), "open"), 2);
  for (uint64_t number = 1; number <= calls.size(); ++number) {
    const std::string call = calls[number - 1];
    for (const CallFault &fault : {CallFault{Kind::kPowerCut, number, 0}, CallFault{Kind::kError, number, ENOSPC},
                                   CallFault{Kind::kError, number, EINTR}, CallFault{Kind::kShort, number, 0}}) {
      const std::string where = call + " " + std::to_string(number) + ", error " + std::to_string(fault.error);
      TracedOutcome outcome;
      ASSERT_TRUE(RunTraced(keygen, fault, &outcome));
      std::string err;
      if (fault.kind == Kind::kPowerCut) {
        EXPECT_EQ(outcome.code, -1) << where;
        if (std::filesystem::exists(key)) {
          EXPECT_EQ(Exit(sign), whole(key, key_bytes) ? 0 : 2) << where;
          EXPECT_EQ(Exit(keygen, &err), kExitIo) << where;
          EXPECT_NE(err.find(key + ": " + std::strerror(EEXIST)), std::string::npos) << err;
        }
      } else if (outcome.code == 0) {
        EXPECT_TRUE(fault.error != ENOSPC || call == "close") << where << " is not noticed";
        EXPECT_TRUE(whole(key, key_bytes) && whole(pub, pub_bytes)) << where;
        EXPECT_EQ(Exit(sign), 0) << where;
      } else {
        EXPECT_EQ(outcome.code, kExitIo) << where << ": " << outcome.err;
        EXPECT_TRUE(fault.error == ENOSPC || call == "open") << where << " is no reason to fail";
        EXPECT_NE(outcome.err.find(name), std::string::npos) << where << ": " << outcome.err;
        EXPECT_NE(outcome.err.find(std::strerror(fault.error)), std::string::npos) << where << ": " << outcome.err;
        EXPECT_FALSE(std::filesystem::exists(key) || std::filesystem::exists(pub)) << where;
      }
      clear();
    }
  }
}
#endif

}  // namespace
}  // namespace acorn::test
