#include "import/json_reader.h"

#include <algorithm>

#include "base/error.h"

namespace acorn::compiler {

using nlohmann::json;

namespace {

constexpr int kMostLevels = 64;  // far above what any format has; values are copied and walked by recursion

// Objects and arrays in one another. What is no JSON may have any number of them, and is found later.
int LevelsOf(std::string_view text) {
  int level = 0, most = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') in_string = !in_string;
    if (in_string && c == '\\') ++i;
    if (in_string) continue;
    if (c == '{' || c == '[') most = std::max(most, ++level);
    if (c == '}' || c == ']') --level;
  }
  return most;
}

}  // namespace

json ParseJsonObject(std::string_view text, const std::string &what) {
  if (LevelsOf(text) > kMostLevels) {
    throw Error(ExitCode::kBadModel, what + ": more than " + std::to_string(kMostLevels) + " objects and arrays in one another");
  }
  try {
    json value = json::parse(text.begin(), text.end());
    if (!value.is_object()) throw Error(ExitCode::kBadModel, what + ": is no JSON object");
    return value;
  } catch (const json::parse_error &fault) {
    throw Error(ExitCode::kBadModel, what + ": is no valid JSON at byte " + std::to_string(fault.byte));
  } catch (const json::out_of_range &) {
    throw Error(ExitCode::kBadModel, what + ": holds a number that is out of range");
  }
}

const json *JsonReader::Find(const char *key) const {
  const auto found = object_->find(key);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

std::optional<int64_t> JsonReader::FindInteger(const char *key) const {
  const json *value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number_integer()) Bad(std::string(key) + " is no integer");
  if (value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX) Bad(std::string(key) + " is out of range");
  return value->get<int64_t>();
}

std::optional<double> JsonReader::FindReal(const char *key) const {
  const json *value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) Bad(std::string(key) + " is no number");
  return value->get<double>();
}

std::optional<bool> JsonReader::FindBool(const char *key) const {
  const json *value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) Bad(std::string(key) + " is neither true nor false");
  return value->get<bool>();
}

std::optional<std::string> JsonReader::FindString(const char *key) const {
  const json *value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) Bad(std::string(key) + " is no string");
  return value->get<std::string>();
}

std::optional<JsonReader> JsonReader::FindObject(const char *key) const {
  const json *value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) Bad(std::string(key) + " is no object");
  return JsonReader(*value, what_ + ": " + key);
}

int64_t JsonReader::Integer(const char *key) const {
  const std::optional<int64_t> value = FindInteger(key);
  if (!value) Bad(std::string(key) + " is missing");
  return *value;
}

double JsonReader::Real(const char *key) const {
  const std::optional<double> value = FindReal(key);
  if (!value) Bad(std::string(key) + " is missing");
  return *value;
}

std::string JsonReader::String(const char *key) const {
  const std::optional<std::string> value = FindString(key);
  if (!value) Bad(std::string(key) + " is missing");
  return *value;
}

void JsonReader::Bad(const std::string &message) const { throw Error(ExitCode::kBadModel, what_ + ": " + message); }

}  // namespace acorn::compiler
