// What libacorn.a asks of the outside: nothing but memcpy and its kin and the compiler's own runtime, so that it links
// on a device without a C++ library, a heap or an operating system.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace acorn::house {
namespace {

std::string OutputOf(const std::string &command) {
  std::string output;
  FILE *pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return output;
  std::array<char, 4096> block{};
  for (size_t n; (n = fread(block.data(), 1, block.size(), pipe)) > 0;) output.append(block.data(), n);
  EXPECT_EQ(pclose(pipe), 0) << command;
  return output;
}

struct Symbol {
  std::string member;
  std::string name;
  char type;
};

/// nm -A -P: "archive[member]: name type value size"
std::vector<Symbol> ArchiveSymbols() {
  std::vector<Symbol> symbols;
  std::istringstream lines(OutputOf(std::string(ACORN_NM) + " -A -P '" + ACORN_ARCHIVE + "'"));
  for (std::string line; std::getline(lines, line);) {
    const size_t open = line.rfind('[');
    const size_t close = line.find("]: ", open);
    if (open == std::string::npos || close == std::string::npos) continue;
    std::istringstream rest(line.substr(close + 3));
    Symbol symbol;
    symbol.member = line.substr(open + 1, close - open - 1);
    rest >> symbol.name >> symbol.type;
    symbols.push_back(symbol);
  }
  return symbols;
}

/// Integer helpers of libgcc and compiler-rt, and what the linker itself defines. None touches memory or a float.
bool IsCompilerRuntime(const std::string &name) {
  static const std::set<std::string> names = {
      "_GLOBAL_OFFSET_TABLE_", "__divti3",    "__modti3",    "__udivti3",   "__umodti3",  "__multi3",
      "__ashlti3",             "__ashrti3",   "__lshrti3",   "__divdi3",    "__moddi3",   "__udivdi3",
      "__umoddi3",             "__udivmoddi4", "__popcountdi2", "__clzdi2", "__ctzdi2",   "__clzsi2",
      "__aeabi_ldivmod",       "__aeabi_uldivmod", "__aeabi_lmul", "__aeabi_llsl", "__aeabi_llsr", "__aeabi_lasr",
      "__aeabi_idiv", "__aeabi_idivmod", "__aeabi_uidiv", "__aeabi_uidivmod"};
#if defined(ACORN_STACK_PROTECTOR)
  if (name.rfind("__stack_chk_", 0) == 0) return true;
#endif
  return names.count(name) != 0;
}

bool IsMemoryFunction(const std::string &name) {
  return name == "memcpy" || name == "memmove" || name == "memset" || name == "memcmp";
}

TEST(Archive, AsksOnlyForMemoryFunctionsAndTheCompilersRuntime) {
  std::set<std::string> defined;
  std::map<std::string, std::string> undefined;  // name -> a member that wants it
  for (const Symbol &symbol : ArchiveSymbols()) {
    if (symbol.type == 'U' || symbol.type == 'w' || symbol.type == 'v') {
      undefined[symbol.name] = symbol.member;
    } else {
      defined.insert(symbol.name);
    }
  }
  ASSERT_FALSE(defined.empty()) << ACORN_ARCHIVE;
  for (const auto &[name, member] : undefined) {
    EXPECT_TRUE(defined.count(name) != 0 || IsMemoryFunction(name) || IsCompilerRuntime(name))
        << member << " wants " << name;
  }
}

TEST(Archive, RunsNothingBeforeMain) {
  std::istringstream lines(OutputOf(std::string(ACORN_OBJDUMP) + " -h '" + ACORN_ARCHIVE + "'"));
  std::string member;
  for (std::string line; std::getline(lines, line);) {
    if (line.find("file format") != std::string::npos) member = line;
    EXPECT_EQ(line.find(" .init_array"), std::string::npos) << member;
    EXPECT_EQ(line.find(" .ctors"), std::string::npos) << member;
  }
}

/// The linker keeps one copy of an inline function: were it the one of an AVX-512 file, older CPUs would fault on it.
TEST(Archive, FilesForOneInstructionSetShareNoInlineFunctions) {
  const std::regex isa_file("^(.*_)?(avx|neon|i8mm|sve|helium|rvv)[a-z0-9_]*\\.cc\\.o$");
  for (const Symbol &symbol : ArchiveSymbols()) {
    if (!std::regex_match(symbol.member, isa_file)) continue;
    EXPECT_TRUE(symbol.type != 'W' && symbol.type != 'V' && symbol.type != 'u') << symbol.member << " defines " << symbol.name;
  }
}

}  // namespace
}  // namespace acorn::house
