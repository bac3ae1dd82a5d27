/* A program of another project, in C99: what it needs is the installed header and the archive, nothing else. */
#include <acorn.h>
#include <stdio.h>
#include <string.h>

int main(void) {
  static unsigned char memory[4096 + 64];
  acorn_image image;
  acorn_memory_plan plan;
  acorn_fault fault;
  acorn_status status;

  memset(&plan, 0, sizeof plan);
  memset(&fault, 0, sizeof fault);
  plan.struct_size = sizeof plan;
  fault.struct_size = sizeof fault;
  image.data = memory + (64 - (uintptr_t)memory % 64);
  image.bytes = 4096;
  status = acorn_plan(&plan, &fault, &image, NULL, NULL); /* 4,096 zeros are no model */
  printf("%s\n", acorn_status_text(status));
  return status == ACORN_ERR_FOREIGN || status == ACORN_ERR_UNSUPPORTED /* big endian */ ? 0 : 1;
}
