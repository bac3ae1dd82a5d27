// Markup: HTML and inline SVG, element by element. Text and attributes are escaped here and nowhere else, and what is opened
// is closed, so that no name out of a model can break a page.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace acorn::compiler {

class Markup {
 public:
  using Attributes = std::vector<std::pair<const char *, std::string>>;

  /// Begins an element, which Close() ends.
  Markup &Open(const char *name, const Attributes &attributes = {});
  Markup &Close();
  /// A whole element with text in it.
  Markup &Element(const char *name, std::string_view text, const Attributes &attributes = {});
  /// An element that holds nothing.
  Markup &Empty(const char *name, const Attributes &attributes);
  Markup &Text(std::string_view text);
  /// Our own text as it is: a style sheet.
  Markup &Verbatim(std::string_view text);

  /// Everything so far; nothing may be open.
  const std::string &text() const;

 private:
  void Begin(const char *name, const Attributes &attributes);

  std::string text_;
  std::vector<const char *> open_;
};

}  // namespace acorn::compiler
