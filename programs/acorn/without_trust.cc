// A build without libsodium.
#include "error.h"
#include "trust.h"

namespace acorn::program {

void AddTrustOption(Arguments *arguments, std::string *) {
  arguments->Refused("--trust", "this acorn was built without libsodium, which checks signatures");
}

// Nobody comes here: the option is refused.
void CheckSignature(const std::string &, const std::string &, const std::function<void(const TakePiece &)> &) {
  Fail(ExitCode::kUsage, "this acorn was built without libsodium, which checks signatures");
}

}  // namespace acorn::program
