// A model file that is cut short while it is in use. Read in place, the next touch of what is gone is SIGBUS (docs/SECURITY.md), which
// `acorn` turns into a message; streamed, it is a read that came short.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "acorn.h"
#include "acorn_posix.h"
#include "tests/support/temp_folder.h"

namespace acorn::test {
namespace {

std::string ModelBytes(const std::string &name) { return ReadFile(std::string(ACORN_SOURCE_DIR) + "/examples/models/" + name); }

// What is there at open decides how much is mapped, and a file shorter than its header says is refused then, at any length.
TEST(CutFile, BeforeItIsOpened) {
  const TempFolder folder;
  const std::string whole = ModelBytes("home.acorn");
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{63}, size_t{64}, size_t{4096}, whole.size() / 2, whole.size() - 1}) {
    const std::string path = folder.Write("model", whole.substr(0, bytes));
    acorn_posix_file file = {};
    ASSERT_EQ(acorn_posix_open_file(&file, path.c_str(), ACORN_POSIX_MAP), 0);
    EXPECT_EQ(file.bytes, bytes);
    const acorn_image image = {file.data, file.bytes};
    acorn_memory_plan plan = {};
    acorn_status expected = ACORN_ERR_TRUNCATED;
    if (bytes == 0) expected = ACORN_ERR_ARGUMENT;  // no file has no address
    if (bytes == 1) expected = ACORN_ERR_FOREIGN;
    EXPECT_EQ(acorn_plan(&plan, nullptr, &image, nullptr, nullptr), expected) << bytes;
    acorn_posix_close_file(&file);
  }
}

[[noreturn]] void PlanACutMapping(const std::string &path) {
  signal(SIGBUS, SIG_DFL);  // a sanitizer's would end the process otherwise
  acorn_posix_file file = {};
  if (acorn_posix_open_file(&file, path.c_str(), ACORN_POSIX_MAP) != 0 || truncate(path.c_str(), 4096) != 0) _exit(1);
  const acorn_image image = {file.data, file.bytes};
  acorn_memory_plan plan = {};
  _exit(acorn_plan(&plan, nullptr, &image, nullptr, nullptr) == ACORN_OK ? 2 : 3);
}

TEST(CutFileDeathTest, AMappedOneIsSigbus) {
  const TempFolder folder;
  const std::string path = folder.Write("model", ModelBytes("home.acorn"));
  EXPECT_EXIT(PlanACutMapping(path), testing::KilledBySignal(SIGBUS), "");
}

TEST(CutFile, ACopiedOneIsNotTouched) {
  const TempFolder folder;
  const std::string whole = ModelBytes("home.acorn"), path = folder.Write("model", whole);
  acorn_posix_file file = {};
  ASSERT_EQ(acorn_posix_open_file(&file, path.c_str(), ACORN_POSIX_COPY), 0);
  ASSERT_EQ(truncate(path.c_str(), 0), 0);
  EXPECT_TRUE(std::string(static_cast<const char *>(file.data), file.bytes) == whole);
  acorn_posix_close_file(&file);
}

/// `acorn chat` with a line and its answer behind it, and the next line still to come.
class Chat {
 public:
  explicit Chat(std::vector<std::string> words) {
    words.insert(words.begin(), {ACORN_PROGRAM, "chat"});
    int in[2], out[2], err[2];
    EXPECT_EQ(pipe2(in, O_CLOEXEC) + pipe2(out, O_CLOEXEC) + pipe2(err, O_CLOEXEC), 0);
    std::vector<char *> arguments;
    for (const std::string &word : words) arguments.push_back(const_cast<char *>(word.c_str()));
    arguments.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(in[0], STDIN_FILENO);
      dup2(out[1], STDOUT_FILENO);
      dup2(err[1], STDERR_FILENO);
      execv(arguments[0], arguments.data());
      _exit(126);
    }
    close(in[0]), close(out[1]), close(err[1]);
    in_ = in[1], out_ = out[0], err_ = err[0];
  }
  ~Chat() { close(in_), close(out_), close(err_); }

  /// Returns the answer's first line.
  std::string Ask(const std::string &line) {
    const std::string text = line + "\n";
    EXPECT_EQ(write(in_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
    std::string answer;
    for (char c; read(out_, &c, 1) == 1 && c != '\n';) answer += c;
    return answer;
  }
  /// The exit code; −1: a signal.
  int End(std::string *error) {
    for (char c; read(err_, &c, 1) == 1;) *error += c;
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t pid_ = 0;
  int in_ = -1, out_ = -1, err_ = -1;
};

void ExpectMessage(const std::string &model, const std::vector<std::string> &options, uint64_t left, const std::string &text) {
  const TempFolder folder;
  const std::string path = folder.Write("model", ModelBytes(model));
  std::vector<std::string> words = {path};
  words.insert(words.end(), options.begin(), options.end());
  Chat chat(words);
  EXPECT_NE(chat.Ask("turn on the lamp in the kitchen"), "");
  ASSERT_EQ(truncate(path.c_str(), static_cast<off_t>(left)), 0);
  EXPECT_EQ(chat.Ask("turn on the heater"), "");
  std::string error;
  EXPECT_EQ(chat.End(&error), 5) << error;
  EXPECT_NE(error.find(path + ": " + text), std::string::npos) << error;
}

TEST(CutFile, TheProgramSaysSo) { ExpectMessage("home.acorn", {"--threads", "2"}, 64, "cannot be read any more: it was cut short"); }

TEST(CutFile, TheProgramSaysSoOfExperts) {
  const std::string start = ModelBytes("moe.acorn").substr(0, ACORN_HEADER_BYTES);
  uint64_t resident = 0;
  ASSERT_EQ(acorn_image_resident(&resident, start.data(), start.size()), static_cast<acorn_status>(ACORN_OK));
  ExpectMessage("moe.acorn", {"--threads", "1", "--expert-cache", "200K"}, resident, "reading the line: a read of the model file failed (expert ");
}

}  // namespace
}  // namespace acorn::test
