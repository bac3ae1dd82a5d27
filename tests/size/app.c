/* The least a device needs of the library: plan, open, prefill, decode. Linked with nothing else of ours, so what the linker
 * keeps is what Acorn costs in flash. Never run: only its size is looked at. */
#include <acorn.h>

extern const acorn_image size_app_image; /* as a board would place them */
extern void *size_app_block;

const acorn_image size_app_image = {0, 0};
void *size_app_block;

int main(void) {
  static const int32_t prompt[] = {1, 2, 3};
  acorn_memory_plan plan = {.struct_size = sizeof plan};
  acorn_model *model;
  acorn_session *session;
  const int32_t *logits;
  if (acorn_plan(&plan, 0, &size_app_image, 0, 0) != ACORN_OK) return 1;
  if (acorn_model_open(&model, 0, &size_app_image, 0, 0, size_app_block, plan.block_bytes) != ACORN_OK) return 1;
  if (acorn_session_open(&session, model) != ACORN_OK) return 1;
  if (acorn_session_prefill(session, prompt, 3) != ACORN_OK) return 1;
  return acorn_session_decode(session, &logits, 1) == ACORN_OK ? 0 : 1;
}
