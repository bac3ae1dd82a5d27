// The command line of one subcommand: a table of options that fill variables. Small on purpose, so that the device
// program stays small; it knows numbers, sizes with K, M, G, decimals as Q16, choices and texts, and refuses the rest by name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

namespace acorn::program {

/// Tokens of any count or context: what a model without keys and values may reach. One with them says so when it opens.
constexpr uint64_t kLongestContext = uint64_t{1} << 24;

class Arguments {
 public:
  /// usage: what follows the program's name; summary: one sentence.
  Arguments(const char *usage, const char *summary) : usage_(usage), summary_(summary) {}

  void Positional(const char *name, std::string *value);
  /// After all others; left alone where it is not given.
  void OptionalPositional(const char *name, std::string *value);
  void Flag(const char *name, bool *value, const char *help);
  void Number(const char *name, uint64_t low, uint64_t high, uint64_t *value, const char *help);
  /// A number that may have K, M or G behind it (powers of 1,024).
  void Bytes(const char *name, uint64_t *value, const char *help);
  /// A decimal number, rounded to 16 fractional bits.
  void Decimal(const char *name, uint32_t high, uint32_t *q16, const char *help);
  void Text(const char *name, std::string *value, const char *help);
  /// May be given more than once.
  void Texts(const char *name, std::vector<std::string> *values, const char *help);
  /// An option that this build does not have: refused by name, with the reason.
  void Refused(const char *name, const char *why);

  /// Parses what follows the subcommand.  False: --help was asked for and printed.  Throws Failure with the code for bad usage.
  bool Parse(int argc, char **argv);

 private:
  enum class Kind : uint8_t { kFlag, kNumber, kBytes, kDecimal, kText, kTexts, kRefused };
  struct Option {
    const char *name;
    Kind kind;
    void *value;
    uint64_t low, high;
    const char *help;
  };

  void Add(const char *name, Kind kind, void *value, uint64_t low, uint64_t high, const char *help);
  const Option *Find(const std::string &name) const;
  void Set(const Option &option, const char *text);
  void PrintHelp() const;

  const char *usage_, *summary_;
  std::vector<Option> options_;
  std::vector<Option> positionals_;
  size_t required_ = 0;  // of the positionals
};

/// A size such as 300M: K, M and G are powers of 1,024.  False: the text is no such number
bool ParseBytes(const char *text, uint64_t *value);

/// Place of `text` among the names that an option takes.  Throws Failure with the code for bad usage.
uint32_t ChoiceOf(const char *option, const std::string &text, std::initializer_list<const char *> names);

}  // namespace acorn::program
