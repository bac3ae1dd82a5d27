/* What every port must keep of acorn_port.h, as one function: plain C99, no heap, no C library, so that it runs on a board as it
 * runs on a host. Link it into a program of the port's, with a small model. */
#ifndef ACORN_PORT_CONFORMANCE_H_
#define ACORN_PORT_CONFORMANCE_H_

#include <stddef.h>
#include <stdint.h>

#include "acorn.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ACORN_CONFORMANCE_CONTEXT 16u /* tokens; the models are opened with no more */
#define ACORN_CONFORMANCE_CHUNK 4u
#define ACORN_CONFORMANCE_BYTES 65536u /* of the block, for the checks without a model */

/* Checks the port and says through its log what was found, a line for each check. Loops, clock, file and log are tried;
 * the model is opened with every level of the CPU features that the port names, and must compute what the portable kernels on
 * one thread compute.
 * In:  image  a model file, 64-byte aligned; where port.read or read_submit is not NULL they must read the same file
 *      block  64-byte aligned; at least ACORN_CONFORMANCE_BYTES, and what acorn_plan wants for the model with a context of
 *             ACORN_CONFORMANCE_CONTEXT and chunks of ACORN_CONFORMANCE_CHUNK
 * Returns: the number of failed checks. A port that breaks its word about loops, reads or features may also hang or
 * fault. */
uint32_t acorn_port_conformance(const acorn_port *port, const acorn_image *image, void *block, size_t block_bytes);

#ifdef __cplusplus
}
#endif

#endif /* ACORN_PORT_CONFORMANCE_H_ */
