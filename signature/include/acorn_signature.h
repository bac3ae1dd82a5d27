// acorn_signature: whether the owner of a public key has signed a model file. C99, over libsodium; beside libacorn.a, which knows
// nothing of it. docs/SIGNATURES.md says what is signed and what that is worth; keys and signatures are minisign's.
//
//   acorn_signature signature;
//   status = acorn_signature_begin(&signature, key, key_bytes, text, text_bytes);   texts of two small files
//   acorn_signature_update(&signature, data, bytes);                                the model file, in pieces of any size, in order
//   status = acorn_signature_end(&signature);                                       ACORN_SIGNATURE_OK: now open it
//
// Allocates nothing, keeps nothing but *signature. Check what will be used: the memory that is then given to acorn_model_open.
#ifndef ACORN_SIGNATURE_H_
#define ACORN_SIGNATURE_H_

#include <sodium.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef uint32_t acorn_signature_status;
enum {
  ACORN_SIGNATURE_OK = 0,
  ACORN_SIGNATURE_ERR_KEY = 1,       /* not a public key of Ed25519 */
  ACORN_SIGNATURE_ERR_FORM = 2,      /* not a whole signature of a digest, or its comment was altered */
  ACORN_SIGNATURE_ERR_OTHER_KEY = 3, /* a signature by another key */
  ACORN_SIGNATURE_ERR_ALTERED = 4,   /* the file is not the one that was signed */
  ACORN_SIGNATURE_ERR_LIBRARY = 5    /* libsodium cannot be initialised */
};

#define ACORN_SIGNATURE_TEXT_MAX 1024u /* bytes of a key or a signature: longer ones are refused */

typedef struct acorn_signature {
  crypto_generichash_state hash; /* BLAKE2b-512 of the file so far */
  uint64_t key_id, signer_id;    /* of the key; of the one that the signature names */
  unsigned char key[crypto_sign_PUBLICKEYBYTES];
  unsigned char signature[crypto_sign_BYTES];
} acorn_signature;

/// A short English sentence; static, never NULL.
const char *acorn_signature_text(acorn_signature_status status);

/// In:  key     text of the file that `acornc keygen` or minisign wrote as NAME.pub
///      text    of the signature, FILE.sig
/// Out: *signature, whose key_id and signer_id are valid with ACORN_SIGNATURE_ERR_OTHER_KEY too
/// Returns: ACORN_SIGNATURE_OK | _ERR_KEY | _ERR_FORM | _ERR_OTHER_KEY | _ERR_LIBRARY
acorn_signature_status acorn_signature_begin(acorn_signature *signature, const char *key, size_t key_bytes, const char *text,
                                             size_t text_bytes);
void acorn_signature_update(acorn_signature *signature, const void *data, size_t bytes);
/// Returns: ACORN_SIGNATURE_OK | _ERR_ALTERED
acorn_signature_status acorn_signature_end(acorn_signature *signature);

#ifdef __cplusplus
}
#endif

#endif /* ACORN_SIGNATURE_H_ */
