// --trust: a file is used only where the owner of a public key has signed it (docs/SIGNATURES.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "arguments.h"

namespace acorn::program {

/// Where this build cannot check signatures the option is refused by name.
void AddTrustOption(Arguments *arguments, std::string *key_path);

using TakePiece = std::function<void(const uint8_t *data, size_t bytes)>;

/// Throws Failure unless the key has signed the file's bytes, which `pieces` hands over in order; the signature is path.sig.
void CheckSignature(const std::string &path, const std::string &key_path, const std::function<void(const TakePiece &)> &pieces);

}  // namespace acorn::program
