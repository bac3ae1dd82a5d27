// JsonReader: typed access to a JSON object of a source model, with messages that name the file and the key.
// A key whose value is null counts as absent.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace acorn::compiler {

/// Parses an object; Error(kBadModel) with path, what and byte offset when it is none, holds a number that no double is, or objects
/// and arrays in one another without end.
nlohmann::json ParseJsonObject(std::string_view text, const std::string &what);

class JsonReader {
 public:
  /// `what` stands before each message: the path, or path and enclosing key. `object` must outlive the reader.
  JsonReader(const nlohmann::json &object, std::string what) : object_(&object), what_(std::move(what)) {}

  bool Has(const char *key) const { return Find(key) != nullptr; }
  std::optional<int64_t> FindInteger(const char *key) const;
  std::optional<double> FindReal(const char *key) const;
  std::optional<bool> FindBool(const char *key) const;
  std::optional<std::string> FindString(const char *key) const;
  /// Null when absent; any type.
  const nlohmann::json *Find(const char *key) const;
  /// An object under `key`, or nothing.
  std::optional<JsonReader> FindObject(const char *key) const;

  int64_t Integer(const char *key) const;
  double Real(const char *key) const;
  std::string String(const char *key) const;

  [[noreturn]] void Bad(const std::string &message) const;
  const std::string &what() const { return what_; }
  const nlohmann::json &object() const { return *object_; }

 private:
  const nlohmann::json *object_;
  std::string what_;
};

}  // namespace acorn::compiler
