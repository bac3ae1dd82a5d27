// Just enough JSON: a writer for reports, and a reader for lines of an evaluation file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace acorn::program {

/// Writes an object in one line. Keys come in the order of the calls.
class JsonWriter {
 public:
  JsonWriter() : text_("{") {}
  void Text(const char *key, const std::string &value);
  void Number(const char *key, uint64_t value);
  void Decimal(const char *key, double value);
  void Hex(const char *key, uint64_t value);
  /// `value` is JSON already.
  void Raw(const char *key, const std::string &value);
  /// The object; call once.
  std::string Finish() { return text_ + "}"; }

 private:
  void Key(const char *key);
  std::string text_;
};

std::string JsonQuoted(const std::string &text);

/// True for one whole object and nothing behind it.
bool IsJsonObject(const std::string &line);
/// Finds a member of an object, given as one line of text, whose value is a string.
/// Returns false if the line is no object or has no such member; other members may hold any JSON.
bool FindJsonText(const std::string &line, const char *key, std::string *value);
/// The same for an array of strings, which may be empty; an array that holds anything else is not found.
bool FindJsonTexts(const std::string &line, const char *key, std::vector<std::string> *values);
/// The same for a whole number that int64 holds, written without fraction and exponent.
bool FindJsonInteger(const std::string &line, const char *key, int64_t *value);

}  // namespace acorn::program
