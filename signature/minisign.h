/* The form of minisign's keys and signatures: for who checks and who makes them. Numbers are little-endian, records in base64. */
#ifndef ACORN_MINISIGN_H_
#define ACORN_MINISIGN_H_

#define ACORN_MINISIGN_UNTRUSTED "untrusted comment: "
#define ACORN_MINISIGN_TRUSTED "trusted comment: "
#define ACORN_MINISIGN_ED25519 "Ed"        /* of a key */
#define ACORN_MINISIGN_ED25519_DIGEST "ED" /* of a signature: over BLAKE2b-512 of the file */
#define ACORN_MINISIGN_NO_PASSWORD "\0\0"
#define ACORN_MINISIGN_BLAKE2B "B2"
#define ACORN_MINISIGN_ID_BYTES 8
#define ACORN_MINISIGN_KEY_BYTES (2 + 8 + 32)       /* Ed, id, key */
#define ACORN_MINISIGN_SIGNATURE_BYTES (2 + 8 + 64) /* ED, id, signature */
/* Ed, how the password makes a key, B2, its salt and two limits; then id, key and a digest of them, zeros without a password. */
#define ACORN_MINISIGN_SECRET_BYTES (2 + 2 + 2 + 32 + 8 + 8 + 8 + 64 + 32)
#define ACORN_MINISIGN_SECRET_AT 54 /* of the id */

#endif /* ACORN_MINISIGN_H_ */
