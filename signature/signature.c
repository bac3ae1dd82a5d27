#include "acorn_signature.h"

#include <string.h>

#include "minisign.h"

/* The rest of a text, cut line by line. */
typedef struct lines {
  const char *at;
  size_t left;
} lines;

/* Returns 0 where there is no line more. A carriage return before the end belongs to it. */
static int next_line(lines *text, const char **line, size_t *bytes) {
  if (text->left == 0) return 0;
  const char *end = memchr(text->at, '\n', text->left);
  const size_t whole = end == NULL ? text->left : (size_t)(end - text->at) + 1;
  *line = text->at;
  *bytes = end == NULL ? whole : whole - 1;
  if (*bytes != 0 && text->at[*bytes - 1] == '\r') --*bytes;
  text->at += whole;
  text->left -= whole;
  return 1;
}

static int next_comment(lines *text, const char *prefix, const char **comment, size_t *bytes) {
  const size_t length = strlen(prefix);
  if (!next_line(text, comment, bytes) || *bytes < length || memcmp(*comment, prefix, length) != 0) return 0;
  *comment += length;
  *bytes -= length;
  return 1;
}

/* Exactly `bytes` bytes. */
static int next_base64(lines *text, unsigned char *out, size_t bytes) {
  const char *line, *end;
  size_t length, got;
  if (!next_line(text, &line, &length)) return 0;
  for (size_t i = 0; i < length; ++i) {
    if ((unsigned char)line[i] >= 0x80) return 0; /* libsodium 1.0.18 takes 0xab for '+' and 0xaf for '/' */
  }
  return sodium_base642bin(out, bytes, line, length, NULL, &got, &end, sodium_base64_VARIANT_ORIGINAL) == 0 && got == bytes &&
         end == line + length;
}

static uint64_t id_of(const unsigned char *bytes) {
  uint64_t id = 0;
  for (int i = ACORN_MINISIGN_ID_BYTES - 1; i >= 0; --i) id = id << 8 | bytes[i];
  return id;
}

static int read_key(acorn_signature *signature, lines text) {
  unsigned char record[ACORN_MINISIGN_KEY_BYTES];
  const char *comment;
  size_t bytes;
  if (!next_comment(&text, ACORN_MINISIGN_UNTRUSTED, &comment, &bytes) || !next_base64(&text, record, sizeof record) ||
      memcmp(record, ACORN_MINISIGN_ED25519, 2) != 0) {
    return 0;
  }
  signature->key_id = id_of(record + 2);
  memcpy(signature->key, record + 2 + ACORN_MINISIGN_ID_BYTES, sizeof signature->key);
  return 1;
}

const char *acorn_signature_text(acorn_signature_status status) {
  switch (status) {
    case ACORN_SIGNATURE_OK: return "signed";
    case ACORN_SIGNATURE_ERR_KEY: return "not a public key of minisign or acornc keygen";
    case ACORN_SIGNATURE_ERR_FORM: return "not a whole signature of minisign or acornc sign, or its comment was altered";
    case ACORN_SIGNATURE_ERR_OTHER_KEY: return "signed by another key";
    case ACORN_SIGNATURE_ERR_ALTERED: return "not what was signed: the file or its signature was altered";
    case ACORN_SIGNATURE_ERR_LIBRARY: return "libsodium cannot be initialised";
  }
  return "unknown status";
}

acorn_signature_status acorn_signature_begin(acorn_signature *signature, const char *key, size_t key_bytes, const char *text,
                                             size_t text_bytes) {
  if (sodium_init() < 0) return ACORN_SIGNATURE_ERR_LIBRARY;
  memset(signature, 0, sizeof *signature);
  if (key_bytes > ACORN_SIGNATURE_TEXT_MAX || !read_key(signature, (lines){key, key_bytes})) return ACORN_SIGNATURE_ERR_KEY;

  if (text_bytes > ACORN_SIGNATURE_TEXT_MAX) return ACORN_SIGNATURE_ERR_FORM;
  lines rest = {text, text_bytes};
  unsigned char record[ACORN_MINISIGN_SIGNATURE_BYTES], comment_signature[crypto_sign_BYTES];
  /* What signs the comment signs the file's signature before it. */
  unsigned char both[crypto_sign_BYTES + ACORN_SIGNATURE_TEXT_MAX];
  const char *comment, *trusted;
  size_t bytes, trusted_bytes;
  if (!next_comment(&rest, ACORN_MINISIGN_UNTRUSTED, &comment, &bytes) || !next_base64(&rest, record, sizeof record) ||
      !next_comment(&rest, ACORN_MINISIGN_TRUSTED, &trusted, &trusted_bytes) ||
      !next_base64(&rest, comment_signature, sizeof comment_signature) || rest.left != 0 ||
      memcmp(record, ACORN_MINISIGN_ED25519_DIGEST, 2) != 0) {
    return ACORN_SIGNATURE_ERR_FORM;
  }
  signature->signer_id = id_of(record + 2);
  if (signature->signer_id != signature->key_id) return ACORN_SIGNATURE_ERR_OTHER_KEY;
  memcpy(signature->signature, record + 2 + ACORN_MINISIGN_ID_BYTES, sizeof signature->signature);
  memcpy(both, signature->signature, sizeof signature->signature);
  memcpy(both + sizeof signature->signature, trusted, trusted_bytes);
  if (crypto_sign_verify_detached(comment_signature, both, sizeof signature->signature + trusted_bytes, signature->key) != 0) {
    return ACORN_SIGNATURE_ERR_FORM;
  }
  crypto_generichash_init(&signature->hash, NULL, 0, crypto_generichash_BYTES_MAX);
  return ACORN_SIGNATURE_OK;
}

void acorn_signature_update(acorn_signature *signature, const void *data, size_t bytes) {
  crypto_generichash_update(&signature->hash, data, bytes);
}

acorn_signature_status acorn_signature_end(acorn_signature *signature) {
  unsigned char digest[crypto_generichash_BYTES_MAX];
  crypto_generichash_final(&signature->hash, digest, sizeof digest);
  return crypto_sign_verify_detached(signature->signature, digest, sizeof digest, signature->key) == 0 ? ACORN_SIGNATURE_OK
                                                                                                       : ACORN_SIGNATURE_ERR_ALTERED;
}
