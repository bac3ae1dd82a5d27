// The reference run of a model file: what libacorn.a's portable kernels compute for a few ids, kept in the file so that a device
// can prove itself (docs/ARITHMETIC.md §13). What a run is, the library says (acorn_session_record); here are its ids and bytes.
#pragma once

#include <string>

namespace acorn::compiler {

/// Writes the model file `from` with a new reference run to `to`, which may be `from` again. Segments keep their bytes and their
/// distances. The run: 32 random ids as the prompt, 16 generated ones, the last 8 of them drawn; fewer in a smaller context. A
/// context of one token has no room for a run: such a file keeps none. The same file gives the same bytes everywhere.
/// Throws Error: kIo, kBadModel (`from` is no sound model file), kMemory.
void RecordReferenceRun(const std::string &from, const std::string &to);

}  // namespace acorn::compiler
