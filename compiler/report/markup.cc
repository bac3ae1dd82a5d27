#include "report/markup.h"

#include <cassert>

namespace acorn::compiler {
namespace {

/// Control characters have no place in HTML, and come only from damaged names.
void AppendEscaped(std::string *out, std::string_view text) {
  for (const char c : text) {
    if (c == '&')
      *out += "&amp;";
    else if (c == '<')
      *out += "&lt;";
    else if (c == '>')
      *out += "&gt;";
    else if (c == '"')
      *out += "&quot;";
    else if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t')
      *out += "\xef\xbf\xbd";
    else
      *out += c;
  }
}

}  // namespace

void Markup::Begin(const char *name, const Attributes &attributes) {
  text_ += '<';
  text_ += name;
  for (const auto &[key, value] : attributes) {
    text_ += ' ';
    text_ += key;
    text_ += "=\"";
    AppendEscaped(&text_, value);
    text_ += '"';
  }
}

Markup &Markup::Open(const char *name, const Attributes &attributes) {
  Begin(name, attributes);
  text_ += '>';
  open_.push_back(name);
  return *this;
}

Markup &Markup::Close() {
  assert(!open_.empty());
  text_ += std::string("</") + open_.back() + ">\n";
  open_.pop_back();
  return *this;
}

Markup &Markup::Element(const char *name, std::string_view text, const Attributes &attributes) {
  Begin(name, attributes);
  text_ += '>';
  AppendEscaped(&text_, text);
  text_ += std::string("</") + name + ">";
  return *this;
}

Markup &Markup::Empty(const char *name, const Attributes &attributes) {
  Begin(name, attributes);
  text_ += "/>\n";
  return *this;
}

Markup &Markup::Text(std::string_view text) {
  AppendEscaped(&text_, text);
  return *this;
}

Markup &Markup::Verbatim(std::string_view text) {
  text_ += text;
  return *this;
}

const std::string &Markup::text() const {
  assert(open_.empty());
  return text_;
}

}  // namespace acorn::compiler
