/* The port of port.c. */
#ifndef ACORN_TEMPLATE_PORT_H_
#define ACORN_TEMPLATE_PORT_H_

#include "acorn_port.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Fills in the port. */
void acorn_template_port(acorn_port *port);

#ifdef __cplusplus
}
#endif

#endif /* ACORN_TEMPLATE_PORT_H_ */
