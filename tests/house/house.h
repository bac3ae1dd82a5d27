// Reading the repository's own files, for the tests of this folder.
#pragma once

#include <string>
#include <vector>

namespace acorn::house {

struct File {
  std::string path;  // from the repository's root, with '/'
  std::vector<std::string> lines;
};

/// All text files of the repository, sorted by path; build folders and hidden folders but .ci are left out.
const std::vector<File> &RepositoryFiles();

/// `lines` with comments and the contents of string and character literals blanked; line numbers stay.
std::vector<std::string> WithoutComments(const std::vector<std::string> &lines);

bool StartsWith(const std::string &text, const std::string &prefix);
bool EndsWith(const std::string &text, const std::string &suffix);
bool IsCode(const std::string &path);  // C, C++, and their .inc files

}  // namespace acorn::house
