// What happens when a file that is read in place cannot be read any more: somebody has cut it short, or its storage has failed. The
// system says so with SIGBUS, to whichever thread touches the page; there is no going on from there.
#pragma once

#include <string>

#include "acorn_posix.h"

namespace acorn::program {

/// From here on SIGBUS inside `file` ends the process with a message that names `path` and the exit code of an I/O failure. One file
/// at a time; a fault elsewhere ends the process as ever.
void WatchMapping(const acorn_posix_file &file, const std::string &path);

}  // namespace acorn::program
