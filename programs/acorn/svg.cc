#include "svg.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "error.h"
#include "output_file.h"

namespace acorn::program {
namespace {

std::string Escaped(const std::string &text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else
      out += c;
  }
  return out;
}

}  // namespace

std::string SvgHead(int width, int height) {
  char text[256];
  std::snprintf(text, sizeof text,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" "
                "font-size=\"13\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
                width, height);
  return text;
}

std::string SvgText(double x, double y, const char *style, const std::string &text) {
  char head[160];
  std::snprintf(head, sizeof head, "<text x=\"%g\" y=\"%g\" %s>", x, y, style);
  return head + Escaped(text) + "</text>\n";
}

void WriteSvg(const std::string &path, const std::string &svg) {
  std::FILE *file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) Fail(ExitCode::kIo, "%s: %s", path.c_str(), std::strerror(errno));
  int error = std::fwrite(svg.data(), 1, svg.size(), file) == svg.size() ? 0 : errno;
  if (std::fclose(file) != 0 && error == 0) error = errno;
  if (error != 0) {
    RemoveFile(path);
    Fail(ExitCode::kIo, "%s: cannot be written: %s", path.c_str(), std::strerror(error));
  }
}

}  // namespace acorn::program
