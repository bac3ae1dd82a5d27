// Changes JSON by its values: one becomes another, goes, or is put where another was. Text that is no JSON, and one in four that is,
// is changed as bytes. For fuzz targets of importers.
#pragma once

#include <nlohmann/json.hpp>

#include "tests/fuzz/fuzz.h"

namespace acorn::fuzz {

/// Where the values of a document stand, the whole of it first.
inline void CollectValues(nlohmann::json *value, std::vector<nlohmann::json *> *all) {
  all->push_back(value);
  if (!value->is_structured()) return;
  for (nlohmann::json &inner : *value) CollectValues(&inner, all);
}

inline nlohmann::json SomeValue(Chooser *chooser, const nlohmann::json &old) {
  using nlohmann::json;
  if (old.is_number_unsigned() && chooser->OneIn(2)) return chooser->Number(old.get<uint64_t>(), 8);
  if (old.is_boolean()) return !old.get<bool>();
  switch (chooser->Below(14)) {
    case 0: return nullptr;
    case 1: return chooser->OneIn(2);
    case 2: return static_cast<int64_t>(chooser->Number(0, 8));
    case 3: return chooser->Number(0, 4);
    case 4: return -1;
    case 5: return std::string(chooser->Below(4), static_cast<char>('a' + chooser->Below(3)));
    case 6: return json::array();
    case 7: return json::object();
    case 8: return json::array({old, old});
    case 9: return json::object({{"type", "Sequence"}, {"a", old}});
    case 10: return 1e308;
    case 11: return 1e-320;
    case 12: return -0.5;
    default: return static_cast<double>(chooser->Below(1000)) / 7;
  }
}

inline void ChangeText(std::string *text, size_t longest) {
  const size_t size = std::min(text->size(), longest);
  text->resize(longest);
  text->resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t *>(text->data()), size, longest));
}

inline void ChangeJson(Chooser *chooser, std::string *text, size_t longest) {
  nlohmann::json root = nlohmann::json::parse(*text, nullptr, false);
  if (root.is_discarded() || chooser->OneIn(4)) return ChangeText(text, longest);
  for (uint64_t i = 0; i <= chooser->Below(3); ++i) {
    std::vector<nlohmann::json *> values;
    CollectValues(&root, &values);
    nlohmann::json *value = values[chooser->Below(values.size())];
    if (value->is_structured() && !value->empty() && chooser->OneIn(2)) {
      auto at = value->begin();
      std::advance(at, static_cast<int64_t>(chooser->Below(value->size())));
      value->erase(at);
    } else if (chooser->OneIn(4)) {
      const nlohmann::json other = *values[chooser->Below(values.size())];
      *value = other;
    } else {
      *value = SomeValue(chooser, *value);
    }
  }
  std::string changed = root.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (changed.size() <= longest) *text = std::move(changed);
}

}  // namespace acorn::fuzz
