#include "arguments.h"

#include <cstdio>
#include <cstring>

#include "error.h"

namespace acorn::program {
namespace {

bool ParseDigits(const char **text, uint64_t *value) {
  const char *p = *text;
  *value = 0;
  for (; *p >= '0' && *p <= '9'; ++p) {
    if (__builtin_mul_overflow(*value, uint64_t{10}, value) ||
        __builtin_add_overflow(*value, static_cast<uint64_t>(*p - '0'), value)) {
      return false;
    }
  }
  const bool any = p != *text;
  *text = p;
  return any;
}

bool ParseNumber(const char *text, uint64_t *value) { return ParseDigits(&text, value) && *text == 0; }

// Decimal digits to Q16, rounded half up; digits beyond the ninth of the fraction do not matter.
bool ParseDecimal(const char *text, uint64_t *q16) {
  uint64_t whole = 0, fraction = 0, unit = 1;
  if (*text != '.' && !ParseDigits(&text, &whole)) return false;
  if (*text == '.') {
    const char *begin = ++text;
    for (; *text >= '0' && *text <= '9'; ++text) {
      if (text - begin >= 9) continue;
      fraction = fraction * 10 + static_cast<uint64_t>(*text - '0');
      unit *= 10;
    }
    if (text == begin) return false;
  }
  if (*text != 0 || whole > UINT32_MAX) return false;
  *q16 = (whole << 16) + ((fraction << 16) + unit / 2) / unit;
  return true;
}

}  // namespace

bool ParseBytes(const char *text, uint64_t *value) {
  if (!ParseDigits(&text, value)) return false;
  int shift = 0;
  if (*text != 0) {
    static constexpr char kUnits[] = "KMG";
    const char *unit = std::strchr(kUnits, *text >= 'a' ? *text - 'a' + 'A' : *text);
    if (unit == nullptr || text[1] != 0) return false;
    shift = 10 * static_cast<int>(unit - kUnits + 1);
  }
  if (*value > UINT64_MAX >> shift) return false;
  *value <<= shift;
  return true;
}

void Arguments::Add(const char *name, Kind kind, void *value, uint64_t low, uint64_t high, const char *help) {
  options_.push_back({name, kind, value, low, high, help});
}

void Arguments::Positional(const char *name, std::string *value) {
  OptionalPositional(name, value);
  required_ = positionals_.size();
}
void Arguments::OptionalPositional(const char *name, std::string *value) {
  positionals_.push_back({name, Kind::kText, value, 0, 0, nullptr});
}
void Arguments::Flag(const char *name, bool *value, const char *help) { Add(name, Kind::kFlag, value, 0, 0, help); }
void Arguments::Number(const char *name, uint64_t low, uint64_t high, uint64_t *value, const char *help) {
  Add(name, Kind::kNumber, value, low, high, help);
}
void Arguments::Bytes(const char *name, uint64_t *value, const char *help) { Add(name, Kind::kBytes, value, 0, 0, help); }
void Arguments::Decimal(const char *name, uint32_t high, uint32_t *q16, const char *help) {
  Add(name, Kind::kDecimal, q16, 0, high, help);
}
void Arguments::Text(const char *name, std::string *value, const char *help) { Add(name, Kind::kText, value, 0, 0, help); }
void Arguments::Texts(const char *name, std::vector<std::string> *values, const char *help) {
  Add(name, Kind::kTexts, values, 0, 0, help);
}
void Arguments::Refused(const char *name, const char *why) { Add(name, Kind::kRefused, nullptr, 0, 0, why); }

const Arguments::Option *Arguments::Find(const std::string &name) const {
  for (const Option &option : options_) {
    if (name == option.name) return &option;
  }
  return nullptr;
}

void Arguments::Set(const Option &option, const char *text) {
  uint64_t number = 0;
  switch (option.kind) {
    case Kind::kNumber:
      if (!ParseNumber(text, &number) || number < option.low || number > option.high) {
        Fail(ExitCode::kUsage, "%s %s: a whole number from %llu to %llu is wanted", option.name, text,
             static_cast<unsigned long long>(option.low), static_cast<unsigned long long>(option.high));
      }
      *static_cast<uint64_t *>(option.value) = number;
      return;
    case Kind::kBytes:
      if (!ParseBytes(text, &number)) Fail(ExitCode::kUsage, "%s %s: a size such as 300M is wanted", option.name, text);
      *static_cast<uint64_t *>(option.value) = number;
      return;
    case Kind::kDecimal:
      if (!ParseDecimal(text, &number) || number > option.high << 16) {
        Fail(ExitCode::kUsage, "%s %s: a number from 0 to %llu is wanted", option.name, text,
             static_cast<unsigned long long>(option.high));
      }
      *static_cast<uint32_t *>(option.value) = static_cast<uint32_t>(number);
      return;
    case Kind::kText:
      // As a script's unset variable gives it: taken for no option at all, --trust would check nothing.
      if (*text == 0) Fail(ExitCode::kUsage, "%s: a text that is not empty is wanted", option.name);
      *static_cast<std::string *>(option.value) = text;
      return;
    case Kind::kTexts:
      static_cast<std::vector<std::string> *>(option.value)->push_back(text);
      return;
    case Kind::kFlag:
    case Kind::kRefused:
      return;
  }
}

void Arguments::PrintHelp() const {
  std::printf("usage: acorn %s\n%s\n", usage_, summary_);
  for (const Option &option : options_) {
    if (option.kind == Kind::kRefused) continue;
    const char *value = option.kind == Kind::kFlag      ? ""
                        : option.kind == Kind::kNumber  ? " N"
                        : option.kind == Kind::kBytes   ? " BYTES"
                        : option.kind == Kind::kDecimal ? " X"
                                                        : " TEXT";
    std::printf("  %s%-*s  %s\n", option.name, 24 - static_cast<int>(std::strlen(option.name)), value, option.help);
  }
}

bool Arguments::Parse(int argc, char **argv) {
  size_t positional = 0;
  bool options_end = false;
  for (int i = 0; i < argc; ++i) {
    const std::string word = argv[i];
    if (!options_end && word == "--") {
      options_end = true;
      continue;
    }
    if (options_end || word.size() < 2 || word[0] != '-') {
      if (positional == positionals_.size()) Fail(ExitCode::kUsage, "unexpected argument %s", word.c_str());
      *static_cast<std::string *>(positionals_[positional++].value) = word;
      continue;
    }
    if (word == "--help" || word == "-h") {
      PrintHelp();
      return false;
    }
    const size_t equals = word.compare(0, 2, "--") == 0 ? word.find('=') : std::string::npos;
    const std::string name = word.substr(0, equals);
    const Option *option = Find(name);
    if (option == nullptr) Fail(ExitCode::kUsage, "unknown option %s (acorn %s)", name.c_str(), usage_);
    if (option->kind == Kind::kRefused) Fail(ExitCode::kUsage, "%s: %s", name.c_str(), option->help);
    if (option->kind == Kind::kFlag) {
      if (equals != std::string::npos) Fail(ExitCode::kUsage, "%s takes no value", name.c_str());
      *static_cast<bool *>(option->value) = true;
      continue;
    }
    const char *text = nullptr;
    if (equals != std::string::npos) {
      text = argv[i] + equals + 1;
    } else if (i + 1 < argc) {
      text = argv[++i];
    } else {
      Fail(ExitCode::kUsage, "%s wants a value", name.c_str());
    }
    Set(*option, text);
  }
  if (positional < required_) {
    Fail(ExitCode::kUsage, "%s is missing (acorn %s)", positionals_[positional].name, usage_);
  }
  return true;
}

uint32_t ChoiceOf(const char *option, const std::string &text, std::initializer_list<const char *> names) {
  std::string all;
  for (const char *const &name : names) {
    const auto place = static_cast<size_t>(&name - names.begin());
    if (text == name) return static_cast<uint32_t>(place);
    all += (place == 0 ? "" : place + 1 == names.size() ? " or " : ", ") + std::string(name);
  }
  Fail(ExitCode::kUsage, "%s %s: %s is wanted", option, text.c_str(), all.c_str());
}

}  // namespace acorn::program
