#include "trust.h"

#include <sys/stat.h>

#include <cerrno>
#include <cinttypes>

#include "acorn_signature.h"
#include "error.h"
#include "statistics.h"

namespace acorn::program {

void AddTrustOption(Arguments *arguments, std::string *key_path) {
  arguments->Text("--trust", key_path, "file with a public key: refuse the model unless FILE.sig is its signature by this key");
}

void CheckSignature(const std::string &path, const std::string &key_path, const std::function<void(const TakePiece &)> &pieces) {
  const std::string signature_path = path + ".sig";
  struct stat facts = {};
  if (stat(signature_path.c_str(), &facts) != 0 && errno == ENOENT) {
    Fail(ExitCode::kModel, "%s is not signed: there is no %s", path.c_str(), signature_path.c_str());
  }
  const std::string key = ReadWholeFile(key_path), text = ReadWholeFile(signature_path);
  acorn_signature signature;
  acorn_signature_status status = acorn_signature_begin(&signature, key.data(), key.size(), text.data(), text.size());
  if (status == ACORN_SIGNATURE_OK) {
    pieces([&](const uint8_t *data, size_t bytes) { acorn_signature_update(&signature, data, bytes); });
    status = acorn_signature_end(&signature);
  }
  switch (status) {
    case ACORN_SIGNATURE_OK: return;
    case ACORN_SIGNATURE_ERR_KEY: Fail(ExitCode::kUsage, "--trust %s: %s", key_path.c_str(), acorn_signature_text(status));
    case ACORN_SIGNATURE_ERR_FORM: Fail(ExitCode::kModel, "%s: %s", signature_path.c_str(), acorn_signature_text(status));
    case ACORN_SIGNATURE_ERR_OTHER_KEY:
      Fail(ExitCode::kModel, "%s: %s, %016" PRIX64 "; that of --trust %s is %016" PRIX64, path.c_str(), acorn_signature_text(status),
           signature.signer_id, key_path.c_str(), signature.key_id);
    case ACORN_SIGNATURE_ERR_ALTERED: Fail(ExitCode::kModel, "%s: %s", path.c_str(), acorn_signature_text(status));
    default: Fail(ExitCode::kUsage, "--trust: %s", acorn_signature_text(status));
  }
}

}  // namespace acorn::program
