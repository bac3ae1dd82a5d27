// acornc keygen and acornc sign: pairs of keys and signatures of model files, in the form of minisign (docs/SIGNATURES.md).
#include <fcntl.h>
#include <sodium.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "acorn.h"
#include "base/buffered_output.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "base/temporary_file.h"
#include "commands/commands.h"
#include "signature/minisign.h"

namespace acorn::compiler {
namespace {

constexpr size_t kIdBytes = ACORN_MINISIGN_ID_BYTES;

/// What a secret key's file holds; wiped when it goes.
struct SecretKey {
  std::array<unsigned char, kIdBytes> id;
  std::array<unsigned char, crypto_sign_SECRETKEYBYTES> key;
  ~SecretKey() { sodium_memzero(this, sizeof *this); }
};

void StartSodium() {
  if (sodium_init() < 0) throw Error(ExitCode::kUsage, "libsodium cannot be initialised");
}

std::string Base64(const unsigned char *data, size_t bytes) {
  std::string text(sodium_base64_encoded_len(bytes, sodium_base64_VARIANT_ORIGINAL), '\0');
  sodium_bin2base64(text.data(), text.size(), data, bytes, sodium_base64_VARIANT_ORIGINAL);
  text.back() = '\n';  // in place of the terminator
  return text;
}

std::string IdText(const unsigned char *id) {
  std::string text;
  for (size_t i = kIdBytes; i-- > 0;) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02X", id[i]);
    text += digits;
  }
  return text;
}

std::string SecretText(const SecretKey &secret) {
  std::array<unsigned char, ACORN_MINISIGN_SECRET_BYTES> record = {};
  std::memcpy(record.data(), ACORN_MINISIGN_ED25519, 2);
  std::memcpy(record.data() + 2, ACORN_MINISIGN_NO_PASSWORD, 2);
  std::memcpy(record.data() + 4, ACORN_MINISIGN_BLAKE2B, 2);
  unsigned char *at = record.data() + ACORN_MINISIGN_SECRET_AT;
  std::memcpy(at, secret.id.data(), kIdBytes);
  std::memcpy(at + kIdBytes, secret.key.data(), secret.key.size());
  std::string text = std::string(ACORN_MINISIGN_UNTRUSTED) + "secret key " + IdText(secret.id.data()) + "\n" + Base64(record.data(), record.size());
  sodium_memzero(record.data(), record.size());
  return text;
}

std::string PublicText(const SecretKey &secret) {
  std::array<unsigned char, ACORN_MINISIGN_KEY_BYTES> record;
  std::memcpy(record.data(), ACORN_MINISIGN_ED25519, 2);
  std::memcpy(record.data() + 2, secret.id.data(), kIdBytes);
  crypto_sign_ed25519_sk_to_pk(record.data() + 2 + kIdBytes, secret.key.data());
  return std::string(ACORN_MINISIGN_UNTRUSTED) + "public key " + IdText(secret.id.data()) + "\n" + Base64(record.data(), record.size());
}

// Creates a file that is not there yet: a key that is written over is lost.
void WriteNewFile(const std::string &path, mode_t mode, const std::string &text) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (file < 0) throw Error(ExitCode::kIo, "cannot create " + path + ": " + std::strerror(errno));
  const bool written = WriteAll(file, text.data(), text.size()) && SyncFile(file);
  const int error = errno;
  close(file);
  if (written) return;
  unlink(path.c_str());
  throw Error(ExitCode::kIo, "cannot write " + path + ": " + std::strerror(error));
}

std::string ReadText(const std::string &path) {
  const MappedFile file(path);
  return std::string(reinterpret_cast<const char *>(file.data()), file.size());
}

SecretKey ReadSecretKey(const std::string &path) {
  const auto refuse = [&path](const char *why) -> Error { return {ExitCode::kUsage, "--key " + path + ": " + why}; };
  constexpr const char *kForeign = "not a secret key of acornc keygen or minisign";
  std::string text = ReadText(path);
  const size_t line = text.find('\n') + 1;  // behind the comment
  std::array<unsigned char, ACORN_MINISIGN_SECRET_BYTES> record;
  size_t bytes = 0;
  const int bad = line == 0 ? 1
                            : sodium_base642bin(record.data(), record.size(), text.data() + line, text.size() - line, "\r\n", &bytes, nullptr,
                                                sodium_base64_VARIANT_ORIGINAL);
  sodium_memzero(text.data(), text.size());
  if (bad != 0 || bytes != record.size() || std::memcmp(record.data(), ACORN_MINISIGN_ED25519, 2) != 0 ||
      std::memcmp(record.data() + 4, ACORN_MINISIGN_BLAKE2B, 2) != 0) {
    throw refuse(kForeign);
  }
  if (std::memcmp(record.data() + 2, ACORN_MINISIGN_NO_PASSWORD, 2) != 0) {
    throw refuse("protected by a password; acornc takes keys without one (minisign -C -W takes it off)");
  }
  SecretKey secret;
  const unsigned char *at = record.data() + ACORN_MINISIGN_SECRET_AT;
  std::memcpy(secret.id.data(), at, kIdBytes);
  std::memcpy(secret.key.data(), at + kIdBytes, secret.key.size());
  sodium_memzero(record.data(), record.size());
  // The second half is the public key, which follows from the first.
  SecretKey again;
  std::array<unsigned char, crypto_sign_PUBLICKEYBYTES> key;
  crypto_sign_seed_keypair(key.data(), again.key.data(), secret.key.data());
  if (again.key != secret.key) throw refuse("damaged");
  return secret;
}

