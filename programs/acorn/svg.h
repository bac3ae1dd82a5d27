// What the program's pictures have in common.
#pragma once

#include <string>

namespace acorn::program {

/// The head of a picture with a white ground; "</svg>" ends it.
std::string SvgHead(int width, int height);

/// style: further attributes.
std::string SvgText(double x, double y, const char *style, const std::string &text);

/// Throws Failure where the file cannot be written; then there is none.
void WriteSvg(const std::string &path, const std::string &svg);

}  // namespace acorn::program