std::string SignatureText(const SecretKey &secret, const MappedFile &file) {
  std::array<unsigned char, crypto_generichash_BYTES_MAX> digest;
  crypto_generichash(digest.data(), digest.size(), file.data(), file.size(), nullptr, 0);
  std::array<unsigned char, ACORN_MINISIGN_SIGNATURE_BYTES> record;
  std::memcpy(record.data(), ACORN_MINISIGN_ED25519_DIGEST, 2);
  std::memcpy(record.data() + 2, secret.id.data(), kIdBytes);
  unsigned char *signature = record.data() + 2 + kIdBytes;
  crypto_sign_detached(signature, nullptr, digest.data(), digest.size(), secret.key.data());
  const std::string comment = "acorn model file of " + std::to_string(file.size()) + " bytes";
  std::vector<unsigned char> both(signature, signature + crypto_sign_BYTES);
  both.insert(both.end(), comment.begin(), comment.end());
  std::array<unsigned char, crypto_sign_BYTES> comment_signature;
  crypto_sign_detached(comment_signature.data(), nullptr, both.data(), both.size(), secret.key.data());
  return std::string(ACORN_MINISIGN_UNTRUSTED) + "signature by key " + IdText(secret.id.data()) + "\n" + Base64(record.data(), record.size()) +
         ACORN_MINISIGN_TRUSTED + comment + "\n" + Base64(comment_signature.data(), comment_signature.size());
}

// That it is a model file, as far as its header tells.
void CheckModelFile(const std::string &path, const MappedFile &file) {
  uint64_t resident = 0;
  const acorn_status status = acorn_image_resident(&resident, file.data(), file.size());
  if (status != ACORN_OK) throw Error(ExitCode::kBadModel, path + ": " + acorn_status_text(status));
}

void Keygen(const std::string &name) {
  StartSodium();
  SecretKey secret;
  std::array<unsigned char, crypto_sign_PUBLICKEYBYTES> key;
  crypto_sign_keypair(key.data(), secret.key.data());
  randombytes_buf(secret.id.data(), secret.id.size());
  std::string text = SecretText(secret);
  WriteNewFile(name + ".key", 0600, text);
  sodium_memzero(text.data(), text.size());
  try {
    WriteNewFile(name + ".pub", 0644, PublicText(secret));
  } catch (const Error &) {
    unlink((name + ".key").c_str());
    throw;
  }
  std::fprintf(stderr, "%s.key: the secret key, without a password: keep it to yourself\n%s.pub: the public key %s, for acorn --trust\n",
               name.c_str(), name.c_str(), IdText(secret.id.data()).c_str());
}

void Sign(const std::string &path, const std::string &key_path) {
  StartSodium();
  const SecretKey secret = ReadSecretKey(key_path);
  const MappedFile file(path);
  CheckModelFile(path, file);
  const std::string text = SignatureText(secret, file);
  TemporaryFile out(path + ".sig");
  out.Write(text.data(), text.size());
  out.Commit();
}

}  // namespace

void AddSignCommands(CLI::App *app) {
  CLI::App *keygen = app->add_subcommand("keygen", "Make a pair of keys: NAME.key signs model files, NAME.pub checks them");
  const auto name = std::make_shared<std::string>();
  keygen->add_option("-o,--output", *name, "NAME of the pair")->required();
  keygen->callback([name] { Keygen(*name); });

  CLI::App *sign = app->add_subcommand("sign", "Sign a model file: writes FILE.sig, in place of one that is there");
  const auto file = std::make_shared<std::string>(), key = std::make_shared<std::string>();
  sign->add_option("FILE", *file, "model file")->required();
  sign->add_option("--key", *key, "secret key, NAME.key")->required();
  sign->callback([file, key] { Sign(*file, *key); });
}

}  // namespace acorn::compiler
